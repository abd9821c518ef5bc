"""One lab by its directory, used through the project's own commands, as a user would."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import environment, paths
from tests.commands import REPOSITORY, run
from tests.machines import Cluster, Host, run_kubectl

RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
# The lab that the Molecule scenarios share.
MOLECULE_DIRECTORY = REPOSITORY / ".lab/tests/molecule"


def e2e_directory() -> Path:
    """Where the end-to-end tests' lab is. TRADEWATCH_E2E_LAB names the directory of a standing one to use instead."""
    return Path(os.environ.get("TRADEWATCH_E2E_LAB") or REPOSITORY / ".lab/tests/e2e").resolve()


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
    # What `make lab` left in the checkout outside .lab and .venv.
    strays: set[str] = field(default_factory=set)
    # The settings of the machine's kernel before `make lab`.
    kernel_found: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The home directory of every command on the lab: empty, and empty it stays."""
        return self.directory / "home"

    @property
    def env(self) -> dict[str, str]:
        self.home.mkdir(parents=True, exist_ok=True)
        return {
            **environment.variables(self.directory),
            "TRADEWATCH_LAB_DIR": str(self.directory),
            "TRADEWATCH_CACHE": str(paths.cache_dir()),
            "HOME": str(self.home),
            # Registries that the user has configured for pip, uv and Go.
            "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
        }

    @property
    def log(self) -> Path:
        """The output of the last ``make``, while it runs and after."""
        return self.directory / "make.log"

    def make(self, target: str, **env: str) -> str:
        return run("make", target, env={**self.env, **env}, timeout=2400, log=self.log)

    def play(self, *arguments: str, code: int = 0, timeout: float = 900) -> Play:
        started = time.monotonic()
        output = run("ansible-playbook", *arguments, env=self.env, timeout=timeout, code=code)
        changed = {match[1]: int(match[3]) for match in RECAP.finditer(output)}
        return Play(output, time.monotonic() - started, changed)

    def kubectl(self, *arguments: str, code: int = 0) -> str:
        """stdout and stderr of a command that must exit with ``code``."""
        result = run_kubectl(self.directory, *arguments)
        output = result.stdout + result.stderr
        assert result.returncode == code, f"kubectl {arguments} exited with {result.returncode}, not {code}:\n{output}"
        return output

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def host(self, name: str) -> Host:
        """A host of the lab, over SSH."""
        addresses = json.loads((self.directory / "lab.json").read_text())["hosts"]
        return Host(name, addresses[name], self.directory)

    def ssh(self, host: str, script: str) -> str:
        """The output of a shell script on a host."""
        return self.host(host).run(script)

    def cluster(self) -> Cluster:
        """All hosts of the lab, and its API."""
        names = json.loads((self.directory / "lab.json").read_text())["hosts"]
        return Cluster(self.directory, tuple(self.host(name) for name in sorted(names)))

    def fresh_host_listing(self, command: str) -> set[str]:
        """The lines that ``command`` prints on a host of the same image that nothing was ever done to."""
        run("python", "-m", "lab", "hosts", "fresh", env=self.env)
        try:
            return set(self.ssh("fresh", command).splitlines())
        finally:
            run("python", "-m", "lab", "remove-host", "fresh", env=self.env)

    def assert_no_secret(self, output: str) -> None:
        """No secret of the lab stands in ``output``: not as it is, not in base64, and no private key."""
        for name, value in json.loads((self.directory / "secrets.json").read_text()).items():
            assert value not in output, name
            assert base64.b64encode(value.encode()).decode().rstrip("=") not in output, f"{name} in base64"
        assert "PRIVATE KEY" not in output

    def endpoints(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.directory / "endpoints.json").read_text())
        return answer

    def ask(self, endpoint: str, path: str, **parameters: str) -> Any:
        """A JSON answer of an endpoint, asked as an outsider would: TLS, basic authentication."""
        found = self.endpoints()[endpoint]
        manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
        password = Path(found["password_file"]).read_text().strip()
        manager.add_password(None, found["url"], found["username"], password, is_authenticated=True)
        context = ssl.create_default_context(cafile=found["ca_file"])
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPBasicAuthHandler(manager)
        )
        url = f"{found['url'].rstrip('/')}/api/{path}?{urllib.parse.urlencode(parameters)}"
        with opener.open(url, timeout=20) as answer:
            return json.load(answer)

    def prometheus(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of Prometheus' API."""
        body = self.ask("prometheus", f"v1/{path}", **parameters)
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.prometheus("query", query=expression)["result"]
        return result
