"""Names, addresses and networks that preflight must refuse, and those it must take."""

from __future__ import annotations

from typing import Any

import pytest
from tradewatch_preflight import inventory, network

ROLES = ("control_plane", "collectors", "trading", "analytics")
NAME_FIX = "use lower case letters, digits, and - and . between them, at most 63 in all"


def check(name: str, address: str) -> list[str]:
    """What is said of an inventory whose host of the group trading is this one."""
    hosts = {role: role.replace("_", "-") for role in ROLES} | {"trading": name}
    addresses = {host: f"192.0.2.{number}" for number, host in enumerate(hosts.values(), 1)} | {name: address}
    groups = {role: [host] for role, host in hosts.items()}
    groups |= {"k3s_server": [hosts["control_plane"]], "k3s_agent": [hosts[role] for role in ROLES[1:]]}
    return [problem.line for problem in inventory.check(groups, addresses, {}, set())]


@pytest.mark.parametrize("address", ["db1.example.com", "2001:db8::9", "192.0.2.9/24", "192.0.2.900"])
def test_what_is_no_ipv4_address_is_refused(address: str) -> None:
    assert check("trading", "192.0.2.9") == []
    [line] = check("trading", address)
    assert line == f"host trading: its ansible_host {address!r} is no IPv4 address; write the host's IPv4 address"


@pytest.mark.parametrize("name", ["a", "0", "db-1.example.com", "x" * 63])
def test_a_host_is_named_as_a_node_can_be(name: str) -> None:
    assert check(name, "192.0.2.9") == []


@pytest.mark.parametrize("name", ["trading_1", "Trading-1", "trading-", "-trading", "a..b", "x" * 64])
def test_a_name_that_no_node_can_have_is_refused(name: str) -> None:
    assert check(name, "192.0.2.9") == [f"host {name}: is no name of a Kubernetes node; {NAME_FIX}"]


@pytest.mark.parametrize("value", ["10.0.0.0/8", 5, {"cidr": "10.0.0.0/8"}])
def test_admin_cidrs_that_are_no_list_are_one_line(value: Any) -> None:
    [line] = [str(problem) for problem in network.check({"admin_cidrs": value}, {}, {})]
    assert "admin_cidrs" in line
    assert "is not a list" in line
