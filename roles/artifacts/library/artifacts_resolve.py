#!/usr/bin/python
"""Ansible's side of the resolver: arguments in, facts and problems out."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tradewatch_artifacts.model import artifact_from
from ansible.module_utils.tradewatch_artifacts.resolve import SOURCES, make_resolver

DOCUMENTATION = r"""
---
module: artifacts_resolve
short_description: Find every artifact in the cache, upstream or the bundle
description:
  - Asks the sources in order and returns where each artifact lies on the control host.
  - With C(check_only), says only what no source would give, without building or downloading.
  - In check mode the control host's cache is still filled, since nothing behind it could be predicted otherwise.
options:
  table:
    description: The artifacts table, as docs/architecture.md describes it.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Unique name., type: str, required: true}
      kind: {description: What the file is., type: str, required: true, choices: [binary, image, images]}
      version: {description: The version., type: str, required: true}
      file: {description: Name in the cache., type: str, required: true}
      mode: {description: Mode of a binary on the node., type: str}
      dest: {description: Place of a binary on the node., type: str}
      node_roles: {description: Which nodes get it., type: list, elements: str}
      upstream:
        description: Where it is published.
        type: dict
        suboptions:
          url: {description: The file., type: str}
          checksum_url: {description: A sha256sum file., type: str}
          sha256: {description: A pin of that file., type: str}
          image: {description: An image for skopeo; NAME@sha256:DIGEST pins it., type: str}
      registries: {description: The bundle part that makes it., type: str}
      same_source_as: {description: The artifact that it comes from the bundle with, or not at all., type: str}
      optional: {description: Go on without it where no source gives it., type: bool, default: false}
  sources: {description: Allowed sources in order., type: list, elements: str, required: true}
  cache: {description: The cache directory., type: str, required: true}
  repository: {description: The checkout that holds the lab package., type: str, required: true}
  python: {description: The interpreter that runs the bundle., type: str, required: true}
  timeout_seconds: {description: How long a connection may take., type: float, default: 5}
  check_only: {description: Only say what is missing., type: bool, default: false}
author: Tradewatch
"""

EXAMPLES = r"""
- name: Find the artifacts
  artifacts_resolve:
    table: "{{ artifacts }}"
    sources: [cache, upstream]
    cache: ~/.cache/tradewatch
    repository: "{{ playbook_dir }}"
    python: "{{ ansible_playbook_python }}"
"""

RETURN = r"""
resolved: {description: The fact artifacts_resolved., type: dict, returned: success}
report: {description: A line for each artifact., type: list, returned: always}
problems: {description: What is missing or refused, as where, what and fix., type: list, returned: always}
"""

_ROW = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "required": True, "choices": ["binary", "image", "images"]},
    "version": {"type": "str", "required": True},
    "file": {"type": "str", "required": True},
    "mode": {"type": "str"},
    "dest": {"type": "str"},
    "node_roles": {"type": "list", "elements": "str"},
    "upstream": {
        "type": "dict",
        "options": {key: {"type": "str"} for key in ("url", "checksum_url", "sha256", "image")},
    },
    "registries": {"type": "str"},
    "same_source_as": {"type": "str"},
    "optional": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "table": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": _ROW,
                "required_if": [("kind", "binary", ("mode",))],
            },
            "sources": {"type": "list", "elements": "str", "required": True, "choices": list(SOURCES)},
            "cache": {"type": "str", "required": True},
            "repository": {"type": "str", "required": True},
            "python": {"type": "str", "required": True},
            "timeout_seconds": {"type": "float", "default": 5},
            "check_only": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    resolver = make_resolver(
        cache=given["cache"],
        sources=given["sources"],
        repository=given["repository"],
        python=given["python"],
        timeout=given["timeout_seconds"],
    )
    artifacts = [artifact_from(row) for row in given["table"]]
    if given["check_only"]:
        problems = resolver.check(artifacts)
        module.exit_json(changed=False, report=[], problems=[problem.as_dict() for problem in problems])
    resolved, report, changed, problems = resolver.resolve(artifacts)
    answer = {"changed": changed, "report": report, "problems": [problem.as_dict() for problem in problems]}
    if problems:
        lines = [f"{problem.where}: {problem.what}; {problem.fix}" for problem in problems]
        module.fail_json(msg="\n".join(lines), **answer)
    module.exit_json(resolved=resolved, **answer)


if __name__ == "__main__":
    main()
