"""group_vars and host_vars as Ansible reads them, but a broken file does not hide the other problems from preflight."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.vars.host_group_vars import VarsModule as HostGroupVars

DOCUMENTATION = r"""
---
name: checked_group_vars
short_description: Reads group_vars and host_vars, and leaves broken files to preflight
description:
  - Ansible stops at the first file that it cannot read. While preflight is what runs first, this plugin notes the file
    in a variable instead (RECORD_PREFIX and a number made from the path), and preflight reports it with all the others.
  - In every other playbook and command a broken file stops Ansible as usual.
options:
  stage:
    ini: [{key: stage, section: vars_checked_group_vars}]
    env: [{name: ANSIBLE_VARS_PLUGIN_STAGE}]
extends_documentation_fragment: [vars_plugin_staging]
"""

RECORD_PREFIX = "tradewatch_broken_vars_file_"
# Both begin with preflight, which fails when something is noted.
_REPORTING_PLAYBOOKS = {"preflight.yml", "site.yml"}


class VarsModule(HostGroupVars):  # type: ignore[misc]
    """The plugin; only the loading of one file differs from Ansible's own."""

    REQUIRES_ENABLED = True
    is_stateless = True

    def load_found_files(self, loader: Any, data: dict[str, Any], found_files: list[Any]) -> dict[str, Any]:
        """Merge the files into ``data``, in order; a broken one adds its record."""
        for found in found_files:
            try:
                data = super().load_found_files(loader, data, [found])
            except AnsibleError as error:
                path = found.decode() if isinstance(found, bytes) else str(found)
                message = " ".join(str(error).split())
                if not _preflight_reports():
                    # Ansible's own message lacks the file.
                    raise AnsibleParserError(
                        f"{path}: {message} playbooks/preflight.yml lists every problem."
                    ) from error
                data = {**data, f"{RECORD_PREFIX}{zlib.crc32(path.encode())}": {"file": path, "message": message}}
        return data


def _preflight_reports() -> bool:
    arguments = context.CLIARGS.get("args") or ()
    playbooks = [Path(argument).name for argument in arguments if isinstance(argument, str)]
    return bool(playbooks) and set(playbooks) <= _REPORTING_PLAYBOOKS
