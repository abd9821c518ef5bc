"""Groups, names, addresses and networks that preflight must refuse, and those it must take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tradewatch_preflight import inventory, network, yaml_files

ROLES = ("control_plane", "collectors", "trading", "analytics")
NAME_FIX = "use lowercase letters, digits, and - and . between them, at most 63 in all"


def check(name: str, address: str | None, groups: Mapping[str, list[str]] = {}, why: str = "") -> list[str]:
    """What is said of an inventory with this host in the group trading, and with these groups in place of its own.

    ``why`` is why the host's address cannot be evaluated.
    """
    hosts = {role: role.replace("_", "-") for role in ROLES} | {"trading": name}
    addresses: dict[str, str | None] = {host: f"192.0.2.{number}" for number, host in enumerate(hosts.values(), 1)}
    addresses[name] = address
    given = {role: [host] for role, host in hosts.items()}
    given |= {"k3s_server": [hosts["control_plane"]], "k3s_agent": [hosts[role] for role in ROLES[1:]]}
    return [
        problem.line for problem in inventory.check({**given, **groups}, addresses, {name: why} if why else {}, set())
    ]


def test_a_host_in_no_role_group_is_refused() -> None:
    said = [
        "group trading: has no host; add at least one host to it in the inventory",
        "host db-1: is in no role group; put it into one of control_plane, collectors, trading, analytics",
    ]
    groups = {"trading": [], "k3s_agent": ["collectors", "analytics"]}
    assert check("db-1", "192.0.2.9", groups) == said
    # A group of the user's own may hold it.
    assert check("db-1", "192.0.2.9", {**groups, "databases": ["db-1"]}) == [
        "group databases: unknown group (hosts db-1); use one of analytics, collectors, control_plane, trading",
        said[0],
    ]


@pytest.mark.parametrize(
    ("part", "hosts", "differs", "roles"),
    [
        ("k3s_server", [], "control-plane", "control_plane"),
        ("k3s_server", ["control-plane", "trading"], "trading", "control_plane"),
        ("k3s_agent", ["collectors"], "analytics and trading", "analytics, collectors and trading"),
    ],
)
def test_a_part_that_is_not_its_role_groups_is_refused(part: str, hosts: list[str], differs: str, roles: str) -> None:
    what = f"does not hold exactly the hosts of {roles} (it differs by {differs})"
    fix = "make those groups its children and give it no host of its own"
    assert check("trading", "192.0.2.9", {part: hosts}) == [f"group {part}: {what}; {fix}"]


def test_a_host_without_an_address_is_refused() -> None:
    no_address = "host trading: has no ansible_host; set it to the host's address"
    assert check("trading", None) == [no_address]
    assert check("trading", None, why="'x' is undefined") == [
        "host trading: its ansible_host cannot be evaluated ('x' is undefined); correct the expression"
    ]


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
    assert check(name, "192.0.2.9") == [f"host {name}: is not a valid Kubernetes node name; {NAME_FIX}"]


@pytest.mark.parametrize("value", ["10.0.0.0/8", 5, {"cidr": "10.0.0.0/8"}])
def test_admin_cidrs_that_are_no_list_are_one_line(value: Any) -> None:
    [line] = [str(problem) for problem in network.check({"admin_cidrs": value}, {}, {})]
    assert "admin_cidrs" in line
    assert "is not a list" in line


def check_networks(routes: str = "", **variables: str) -> list[str]:
    """What is said of the cluster's networks, where one host has these routes."""
    given = {"cluster_cidr": "10.42.0.0/16", "service_cidr": "10.43.0.0/16", **variables}
    addresses = {"trading-1": "192.0.2.13", "trading-2": "192.0.2.14"}
    found = network.check(given, addresses, {"trading-1": network.parse_routes(routes)})
    return [problem.line for problem in found]


LIKE = "write it like 10.42.0.0/16"
REACHED = "choose a network that no host reaches"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cluster_cidr", "fd42::/56", f"fd42::/56 is no IPv4 network, as the nodes' addresses are IPv4; {LIKE}"),
        ("service_cidr", "fd43::/112", f"fd43::/112 is no IPv4 network, as the nodes' addresses are IPv4; {LIKE}"),
        ("cluster_cidr", "10.42.0.0/16,fd42::/56", f"'10.42.0.0/16,fd42::/56' is more than one network; {LIKE}"),
        ("cluster_cidr", "10.42.0.0", f"'10.42.0.0' is not a network (it has no prefix length); {LIKE}"),
        (
            "cluster_cidr",
            "10.42.0.0/23",
            "10.42.0.0/23 is too small, as every node takes a /24 of it; choose a /22 or larger",
        ),
        (
            "service_cidr",
            "10.43.0.0/25",
            "10.43.0.0/25 is too small, as every Service takes an address of it; choose a /24 or larger",
        ),
        ("service_cidr", "192.0.2.0/24", f"192.0.2.0/24 holds the address 192.0.2.13 of host trading-1; {REACHED}"),
    ],
)
def test_networks_that_k3s_could_not_take_are_refused(name: str, value: str, said: str) -> None:
    assert f"variable {name}: {said}" in check_networks(**{name: value})
    assert not [line for line in check_networks(**{name: value}) if not line.startswith(f"variable {name}: ")]


def test_the_smallest_networks_that_do_are_taken() -> None:
    assert check_networks(cluster_cidr="10.42.0.0/22", service_cidr="10.43.0.0/24") == []


@pytest.mark.parametrize("interface", ["cni0", "flannel.1", "kube-bridge", "tun-9f3"])
def test_the_clusters_own_routes_are_no_overlap(interface: str) -> None:
    assert check_networks(f"10.42.0.0/24 dev {interface} proto kernel scope link") == []
    assert check_networks("10.42.1.0/24 via 192.0.2.14 dev eth0") == []


@pytest.mark.parametrize("name", ["cluster_cidr", "service_cidr"])
def test_a_bridge_of_something_else_is_one(name: str) -> None:
    said = f"10.88.0.0/16 overlaps the network 10.88.0.0/16 (cni-podman0) of host trading-1; {REACHED}"
    route = "10.88.0.0/16 dev cni-podman0 proto kernel scope link src 10.88.0.1"
    assert check_networks(route, **{name: "10.88.0.0/16"}) == [f"variable {name}: {said}"]


def test_a_vars_file_of_no_host_is_refused(tmp_path: Path) -> None:
    files = {"host_vars": ("trading-1.yml", "tradng-1.yml"), "group_vars": ("trading.yml", "tradng.yml")}
    for folder, names in files.items():
        (tmp_path / folder).mkdir()
        for name in (*names, ".swp", "README"):
            (tmp_path / folder / name).touch()
    (tmp_path / "host_vars" / "collectors-1").mkdir()
    found = yaml_files.unknown_vars_files([str(tmp_path)], str(tmp_path), {"trading"}, {"trading-1"})
    assert [problem.line for problem in found] == [
        "group_vars/tradng.yml: there is no group tradng; did you mean trading?",
        "host_vars/collectors-1: there is no host collectors-1; use one of trading-1",
        "host_vars/tradng-1.yml: there is no host tradng-1; did you mean trading-1?",
    ]
