"""Ask the sources in order, and put what they say into one answer."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from . import archives
from .cache import Cache
from .known import KnownFiles
from .model import Answer, Artifact, Found, Problem, RefusedError, SourceError, side_by_side
from .registries import Bundle
from .upstream import UpstreamSource

SOURCES = ("cache", "upstream", "registries")
# They wait for the network, not for a core.
_CHECKS_AT_A_TIME = 8


class Source(Protocol):
    """One place an artifact may come from."""

    name: str

    def fetch_all(self, artifacts: Sequence[Artifact]) -> list[Answer]:
        """Each artifact as a file, or why it gives none, in their order."""
        ...

    def check(self, artifact: Artifact) -> object:
        """Whether ``fetch`` would find it; nothing is built or downloaded."""
        ...


@dataclass(frozen=True)
class _Outcome:
    """What became of one artifact: its row of the fact by its name, a line for people, or a problem."""

    resolved: dict[str, dict[str, Any]] = field(default_factory=dict)
    line: str = ""
    changed: bool = False
    problem: Problem | None = None


class Resolver:
    """Resolves artifacts.

    Args:
        sources: the allowed sources, in the order in which they are asked.
        cache: the cache, to name the place where a missing file may be put.
        known: what is known already of the files.
    """

    def __init__(self, sources: Sequence[Source], cache: Cache, known: KnownFiles) -> None:
        self._sources = sources
        self._cache = cache
        self._known = known

    def check(self, artifacts: Iterable[Artifact]) -> list[Problem]:
        """What no source would give, found without building or downloading; all artifacts at the same time.

        One that is optional may be nowhere; one that must not be used is a problem all the same.
        """
        answers = self._find(
            list(artifacts), lambda source, asked: side_by_side(source.check, asked, _CHECKS_AT_A_TIME)
        )
        return [problem for artifact, answer in answers if (problem := self._problem(artifact, answer))]

    def resolve(
        self, artifacts: Iterable[Artifact]
    ) -> tuple[dict[str, dict[str, Any]], list[str], bool, list[Problem]]:
        """Resolve all: the fact ``artifacts_resolved``, a line for each, whether a file was made, the problems."""
        answers = self._find(list(artifacts), lambda source, all_: source.fetch_all(all_))
        outcomes = [self._outcome(artifact, answer) for artifact, answer in answers]
        self._known.save()
        resolved = {name: row for outcome in outcomes for name, row in outcome.resolved.items()}
        lines = [outcome.line for outcome in outcomes if outcome.line]
        problems = [outcome.problem for outcome in outcomes if outcome.problem]
        return resolved, lines, any(outcome.changed for outcome in outcomes), problems

    def _find(
        self, artifacts: list[Artifact], ask: Callable[[Source, list[Artifact]], Sequence[Any]]
    ) -> list[tuple[Artifact, Any]]:
        """Ask each source for what those before it do not give; an artifact with what is said of it, or an error."""
        failures = {artifact.name: self._unlisted() for artifact in artifacts}
        answers: dict[str, Any] = {}
        given: dict[str, str] = {}
        companions = _companions(artifacts)
        for source in self._sources:
            missing = [artifact for artifact in artifacts if artifact.name not in answers]
            # The bundle's own belong together, and so do those of a release.
            apart = {
                artifact.name: other
                for artifact in missing
                for other in companions[artifact.name]
                if other in given and (given[other] == Bundle.name) != (source.name == Bundle.name)
            }
            for name, other in apart.items():
                failures[name][source.name] = f"not asked: {other} comes from {given[other]}, and they belong together"
            asked = [artifact for artifact in missing if artifact.name not in apart]
            for artifact, answer in zip(asked, ask(source, asked), strict=True):
                if isinstance(answer, SourceError):
                    failures[artifact.name][source.name] = str(answer)
                    continue
                answers[artifact.name] = answer
                if not isinstance(answer, RefusedError):
                    given[artifact.name] = source.name
        return [
            (
                artifact,
                answers[artifact.name] if artifact.name in answers else SourceError(_places(failures[artifact.name])),
            )
            for artifact in artifacts
        ]

    def _outcome(self, artifact: Artifact, answer: Answer) -> _Outcome:
        if isinstance(answer, (SourceError, RefusedError)):
            problem = self._problem(artifact, answer)
            line = f"{artifact.name} {artifact.version}: skipped (optional, found in no source): {answer}"
            return _Outcome(problem=problem) if problem else _Outcome(line=line)
        try:
            row = {artifact.name: _described(artifact, answer, self._known)}
        except RefusedError as error:
            return _Outcome(problem=self._refused(artifact, error))
        line = f"{artifact.name} {artifact.version}: {answer.source} ({answer.detail})"
        return _Outcome(row, line, answer.changed)

    def _problem(self, artifact: Artifact, answer: object) -> Problem | None:
        if isinstance(answer, RefusedError):
            return self._refused(artifact, answer)
        if isinstance(answer, SourceError) and not artifact.optional:
            return self._missing(artifact, answer)
        return None

    def _unlisted(self) -> dict[str, str]:
        allowed = {source.name for source in self._sources}
        return {name: "not in artifact_sources" for name in SOURCES if name not in allowed}

    def _missing(self, artifact: Artifact, error: SourceError) -> Problem:
        fix = f"place it at {self._cache.file(artifact)} or make one of the other sources work"
        return Problem(
            f"artifact {artifact.name}", f"version {artifact.version} was not found in any source: {error}", fix
        )

    def _refused(self, artifact: Artifact, error: RefusedError) -> Problem:
        return Problem(f"artifact {artifact.name}", str(error), "replace the file, or correct what it is compared with")


def make_resolver(*, cache: str, sources: Sequence[str], repository: str, python: str, timeout: float) -> Resolver:
    """A resolver with the sources named in ``artifact_sources``."""
    root = Path(cache).expanduser()
    known = KnownFiles(root / "known-files.json")
    store = Cache(root, known)
    available: dict[str, Source] = {
        "cache": store,
        "upstream": UpstreamSource(store, timeout),
        "registries": Bundle(Path(repository), python, known),
    }
    return Resolver([available[name] for name in sources], store, known)


def _companions(artifacts: Iterable[Artifact]) -> dict[str, set[str]]:
    """By name, the artifacts that come from the bundle if and only if it does."""
    companions: dict[str, set[str]] = {artifact.name: set() for artifact in artifacts}
    for artifact in artifacts:
        if artifact.same_source_as in companions:
            companions[artifact.name].add(artifact.same_source_as)
            companions[artifact.same_source_as].add(artifact.name)
    return companions


def _places(failures: dict[str, str]) -> str:
    return ", ".join(f"{name} ({failures[name]})" for name in SOURCES)


def _described(artifact: Artifact, found: Found, known: KnownFiles) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": str(found.path),
        "sha256": found.sha256,
        "source": found.source,
        "kind": artifact.kind,
        "version": artifact.version,
        "node_roles": list(artifact.node_roles),
    }
    if not artifact.is_archive:
        return {**row, "mode": artifact.mode, "dest": artifact.dest}
    try:
        images = known.get(found.path, "references", archives.references)
    except zlib.error as error:
        raise RefusedError(f"{found.path} is not a readable image archive ({error})") from error
    row["node_file"] = archives.node_file_name(artifact.file, found.path)
    return {**row, "images": images} if artifact.kind == "images" else {**row, "image": images[0]}
