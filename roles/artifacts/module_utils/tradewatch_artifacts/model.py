"""The artifacts table as types, and what the sources answer with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ARCHIVE_SUFFIXES = (".tar.zst", ".tar.gz", ".tgz", ".tar")


class SourceError(Exception):
    """A source does not give an artifact; the message says why. The next source is asked."""


class RefusedError(Exception):
    """A source gives something that must not be used, such as a file with a wrong checksum. No other is asked."""


@dataclass(frozen=True)
class Upstream:
    """Where an artifact comes from on the internet: a file by ``url``, or an image by ``image``."""

    url: str = ""
    checksum_url: str = ""
    sha256: str = ""
    image: str = ""


@dataclass(frozen=True)
class Artifact:
    """One row of the table; the fields are explained in docs/architecture.md."""

    name: str
    kind: str
    version: str
    file: str
    mode: str = "0644"
    dest: str = ""
    node_roles: tuple[str, ...] = ()
    upstream: Upstream | None = None
    registries: str = ""
    same_source_as: str = ""
    optional: bool = False

    @property
    def is_archive(self) -> bool:
        """Whether this is an archive of images, which k3s imports, rather than a binary."""
        return self.kind != "binary"


@dataclass(frozen=True)
class Found:
    """A file that a source gave.

    Attributes:
        source: ``cache``, ``upstream`` or ``registries``.
        detail: what to print beside the source.
        changed: whether this run made the file.
    """

    path: Path
    sha256: str
    source: str
    detail: str
    changed: bool = False


Answer = Found | SourceError | RefusedError


def side_by_side(
    fetch: Callable[[Artifact], T], artifacts: Sequence[Artifact], at_a_time: int | None = None
) -> list[T | SourceError | RefusedError]:
    """What ``fetch`` gives for each, or why it does not; as many at a time as there are cores, for they sum files."""

    def answer(artifact: Artifact) -> T | SourceError | RefusedError:
        try:
            return fetch(artifact)
        except (SourceError, RefusedError) as error:
            return error

    with ThreadPoolExecutor(max_workers=at_a_time or os.cpu_count()) as pool:
        return list(pool.map(answer, artifacts))


@dataclass(frozen=True)
class Problem:
    """One line for the user: where, what is wrong, what to do."""

    where: str
    what: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        """The same as plain data."""
        return {"where": self.where, "what": self.what, "fix": self.fix}


def artifact_from(row: Mapping[str, Any]) -> Artifact:
    """The typed form of one row, as Ansible's argument specification lets it through."""
    upstream = {key: value for key, value in (row.get("upstream") or {}).items() if value}
    given = {key: value for key, value in row.items() if value is not None}
    return Artifact(
        **{
            **given,
            "node_roles": tuple(row.get("node_roles") or ()),
            "upstream": Upstream(**upstream) if upstream else None,
        }
    )
