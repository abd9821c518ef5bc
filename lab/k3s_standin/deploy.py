"""The auto-deploy folder server/manifests: what is in it is applied, and applied again when a file changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lab.k3s_standin import paths, payload, process
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log

SUFFIXES = (".yaml", ".yml", ".json")
POLL_SECONDS = 3.0
RETRY_SECONDS = 15.0


class Deployer:
    """Applies manifests server-side; a failed file is tried again after ``RETRY_SECONDS``."""

    def __init__(self, kubeconfig: Path, folder: Path = paths.MANIFESTS) -> None:
        self._kubectl = [payload.program("kubectl"), "--kubeconfig", str(kubeconfig)]
        self._folder = folder
        self._done: dict[Path, bytes] = {}
        self._retry_at: dict[Path, float] = {}

    async def follow(self) -> None:
        """Apply what is new or changed, for ever."""
        while True:
            await self.scan()
            await asyncio.sleep(POLL_SECONDS)

    async def scan(self) -> None:
        """One pass over the folder and its subfolders, by name."""
        now = asyncio.get_running_loop().time()
        for path in sorted(self._folder.rglob("*")):
            if not path.name.endswith(SUFFIXES) or path.with_name(path.name + ".skip").exists():
                continue
            try:
                content = path.read_bytes()
            except OSError:
                continue
            if self._done.get(path) == content or self._retry_at.get(path, 0.0) > now:
                continue
            try:
                await self.apply(path)
                self._done[path] = content
                log("info", f"applied manifest {path}")
            except StandinError as error:
                self._retry_at[path] = now + RETRY_SECONDS
                log("error", f"{path}: cannot apply: {error}")

    async def apply(self, path: Path) -> None:
        """Apply one file.

        Raises:
            StandinError: kubectl refused it.
        """
        options = ["--server-side", "--force-conflicts", "--field-manager=k3s-deploy"]
        await process.run([*self._kubectl, "apply", *options, "-f", str(path)])

    async def remove(self, name: str, content: str) -> None:
        """Remove a packaged component that was switched off: its file, and its objects where there are any."""
        (self._folder / name).unlink(missing_ok=True)
        try:
            await process.run([*self._kubectl, "delete", "--ignore-not-found", "-f", "-"], input_text=content)
        except StandinError as error:
            log("error", f"{name}: cannot remove: {error}")
