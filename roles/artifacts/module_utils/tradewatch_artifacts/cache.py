"""Source 1: the cache directory, where a file placed by hand wins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checksums import expect, published, sha256_of
from .known import KnownFiles
from .model import Answer, Artifact, Found, RefusedError, SourceError, side_by_side


class Cache:
    """``<root>/artifacts/<file>``, with an optional ``<file>.sha256`` beside it.

    A file that the upstream source stored has ``<file>.origin.json`` beside it, which says what it was made from, so
    that an edited version or address fetches it anew, while a file placed by hand stays.

    Args:
        root: the cache directory.
        known: sums of files that are there already.
    """

    name = "cache"

    def __init__(self, root: Path, known: KnownFiles) -> None:
        self.directory = root / "artifacts"
        self._known = known

    def file(self, artifact: Artifact) -> Path:
        """Where an artifact lies, or would lie."""
        return self.directory / artifact.file

    def fetch(self, artifact: Artifact) -> Found:
        """The file in the cache.

        Raises:
            SourceError: there is none, or it is a download of another version.
            RefusedError: it does not have the checksum that the file beside it says.
        """
        path = self.file(artifact)
        if not path.is_file():
            raise SourceError(f"no file {path}")
        beside = path.with_name(path.name + ".sha256")
        sha256 = self._verified(path, beside, artifact) if beside.is_file() else self._sha256(path)
        made_from = self._origin(artifact)
        if made_from and made_from.get("sha256") == sha256:
            if made_from.get("origin") != origin_of(artifact):
                raise SourceError(f"{path} was downloaded for version {made_from['origin'].get('version')}")
            return Found(path, sha256, self.name, f"downloaded before, sha256 {sha256}")
        return Found(path, sha256, self.name, f"placed by hand, sha256 {sha256}")

    check = fetch

    def fetch_all(self, artifacts: Sequence[Artifact]) -> list[Answer]:
        """The files in the cache, or why one is not used."""
        return side_by_side(self.fetch, artifacts)

    def keep(self, artifact: Artifact, downloaded: Path, sha256: str, fetched: str) -> Path:
        """Move a verified download to its place, and note what it was made from: ``fetched`` says it to people."""
        path = self.file(artifact)
        if not artifact.is_archive:
            downloaded.chmod(0o755)
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)
        note = {"origin": origin_of(artifact), "sha256": sha256, "fetched": fetched}
        # The note goes first: were the file first, a crash in between would make a download look placed by hand.
        self._note(artifact).write_text(json.dumps(note, indent=2) + "\n")
        downloaded.replace(path)
        return path

    def _note(self, artifact: Artifact) -> Path:
        return self.directory / f"{artifact.file}.origin.json"

    def _origin(self, artifact: Artifact) -> dict[str, Any] | None:
        try:
            note = json.loads(self._note(artifact).read_text())
        except (OSError, json.JSONDecodeError):
            return None
        return note if isinstance(note, dict) and isinstance(note.get("origin"), dict) else None

    def _verified(self, path: Path, beside: Path, artifact: Artifact) -> str:
        try:
            expected = published(beside.read_text(), artifact.file)
        except SourceError as error:
            raise RefusedError(f"{beside} has no sha256 of {artifact.file}") from error
        return expect(path, expected, str(beside), summed=self._sha256)

    def _sha256(self, path: Path) -> str:
        return self._known.get(path, "sha256", sha256_of)


def origin_of(artifact: Artifact) -> dict[str, str]:
    """What a download is made from: when this changes, the download is of no use."""
    upstream = artifact.upstream
    address = (upstream.url or upstream.image) if upstream else ""
    return {"version": artifact.version, "from": address, "sha256": upstream.sha256 if upstream else ""}
