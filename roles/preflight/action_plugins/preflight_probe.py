"""Probes a host that may be unreachable, lack Python or refuse root: each is an answer, not an error."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

# The token as a standing server keeps it: K10<sha256 of the CA>::server:<token>. One line: Ansible appends to it.
_TELL_CLUSTER = (
    "sed 's/^.*::server://' /var/lib/rancher/k3s/server/token 2>/dev/null | tr -d '\\n' | sha256sum | cut -c 1-8"
)

# The networks that a server was started with, a line each; nothing where the file was edited since. The unit notes the
# digests of what it starts with.
_TELL_NETWORKS = (
    "config=/etc/rancher/k3s/config.yaml; "
    'grep -qxF "$(sha256sum $config)" /var/lib/rancher/k3s/started-with 2>/dev/null && '
    "grep -E '^(cluster|service)-cidr: ' $config"
)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action ``preflight_probe``.

    Returns ``reachable`` and ``reason``, ``output`` (of ``files/probe.sh``), ``time`` (the host's clock) with
    ``time_before`` and ``time_after`` (ours around it), ``root``, ``become`` and ``become_reason``, and ``cluster``:
    whether the one that the host serves was made with ``vault_k3s_token`` (``own``, ``foreign``), or ``none``; and
    ``networks``, those that it was started with by their variables' names.
    """

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the host; nothing is changed on it."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        result.update(changed=False, reachable=True, reason="", output="", time="", root=False)
        result.update(become_reason="", cluster="none", networks={})
        interpreter = str(variables.get("ansible_python_interpreter") or "")
        python = interpreter if "/" in interpreter else "python3"
        script = Path(self._find_needle("files", "probe.sh")).read_text()
        try:
            answer = self._ask(f"set -- {shlex.quote(python)}\n{script}")
            # A second command: the first one's time holds the SSH handshake, this one's only a round trip.
            result["time_before"] = time.time()
            result["time"] = self._ask("date +%s.%N")["stdout"].strip()
            result["time_after"] = time.time()
        except AnsibleError as error:
            return {**result, "reachable": False, "reason": _last_line(str(error))}
        result["output"] = answer["stdout"]
        result["reason"] = _last_line(answer["stderr"])
        result["become"] = self._connection.become is not None
        result["root"], result["become_reason"] = self._is_root()
        if result["root"]:
            result["cluster"] = self._cluster()
        if result["cluster"] != "none":
            result["networks"] = self._networks()
        return result

    def _ask(self, command: str, *, sudoable: bool = False) -> dict[str, Any]:
        answer: dict[str, Any] = self._low_level_execute_command(command, sudoable=sudoable)
        return answer

    def _is_root(self) -> tuple[bool, str]:
        try:
            answer = self._ask("id -u", sudoable=True)
        except AnsibleError as error:
            return False, _last_line(str(error))
        reason = _last_line(answer["stderr"]) or _last_line(answer["stdout"])
        return answer["rc"] == 0 and answer["stdout"].split()[-1:] == ["0"], reason

    def _cluster(self) -> str:
        """Compares short digests: no token is sent, and none can be found from what a verbose run shows."""
        shown = re.findall(r"\b[0-9a-f]{8}\b", self._ask(_TELL_CLUSTER, sudoable=True)["stdout"])[-1:]
        try:
            token = self._templar.template(self._templar.resolve_variable_expression("vault_k3s_token"))
        except AnsibleError:
            # The analysis says what is wrong with the variable.
            return "none"
        if shown in ([], [_digest("")]) or not isinstance(token, str):
            return "none"
        # k3s takes it without the white space around it.
        return "own" if shown == [_digest(token.strip().rpartition("::server:")[2])] else "foreign"

    def _networks(self) -> dict[str, str]:
        answer = self._ask(_TELL_NETWORKS, sudoable=True)["stdout"]
        return {
            f"{name}_cidr": value for name, value in re.findall(r"(cluster|service)-cidr: *['\"]?([\d./]+)", answer)
        }


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Failed to connect to the host via ssh: ").rstrip(".") if lines else ""
