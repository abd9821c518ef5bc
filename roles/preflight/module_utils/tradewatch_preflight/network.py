"""The cluster's networks against each other and against what the hosts reach."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .problem import Problem

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_CLUSTER_VARIABLES = ("cluster_cidr", "service_cidr")
# Interfaces that Kubernetes' own networking makes: what they reach is the cluster itself.
_CLUSTER_INTERFACES = ("cni", "flannel", "kube-", "veth", "tunl", "tun-")


def check(
    variables: Mapping[str, Any], addresses: Mapping[str, str | None], routes: Mapping[str, Any]
) -> list[Problem]:
    """Problems of the networks in ``variables``.

    Args:
        variables: those that are set.
        addresses: host to its address.
        routes: host to its routes, as ``parse_routes`` returns them.
    """
    problems: list[Problem] = []
    networks = {name: _parse(name, variables.get(name), problems) for name in _CLUSTER_VARIABLES}
    admins = variables.get("admin_cidrs") or []
    if not isinstance(admins, Sequence) or isinstance(admins, str):
        problems.append(Problem("admin_cidrs", f"{admins!r} is not a list", "write a list of networks: [192.0.2.0/24]"))
        admins = []
    for entry in admins:
        _parse("admin_cidrs", entry, problems)
    for one, other in itertools.product(*networks.values()):
        if one.overlaps(other):
            fix = "choose networks that share no address"
            problems.append(Problem("cluster_cidr", f"{one} overlaps service_cidr {other}", fix))
    peers = {address for address in addresses.values() if address}
    for name, of_name in networks.items():
        for network in of_name:
            problems += _host_overlaps(name, network, addresses, routes, peers)
    return problems


def parse(text: object) -> Network:
    """A network.

    Raises:
        ValueError: it is none; the message says why.
    """
    if not isinstance(text, str) or "/" not in text:
        raise ValueError("it has no prefix length")
    return ipaddress.ip_network(text)


def parse_routes(text: str) -> list[dict[str, str]]:
    """Networks that a host reaches, from ``ip -o route`` lines: ``{"network", "via", "dev"}``, without the default."""
    routes = []
    for line in text.splitlines():
        words = line.split()
        # Types such as `blackhole` stand before the destination.
        start = 1 if words and words[0].isalpha() and words[0] != "default" else 0
        if len(words) <= start or words[start] == "default":
            continue
        named = dict(zip(words[start + 1 :: 2], words[start + 2 :: 2], strict=False))
        routes.append({"network": words[start], "via": named.get("via", ""), "dev": named.get("dev", "")})
    return routes


def _parse(name: str, text: object, problems: list[Problem]) -> list[Network]:
    networks = []
    for part in text.split(",") if isinstance(text, str) else [] if text is None else [text]:
        try:
            networks.append(parse(part))
        except ValueError as error:
            problems.append(Problem(name, f"{part!r} is not a network ({error})", "write it like 10.42.0.0/16"))
    return networks


def _host_overlaps(
    name: str,
    network: Network,
    addresses: Mapping[str, str | None],
    routes: Mapping[str, Sequence[Mapping[str, str]]],
    peers: Iterable[str],
) -> list[Problem]:
    problems = []
    for host, address in sorted(addresses.items()):
        reached = _first_overlap(network, routes.get(host, ()), peers)
        if address and _holds(network, address):
            what = f"{network} holds the address {address} of host {host}"
        elif reached:
            what = f"{network} overlaps the network {reached} of host {host}"
        else:
            continue
        problems.append(Problem(name, what, "choose a network that no host reaches"))
    return problems


def _first_overlap(network: Network, routes: Iterable[Mapping[str, str]], peers: Iterable[str]) -> str:
    for route in routes:
        # Routes to other nodes' pods go through those nodes.
        if route["dev"].startswith(_CLUSTER_INTERFACES) or route["via"] in peers:
            continue
        try:
            if ipaddress.ip_network(route["network"]).overlaps(network):
                return f"{route['network']} ({route['dev'] or 'no interface'})"
        except ValueError:
            continue
    return ""


def _holds(network: Network, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        # A host name: the host's own routes say what it reaches.
        return False
