from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.machines import Cluster, Host

FIRST = "/etc/rancher/k3s/config.yaml.d/90-contract.yaml"
SECOND = "/etc/rancher/k3s/config.yaml.d/95-contract.yaml"


@pytest.fixture
def dropins(cluster: Cluster, agent: Host) -> Iterator[Host]:
    yield agent
    agent.run(f"rm -f {FIRST} {SECOND}")
    cluster.restart(agent)


def test_dropins_append_with_plus_and_the_later_file_wins(cluster: Cluster, dropins: Host) -> None:
    before = cluster.configz(dropins)
    dropins.write(FIRST, 'protect-kernel-defaults: true\nkubelet-arg+:\n  - "max-pods=97"\n')
    dropins.write(SECOND, "protect-kernel-defaults: false\nkubelet-arg+: ['container-log-max-files=3']\n")
    cluster.restart(dropins)
    after = cluster.configz(dropins)
    assert after["maxPods"] == 97
    assert after["containerLogMaxFiles"] == 3
    assert not after.get("protectKernelDefaults", False)
    # What config.yaml itself gives in kubelet-arg is still there.
    assert after.get("failCgroupV1") == before.get("failCgroupV1")


def test_node_labels_and_taints_come_from_the_configuration(cluster: Cluster) -> None:
    for host in cluster.hosts:
        # Labels and taints stand in config.yaml alone: the tests' drop-ins are gone, and the roles write none.
        stated = yaml.safe_load(host.run("cat /etc/rancher/k3s/config.yaml"))
        node = cluster.get("node", host.name)
        labels = {f"{key}={value}" for key, value in node["metadata"]["labels"].items()}
        taints = {
            f"{taint['key']}={taint.get('value', '')}:{taint['effect']}" for taint in node["spec"].get("taints", [])
        }
        assert stated["node-label"], host.name
        assert set(stated["node-label"]) <= labels, host.name
        # "key:Effect" is a taint without a value.
        wanted = {re.sub(r"^([^=:]+):", r"\1=:", taint) for taint in stated.get("node-taint", [])}
        assert wanted <= taints, host.name


def test_servers_carry_k3s_roles(cluster: Cluster, server: Host) -> None:
    labels = cluster.get("node", server.name)["metadata"]["labels"]
    assert labels["node-role.kubernetes.io/control-plane"] == "true"
    assert labels["node-role.kubernetes.io/etcd"] == "true"


def test_etcd_s_metrics_are_served_where_they_are_asked_for(server: Host) -> None:
    # The roles set etcd-expose-metrics; Prometheus reads port 2381 of the node's address.
    stated = yaml.safe_load(server.run("cat /etc/rancher/k3s/config.yaml"))
    assert stated["etcd-expose-metrics"] is True
    metrics = server.run(f"curl --silent --fail http://{stated['node-ip']}:2381/metrics")
    assert "etcd_server_has_leader 1" in metrics


def test_pods_traffic_takes_the_interface_of_the_node_s_address(server: Host, agent: Host) -> None:
    # flannel's own choice is the interface of the default route.
    for host in (server, agent):
        stated = yaml.safe_load(host.run("cat /etc/rancher/k3s/config.yaml"))
        addresses = host.run(f"ip -brief address show dev {stated['flannel-iface']}")
        assert f"{stated['node-ip']}/" in addresses, host.name


def test_the_kubelet_s_certificate_is_the_cluster_s(server: Host, agent: Host) -> None:
    # Prometheus verifies port 10250 by the node's address with the CA that pods are given.
    for host in (server, agent):
        address = yaml.safe_load(host.run("cat /etc/rancher/k3s/config.yaml"))["node-ip"]
        authority = "/var/lib/rancher/k3s/agent/server-ca.crt"
        answer = f"curl --silent --output /dev/null --write-out '%{{http_code}}' --cacert {authority} https://{address}:10250/metrics"
        assert host.run(answer).strip() == "401", f"{host.name}: not verified, or open to strangers"


def test_an_unknown_key_is_named(agent: Host) -> None:
    path = "/run/k3s-contract-unknown.yaml"
    agent.write(path, 'no-such-key: 1\nserver: "https://127.0.0.1:1"\ntoken: contract\n')
    try:
        # A real k3s warns and would go on: the data folder of its own keeps it from the running agent's.
        output = agent.run(f"timeout 10 k3s agent --config {path} --data-dir /run/k3s-contract", check=False)
    finally:
        agent.run(f"rm -rf {path} /run/k3s-contract")
    assert "no-such-key" in output
