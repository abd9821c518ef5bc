"""The tests' lab, made from zero by `make lab`; beside the user's, which it does not touch."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands import REPOSITORY, VENV_BIN, run

RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass
class Play:
    """What a playbook run printed, how long it took, and the changed counts of its recap."""

    output: str
    seconds: float
    changed: dict[str, int]

    def changed_tasks(self) -> set[str]:
        """The names of the tasks that reported a change, without their role."""
        found: set[str] = set()
        task = ""
        for line in self.output.splitlines():
            if match := re.match(r"(?:TASK|RUNNING HANDLER) \[(?:\S+ : )?(.*?)\] \**$", line):
                task = match[1]
            elif line.startswith("changed: ["):
                found.add(task)
        return found


@dataclass
class LabUnderTest:
    """One lab by its directory; everything it does goes through the project's own commands."""

    directory: Path
    output: str = ""
    seconds: float = 0.0

    @property
    def env(self) -> dict[str, str]:
        return {"TRADEWATCH_LAB_DIR": str(self.directory), "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}

    def make(self, target: str, **env: str) -> str:
        return run("make", target, env={**self.env, **env}, timeout=2400)

    def play(self, *arguments: str, code: int = 0, timeout: float = 900) -> Play:
        started = time.monotonic()
        output = run("ansible-playbook", *arguments, env=self.env, timeout=timeout, code=code)
        changed = {match[1]: int(match[3]) for match in RECAP.finditer(output)}
        return Play(output, time.monotonic() - started, changed)

    def kubectl(self, *arguments: str, code: int = 0) -> str:
        command = [str(self.directory / "bin/kubectl"), "--kubeconfig", str(self.directory / "kubeconfig"), *arguments]
        return run(*command, timeout=120, code=code)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def ssh(self, host: str, command: str) -> str:
        address = json.loads((self.directory / "lab.json").read_text())["hosts"][host]
        options = ["-o", f"UserKnownHostsFile={self.directory}/ssh/known_hosts", "-o", "IdentitiesOnly=yes"]
        key = str(self.directory / "ssh/id_ed25519")
        result = subprocess.run(
            ["ssh", "-i", key, *options, f"root@{address}", command], capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, f"{host}: {command}: {result.stderr}"
        return result.stdout

    def fresh_host_listing(self, command: str) -> set[str]:
        """The lines that ``command`` prints on a host of the same image that nothing was ever done to."""
        run("python", "-m", "lab", "hosts", "fresh", env=self.env)
        try:
            return set(self.ssh("fresh", command).splitlines())
        finally:
            run("python", "-m", "lab", "remove-host", "fresh", env=self.env)

    def endpoints(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.directory / "endpoints.json").read_text())
        return answer

    def prometheus(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of Prometheus' API, asked as an outsider would: TLS, basic authentication."""
        endpoint = self.endpoints()["prometheus"]
        manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
        password = Path(endpoint["password_file"]).read_text().strip()
        manager.add_password(None, endpoint["url"], endpoint["username"], password, is_authenticated=True)
        context = ssl.create_default_context(cafile=endpoint["ca_file"])
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPBasicAuthHandler(manager)
        )
        url = f"{endpoint['url'].rstrip('/')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with opener.open(url, timeout=20) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.prometheus("query", query=expression)["result"]
        return result


def wait_for(what: str, probe: Callable[[], Any], timeout: float = 120.0) -> Any:
    """The first true answer of ``probe``, asked until ``timeout`` seconds are over."""
    deadline = time.monotonic() + timeout
    answer = None
    while time.monotonic() < deadline:
        answer = probe()
        if answer:
            return answer
        time.sleep(1)
    raise AssertionError(f"{what}: not within {timeout:.0f} s; last answer {answer!r}")


@pytest.fixture(scope="session")
def lab() -> Iterator[LabUnderTest]:
    """The lab after `make lab`; removed at the end. TRADEWATCH_E2E_LAB names a standing one to use instead."""
    standing = os.environ.get("TRADEWATCH_E2E_LAB")
    under_test = LabUnderTest(Path(standing or REPOSITORY / ".lab/tests/e2e").resolve())
    if not standing:
        run("python", "-m", "lab", "down", env=under_test.env)
    started = time.monotonic()
    under_test.output = under_test.make("lab")
    under_test.seconds = time.monotonic() - started
    yield under_test
    if not standing:
        run("python", "-m", "lab", "down", env=under_test.env)
        assert not under_test.directory.exists()


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    assert shutil.which("make"), "make is not installed"
    assert VENV_BIN.is_dir(), "no venv: run the tests with `make test`"
