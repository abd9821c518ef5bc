"""What verify says of nodes, pods, policies and connections that are not as they should be."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from kubernetes import client

from plugins.module_utils.tradewatch_verify import connections, dns, nodes, workloads
from plugins.module_utils.tradewatch_verify.cluster import Cluster, Object

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
TAINT = "node-role.kubernetes.io/control-plane"
COLLECTOR = {"name": "collector", "namespace": "crypto-collectors", "node_role": "collectors", "port": 8080}


def node(role: str, address: str, *, taints: list[Object] | None = None) -> Object:
    return {
        "metadata": {"labels": {"tradewatch/role": role}},
        "spec": {"taints": taints},
        "status": {
            **READY,
            "nodeInfo": {"kubeletVersion": "v1.34.4"},
            "addresses": [{"type": "InternalIP", "address": address}],
        },
    }


def policy(*directions: str, **spec: Any) -> Object:
    return {"spec": {"podSelector": {}, "policyTypes": [*directions], **spec}}


class FakeCluster(Cluster):
    """A cluster that is as it should be, for a test to spoil."""

    def __init__(self) -> None:
        self.api_client = client.ApiClient()
        self.namespaces = ["crypto-collectors"]
        self.services = [COLLECTOR]
        self.nodes = {
            "control-1": node("control-plane", "192.0.2.1", taints=[{"key": TAINT, "effect": "NoSchedule"}]),
            "collectors-1": node("collectors", "192.0.2.2"),
        }
        self.parameters = {
            "infrastructure": [],
            "nodes": {
                "control-1": {"role": "control-plane", "address": "192.0.2.1", "version": "v1.34.4"},
                "collectors-1": {"role": "collectors", "address": "192.0.2.2", "version": "v1.34.4"},
            },
        }
        labels = {"app.kubernetes.io/name": "collector"}
        metadata = {"name": "collector-1", "namespace": "crypto-collectors", "labels": labels}
        self.pods = [{"metadata": metadata, "spec": {"nodeName": "collectors-1"}, "status": copy.deepcopy(READY)}]
        self.policies = [policy("Ingress", "Egress"), policy("Egress", egress=[{"ports": [{"port": 53}]}])]

    def items(self, call: Callable[..., Any], *arguments: str) -> list[Object]:
        return self.policies


Check = Callable[[Cluster], Iterator[str]]
CHECKS: list[Check] = [
    nodes.nodes_are_the_inventory,
    nodes.labels_and_taints,
    workloads.pods_run,
    workloads.default_deny,
]


def said(cluster: Cluster) -> list[str]:
    return [line for check in CHECKS for line in check(cluster)]


def test_of_what_is_right_nothing_is_said() -> None:
    assert said(FakeCluster()) == []


def spoil(cluster: FakeCluster, path: str, value: object) -> None:
    """Set what the path leads to, such as ``nodes/control-1/spec/taints``."""
    *parents, last = path.split("/")
    at: Any = cluster
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key] if isinstance(at, dict) else getattr(at, key)
    if isinstance(at, Cluster):
        setattr(at, last, value)
    else:
        at[last] = value


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("parameters/nodes/trading-1", {"role": "trading"}, "trading-1 is in the inventory and no node"),
        ("nodes/guest-1", node("trading", "192.0.2.9"), "guest-1 is a node and not in the inventory"),
        ("nodes/collectors-1/status/conditions", [], "collectors-1 is not Ready"),
        (
            "parameters/nodes/collectors-1/version",
            "",
            "collectors-1: kubelet says v1.34.4, k3s on the host does not answer",
        ),
        (
            "parameters/nodes/collectors-1/address",
            "192.0.2.3",
            "collectors-1: the inventory's address 192.0.2.3 is not among 192.0.2.2",
        ),
        (
            "nodes/control-1/metadata/labels",
            {},
            "control-1: label tradewatch/role is None, the inventory says control-plane",
        ),
        ("nodes/control-1/spec/taints", None, f"control-1: taint {TAINT} is missing"),
        (
            "nodes/collectors-1/spec/taints",
            [{"key": TAINT, "effect": "NoSchedule"}],
            f"collectors-1: taint {TAINT} is there",
        ),
        ("pods", [], "crypto-collectors/collector: 0 pods, expected 1"),
        ("pods/0/status", {}, "crypto-collectors/collector: pod collector-1 is not ready"),
        (
            "pods/0/spec",
            {"nodeName": "control-1"},
            "crypto-collectors/collector: pod collector-1 runs on a node of role control-plane, not collectors",
        ),
        ("policies", [policy("Ingress")], "crypto-collectors: no NetworkPolicy denies all egress"),
        (
            "policies",
            [policy("Egress"), policy("Ingress", ingress=[{}])],
            "crypto-collectors: no NetworkPolicy denies all ingress",
        ),
        (
            "policies",
            [policy("Egress"), policy("Ingress", podSelector={"matchLabels": {"app": "one"}})],
            "crypto-collectors: no NetworkPolicy denies all ingress",
        ),
    ],
)
def test_each_problem_is_one_line(path: str, value: object, line: str) -> None:
    cluster = FakeCluster()
    spoil(cluster, path, value)
    assert said(cluster) == [line]


VALKEY = ("crypto-collectors", "valkey", 6379)
PROMETHEUS = ("crypto-monitoring", "prometheus", 9090)
ATTEMPT = connections.Attempts(
    COLLECTOR,
    source={},
    targets=[(VALKEY, "10.42.0.2"), (PROMETHEUS, "10.42.0.3")],
    names=[("valkey.crypto-collectors.svc", 6379)],
    allowed={VALKEY},
)


@pytest.mark.parametrize(
    ("reached", "lines"),
    [
        ([True, False, True], []),
        (
            [False, False, True],
            ["collector cannot connect to crypto-collectors/valkey:6379 (10.42.0.2), which connects_to allows"],
        ),
        (
            [True, True, True],
            [
                "collector can connect to crypto-monitoring/prometheus:9090 (10.42.0.3), which no connects_to allows",
            ],
        ),
        (
            [True, False, False],
            ["collector cannot connect to valkey.crypto-collectors.svc:6379, which connects_to allows"],
        ),
    ],
)
def test_a_flow_that_should_not_be_and_one_that_is_missing_are_named(reached: list[bool], lines: list[str]) -> None:
    assert list(connections._differences(ATTEMPT, reached)) == lines


class Clock:
    """Stands still, but for each look at it."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def dns_pod(name: str, phase: str) -> Object:
    return {"metadata": {"name": f"verify-dns-{name}"}, "spec": {"nodeName": name}, "status": {"phase": phase}}


@pytest.mark.parametrize("deadline", [3.0, 4.0, 4.5, 5.0])
@pytest.mark.parametrize(
    ("pods", "lines"),
    [
        ([dns_pod("a", "Succeeded"), dns_pod("b", "Succeeded")], []),
        ([dns_pod("a", "Succeeded")], ["b: the pod that asks from there is gone, so nothing is known"]),
        ([dns_pod("a", "Succeeded"), dns_pod("b", "Pending")], [f"b: a pod there cannot resolve {dns.DNS_NAME}: log"]),
    ],
)
def test_of_every_node_whose_pod_did_not_resolve_a_name_one_line_is_said(
    pods: list[Object], lines: list[str], deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "time", Clock(1.0))
    cluster = FakeCluster()
    cluster.core = Mock()
    cluster.core.read_namespaced_pod_log.return_value = "log"
    cluster.deadline = deadline
    cluster.policies = pods
    probes = dns.DnsProbes(cluster)
    probes._pods = ["verify-dns-a", "verify-dns-b"]
    assert list(probes.answers()) == lines
    cluster.core.delete_collection_namespaced_pod.assert_called_once()
