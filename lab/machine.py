"""Can this machine host the lab? One line per obstacle, before anything is changed.

Standard library only: ``make lab`` runs it with the system's Python, before there is a venv.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lab import paths, subnets

MINIMUM_MEMORY_GIB = 8.0
MINIMUM_DISK_GIB = 20.0
# For a lab that stands, what new versions of its images take; and for the building of one image.
MINIMUM_DISK_SMALL_GIB = 5.0
MINIMUM_PYTHON = (3, 11)
# Where podman keeps images and the hosts' volumes before it is there to be asked.
STORAGE = Path("/var/lib/containers/storage")
NO_SUBNET = (
    f"no free subnet among {subnets.CANDIDATES[0]} ... {subnets.CANDIDATES[-1]}: routes lead to all of them; "
    "end the VPN that has them"
)
# Debian's packages that the lab runs on the machine itself: the program, and the package that has it.
PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "netavark": "netavark",
    "aardvark-dns": "aardvark-dns",
    "iptables": "iptables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "zstd": "zstd",
    "make": "make",
    "git": "git",
}
# What `make test` needs besides: the browser that looks at dashboard-report's page (64 MB, 23 s to install).
TEST_PROGRAMS = {"chromium-headless-shell": "chromium-headless-shell"}
# Debian keeps podman's helpers outside PATH.
PROGRAM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/usr/lib/podman")


def missing_packages(programs: Mapping[str, str] = PROGRAMS) -> list[str]:
    """Debian packages that are not installed: those of ``programs``, the venv module, the CA certificates."""
    path = os.pathsep.join(PROGRAM_FOLDERS)
    missing = {package for program, package in programs.items() if shutil.which(program, path=path) is None}
    if importlib.util.find_spec("ensurepip") is None:
        missing.add("python3-venv")
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        missing.add("ca-certificates")
    return sorted(missing)


def _memory_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024**2
    return 0.0


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above that is there."""
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def _filesystem(place: Path) -> tuple[int, float]:
    """The device that a folder is on, and its free GiB."""
    return os.stat(place).st_dev, shutil.disk_usage(place).free / 1024**3


def _storage() -> list[Path]:
    """Where podman keeps images and volumes."""
    command = ["podman", "info", "--format", "{{.Store.GraphRoot}}\n{{.Store.VolumePath}}"]
    if os.geteuid() != 0 or shutil.which("podman") is None:
        return [STORAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [Path(line) for line in done.stdout.splitlines() if line] or [STORAGE]


def _subnet_free() -> bool:
    # Where it cannot be asked yet, the lab finds out when it makes its network.
    return shutil.which("ip") is None or subnets.free(subnets.routed()) is not None


def _can_unshare() -> bool:
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def obstacles(
    work: str = "lab",
    *,
    uid: int | None = None,
    memory_gib: float | None = None,
    disk_gib: float | None = None,
    storage: Callable[[], list[Path]] = _storage,
    architecture: str | None = None,
    namespaces: Callable[[], bool] = _can_unshare,
    packages: Callable[[], list[str]] = missing_packages,
    subnet_free: Callable[[], bool] = _subnet_free,
) -> list[str]:
    """What keeps this machine from hosting the lab, a line each; empty when nothing does.

    ``work`` is ``lab``, or ``image`` for the building of the services' image alone. The other arguments stand in for
    what the machine would answer (GiB for memory and disk).
    """
    found = []
    if sys.version_info < MINIMUM_PYTHON:
        found.append(f"Python {platform.python_version()} is too old; install Python 3.11 or newer")
    for path in (paths.REPOSITORY, paths.lab_dir(), paths.cache_dir()):
        if any(character.isspace() for character in str(path)):
            found.append(f"the path {str(path)!r} holds a space; Ansible's programs need one without")
    machine = architecture or platform.machine()
    if machine != "x86_64":
        found.append(f"its processor is {machine}; the artifacts are for x86_64 (amd64)")
    if (os.geteuid() if uid is None else uid) != 0:
        found.append("not root: the lab's hosts are privileged containers; run as root (sudo -E make lab)")
    elif not namespaces():
        found.append("this machine refuses new namespaces (nested containers); run on a VM or a real host")
    # A lab that stands has its memory already, and most of its disk.
    stands = os.path.exists(paths.lab_dir() / "lab.json")
    memory = _memory_gib() if memory_gib is None else memory_gib
    if memory < MINIMUM_MEMORY_GIB and not stands and work == "lab":
        found.append(f"{memory:.1f} GiB of memory available, {MINIMUM_MEMORY_GIB:.0f} GiB needed; free some")
    needed = MINIMUM_DISK_SMALL_GIB if stands or work == "image" else MINIMUM_DISK_GIB
    measured = set()
    for place in (_existing(folder) for folder in (paths.cache_dir(), *storage())):
        device, free = _filesystem(place)
        disk = free if disk_gib is None else disk_gib
        if disk < needed and device not in measured:
            found.append(f"{disk:.1f} GiB of disk free below {place}, {needed:.0f} GiB needed; free some")
        measured.add(device)
    if work == "lab" and not stands and not subnet_free():
        found.append(NO_SUBNET)
    missing = packages()
    if missing and shutil.which("apt-get") is None:
        found.append(f"not installed and no apt-get to do it: {' '.join(missing)}; install them")
    return found


def main() -> int:
    """Print the obstacles, with ``image`` those of its building alone; with ``packages``, or ``packages tests``, the
    Debian packages to install.

    Exit 1 when there is an obstacle.
    """
    if sys.argv[1:2] == ["packages"]:
        tests = TEST_PROGRAMS if sys.argv[2:] == ["tests"] else {}
        print(" ".join(missing_packages({**PROGRAMS, **tests})))
        return 0
    work = "image" if sys.argv[1:] == ["image"] else "lab"
    found = obstacles(work)
    for obstacle in found:
        print(f"{work}: this machine cannot {'host' if work == 'lab' else 'build'} it: {obstacle}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
