"""Source 3: the lab's bundle, built from package registries by ``python -m lab bundle``."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from pathlib import Path

from .checksums import expect
from .model import Artifact, Found, SourceError

_LIST_TIMEOUT_SECONDS = 30
_SHOWN_LINES = 5


class Bundle:
    """The bundle's command line.

    Args:
        repository: the checkout, where ``lab`` can be imported.
        python: the interpreter that runs it.
    """

    name = "registries"

    def __init__(self, repository: Path, python: str) -> None:
        self._repository = repository
        self._python = python

    def check(self, artifact: Artifact) -> None:
        """Whether the bundle knows the part; nothing is built.

        Raises:
            SourceError: it does not.
        """
        if not artifact.registries:
            raise SourceError("the table names no bundle part")
        if artifact.registries not in self._parts:
            raise SourceError(f"the bundle has no part {artifact.registries} (it has {', '.join(sorted(self._parts))})")

    def fetch(self, artifact: Artifact) -> Found:
        """Build the part, or take it from the bundle's own cache.

        Raises:
            SourceError: the bundle cannot make it; the message ends with its last lines.
            RefusedError: the file is not the one whose checksum the bundle printed.
        """
        if not artifact.registries:
            raise SourceError("the table names no bundle part")
        started = time.time()
        answer = self._run("bundle", artifact.registries, timeout_seconds=None).strip().splitlines()
        try:
            made = json.loads(answer[-1])
            path, sha256 = Path(made["path"]), str(made["sha256"])
        except (IndexError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise SourceError(f"lab bundle {artifact.registries} printed no JSON line with path and sha256") from error
        if not path.is_file():
            raise SourceError(f"lab bundle {artifact.registries} names {path}, which does not exist")
        expect(path, sha256, f"lab bundle {artifact.registries}")
        changed = path.stat().st_mtime >= started
        return Found(path, sha256, self.name, f"bundle part {artifact.registries}, sha256 {sha256}", changed)

    @functools.cached_property
    def _parts(self) -> frozenset[str]:
        return frozenset(self._run("bundle", "--list", timeout_seconds=_LIST_TIMEOUT_SECONDS).split())

    def _run(self, *arguments: str, timeout_seconds: float | None) -> str:
        shown = " ".join(["python -m lab", *arguments])
        command = [self._python, "-m", "lab", *arguments]
        try:
            done = subprocess.run(
                command, cwd=self._repository, capture_output=True, text=True, timeout=timeout_seconds, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceError(f"{shown}: {error}") from error
        if done.returncode:
            last = " | ".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:]) or "no message"
            raise SourceError(f"{shown} failed: {last}")
        return done.stdout
