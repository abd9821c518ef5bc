"""Source 3: the lab's bundle, built from package registries by ``python -m lab bundle``."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .checksums import expect, sha256_of
from .known import KnownFiles
from .model import Answer, Artifact, Found, SourceError, side_by_side

_LIST_TIMEOUT_SECONDS = 30
_SHOWN_LINES = 5


class Bundle:
    """The bundle's command line.

    Args:
        repository: the checkout, where ``lab`` can be imported.
        python: the interpreter that runs it.
        known: sums of files that were made before.
    """

    name = "registries"

    def __init__(self, repository: Path, python: str, known: KnownFiles) -> None:
        self._repository = repository
        self._python = python
        self._known = known

    def check(self, artifact: Artifact) -> None:
        """Whether the bundle knows the part; nothing is built.

        Raises:
            SourceError: it does not.
        """
        if not artifact.registries:
            raise SourceError("the table names no bundle part")
        if artifact.registries not in self._parts:
            raise SourceError(f"the bundle has no part {artifact.registries} (it has {', '.join(sorted(self._parts))})")

    def fetch_all(self, artifacts: Sequence[Artifact]) -> list[Answer]:
        """Build the parts, or take them from the bundle's own cache; one command for all of them."""
        named = sorted({artifact.registries for artifact in artifacts if artifact.registries})
        started = time.time()
        made = self._make(named) if named else {}
        return side_by_side(lambda artifact: self._found(artifact, made, started), artifacts)

    def _make(self, parts: Sequence[str]) -> dict[str, dict[str, str]]:
        """What the bundle printed of each part: its path and sum, or an error."""
        try:
            done = self._run("bundle", *parts, timeout_seconds=None)
        except SourceError as error:
            return {part: {"error": str(error)} for part in parts}
        made: dict[str, dict[str, str]] = {}
        for line in done.stdout.splitlines():
            with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
                answer = json.loads(line)
                made[answer["part"]] = answer
        if done.returncode:
            return {part: made.get(part) or {"error": _failure(done)} for part in parts}
        return made

    def _found(self, artifact: Artifact, made: dict[str, dict[str, str]], started: float) -> Found:
        """The part of an artifact.

        Raises:
            SourceError: the bundle cannot make it; the message ends with its last lines.
            RefusedError: the file is not the one whose checksum the bundle printed.
        """
        part = artifact.registries
        if not part:
            raise SourceError("the table names no bundle part")
        answer = made.get(part, {})
        if "error" in answer:
            raise SourceError(answer["error"])
        if not {"path", "sha256"} <= answer.keys():
            raise SourceError(f"lab bundle {part} printed no JSON line with part, path and sha256")
        path, sha256 = Path(answer["path"]), answer["sha256"]
        if not path.is_file():
            raise SourceError(f"lab bundle {part} names {path}, which does not exist")
        summed = functools.partial(self._known.get, what="sha256", find=sha256_of)
        expect(path, sha256, f"lab bundle {part}", summed=summed)
        changed = path.stat().st_mtime >= started
        return Found(path, sha256, self.name, f"bundle part {part}, sha256 {sha256}", changed)

    @functools.cached_property
    def _parts(self) -> frozenset[str]:
        done = self._run("bundle", "--list", timeout_seconds=_LIST_TIMEOUT_SECONDS)
        if done.returncode:
            raise SourceError(_failure(done))
        return frozenset(done.stdout.split())

    def _run(self, *arguments: str, timeout_seconds: float | None) -> subprocess.CompletedProcess[str]:
        command = [self._python, "-m", "lab", *arguments]
        try:
            return subprocess.run(
                command, cwd=self._repository, capture_output=True, text=True, timeout=timeout_seconds, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceError(f"python -m lab {' '.join(arguments)}: {error}") from error


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    last = " | ".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:]) or "no message"
    return f"python {' '.join(done.args[1:])} failed: {last}"
