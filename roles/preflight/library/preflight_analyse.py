#!/usr/bin/python
"""Ansible's side of the analysis. The action plugin of the same name collects the data."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tradewatch_preflight.analysis import analyse
from ansible.module_utils.tradewatch_preflight.variables import SOURCES

DOCUMENTATION = r"""
---
module: preflight_analyse
short_description: Find every problem of inventory, tables and hosts
description:
  - Takes the settings of the role preflight; its action plugin adds what the inventory and the hosts say.
options:
  data: {description: What the action plugin collected., type: dict, required: true}
author: Tradewatch
"""

EXAMPLES = r"""
- name: Check
  preflight_analyse:
    min_memory_mib: 1800
"""

RETURN = r"""
problems: {description: Problems as where, what and fix., type: list, returned: always}
artifacts: {description: Rows of the artifacts table that can be looked for., type: list, returned: always}
artifact_sources: {description: The known ones of the sources., type: list, returned: always}
artifact_cache: {description: The cache directory., type: str, returned: always}
hosts: {description: How many hosts answered., type: int, returned: always}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"data": {"type": "dict", "required": True}}, supports_check_mode=True)
    data = module.params["data"]
    problems, artifacts = analyse(data)
    values = data["values"]
    sources = values.get("artifact_sources")
    module.exit_json(
        changed=False,
        problems=[{"where": one.where, "what": one.what, "fix": one.fix} for one in problems],
        artifacts=artifacts,
        artifact_sources=[source for source in SOURCES if source in sources] if isinstance(sources, list) else [],
        artifact_cache=str(values.get("artifact_cache") or ""),
        hosts=sum(1 for probe in data["probes"].values() if probe["reachable"]),
    )


if __name__ == "__main__":
    main()
