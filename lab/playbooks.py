"""Run the project's playbooks against the lab, with ansible-runner, and count what they changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from lab import paths
from lab.steps import LabError

KEPT_RUNS = 5


@dataclass(frozen=True)
class Result:
    """How a playbook ended: its return code, wall seconds, and tasks changed, by host."""

    playbook: str
    status: int
    seconds: float
    changed: dict[str, int]


def _environment() -> dict[str, str]:
    return {
        "ANSIBLE_CONFIG": str(paths.REPOSITORY / "ansible.cfg"),
        "PATH": f"{paths.VENV_BIN}{os.pathsep}{os.environ['PATH']}",
        "TRADEWATCH_LAB_DIR": str(paths.lab_dir()),
        # The Kubernetes modules keep what they learn of an API in a temporary file that nobody removes.
        "TMPDIR": str(paths.lab_dir() / "tmp"),
        # ansible-runner forces colours unless it is told; the output may go to a file.
        "ANSIBLE_FORCE_COLOR": str(sys.stdout.isatty()),
    }


def inventory_hosts() -> list[str]:
    """The hosts of the lab's inventory.

    Raises:
        LabError: the inventory cannot be read, or has no host.
    """
    sources = [word for path in paths.inventories() for word in ("-i", str(path))]
    command = [str(paths.VENV_BIN / "ansible-inventory"), *sources, "--graph"]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=paths.REPOSITORY, env={**os.environ, **_environment()}
    )
    # A host's line is `|--name`; a group's is `|--@name:`.
    found = [line.split("|--")[1] for line in result.stdout.splitlines() if "|--" in line and "|--@" not in line]
    if result.returncode != 0 or not found:
        raise LabError(f"no hosts in the inventory {paths.inventories()[0]}:\n{result.stderr.strip()}")
    return list(dict.fromkeys(found))


def play(playbook: str, *, cmdline: str = "", quiet: bool = False) -> Result:
    """Run one playbook; its output goes to stdout unless ``quiet``, and to ``runner/artifacts/`` in any case."""
    # Half the start of every other command of the lab, which the roles call for each artifact.
    import ansible_runner

    started = time.monotonic()
    private = paths.lab_dir() / "runner"
    private.mkdir(exist_ok=True, mode=0o700)
    (paths.lab_dir() / "tmp").mkdir(exist_ok=True, mode=0o700)
    run: Any = ansible_runner.run(
        private_data_dir=str(private),
        project_dir=str(paths.REPOSITORY),
        playbook=playbook,
        inventory=[str(path) for path in paths.inventories()],
        envvars=_environment(),
        cmdline=cmdline or None,
        quiet=quiet,
        rotate_artifacts=KEPT_RUNS,
    )
    changed = dict((run.stats or {}).get("changed") or {})
    return Result(playbook, int(run.rc), time.monotonic() - started, changed)


def read_json(name: str) -> Any:
    """A JSON file of the lab directory, or None where it is not there."""
    file = paths.lab_dir() / name
    return json.loads(file.read_text()) if file.exists() else None
