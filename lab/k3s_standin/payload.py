"""The programs that this executable carries: unpacked once per content, below ``data/<sha256>/bin`` as k3s does."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lab.k3s_standin import paths

COMPONENTS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "kubeadm",
)


@dataclass(frozen=True)
class About:
    """The versions inside, and the key of the content."""

    version: str
    go_version: str
    data: str
    binaries: tuple[str, ...]


@functools.cache
def about() -> About:
    """What ``build.py`` wrote about the payload."""
    with zipfile.ZipFile(sys.argv[0]) as archive:
        answer = json.loads(archive.read("payload/about.json"))
    return About(answer["version"], answer["go_version"], answer["data"], tuple(answer["binaries"]))


@functools.cache
def folder() -> Path:
    """The folder of the programs, unpacking them on first use."""
    target = paths.DATA / "data" / about().data / "bin"
    if not target.exists():
        parent = target.parent.parent
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".unpack-", dir=parent))
        partial.chmod(0o755)
        (partial / "bin").mkdir()
        _unpack(partial / "bin")
        try:
            os.rename(partial, target.parent)
        except OSError:
            # Another k3s command unpacked the same content at the same moment.
            shutil.rmtree(partial)
        current = parent / "current"
        link = parent / f".current-{os.getpid()}"
        link.symlink_to(target.parent.name)
        link.rename(current)
    return target


def program(name: str) -> str:
    """The path of one program."""
    return str(folder() / name)


def _unpack(target: Path) -> None:
    with zipfile.ZipFile(sys.argv[0]) as archive:
        for name in about().binaries:
            with archive.open(f"payload/{name}") as source, (target / name).open("wb") as destination:
                shutil.copyfileobj(source, destination, 1 << 20)
            (target / name).chmod(0o755)
    for name in COMPONENTS:
        (target / name).symlink_to("hyperkube")
