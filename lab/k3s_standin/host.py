"""What k3s does to a host before it starts anything: addresses, kernel settings, the cgroup driver."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.k3s_standin.config import Config
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log

PROGRAMS = ("containerd", "ctr", "runc", "iptables", "mount", "setpriv", "unshare")
_MODULES = ("overlay", "br_netfilter", "nf_conntrack", "iptable_nat", "iptable_filter")
_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
}


def check() -> None:
    """Raise StandinError when a program is missing that the stand-in takes from the host."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise StandinError(
            f"this host has no {', '.join(missing)}: the stand-in needs Debian's containerd, runc, iptables"
        )


def prepare() -> None:
    """Load kernel modules and set forwarding where possible: what matters is the effect, which later steps show."""
    for module in _MODULES:
        subprocess.run(["modprobe", module], capture_output=True, check=False)
    for name, value in _SETTINGS.items():
        path = Path("/proc/sys") / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            log("warning", f"cannot set {name} to {value}: {error.strerror}")


def systemd_cgroup() -> bool:
    """Whether containers are made by systemd (cgroup v2 under systemd) or by cgroupfs; k3s decides it the same way."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists() and "INVOCATION_ID" in os.environ


def resolv_conf() -> str:
    """The resolver file for pods: systemd-resolved's real one where there is a stub."""
    real = Path("/run/systemd/resolve/resolv.conf")
    return str(real if real.exists() else Path("/etc/resolv.conf"))


def node_ip(config: Config) -> str:
    """The node's address: ``node-ip``, or the one that the host's default route uses.

    Raises:
        StandinError: there is no default route and no ``node-ip``.
    """
    if config.node_ip:
        return config.node_ip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only chooses the route (192.0.2.1 is RFC 5737's).
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            raise StandinError("node-ip: not set, and this host has no default route to take it from") from None


def serving_names(config: Config, address: str) -> list[str]:
    """Names and addresses for the API server's certificate."""
    names: Sequence[str] = (
        "127.0.0.1",
        "localhost",
        config.node_name,
        address,
        config.node_external_ip,
        config.advertise_address,
        *config.tls_sans,
    )
    return sorted({name for name in names if name})
