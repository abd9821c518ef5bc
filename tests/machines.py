"""The lab's hosts over SSH, its API with kubectl, and waiting with a bound: what all tests of a lab build on."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lab.k3s_standin import tokens

POLL_SECONDS = 1.0
COMMAND_SECONDS = 180
T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """One host of the lab."""

    name: str
    address: str
    lab: Path

    def run(self, script: str, *, check: bool = True, stdin: bytes = b"") -> str:
        """The output (stdout and stderr) of a shell script as root; with ``check`` it must succeed."""
        options = ["-i", str(self.lab / "ssh" / "id_ed25519"), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        options += ["-o", f"UserKnownHostsFile={self.lab / 'ssh' / 'known_hosts'}", "-o", "LogLevel=ERROR"]
        result = subprocess.run(
            ["ssh", *options, f"root@{self.address}", script],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        output = result.stdout.decode(errors="replace")
        assert not check or result.returncode == 0, f"{self.name}: {script}: exit code {result.returncode}\n{output}"
        return output

    def write(self, path: str, content: str | bytes, mode: str = "0600") -> None:
        """Put a file on the host, complete from the first moment that it can be seen."""
        data = content.encode() if isinstance(content, str) else content
        self.run(f"mkdir -p $(dirname {path}) && cat > {path}.new && chmod {mode} {path}.new", stdin=data)
        self.run(f"mv {path}.new {path}")


@dataclass(frozen=True)
class Cluster:
    """The lab's cluster."""

    lab: Path
    hosts: tuple[Host, ...]

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """kubectl's output as the administrator."""
        result = run_kubectl(self.lab, *arguments, stdin=stdin)
        assert result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result.stdout

    def get(self, *arguments: str) -> Any:
        """What ``kubectl get`` says, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def url(self) -> str:
        """The API server's address in the kubeconfig."""
        query = "jsonpath={.clusters[0].cluster.server}"
        return self.kubectl("config", "view", "--minify", "-o", query).strip()

    def ready(self, host: Host) -> bool:
        """Whether the host's node is Ready."""
        conditions = self.get("node", host.name)["status"]["conditions"]
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def unit(self, host: Host) -> str:
        """The unit that runs on the host: k3s or k3s-agent."""
        return "k3s" if host.run("systemctl is-active k3s", check=False).strip() == "active" else "k3s-agent"

    def restart(self, host: Host) -> None:
        """Restart k3s on a host, and wait until its node answers again."""
        unit = self.unit(host)
        host.run(f"timeout 150 systemctl restart {unit} || (journalctl -u {unit} -n 30 --no-pager; exit 1)")
        wait(lambda: self._answers(host), f"{host.name} Ready after a restart")

    def configz(self, host: Host) -> dict[str, Any]:
        """The configuration that the host's kubelet runs with."""
        answer = json.loads(self.kubectl("get", "--raw", f"/api/v1/nodes/{host.name}/proxy/configz"))
        configuration: dict[str, Any] = answer["kubeletconfig"]
        return configuration

    def _answers(self, host: Host) -> bool:
        try:
            return self.ready(host) and bool(self.configz(host))
        except AssertionError:
            return False


def join_secrets(password: str) -> dict[str, str]:
    """What joins nodes, by its name: the token's password, and what the stand-in derives from it for kubeadm."""
    return {
        "the token": password,
        "the bootstrap token's secret": tokens.bootstrap(password)[1],
        "the certificate key": tokens.certificate_key(password),
    }


def run_kubectl(lab: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """One kubectl command as the lab's administrator, whatever it answers."""
    return subprocess.run(
        [str(lab / "bin" / "kubectl"), "--kubeconfig", str(lab / "kubeconfig"), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        # A pod's log may hold bytes that are no text.
        errors="replace",
        timeout=COMMAND_SECONDS,
        check=False,
    )


def wait(
    condition: Callable[[], T | None], what: str, seconds: float = 120.0, *, despite: tuple[type[Exception], ...] = ()
) -> T:
    """Poll until ``condition`` gives something true, and return that; fail after ``seconds``.

    An error in ``despite`` is an answer too: not yet. A pod that has just been rolled is ready a moment before its
    node's port leads to it (``OSError``).
    """
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            last = value = condition()
            if value:
                return value
        except despite as error:
            last = error
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}; last: {last!r}"
        time.sleep(POLL_SECONDS)
