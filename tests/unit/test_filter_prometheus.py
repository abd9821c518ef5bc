"""Exporters outside the cluster: targets with their labels, egress to them alone, and wrong entries named."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.filter.prometheus import (
    tradewatch_external_egress,
    tradewatch_external_targets,
    tradewatch_job_limits,
)

ROUTER: dict[str, Any] = {"name": "router", "targets": ["192.0.2.10:9100", "[2001:db8::1]:9100"]}
NAMED: dict[str, Any] = {
    "name": "store",
    "targets": ["store.example:443"],
    "labels": {"site": "main", "rack": 7},
    "scheme": "https",
    "path": "/probe",
    "cidrs": ["198.51.100.0/24"],
}


def test_targets_have_their_labels() -> None:
    assert tradewatch_external_targets([ROUTER, NAMED]) == [
        {
            "targets": ["192.0.2.10:9100", "[2001:db8::1]:9100"],
            "labels": {"service": "router", "__scheme__": "http", "__metrics_path__": "/metrics"},
        },
        {
            "targets": ["store.example:443"],
            "labels": {
                "site": "main",
                "rack": "7",
                "service": "store",
                "__scheme__": "https",
                "__metrics_path__": "/probe",
            },
        },
    ]


def test_egress_is_to_them_alone() -> None:
    rules = tradewatch_external_egress([ROUTER, NAMED])
    assert [([peer["ipBlock"]["cidr"] for peer in rule["to"]], rule["ports"][0]["port"]) for rule in rules] == [
        (["192.0.2.10/32"], 9100),
        (["2001:db8::1/128"], 9100),
        (["198.51.100.0/24"], 443),
    ]


def test_nothing_outside_is_nothing_allowed() -> None:
    assert tradewatch_external_targets([]) == tradewatch_external_egress([]) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([ROUTER, ROUTER], "the name router is there 2 times"),
        ([{"targets": ["192.0.2.1:1"]}], "an entry without a name: name and targets are required"),
        ([{"name": "x", "targets": []}], "x: name and targets are required"),
        ([{"name": "x", "targets": "192.0.2.1:1"}], "x: name and targets are required"),
        ([{**ROUTER, "target": "y"}], "router: unknown key target"),
        ([{"name": "x", "targets": ["192.0.2.1"]}], "x: '192.0.2.1' is not ADDRESS:PORT"),
        ([{"name": "x", "targets": ["192.0.2.1:70000"]}], "x: '192.0.2.1:70000' is not ADDRESS:PORT"),
        ([{"name": "x", "targets": ["http://192.0.2.1:1/metrics"]}], "is not ADDRESS:PORT"),
        ([{"name": "x", "targets": ["db.example:1"]}], "x: db.example:1 is a name, and there are no cidrs"),
        ([{**ROUTER, "scheme": "ftp"}], "router: scheme 'ftp' is neither http nor https"),
        ([{**ROUTER, "path": "metrics"}], "router: path 'metrics' does not begin with /"),
        ([{**ROUTER, "labels": {"a-b": 1}}], "router: 'a-b' cannot be a label of its own"),
        ([{**ROUTER, "labels": {"job": "etcd"}}], "router: 'job' cannot be a label of its own"),
        ([{**NAMED, "cidrs": ["198.51.100.7/24"]}], "store: '198.51.100.7/24' is not a network such as 192.0.2.0/24"),
    ],
)
def test_wrong_entries_are_named(entries: list[dict[str, Any]], said: str) -> None:
    for apply in (tradewatch_external_targets, tradewatch_external_egress):
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            apply(entries)
        assert said in str(raised.value)


def test_limits_of_jobs_that_there_are_not_are_named() -> None:
    assert tradewatch_job_limits({"loki": {"sample_limit": 7}}, ["loki", "etcd"]) == {"loki": {"sample_limit": 7}}
    with pytest.raises(ValueError, match=r"^prometheus_job_limits: there is no job etc, lokki$"):
        tradewatch_job_limits({"lokki": {}, "etc": {}}, ["loki", "etcd"])
