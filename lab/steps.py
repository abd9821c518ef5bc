"""Run long commands so that a person sees what runs, how long, and why it failed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

HEARTBEAT_SECONDS = 20.0
TAIL_LINES = 25


class LabError(Exception):
    """What failed, why, and what to run to go on; printed as it is."""


def say(message: str) -> None:
    """One line of progress on stderr (stdout is for results)."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def step(label: str) -> Iterator[None]:
    """Say that ``label`` starts, that it still runs, and how long it took."""
    started = time.monotonic()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            say(f"  {label}: running, {time.monotonic() - started:.0f} s")

    say(f"  {label} ...")
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
    say(f"  {label}: done in {time.monotonic() - started:.1f} s")


def run(argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return its stdout.

    Raises:
        LabError: it exited with another code than 0; the message holds the end of its output.
    """
    words = [str(word) for word in argv]
    result = subprocess.run(
        words, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if result.returncode != 0:
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-TAIL_LINES:])
        raise LabError(f"{' '.join(words[:4])} ... failed with exit code {result.returncode}:\n{tail}")
    return result.stdout


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*parts: str | bytes | Path) -> str:
    """A short content key of texts, files and folders (every file below them, by name and content)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            for file in files:
                if "__pycache__" in file.parts or ".egg-info" in str(file):
                    continue
                total.update(str(file.relative_to(part if part.is_dir() else part.parent)).encode() + b"\0")
                total.update(sha256_of(file).encode() + b"\0")
        else:
            total.update(part.encode() if isinstance(part, str) else part)
            total.update(b"\0")
    return total.hexdigest()[:16]
