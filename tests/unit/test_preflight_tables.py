"""Rows of the tables that preflight must refuse, and those it must take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tradewatch_preflight import tables

SERVICE = {
    "name": "reader",
    "namespace": "crypto-research",
    "run": "reader",
    "node_role": "collectors",
    "port": 8080,
    "ports": [{"name": "feed", "port": 8081}],
    "resources": {"requests": {"cpu": "25m", "memory": "96Mi"}, "limits": {"memory": "192Mi"}},
}
BINARY = {
    "name": "k3s",
    "kind": "binary",
    "version": "v1",
    "file": "k3s",
    "mode": "0755",
    "dest": "/usr/local/bin/k3s",
    "node_roles": ["all"],
}
IMAGES = {**BINARY, "name": "images", "kind": "images", "same_source_as": "k3s"}
PEERS: list[dict[str, Any]] = [
    {"service": "valkey", "namespace": "crypto-collectors", "ports": [6379, 9121]},
    {"service": "anything", "namespace": "crypto-research"},
]
QUANTITY_FIX = "write a quantity such as 500m, 4Gi or 50"


def services(*rows: Mapping[str, Any]) -> list[str]:
    """What is said of a table of these services."""
    found = tables.check_services(
        {"tradewatch_services": list(rows)}, [{"name": "crypto-research"}], PEERS, tables.Mountable([], []), {}
    )
    return [problem.line for problem in found]


def without(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


@pytest.mark.parametrize("quantity", ["500m", "0.5", 1, 0.25, "96Mi", "1e3", "1Ei", "12E", "100n", ".5"])
def test_quantities_of_kubernetes_are_taken(quantity: Any) -> None:
    assert services({**SERVICE, "resources": {"limits": {"cpu": quantity}}}) == []


@pytest.mark.parametrize("quantity", ["4 cores", "96MB", "1K", "", "-1", None, True, ["1"], "1.2.3"])
@pytest.mark.parametrize("part", ["requests", "limits"])
def test_others_are_refused(part: str, quantity: Any) -> None:
    [line] = services({**SERVICE, "resources": {part: {"cpu": quantity}}})
    assert line == f"service reader: resources.{part}.cpu is {quantity!r}; {QUANTITY_FIX}"


def test_a_quantity_is_not_negative() -> None:
    [line] = services({**SERVICE, "resources": {"limits": {"cpu": -1}}})
    assert line == "service reader: resources.limits.cpu is -1; write a number not below 0"


@pytest.mark.parametrize(
    ("service", "namespace", "port", "said"),
    [
        ("valkey", "crypto-collectors", 6379, None),
        ("valkey", "crypto-collectors", 6380, "valkey in crypto-collectors has no port 6380; use one of 6379, 9121"),
        ("reader", "crypto-research", 8081, None),
        ("reader", "crypto-research", 8082, "reader in crypto-research has no port 8082; use one of 8080, 8081"),
        ("anything", "crypto-research", 1, None),
        ("misshapen", "crypto-research", 1, None),
    ],
)
def test_a_peer_has_the_port(service: str, namespace: str, port: int, said: str | None) -> None:
    client = {
        **SERVICE,
        "name": "client",
        "connects_to": [{"service": service, "namespace": namespace, "port": port}],
    }
    misshapen = {"name": "misshapen", "namespace": "crypto-research"}
    found = [line for line in services(SERVICE, client, misshapen) if line.startswith("service client")]
    assert found == ([f"service client connects_to: {said}"] if said else [])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([BINARY, IMAGES], []),
        ([without(BINARY, "mode", "dest") | {"node_roles": []}], []),
        (
            [without(BINARY, "mode", "dest")],
            ["artifact k3s: is a binary without mode; add it", "artifact k3s: is a binary without dest; add it"],
        ),
        ([BINARY, {**IMAGES, "same_source_as": "k3z"}], ["artifact images: unknown artifact k3z; did you mean k3s?"]),
        (
            [{**BINARY, "node_roles": ["colectors"]}],
            ["artifact k3s: unknown node role colectors; did you mean collectors?"],
        ),
    ],
)
def test_artifacts(rows: list[dict[str, Any]], said: list[str]) -> None:
    assert [problem.line for problem in tables.check_artifacts(rows)[1]] == said
