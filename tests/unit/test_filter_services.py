"""What follows from the services table: NetworkPolicy rules, and where Secrets are needed."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.filter import services


def entry(name: str, *peers: dict[str, Any], namespace: str = "crypto-collectors") -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "connects_to": list(peers)}


def peer(service: str, port: int, namespace: str = "crypto-collectors") -> dict[str, Any]:
    return {"service": service, "namespace": namespace, "port": port}


def clients(rule: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
            source["podSelector"]["matchLabels"]["app.kubernetes.io/name"],
        )
        for source in rule["from"]
    ]


def test_egress_names_one_service_and_one_port() -> None:
    (rule,) = services.tradewatch_egress(entry("collector", peer("valkey", 6379)))
    assert rule["ports"] == [{"port": 6379, "protocol": "TCP"}]
    (target,) = rule["to"]
    # Both selectors in one element: a pod of that name in that namespace, not either.
    assert target["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "valkey"}
    assert target["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "crypto-collectors"}


def test_egress_to_a_network_keeps_its_exceptions() -> None:
    (rule,) = services.tradewatch_egress(entry("c", {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"], "port": 443}))
    assert rule["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]


@pytest.mark.parametrize("quiet", [{}, {"connects_to": []}, {"connects_to": None}])
def test_an_entry_that_connects_to_nothing_has_no_rules(quiet: dict[str, Any]) -> None:
    assert services.tradewatch_egress(quiet) == []
    assert services.tradewatch_ingress([quiet], "valkey", "crypto-collectors") == []


def test_ingress_collects_the_clients_of_each_port() -> None:
    table = [
        entry("b", peer("valkey", 6379)),
        entry("a", peer("valkey", 6379), peer("valkey", 9121), namespace="crypto-trading"),
        entry("other", peer("postgresql", 5432)),
    ]
    rules = services.tradewatch_ingress(table, "valkey", "crypto-collectors")
    assert [(rule["ports"][0]["port"], clients(rule)) for rule in rules] == [
        (6379, [("crypto-collectors", "b"), ("crypto-trading", "a")]),
        (9121, [("crypto-trading", "a")]),
    ]


def test_ingress_of_the_same_name_in_another_namespace_is_another_service() -> None:
    table = [entry("a", peer("valkey", 6379, namespace="crypto-trading"))]
    assert services.tradewatch_ingress(table, "valkey", "crypto-collectors") == []


def test_ingress_does_not_depend_on_the_order_of_the_table() -> None:
    table = [entry(name, peer("valkey", 6379)) for name in "cab"]
    forwards = services.tradewatch_ingress(table, "valkey", "crypto-collectors")
    assert forwards == services.tradewatch_ingress(table[::-1], "valkey", "crypto-collectors")


def test_a_secret_is_needed_where_entries_read_it() -> None:
    def reader(namespace: str, *names: str) -> dict[str, Any]:
        secrets = [{"name": name.upper(), "secret": name, "key": "password"} for name in names]
        return {**entry("reader", namespace=namespace), "secrets": secrets}

    table = [
        reader("crypto-trading", "postgresql", "valkey"),
        reader("crypto-trading", "valkey"),
        reader("crypto-collectors", "valkey"),
        reader("crypto-monitoring", "postgresql"),
        entry("none"),
        {**entry("empty"), "secrets": None},
    ]
    assert services.tradewatch_secret_namespaces(table, "valkey") == ["crypto-collectors", "crypto-trading"]
    assert services.tradewatch_secret_namespaces(table, "vault") == []


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://host:8095/v1", 8095), ("https://host/v1", 443), ("http://host", 80), ("http://[2001:db8::1]:81/", 81)],
)
def test_the_port_that_a_url_means(url: str, port: int) -> None:
    assert services.tradewatch_url_port(url) == port


@pytest.mark.parametrize("url", ["", "host:8095", "ftp://host", "http://", "http://host:99999"])
def test_what_is_no_url_has_no_port(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
        services.tradewatch_url_port(url)
