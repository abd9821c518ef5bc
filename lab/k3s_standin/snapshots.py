"""etcd snapshots: on demand and by schedule, kept below server/db/snapshots, the oldest removed first."""

from __future__ import annotations

import asyncio
import datetime
import re
import time
from dataclasses import dataclass
from pathlib import Path

from lab.k3s_standin import cron, etcd, process
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log

SCHEDULED_PREFIX = "etcd-snapshot"
ON_DEMAND_PREFIX = "on-demand"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$")
_PARTIAL = ".part"


@dataclass(frozen=True)
class Snapshot:
    """One file: its size in bytes and when it was made (UTC)."""

    path: Path
    size: int
    created: datetime.datetime


async def save(folder: Path, prefix: str, node: str) -> Path:
    """Take a snapshot of the local etcd member and return its file, ``<prefix>-<node>-<unix time>``.

    Raises:
        StandinError: a bad prefix, or etcd did not give it.
    """
    if not _NAME.match(prefix):
        raise StandinError(f"--name: {prefix!r} may hold only letters, digits, '.', '_' and '-'")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / f"{prefix}-{node}-{int(time.time())}"
    partial = folder / f".{target.name}{_PARTIAL}"
    try:
        await process.run([*etcd.client_command(["127.0.0.1"]), "snapshot", "save", str(partial)])
        partial.chmod(0o600)
        partial.rename(target)
    finally:
        for rest in folder.glob(f".{target.name}*"):
            rest.unlink()
    return target


def listing(folder: Path) -> list[Snapshot]:
    """The snapshots of ``folder``, the oldest first."""
    found = []
    for path in folder.glob("*") if folder.is_dir() else []:
        if path.is_file() and not path.name.startswith("."):
            status = path.stat()
            created = datetime.datetime.fromtimestamp(int(status.st_mtime), datetime.UTC)
            found.append(Snapshot(path, status.st_size, created))
    return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.path.name))


def prune(folder: Path, prefix: str, node: str, keep: int) -> list[Path]:
    """Remove all but the newest ``keep`` snapshots of that prefix and node; 0 keeps all. Returns what was removed."""
    pattern = re.compile(re.escape(f"{prefix}-{node}-") + r"\d+$")
    found = [snapshot.path for snapshot in listing(folder) if pattern.fullmatch(snapshot.path.name)]
    removed = found[:-keep] if keep else []
    for path in removed:
        path.unlink()
    return removed


async def follow(schedule: str, folder: Path, node: str, keep: int) -> None:
    """Take a snapshot whenever ``schedule`` (host's local time, as k3s) is due, for ever; a failure is logged."""
    times = cron.Schedule(schedule)
    while True:
        now = datetime.datetime.now().astimezone()
        due = times.after(now)
        if due is None:
            log("warning", f"etcd snapshots: {schedule!r} is never due within a year")
            return
        await asyncio.sleep((due - now).total_seconds())
        try:
            path = await save(folder, SCHEDULED_PREFIX, node)
            removed = prune(folder, SCHEDULED_PREFIX, node, keep)
            log("info", f"etcd snapshot {path} saved, {len(removed)} older removed")
        except (OSError, StandinError) as error:
            log("error", f"etcd snapshot failed: {error}")
