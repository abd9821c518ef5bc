"""Groups, hosts and their addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from .problem import Problem, did_you_mean, listed

ROLE_GROUPS = ("control_plane", "collectors", "trading", "analytics")
NODE_ROLES = frozenset(group.replace("_", "-") for group in ROLE_GROUPS)
# The host's name is its node's (RFC 1123), and the value of a label of that.
_NODE_NAME = re.compile(r"(?=.{1,63}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PARTS = {"k3s_server": {"control_plane"}, "k3s_agent": {"collectors", "trading", "analytics"}}
_KNOWN = {"all", "ungrouped", "k3s_cluster", *_PARTS, *ROLE_GROUPS}


def check(
    groups: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str | None],
    address_failures: Mapping[str, str],
    extra_groups: Iterable[str],
) -> list[Problem]:
    """Problems of groups and addresses.

    Args:
        groups: group to its hosts, those of its children included, as Ansible's ``groups``.
        addresses: host to ``ansible_host``, None where it is not set.
        address_failures: hosts whose ``ansible_host`` cannot be evaluated, and why.
        extra_groups: further groups that are meant to be there.
    """
    return [
        *_unknown_groups(groups, {*_KNOWN, *extra_groups}),
        *_empty_groups(groups),
        *_memberships(groups, addresses),
        *_parts(groups),
        *_names(addresses),
        *_addresses(addresses, address_failures),
    ]


def known_groups(groups: Iterable[str]) -> set[str]:
    """The groups that a file in group_vars may be named for."""
    return {*_KNOWN, *groups}


def _unknown_groups(groups: Mapping[str, Sequence[str]], known: set[str]) -> list[Problem]:
    problems = []
    for group in sorted(set(groups) - known):
        hosts = f" (hosts {listed(groups[group])})" if groups[group] else ""
        problems.append(Problem(f"group {group}", f"unknown group{hosts}", did_you_mean(group, ROLE_GROUPS)))
    return problems


def _empty_groups(groups: Mapping[str, Sequence[str]]) -> list[Problem]:
    return [
        Problem(f"group {group}", "has no host", "add at least one host to it in the inventory")
        for group in ROLE_GROUPS
        if not groups.get(group)
    ]


def _memberships(groups: Mapping[str, Sequence[str]], addresses: Mapping[str, str | None]) -> list[Problem]:
    problems = []
    placed_elsewhere = {host for group, hosts in groups.items() if group not in _KNOWN for host in hosts}
    for host in sorted(addresses):
        roles = [group for group in ROLE_GROUPS if host in groups.get(group, ())]
        if len(roles) > 1:
            what = f"is in {len(roles)} role groups, {listed(roles)}"
            problems.append(Problem(f"host {host}", what, "leave it in one of them"))
        if not roles and host not in placed_elsewhere:
            fix = f"put it into one of {', '.join(ROLE_GROUPS)}"
            problems.append(Problem(f"host {host}", "is in no role group", fix))
    return problems


def _parts(groups: Mapping[str, Sequence[str]]) -> list[Problem]:
    problems = []
    for part, roles in _PARTS.items():
        expected = {host for role in roles for host in groups.get(role, ())}
        wrong = expected ^ set(groups.get(part, ()))
        if wrong:
            what = f"does not hold exactly the hosts of {listed(roles)} (it differs by {listed(wrong)})"
            problems.append(
                Problem(f"group {part}", what, "make those groups its children and give it no host of its own")
            )
    return problems


def _names(hosts: Iterable[str]) -> list[Problem]:
    fix = "use lowercase letters, digits, and - and . between them, at most 63 in all"
    return [
        Problem(f"host {host}", "is not a valid Kubernetes node name", fix)
        for host in sorted(hosts)
        if not _NODE_NAME.fullmatch(host)
    ]


def _addresses(addresses: Mapping[str, str | None], failures: Mapping[str, str]) -> list[Problem]:
    problems = [
        Problem(f"host {host}", f"its ansible_host cannot be evaluated ({why})", "correct the expression")
        for host, why in sorted(failures.items())
    ]
    by_address: dict[str, list[str]] = {}
    for host, address in sorted(addresses.items()):
        if address:
            by_address.setdefault(address, []).append(host)
        elif host not in failures:
            problems.append(Problem(f"host {host}", "has no ansible_host", "set it to the host's address"))
    for address, hosts in sorted(by_address.items()):
        if not _is_ipv4_address(address):
            # k3s's node-ip, URLs and the network policies take it as it is.
            fix = "write the host's IPv4 address"
            problems += [
                Problem(f"host {host}", f"its ansible_host {address!r} is no IPv4 address", fix) for host in hosts
            ]
        if len(hosts) > 1:
            fix = "give each its own ansible_host"
            problems.append(Problem(f"hosts {listed(hosts)}", f"have the same address {address}", fix))
    return problems


def _is_ipv4_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
