"""The examples of docs/extending.md, added to production's tables: what the roles make of each.

What they do on a cluster, tests/e2e/test_2_scaling.py shows; of Grafana, which no registry carries, this is all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import extending
from tests.commands import REPOSITORY
from tests.unit import test_grafana_role, test_monitoring_services_role

NAMESPACE = "crypto-research"
SERVICE = "market-data-collector-research"
ROLES = ("cluster_policy", "valkey", "trading_services", "prometheus", "monitoring_services")
SITE_PASSWORD = "secret-of-the-site"
Objects = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def entries() -> dict[str, list[Any]]:
    return extending.entries()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own with the page's dashboard."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "research.json").write_text(json.dumps(extending.dashboard()))
    return folder


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, list[Any]], own: Path) -> Objects:
    folder = tmp_path_factory.mktemp("extended")
    image = {"image": "image:test"}
    test_monitoring_services_role.play(
        folder,
        ROLES,
        **extending.edited_tables("inventory/production.example"),
        prometheus_external_targets=entries["prometheus_external_targets"],
        tradewatch_dashboard_dirs=[str(own)],
        artifacts_resolved=dict.fromkeys(("tradewatch", "valkey", "valkey-exporter", "prometheus"), image),
        prometheus_api_server_cidrs=[],
        prometheus_node_cidrs=[],
        vault_valkey_password="x",
        vault_valkey_exporter_password="x",
        vault_alertmanager_password="x",
        vault_node_exporter_password="x",
    )
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: Objects = {}
    for owner in ("cluster-policy", "valkey", "trading-services", "prometheus", "monitoring-services"):
        for item in yaml.load_all((folder / f"{owner}.yml").read_text(), loader):
            if item:
                metadata = item["metadata"]
                found[item["kind"], metadata.get("namespace", ""), metadata["name"]] = item
    return found


def test_the_page_has_an_entry_of_each_list(entries: dict[str, list[Any]]) -> None:
    inventory = yaml.safe_load((REPOSITORY / "inventory/production.example/group_vars/all/monitoring.yml").read_text())
    assert set(entries) == {*inventory, *extending.TABLES}
    assert all(entries.values())
    assert not any(inventory.values())


def test_a_namespace_is_restricted_bounded_and_denies(objects: Objects) -> None:
    labels = objects["Namespace", "", NAMESPACE]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert objects["ResourceQuota", NAMESPACE, "tradewatch"]["spec"]["hard"]["pods"] == "10"
    (limits,) = objects["LimitRange", NAMESPACE, "tradewatch"]["spec"]["limits"]
    assert limits["default"] == {"memory": "256Mi"}
    denied = objects["NetworkPolicy", NAMESPACE, "default-deny"]["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_its_service_runs_with_its_flows_on_both_sides(objects: Objects) -> None:
    assert ("Deployment", NAMESPACE, SERVICE) in objects
    egress = objects["NetworkPolicy", NAMESPACE, SERVICE]["spec"]["egress"]
    assert [rule["ports"][0]["port"] for rule in egress] == [6379, 443]
    client = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": SERVICE}},
    }
    ingress = objects["NetworkPolicy", "crypto-collectors", "valkey"]["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in ingress if client in rule["from"]] == [6379]
    # The password that its entry names, in its namespace.
    assert ("Secret", NAMESPACE, "valkey") in objects


def test_prometheus_finds_and_reaches_it(objects: Objects) -> None:
    config = yaml.safe_load(objects["ConfigMap", "crypto-monitoring", "prometheus"]["data"]["prometheus.yml"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for job in ("kubernetes-services-metrics", "kubernetes-pods-metrics"):
        (discovery,) = jobs[job]["kubernetes_sd_configs"]
        assert NAMESPACE in discovery["namespaces"]["names"]
    for kind in ("Role", "RoleBinding"):
        assert (kind, NAMESPACE, "prometheus-discovery") in objects
    egress = json.dumps(objects["NetworkPolicy", "crypto-monitoring", "prometheus"]["spec"]["egress"])
    assert f'"{NAMESPACE}"' in egress
    scrape = objects["NetworkPolicy", NAMESPACE, SERVICE]["spec"]["ingress"][0]
    assert scrape["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    assert scrape["ports"] == [{"port": 8080, "protocol": "TCP"}]


def test_an_exporter_outside_is_a_target_that_can_be_reached(objects: Objects) -> None:
    data = objects["ConfigMap", "crypto-monitoring", "prometheus"]["data"]
    (group,) = json.loads(data["external.json"])
    assert group["targets"] == ["192.0.2.50:9101"]
    assert group["labels"] == {
        "site": "main",
        "service": "server-room",
        "__scheme__": "http",
        "__metrics_path__": "/metrics",
    }
    assert objects["NetworkPolicy", "crypto-monitoring", "prometheus"]["spec"]["egress"][-1] == {
        "to": [{"ipBlock": {"cidr": "192.0.2.50/32"}}],
        "ports": [{"port": 9101, "protocol": "TCP"}],
    }


def test_a_dashboard_comes_to_ours_for_dashboard_report(objects: Objects, own: Path) -> None:
    data = objects["ConfigMap", "crypto-monitoring", "dashboards"]["data"]
    assert set(data) == {"crypto-trading-engine.json", "research.json", "unified-system.json"}
    assert data["research.json"] == (own / "research.json").read_text()


@pytest.fixture(scope="module")
def grafana(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, list[Any]], own: Path) -> list[dict[str, Any]]:
    return test_grafana_role.render(
        tmp_path_factory.mktemp("grafana"),
        grafana_dashboards_dirs=[str(REPOSITORY / "files/dashboards"), str(own)],
        grafana_data_sources=entries["grafana_data_sources"],
        vault_other_site_password=SITE_PASSWORD,
    )


def test_a_dashboard_is_in_grafanas_folder_for_the_rest(grafana: list[dict[str, Any]], own: Path) -> None:
    held = test_grafana_role.one(grafana, "ConfigMap", "grafana-dashboards-devops")["data"]
    assert set(held) == {"unified-system.json", "research.json"}
    assert held["research.json"] == (own / "research.json").read_text()


def test_a_data_source_comes_to_ours_with_its_secret_in_a_file(grafana: list[dict[str, Any]]) -> None:
    text = test_grafana_role.one(grafana, "ConfigMap")["data"]["datasources.yml"]
    sources = yaml.safe_load(text)["datasources"]
    assert [source["uid"] for source in sources] == ["prometheus", "loki", "other-site"]
    secret = "data-source-other-site-basicAuthPassword"
    assert sources[-1]["url"] == "https://prometheus.example:9090"
    assert sources[-1]["secureJsonData"] == {"basicAuthPassword": f"$__file{{/etc/grafana/secrets/{secret}}}"}
    assert test_grafana_role.one(grafana, "Secret")["stringData"][secret] == SITE_PASSWORD
    assert SITE_PASSWORD not in json.dumps([item for item in grafana if item["kind"] != "Secret"])


def test_grafana_may_reach_it_and_no_more(grafana: list[dict[str, Any]]) -> None:
    egress = test_grafana_role.one(grafana, "NetworkPolicy")["spec"]["egress"]
    assert [rule["ports"][0]["port"] for rule in egress] == [9090, 3100, 9090]
    assert egress[-1]["to"] == [{"ipBlock": {"cidr": "198.51.100.7/32"}}]
