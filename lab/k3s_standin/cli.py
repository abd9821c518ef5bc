"""The command line of ``k3s``: its subcommands, and its multi-call names (kubectl, ctr)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from lab.k3s_standin import config as configuration
from lab.k3s_standin import host, log, paths, payload, snapshots
from lab.k3s_standin.agent import Agent
from lab.k3s_standin.airgap import NAMESPACE
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.notify import notify
from lab.k3s_standin.process import Group
from lab.k3s_standin.server import Server

WHAT_IT_IS = "tradewatch lab stand-in: kubeadm and upstream components; not k3s"
_USAGE = f"""k3s ({WHAT_IT_IS})

usage: k3s server [--config FILE] [--KEY VALUE ...]
       k3s agent [--config FILE] [--KEY VALUE ...]
       k3s kubectl ...
       k3s ctr ...
       k3s etcd-snapshot save [--name NAME] | ls [-o json] | delete NAME ... | prune [--snapshot-retention N]
       k3s --version"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a StandinError is one line on stderr and exit code 1."""
    name, *arguments = sys.argv if argv is None else argv
    called = os.path.basename(name)
    if called in ("kubectl", "ctr"):
        arguments = [called, *arguments]
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    try:
        return _run(command, rest)
    except StandinError as error:
        print(f"level=fatal component=k3s-standin msg={json.dumps(str(error))}", file=sys.stderr)
        return 1


def _run(command: str, rest: Sequence[str]) -> int:
    if command in ("--help", "-h", "help"):
        print(_USAGE)
    elif command in ("--version", "-v"):
        print(f"k3s version {payload.about().version} ({WHAT_IT_IS})")
        print(f"go version {payload.about().go_version}")
    elif command == "server" or command == "agent":
        return _serve(configuration.load(command, rest, socket.gethostname()))
    elif command == "kubectl":
        os.environ.setdefault("KUBECONFIG", str(paths.ADMIN_KUBECONFIG))
        os.execv(payload.program("kubectl"), ["kubectl", *rest])  # noqa: S606 - replaces this process
    elif command == "ctr":
        os.environ.setdefault("CONTAINERD_ADDRESS", str(paths.CONTAINERD_SOCKET))
        os.environ.setdefault("CONTAINERD_NAMESPACE", NAMESPACE)
        os.execvp("ctr", ["ctr", *rest])  # noqa: S606 - replaces this process
    elif command == "etcd-snapshot":
        return _etcd_snapshot(rest)
    else:
        raise StandinError(f"{command}: the stand-in has no such command; see k3s --help")
    return 0


def _serve(config: configuration.Config) -> int:
    if os.geteuid() != 0:
        raise StandinError(f"k3s {config.command} must run as root")
    host.check()
    host.prepare()
    paths.RUN.mkdir(parents=True, exist_ok=True, mode=0o711)
    payload.folder()
    log.log("info", f"starting k3s {config.command} {payload.about().version} ({WHAT_IT_IS})")
    return asyncio.run(_supervise(config))


async def _supervise(config: configuration.Config) -> int:
    group = Group()
    part: Coroutine[Any, Any, None] = (Server if config.command == "server" else Agent)(config, group).run()
    task = asyncio.create_task(part)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.log("info", "stopping; containers go on")
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    finally:
        with contextlib.suppress(OSError):
            notify("STOPPING=1")
        await group.stop()
    return 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _etcd_snapshot(arguments: Sequence[str]) -> int:
    action, options, names = _snapshot_options(arguments)
    settings = configuration.load("server", [], socket.gethostname())
    folder = Path(options.get("dir") or settings.snapshot_dir)
    if action == "save":
        prefix = options.get("name") or snapshots.ON_DEMAND_PREFIX
        saved = asyncio.run(snapshots.save(folder, prefix, settings.node_name))
        log.log("info", f"Snapshot {saved.name} saved.")
    elif action in ("ls", "list"):
        _print_snapshots(snapshots.listing(folder), options.get("output", "table"))
    elif action == "delete":
        for name in names:
            path = folder / name
            if path.name != name or not path.is_file():
                raise StandinError(f"etcd-snapshot delete: no snapshot {name!r} in {folder}")
            path.unlink()
            log.log("info", f"Snapshot {name} deleted.")
    else:
        keep = options.get("snapshot-retention", str(settings.snapshot_retention))
        if not keep.isdigit():
            raise StandinError(f"--snapshot-retention: {keep!r} is not a number")
        prefix = options.get("name") or snapshots.ON_DEMAND_PREFIX
        for path in snapshots.prune(folder, prefix, settings.node_name, int(keep)):
            log.log("info", f"Snapshot {path.name} deleted.")
    return 0


def _snapshot_options(arguments: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    known = {"--name": "name", "--dir": "dir", "--etcd-snapshot-dir": "dir", "-o": "output", "--output": "output"}
    known["--snapshot-retention"] = "snapshot-retention"
    actions = ("save", "ls", "list", "delete", "prune")
    options: dict[str, str] = {}
    names: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        flag, separator, value = word.partition("=")
        if flag in known:
            if not separator and not words:
                raise StandinError(f"etcd-snapshot: {flag} needs a value")
            options[known[flag]] = value if separator else words.pop(0)
        elif word.startswith("-"):
            raise StandinError(f"etcd-snapshot: unknown flag {flag!r}")
        else:
            names.append(word)
    action = names.pop(0) if names else "save"
    if action not in actions:
        raise StandinError(f"etcd-snapshot: unknown action {action!r}; one of {', '.join(actions)}")
    if options.get("output", "table") not in ("table", "json"):
        raise StandinError("etcd-snapshot: --output must be table or json")
    return action, options, names


def _print_snapshots(found: Sequence[snapshots.Snapshot], output: str) -> None:
    rows = [(s.path.name, f"file://{s.path}", str(s.size), s.created.strftime("%Y-%m-%dT%H:%M:%SZ")) for s in found]
    if output == "json":
        fields = ("name", "location", "size", "created")
        print(json.dumps([dict(zip(fields, row, strict=True)) for row in rows], indent=2))
        return
    table = [("Name", "Location", "Size", "Created"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table:
        print(" ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
