"""Images from files: every archive in agent/images is imported at start, and again when it appears or changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lab.k3s_standin import paths, process
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
POLL_SECONDS = 3.0
NAMESPACE = "k8s.io"
# Debian's apt is on every Debian host and reads gzip and zstd; containerd 1.6's own import reads no zstd.
_DECOMPRESS = ("/usr/lib/apt/apt-helper", "cat-file")
# containerd 2's CRI never collects images with this label; 1.6 ignores it (the kubelet's collection is off instead).
_PINNED = "io.cri-containerd.pinned=pinned"

Signature = tuple[int, int]


class Importer:
    """Imports archives into containerd, each once per content change (size and time)."""

    def __init__(self, folder: Path = paths.IMAGES) -> None:
        self._folder = folder
        self._done: dict[Path, Signature] = {}

    async def scan(self, settle: bool = False) -> None:
        """Import what is new; with ``settle`` a file counts only once it has not changed for a poll."""
        for path, signature in self.pending().items():
            if settle:
                await asyncio.sleep(POLL_SECONDS / 3)
                if _signature(path) != signature:
                    continue
            self._done[path] = signature
            try:
                await _import(path)
                names = await process.run(_ctr("images", "list", "--quiet"))
                log("info", f"imported images from {path}")
                await self._pin(names.split())
            except StandinError as error:
                log("error", f"{path}: cannot import: {error}")

    async def follow(self) -> None:
        """``scan`` for ever."""
        while True:
            await self.scan(settle=True)
            await asyncio.sleep(POLL_SECONDS)

    def pending(self) -> dict[Path, Signature]:
        """Archives that were not imported in their present form."""
        found: dict[Path, Signature] = {}
        if self._folder.is_dir():
            for path in sorted(self._folder.iterdir()):
                if path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file():
                    signature = _signature(path)
                    if signature is not None and self._done.get(path) != signature:
                        found[path] = signature
        return found

    async def _pin(self, names: list[str]) -> None:
        for name in names:
            await process.run(_ctr("images", "label", name, _PINNED))


async def _import(path: Path) -> None:
    if path.suffix == ".tar":
        await process.run(_ctr("images", "import", str(path)))
    else:
        await process.pipe([*_DECOMPRESS, str(path)], _ctr("images", "import", "-"))


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _ctr(*arguments: str) -> list[str]:
    return ["ctr", "--address", str(paths.CONTAINERD_SOCKET), "--namespace", NAMESPACE, *arguments]
