"""The modules of the Kubernetes API, run in Ansible's own process.

A run of site.yml applies a dozen sets. As a module each of them starts an interpreter and imports the Kubernetes client
again, which takes longer than the requests; here Ansible imports it once, and the processes of its tasks inherit it.
Ansible finds an action by its file's name: the other modules' are links to this one.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import module_loader


def _load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"tradewatch_{name}", module_loader.find_plugin(name))
    if specification is None or specification.loader is None:
        raise ImportError(f"there is no module {name} in Ansible's library")
    module = importlib.util.module_from_spec(specification)
    # Its dataclasses look their module up.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


# At the import of this file, which is in Ansible's first process: the others are its forks.
MODULES = {name: _load(name) for name in ("cluster_nodes", "cluster_objects")}


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible has no types
    """The action that Ansible takes in the place of the module of its name."""

    _requires_connection = False
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        super().run(tmp, task_vars)
        module = MODULES[self._task.action]
        _, given = self.validate_argument_spec(module.ARGUMENTS)
        # Plain values: Ansible's own texts are no str to libyaml.
        parameters = json.loads(json.dumps(given))
        try:
            result: dict[str, Any] = module.run(parameters, self._task.check_mode, self._display.warning)
        except module.EXPECTED as error:
            return {"failed": True, "msg": module.reason(error)}
        return result
