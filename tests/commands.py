"""Run a command as a user would, in the repository, and show its end when it fails."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
VENV_BIN = REPOSITORY / ".venv" / "bin"
TAIL_LINES = 80


def run(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    cwd: Path = REPOSITORY,
    code: int = 0,
    log: Path | None = None,
) -> str:
    """stdout and stderr of a command that must exit with ``code`` within ``timeout`` seconds.

    With ``log`` they go to that file while it runs, so that somebody can follow it. Bytes that are no text, as pods may
    log them, are replaced.
    """
    environment = {**os.environ, "PATH": f"{VENV_BIN}{os.pathsep}{os.environ['PATH']}", **(env or {})}
    environment["ANSIBLE_CONFIG"] = str(REPOSITORY / "ansible.cfg")
    with open(log, "w+", errors="replace") if log else tempfile.TemporaryFile("w+", errors="replace") as stream:
        status = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        ).returncode
        stream.seek(0)
        output = stream.read()
    tail = "\n".join(output.splitlines()[-TAIL_LINES:])
    assert status == code, f"{argv[0]} exited with {status}, not {code}:\n{tail}"
    return output
