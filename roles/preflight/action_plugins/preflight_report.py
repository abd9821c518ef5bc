"""Prints every problem as a line of its own, then fails once."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action ``preflight_report``: ``problems`` ([{where, what, fix}]) and ``hosts`` (how many answered)."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Report."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        lines = [f"{row['where']}: {row['what']}; {row['fix']}" for row in self._task.args["problems"]]
        if not lines:
            return {**result, "changed": False, "msg": f"no problem; {self._task.args['hosts']} hosts answered"}
        display = Display()
        for line in lines:
            # Not as an error of Ansible's: those are wrapped at the terminal's width, and a problem is one line.
            display.display(line, color="red")
        found = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        return {**result, "failed": True, "msg": f"Preflight found {found}, listed above. Nothing was changed."}
