"""Images from files: every archive in agent/images is imported at start, and again when it appears or changes."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from lab.k3s_standin import files, paths, process
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
POLL_SECONDS = 3.0
SETTLE_SECONDS = 1.0
NAMESPACE = "k8s.io"
# Debian's apt is on every Debian host and reads gzip and zstd; containerd 1.6's own import reads no zstd.
_DECOMPRESS = ("/usr/lib/apt/apt-helper", "cat-file")
# containerd 2's CRI never collects images with this label; 1.6 ignores it (the kubelet's collection is off instead).
_PINNED = "io.cri-containerd.pinned=pinned"

Signature = tuple[int, int]
# What `ctr images import` says of each image.
_UNPACKING = re.compile(r"^unpacking (\S+) ", re.MULTILINE)


@dataclass(frozen=True)
class Import:
    """An archive as it was imported: its signature (size and time), and its images."""

    signature: Signature
    images: tuple[str, ...] = ()


class Importer:
    """Imports archives into containerd, each once per content change.

    A restart does not import what containerd still has: that would keep a new archive waiting for minutes.
    """

    def __init__(self, folder: Path = paths.IMAGES, record: Path = paths.IMPORTED) -> None:
        self._folder = folder
        self._record = record
        self._done: dict[Path, Import] = {}

    async def follow(self) -> None:
        """Import for ever."""
        try:
            self.recall(await process.run(_ctr("images", "list", "--quiet")))
        except (StandinError, ValueError, KeyError) as error:
            log("warning", f"{self._record}: {error}; importing all images again")
        while True:
            await self._scan()
            await asyncio.sleep(POLL_SECONDS)

    def recall(self, listed: str) -> None:
        """Know again what was imported before, as far as containerd lists all its images."""
        there = set(listed.split())
        for path, known in files.read_json(self._record).items():
            signature, images = known["signature"], known["images"]
            if images and there.issuperset(images):
                self._done[Path(path)] = Import((signature[0], signature[1]), tuple(images))

    async def _scan(self) -> None:
        """Import what is new; a file counts only once it has not changed for a while."""
        found = self.pending()
        if found:
            await asyncio.sleep(SETTLE_SECONDS)
        for path, signature in found.items():
            if _signature(path) != signature:
                continue
            self._done[path] = Import(signature)
            try:
                images = _UNPACKING.findall(await _import(path))
                for name in images:
                    await process.run(_ctr("images", "label", name, _PINNED))
            except StandinError as error:
                log("error", f"{path}: cannot import: {error}")
                continue
            log("info", f"imported images from {path}")
            self._done[path] = Import(signature, tuple(images))
            self._remember()

    def _remember(self) -> None:
        known = {
            str(path): {"signature": done.signature, "images": done.images}
            for path, done in self._done.items()
            if done.images
        }
        files.write_json(self._record, known)

    def pending(self) -> dict[Path, Signature]:
        """Archives that were not imported in their present form."""
        found: dict[Path, Signature] = {}
        if self._folder.is_dir():
            for path in sorted(self._folder.iterdir()):
                if path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file():
                    signature = _signature(path)
                    known = self._done.get(path)
                    if signature is not None and (known is None or known.signature != signature):
                        found[path] = signature
        return found


async def _import(path: Path) -> str:
    if path.suffix == ".tar":
        return await process.run(_ctr("images", "import", str(path)))
    return await process.pipe([*_DECOMPRESS, str(path)], _ctr("images", "import", "-"))


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _ctr(*arguments: str) -> list[str]:
    return ["ctr", "--address", str(paths.CONTAINERD_SOCKET), "--namespace", NAMESPACE, *arguments]
