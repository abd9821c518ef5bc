#!/usr/bin/python
"""Which of a node's artifacts differ from what it should have, and which archives it should no longer have."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: artifacts_compare
short_description: Compare a node's artifacts with what it should have
description:
  - Reads checksums and modes of the wanted files in one call, so that nothing is sent that is already there.
  - An archive of an earlier run that is no longer wanted is found by the list in O(state_file).
  - Other files are not looked at.
options:
  resolved:
    description: The fact C(artifacts_resolved).
    type: dict
    required: true
  node_role:
    description: The node's role; it gets what the table gives to this role or to all.
    type: str
    required: true
  images_dir:
    description: Where image archives go.
    type: path
    required: true
  state_file:
    description: JSON list of the archives that earlier runs placed.
    type: path
    required: true
author: Tradewatch
"""

EXAMPLES = r"""
- name: Compare
  artifacts_compare:
    resolved: "{{ artifacts_resolved }}"
    node_role: collectors
    images_dir: /var/lib/rancher/k3s/agent/images
    state_file: /var/lib/rancher/k3s/agent/tradewatch-artifacts.json
"""

RETURN = r"""
differing: {description: What to send, as name, src, dest, mode and sha256., type: list, returned: always}
archives: {description: Paths of the archives that the node should have., type: list, returned: always}
stale: {description: Paths of archives to remove., type: list, returned: always}
"""


def wanted_by(node_role: str, resolved: dict[str, dict[str, Any]], images_dir: str) -> list[dict[str, str]]:
    """What a node of this role should have, as name, src, dest, mode and sha256."""
    rows = []
    for name, artifact in sorted(resolved.items()):
        if not {"all", node_role} & set(artifact["node_roles"]):
            continue
        archive = artifact.get("node_file")
        dest = os.path.join(images_dir, archive) if archive else artifact["dest"]
        mode = "0644" if archive else artifact["mode"]
        row = {"name": name, "src": artifact["path"], "dest": dest, "mode": mode, "sha256": artifact["sha256"]}
        rows.append(row)
    return rows


def differs(module: AnsibleModule, row: dict[str, str]) -> bool:
    """Whether the file is absent, has other content, or another mode."""
    try:
        status = os.stat(row["dest"])
    except OSError:
        return True
    if status.st_mode & 0o7777 != int(row["mode"], 8) or status.st_uid != 0:
        return True
    return bool(module.sha256(row["dest"]) != row["sha256"])


def placed_before(state_file: str) -> list[str]:
    """The archives in the state file; none when it is absent or damaged."""
    try:
        with open(state_file, encoding="utf-8") as file:
            paths = json.load(file)
    except (OSError, ValueError):
        return []
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "resolved": {"type": "dict", "required": True},
            "node_role": {"type": "str", "required": True},
            "images_dir": {"type": "path", "required": True},
            "state_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    wanted = wanted_by(given["node_role"], given["resolved"], given["images_dir"])
    archives = [row["dest"] for row in wanted if os.path.dirname(row["dest"]) == given["images_dir"]]
    stale = [path for path in placed_before(given["state_file"]) if path not in archives and os.path.exists(path)]
    module.exit_json(
        changed=False,
        differing=[row for row in wanted if differs(module, row)],
        archives=archives,
        stale=stale,
    )


if __name__ == "__main__":
    main()
