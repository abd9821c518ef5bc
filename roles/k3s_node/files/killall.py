#!/usr/bin/env python3
"""End what k3s left running and remove its traces from the kernel and from CNI's state, where its unit is stopped.

Prints a line for each thing removed, so that a second run prints nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

MOUNTS = ("/run/k3s", "/var/lib/kubelet/", "/run/netns/cni-")
PROC_MOUNTS = Path("/proc/self/mounts")
INTERFACES = re.compile(r"^(cni0|flannel.*|flannel-v6.*|kube-bridge|kube-dummy-if|kube-ipvs0|tun-.*|veth[0-9a-f]{8,})$")
CHAIN = re.compile(r"^:(?:KUBE|CNI|FLANNEL)-", re.MULTILINE)
RULE = re.compile(r"KUBE-|CNI-|FLANNEL|cni0|flanneld|kube-router|K3S")
# kube-router's own routing table, and the number that marks its routes.
ROUTE_TABLE = "77"
ROUTE_PROTOCOL = "17"
ROUTE_TABLE_NAMES = Path("/etc/iproute2/rt_tables")
# CNI's plugins keep what they gave to whom in folders that they share with other container engines. The name is that of
# k3s's network, and the network's own files tell which containers were on it.
CNI_STATE = Path("/var/lib/cni")
CNI_NETWORK = "cbr0"
# Where k3s unpacks the programs that it brings.
DATA = Path("/var/lib/rancher/k3s/data")
END_TIMEOUT_SECONDS = 10.0


def with_k3s_programs() -> None:
    """Find k3s's own iptables and ipset too: a bare Debian 12 has none."""
    folders = sorted(str(path) for path in DATA.glob("*/bin"))
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *folders, *(f"{folder}/aux" for folder in folders)])


def run(*command: str, stdin: str | None = None) -> str:
    """The command's output; empty when it fails or does not exist."""
    if shutil.which(command[0]) is None:
        return ""
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else ""


def shims() -> list[int]:
    """The process ids of k3s's containerd shims and of every process below them."""
    parents: dict[int, int] = {}
    roots = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        pid = int(entry.name)
        parents[pid] = int(stat.rsplit(")", 1)[1].split()[1])
        # The socket that k3s gives its containerd tells its shims from another containerd's.
        if b"containerd-shim" in command[0] and any(b"/run/k3s/" in word for word in command):
            roots.append(pid)
    found = list(roots)
    for parent in found:
        found += [pid for pid, its_parent in parents.items() if its_parent == parent and pid not in found]
    return found


def end(pids: list[int]) -> None:
    """Kill the processes and wait until they are gone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        print(f"removed process {pid}")
    deadline = time.monotonic() + END_TIMEOUT_SECONDS
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)


def mounts() -> list[str]:
    """What is mounted below k3s's folders, the deepest first, but not a mount of the folder itself.

    A point is there as often as something is mounted on it.
    """
    points = [line.split()[1] for line in PROC_MOUNTS.read_text().splitlines()]
    return sorted((p for p in points if p.startswith(MOUNTS)), key=len, reverse=True)


def unmount() -> None:
    """Unmount it all.

    Raises:
        SystemExit: something stays mounted. What is removed next would be removed from the volume.
    """
    found = mounts()
    said = {}
    for point in found:
        done = subprocess.run(["umount", "--lazy", point], capture_output=True, text=True, check=False)
        said[point] = done.stderr.strip() or f"umount ended with {done.returncode}"
    left = mounts()
    for point in dict.fromkeys(found):
        if point not in left:
            print(f"removed mount {point}")
    if left:
        reasons = [
            f"{point} is still mounted: {said.get(point, 'it was mounted meanwhile')}" for point in dict.fromkeys(left)
        ]
        raise SystemExit("\n".join(reasons))


def remove_network() -> None:
    """Remove the pod network's interfaces, namespaces, firewall chains, rules and sets."""
    for line in run("ip", "-brief", "link").splitlines():
        name = line.split()[0].split("@")[0]
        if INTERFACES.match(name):
            run("ip", "link", "delete", name)
            print(f"removed interface {name}")
    remove_routes()
    for line in run("ip", "netns", "list").splitlines():
        if line.startswith("cni-"):
            run("ip", "netns", "delete", line.split()[0])
            print(f"removed network namespace {line.split()[0]}")
    for family in ("iptables", "ip6tables"):
        rules = run(f"{family}-save")
        if CHAIN.search(rules) or RULE.search(rules):
            kept = [line for line in rules.splitlines() if not CHAIN.match(line) and not RULE.search(line)]
            run(f"{family}-restore", stdin="\n".join(kept) + "\n")
            print(f"removed {family} rules")
    for name in run("ipset", "list", "-name").split():
        if name.startswith(("KUBE-", "kube-router-", "inet6:KUBE-", "inet6:kube-router-")):
            run("ipset", "destroy", name)
            print(f"removed ipset {name}")


def remove_routes() -> None:
    """Remove the pod network's routes, its routing rule, and the name of its table."""
    for what in (("proto", ROUTE_PROTOCOL), ("table", ROUTE_TABLE)):
        if run("ip", "route", "show", *what):
            run("ip", "route", "flush", *what)
            print(f"removed routes of {what[0]} {what[1]}")
    while any(re.search(rf"lookup ({ROUTE_TABLE}|kube-router)\b", line) for line in run("ip", "rule").splitlines()):
        if subprocess.run(["ip", "rule", "delete", "table", ROUTE_TABLE], capture_output=True, check=False).returncode:
            break
        print("removed the routing rule of kube-router")
    if ROUTE_TABLE_NAMES.exists():
        lines = ROUTE_TABLE_NAMES.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.split() != [ROUTE_TABLE, "kube-router"]]
        if kept != lines:
            ROUTE_TABLE_NAMES.write_text("".join(kept))
            print(f"removed kube-router from {ROUTE_TABLE_NAMES}")


def remove_cni_state() -> None:
    """Remove what CNI's plugins noted about the containers of k3s's network."""
    addresses = CNI_STATE / "networks" / CNI_NETWORK
    results = CNI_STATE / "results"
    # A result is named network-container-interface; an address holds the container and the interface in two lines.
    containers = {file.name.split("-")[1] for file in results.glob(f"{CNI_NETWORK}-*")}
    containers |= {file.read_text().split()[0] for file in addresses.glob("*.*.*.*")}
    containers |= {file.read_text().split()[0] for file in addresses.glob("*:*")}
    found = [file for name in containers for file in results.glob(f"*-{name}-*")]
    found += [file for name in containers if (file := CNI_STATE / "flannel" / name).exists()]
    for file in found:
        file.unlink()
        print(f"removed {file}")
    if addresses.is_dir():
        shutil.rmtree(addresses)
        print(f"removed {addresses}")


if __name__ == "__main__":
    with_k3s_programs()
    end(shims())
    unmount()
    remove_network()
    remove_cni_state()
