"""The cluster's networks against each other and against what the hosts reach."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .problem import Problem

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The smallest of each, as a prefix length, and why.
_CLUSTER_VARIABLES = {
    "cluster_cidr": (22, "every node takes a /24 of it"),
    "service_cidr": (24, "every Service takes an address of it"),
}
# Interfaces that Kubernetes' own networking makes: what they reach is the cluster itself.
_CLUSTER_INTERFACES = re.compile(r"cni0|(flannel|kube-|veth|tunl|tun-).*")
_LIKE = "write it like 10.42.0.0/16"


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
    networks = {
        name: network
        for name in _CLUSTER_VARIABLES
        if variables.get(name) is not None and (network := _cluster_network(name, variables[name], problems))
    }
    admins = variables.get("admin_cidrs") or []
    if not isinstance(admins, Sequence) or isinstance(admins, str):
        fix = "write a list of networks: [192.0.2.0/24]"
        problems.append(Problem("variable admin_cidrs", f"{admins!r} is not a list", fix))
        admins = []
    for entry in admins:
        _parse("admin_cidrs", entry, problems)
    pods, services = (networks.get(name) for name in _CLUSTER_VARIABLES)
    if pods and services and pods.overlaps(services):
        fix = "choose networks that share no address"
        problems.append(Problem("variable cluster_cidr", f"{pods} overlaps service_cidr {services}", fix))
    peers = {address for address in addresses.values() if address}
    for name, network in networks.items():
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


def _parse(name: str, text: object, problems: list[Problem]) -> Network | None:
    try:
        return parse(text)
    except ValueError as error:
        problems.append(Problem(f"variable {name}", f"{text!r} is not a network ({error})", _LIKE))
        return None


def _cluster_network(name: str, text: object, problems: list[Problem]) -> Network | None:
    """One of the cluster's own: k3s takes it as it is, and the nodes have IPv4 addresses only."""
    if isinstance(text, str) and "," in text:
        problems.append(Problem(f"variable {name}", f"{text!r} is more than one network", _LIKE))
        return None
    network = _parse(name, text, problems)
    if not network:
        return None
    longest, why = _CLUSTER_VARIABLES[name]
    if network.version != 4:
        what = f"{network} is no IPv4 network, as the nodes' addresses are IPv4"
        problems.append(Problem(f"variable {name}", what, _LIKE))
        return None
    if network.prefixlen > longest:
        what = f"{network} is too small, as {why}"
        problems.append(Problem(f"variable {name}", what, f"choose a /{longest} or larger"))
    return network


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
        problems.append(Problem(f"variable {name}", what, "choose a network that no host reaches"))
    return problems


def _first_overlap(network: Network, routes: Iterable[Mapping[str, str]], peers: Iterable[str]) -> str:
    for route in routes:
        # Routes to other nodes' pods go through those nodes.
        if _CLUSTER_INTERFACES.fullmatch(route["dev"]) or route["via"] in peers:
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
