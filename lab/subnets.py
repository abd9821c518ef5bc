"""The networks that a lab may take. Standard library only: ``lab.machine`` asks too."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable

from lab.steps import run

# Small private ranges that home and office networks rarely use. A VPN may well route the whole of one of the blocks.
CANDIDATES = (
    *(f"10.{second}.{third}.0/24" for second in (213, 214) for third in range(250)),
    *(f"172.29.{third}.0/24" for third in range(250)),
    *(f"192.168.{third}.0/24" for third in range(213, 250)),
)


def routed() -> list[str]:
    """The networks that this machine has a route to."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    return [row["dst"] for row in routes if "/" in row.get("dst", "")]


def free(taken: Iterable[str]) -> str | None:
    """The first candidate that overlaps no network of ``taken``.

    A default route is none, nor are the two halves of everything that VPNs put over it.
    """
    networks = [network for network in map(ipaddress.ip_network, taken) if network.version == 4]
    near = [network for network in networks if network.prefixlen > 1]
    return next((text for text in CANDIDATES if not any(map(ipaddress.ip_network(text).overlaps, near))), None)
