"""Run long commands so that a person sees what runs, how long, and why it failed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


class _Commands:
    """The commands that run now in whichever thread, so that all can be ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def start(self, words: list[str], cwd: Path | None, env: Mapping[str, str]) -> subprocess.Popen[str]:
        with self._lock:
            if self._ended:
                raise LabError(f"{words[0]} was not started: something else failed")
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self._running.add(process)
            return process

    def forget(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.discard(process)

    def end(self) -> None:
        """End what runs, and start nothing more until ``begin``.

        SIGTERM, because commands of a job in the background are started with SIGINT ignored.
        """
        with self._lock:
            self._ended = True
            for process in self._running:
                process.send_signal(signal.SIGTERM)

    def begin(self) -> None:
        with self._lock:
            self._ended = False


_commands = _Commands()


def together(*functions: Callable[[], Any]) -> list[Any]:
    """The results of functions that run side by side; the first that fails ends the commands of the others.

    Raises:
        Exception: what the first one to fail raised.
    """
    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(function) for function in functions]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            _commands.end()
            raise
        finally:
            wait(futures)
            _commands.begin()
    return [future.result() for future in futures]


def run(argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return its stdout.

    Raises:
        LabError: it exited with another code than 0; the message holds the end of its output.
    """
    words = [str(word) for word in argv]
    process = _commands.start(words, cwd, {**os.environ, **(env or {})})
    with process:
        try:
            stdout, stderr = process.communicate()
        finally:
            _commands.forget(process)
    if process.returncode != 0:
        tail = "\n".join((stdout + stderr).strip().splitlines()[-TAIL_LINES:])
        raise LabError(f"{' '.join(words[:4])} ... failed with exit code {process.returncode}:\n{tail}")
    return stdout


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
