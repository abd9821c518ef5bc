"""Run a command as a user would, in the repository, and show its end when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
VENV_BIN = REPOSITORY / ".venv" / "bin"
TAIL_LINES = 80


def run(
    *argv: str | Path, env: Mapping[str, str] | None = None, timeout: float = 600, cwd: Path = REPOSITORY, code: int = 0
) -> str:
    """stdout and stderr of a command that must exit with ``code`` within ``timeout`` seconds."""
    environment = {**os.environ, "PATH": f"{VENV_BIN}{os.pathsep}{os.environ['PATH']}", **(env or {})}
    environment["ANSIBLE_CONFIG"] = str(REPOSITORY / "ansible.cfg")
    result = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    tail = "\n".join(result.stdout.splitlines()[-TAIL_LINES:])
    assert result.returncode == code, f"{argv[0]} exited with {result.returncode}, not {code}:\n{tail}"
    return result.stdout
