"""Addresses and networks that preflight must refuse, and those it must take."""

from __future__ import annotations

from typing import Any

import pytest
from tradewatch_preflight import inventory, network

ROLES = ("control_plane", "collectors", "trading", "analytics")


def check_address(address: str) -> list[str]:
    addresses = {role: f"192.0.2.{number}" for number, role in enumerate(ROLES, 1)}
    addresses["trading"] = address
    groups = {role: [role] for role in ROLES} | {"k3s_server": ["control_plane"], "k3s_agent": [*ROLES[1:]]}
    return [str(problem) for problem in inventory.check(groups, addresses, {}, set())]


def test_an_address_is_an_ip_address() -> None:
    assert check_address("192.0.2.9") == []
    assert check_address("2001:db8::9") == []
    [line] = check_address("db1.example.com")
    assert "trading" in line
    assert "'db1.example.com' is no IP address" in line


@pytest.mark.parametrize("value", ["10.0.0.0/8", 5, {"cidr": "10.0.0.0/8"}])
def test_admin_cidrs_that_are_no_list_are_one_line(value: Any) -> None:
    [line] = [str(problem) for problem in network.check({"admin_cidrs": value}, {}, {})]
    assert "admin_cidrs" in line
    assert "is not a list" in line
