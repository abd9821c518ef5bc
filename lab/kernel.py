"""Settings of the machine's kernel that a lab changes: noted before the first lab, put back after the last one.

The hosts are containers on one kernel. What is not in a namespace of theirs they set for the whole machine: their
systemd and ``host_baseline``, and the kubelets when they start. The values as they were found are labels of a podman
volume, so that they outlive every lab, also one that died. The volume's name holds the id of the kernel's boot: after a
reboot there is nothing to put back.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.steps import run, say

LABEL = "tradewatch.lab.kernel"
VOLUME = "tradewatch-kernel-"
PROC = Path("/proc/sys")
BOOT_ID = "kernel/random/boot_id"
# podman's own configuration, and below it its networks: the folder is there, and locking it writes nothing.
LOCKED_FOLDER = Path("/etc/containers")
# Debian's and systemd's settings for the boot of a host.
BOOT_SETTINGS = (
    *("fs.file-max", "fs.nr_open", "kernel.pid_max"),
    *("fs.protected_fifos", "fs.protected_hardlinks", "fs.protected_regular", "fs.protected_symlinks"),
)
SETTINGS = (
    *BOOT_SETTINGS,
    # The lab's own, and the role host_baseline's.
    *("fs.inotify.max_user_instances", "fs.inotify.max_user_watches"),
    # The kubelet's.
    *("kernel.keys.root_maxbytes", "kernel.keys.root_maxkeys", "kernel.panic", "kernel.panic_on_oops"),
    *("vm.overcommit_memory", "vm.panic_on_oom"),
)


@contextmanager
def shared() -> Iterator[None]:
    """Let one lab of this machine at a time choose a network, or come first, or go last."""
    descriptor = os.open(LOCKED_FOLDER, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def values() -> dict[str, str]:
    """The settings' values now, by name; without those that this kernel does not have."""
    files = {name: PROC / name.replace(".", "/") for name in SETTINGS}
    return {name: file.read_text().strip() for name, file in files.items() if file.exists()}


def note() -> None:
    """Keep the values as they are now, unless a lab that came up since the boot has done so."""
    noted = _volumes()
    if _volume() not in noted:
        labels = [f"{LABEL}=1", *(f"{LABEL}.{name}={value}" for name, value in values().items())]
        run(["podman", "volume", "create", *(f"--label={label}" for label in labels), _volume()])
    _forget([name for name in noted if name != _volume()])


def restore() -> None:
    """Put the noted values back, and forget them."""
    noted = _volumes()
    if _volume() in noted:
        labels = json.loads(run(["podman", "volume", "inspect", "--format", "{{json .Labels}}", _volume()]))
        prefix = f"{LABEL}."
        _write({name.removeprefix(prefix): value for name, value in labels.items() if name.startswith(prefix)})
    _forget(noted)


def _write(wanted: dict[str, str]) -> None:
    now = values()
    for name, value in wanted.items():
        if name in now and now[name] != value:
            try:
                (PROC / name.replace(".", "/")).write_text(value)
            except OSError as error:
                say(f"  the kernel's {name} stays {now[name]}, it was {value}: {error.strerror}")


def _volume() -> str:
    return VOLUME + (PROC / BOOT_ID).read_text().strip()


def _volumes() -> list[str]:
    return run(["podman", "volume", "ls", "--filter", f"label={LABEL}", "--format", "{{.Name}}"]).split()


def _forget(names: list[str]) -> None:
    if names:
        run(["podman", "volume", "rm", *names])
