"""What users add to the monitoring: what follows from it, without its secrets, and wrong entries named."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from plugins.filter.extensions import (
    tradewatch_data_source_egress,
    tradewatch_data_source_problems,
    tradewatch_data_source_secrets,
    tradewatch_data_sources,
    tradewatch_external_authorities,
    tradewatch_external_egress,
    tradewatch_external_targets,
    tradewatch_job_limits,
)
from plugins.modules import endpoint_credentials

_, _CERTIFICATE = endpoint_credentials.issue("room", None, [], 9, datetime.datetime.now(datetime.UTC))
AUTHORITY = _CERTIFICATE.public_bytes(serialization.Encoding.PEM).decode()
ROUTER: dict[str, Any] = {"name": "router", "targets": ["192.0.2.10:9100", "[2001:db8::1]:9100"]}
NAMED: dict[str, Any] = {
    "name": "store",
    "targets": ["store.example:443"],
    "labels": {"site": "main", "rack": 7},
    "scheme": "https",
    "ca": AUTHORITY,
    "path": "/probe",
    "cidrs": ["198.51.100.0/24"],
}
SITE: dict[str, Any] = {
    "name": "Other site",
    "uid": "other-site",
    "type": "prometheus",
    "url": "https://prometheus.example:9090",
    "connects_to": [{"cidr": "198.51.100.7/32", "port": 9090}],
    "basicAuth": True,
    "jsonData": {"customQueryParameters": "a=$b", "list": ["$c", 1]},
    "secrets": {"basicAuthPassword": "secret-$1"},
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


def test_egress_is_to_targets_alone() -> None:
    rules = tradewatch_external_egress([ROUTER, NAMED])
    assert [([peer["ipBlock"]["cidr"] for peer in rule["to"]], rule["ports"][0]["port"]) for rule in rules] == [
        (["192.0.2.10/32"], 9100),
        (["2001:db8::1/128"], 9100),
        (["198.51.100.0/24"], 443),
    ]


def test_each_is_verified_by_its_authority() -> None:
    assert tradewatch_external_authorities([ROUTER]) == ""
    both = [NAMED, {**NAMED, "name": "other", "ca": AUTHORITY.strip()}]
    assert tradewatch_external_authorities(both) == AUTHORITY * 2


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
        ([{**ROUTER, "scheme": "https"}], "router: https needs ca, the certificate of the authority that signed"),
        ([{**ROUTER, "ca": AUTHORITY}], "router: ca is for scheme https alone"),
        ([{**NAMED, "ca": ""}], "store: ca is not a certificate as PEM text"),
        ([{**NAMED, "ca": "/etc/ssl/ca.crt"}], "store: ca is not a certificate as PEM text"),
        ([{**NAMED, "ca": "\u00e4"}], "store: ca is not a certificate as PEM text"),
        ([{**NAMED, "ca": f"{AUTHORITY}-----BEGIN PRIVATE KEY-----"}], "store: ca holds a private key"),
        ([{**ROUTER, "path": "metrics"}], "router: path 'metrics' does not begin with /"),
        ([{**ROUTER, "labels": {"a-b": 1}}], "router: 'a-b' cannot be a label of its own"),
        ([{**ROUTER, "labels": {"job": "etcd"}}], "router: 'job' cannot be a label of its own"),
        ([{**NAMED, "cidrs": ["198.51.100.7/24"]}], "store: '198.51.100.7/24' is not a network such as 192.0.2.0/24"),
        ([{**NAMED, "cidrs": ["198.51.100.7"]}], "store: '198.51.100.7' is not a network such as 192.0.2.0/24"),
        ([{**NAMED, "cidrs": ["198.51.100.0/255.255.255.0"]}], "store: '198.51.100.0/255.255.255.0' is not a network"),
    ],
)
def test_wrong_targets_are_named(entries: list[dict[str, Any]], said: str) -> None:
    for apply in (tradewatch_external_targets, tradewatch_external_authorities, tradewatch_external_egress):
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            apply(entries)
        assert said in str(raised.value)


def test_limits_of_jobs_that_there_are_not_are_named() -> None:
    assert tradewatch_job_limits({"loki": {"sample_limit": 7}}, ["loki", "etcd"]) == {"loki": {"sample_limit": 7}}
    with pytest.raises(ValueError, match=r"^prometheus_job_limits: there is no job etc, lokki$"):
        tradewatch_job_limits({"lokki": {}, "etc": {}}, ["loki", "etcd"])


def test_provisioning_has_files_for_secrets_and_literal_dollars() -> None:
    (found,) = tradewatch_data_sources([SITE], "/secrets")
    assert found == {
        "name": "Other site",
        "uid": "other-site",
        "type": "prometheus",
        "url": "https://prometheus.example:9090",
        "access": "proxy",
        "editable": False,
        "basicAuth": True,
        "jsonData": {"customQueryParameters": "a=$$b", "list": ["$$c", 1]},
        "secureJsonData": {"basicAuthPassword": "$__file{/secrets/data-source-other-site-basicAuthPassword}"},
    }


def test_secrets_of_data_sources_are_the_files_letter_by_letter() -> None:
    assert tradewatch_data_source_secrets([SITE]) == {"data-source-other-site-basicAuthPassword": "secret-$1"}


def test_egress_of_data_sources_is_to_their_networks_alone() -> None:
    assert tradewatch_data_source_egress([SITE, {**SITE, "name": "b", "uid": "b", "connects_to": []}]) == [
        {"to": [{"ipBlock": {"cidr": "198.51.100.7/32"}}], "ports": [{"port": 9090, "protocol": "TCP"}]}
    ]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("x", "is not a list"),
        (["x"], "entry 1 is not a mapping"),
        ([SITE, {**SITE, "uid": "b"}], "the name other site is there 2 times"),
        ([SITE, {**SITE, "name": "b"}], "the uid other-site is there 2 times"),
        ([{**SITE, "uid": "loki"}], "the uid loki is that of a data source that is always there"),
        ([{**SITE, "name": "Prometheus"}], "the name prometheus is that of a data source that is always there"),
        ([{key: value for key, value in SITE.items() if key != "url"}], "Other site: lacks url"),
        ([{key: value for key, value in SITE.items() if key != "connects_to"}], "Other site: lacks connects_to"),
        ([{**SITE, "url": 1}], "Other site: url is not a text"),
        ([{**SITE, "uid": "a b"}], "Other site: uid 'a b' is not 1 to 40 letters, digits, '-' and '_'"),
        ([{**SITE, "jsonDatas": {}}], "Other site: unknown key jsonDatas, did you mean jsonData?"),
        ([{**SITE, "isDefault": True}], "Other site: unknown key isDefault"),
        ([{**SITE, "secureJsonData": {}}], "Other site: what is secret goes below secrets, not secureJsonData"),
        ([{**SITE, "url": "https://u:secret-2@x"}], "Other site: its url holds a password: write it below secrets"),
        ([{**SITE, "url": "https://[x"}], "Other site: url is not an address"),
        ([{**SITE, "jsonData": []}], "Other site: jsonData is not a mapping"),
        ([{**SITE, "secrets": ["secret-2"]}], "Other site: secrets is not a mapping"),
        ([{**SITE, "secrets": {"a": ""}}], "Other site: the secret a is empty, or not a text"),
        ([{**SITE, "secrets": {"a": None}}], "Other site: the secret a is empty, or not a text"),
        ([{**SITE, "secrets": {"a": "change-me"}}], "Other site: the secret a still has the example's value"),
        (
            [{**SITE, "secrets": {"../a": "secret-2"}}],
            "Other site: the secret '../a' is not named by letters and digits",
        ),
        ([{**SITE, "connects_to": {}}], "Other site: connects_to is not a list"),
        ([{**SITE, "connects_to": [{"service": "x"}]}], "connects_to has entries of cidr and port, nothing else"),
        ([{**SITE, "connects_to": [{"cidr": "10.0.0.1/8", "port": 1}]}], "'10.0.0.1/8' is not a network such as"),
        ([{**SITE, "connects_to": [{"cidr": "10.0.0.1", "port": 1}]}], "'10.0.0.1' is not a network such as"),
        ([{**SITE, "connects_to": [{"cidr": "10.0.0.0/8", "port": 0}]}], "Other site: 0 is not a port"),
    ],
)
def test_wrong_data_sources_are_named_without_their_secrets(entries: Any, said: str) -> None:
    (problem,) = tradewatch_data_source_problems(entries)
    assert said in problem
    assert "secret-2" not in problem
    for apply in (tradewatch_data_source_secrets, tradewatch_data_source_egress):
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            apply(entries)
        assert said in str(raised.value)


def test_everything_wrong_with_data_sources_is_told_at_once() -> None:
    assert len(tradewatch_data_source_problems([{"name": "x", "typo": 1}, 7])) == 6
