"""kube-state-metrics as Prometheus meets it: what it tells, what it may read, and who may ask."""

from __future__ import annotations

import re

import pytest
from lab_cluster import Cluster, eventually, policy

NAMESPACE = "crypto-monitoring"
NAME = "kube-state-metrics"
PAGE = f"http://{NAME}.{NAMESPACE}.svc:{{}}/metrics"
NODES = {"control-1", "collectors-1", "trading-1", "analytics-1"}


@pytest.fixture(scope="module")
def told(cluster: Cluster) -> dict[str, float]:
    """What it tells, once it has seen itself ready."""
    scrape = cluster.prometheus_probe()
    found: dict[str, float] = {}

    def knows_itself() -> bool:
        found.clear()
        found.update(scrape(PAGE.format(8080)))
        ready = f'kube_deployment_status_replicas_ready{{namespace="{NAMESPACE}",deployment="{NAME}"}}'
        return found.get(ready) == 1

    eventually(knows_itself, "it tells of its own Deployment", 60)
    found.update(scrape(PAGE.format(8081)))
    return found


def of(told: dict[str, float], metric: str) -> list[str]:
    return [series for series in told if series.startswith(metric + "{")]


def test_it_tells_of_every_node(told: dict[str, float]) -> None:
    ready = [s for s in of(told, "kube_node_status_condition") if 'condition="Ready",status="true"' in s]
    assert {re.findall('node="([^"]*)"', series)[0] for series in ready if told[series] == 1} >= NODES
    roles = " ".join(of(told, "kube_node_labels"))
    for role in ("control-plane", "collectors", "trading", "analytics"):
        assert f'label_tradewatch_role="{role}"' in roles


def test_it_tells_of_pods_of_all_namespaces_by_their_service(told: dict[str, float]) -> None:
    assert any('namespace="kube-system"' in series for series in of(told, "kube_pod_info"))
    assert any(f'label_app_kubernetes_io_name="{NAME}"' in series for series in of(told, "kube_pod_labels"))
    assert of(told, "kube_resourcequota")


def test_what_nobody_reads_is_left_out(told: dict[str, float]) -> None:
    kinds = {series.partition("{")[0] for series in told}
    left_out = re.compile("kube_.+_annotations|kube_pod_tolerations|kube_.+_metadata_resource_version|kube_secret.*")
    assert not [kind for kind in kinds if left_out.fullmatch(kind)]


def test_it_can_read_all_that_it_asks_for(told: dict[str, float]) -> None:
    errors = [s for s in told if s.startswith("kube_state_metrics_list_total") and 'result="error"' in s]
    assert not [series for series in errors if told[series]]


def test_it_may_list_what_it_tells_and_nothing_else(cluster: Cluster) -> None:
    account = f"{NAMESPACE}:{NAME}"
    assert cluster.may(account, "list", "pods", "default")
    assert cluster.may(account, "watch", "deployments.apps", "default")
    for verb, what in [
        ("list", "secrets"),
        ("list", "configmaps"),
        ("get", "pods"),
        ("delete", "pods"),
        ("create", "pods/exec"),
        ("get", "nodes/proxy"),
    ]:
        assert not cluster.may(account, verb, what, "default"), f"{verb} {what}"


def test_a_neighbour_is_kept_out(cluster: Cluster, told: dict[str, float]) -> None:
    assert told, "Prometheus reaches it"
    address = cluster.get("service", NAME, "--namespace", NAMESPACE)["spec"]["clusterIP"]
    dns = cluster.get("service", "kube-dns", "--namespace", "kube-system")["spec"]["clusterIP"]
    cluster.make(policy(NAMESPACE, "probe-neighbour", {"tradewatch.io/probe": "neighbour"}, "Egress"))
    cluster.probe(NAMESPACE, "neighbour", "analytics")
    eventually(lambda: cluster.connects(NAMESPACE, "neighbour", dns, 53), "the neighbour reaches the DNS", 30)
    for port in (8080, 8081):
        refused = f"a neighbour is kept out of {port}"
        eventually(lambda: not cluster.connects(NAMESPACE, "neighbour", address, port), refused, 30)  # noqa: B023
