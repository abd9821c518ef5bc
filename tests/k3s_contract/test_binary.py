from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.machines import Cluster, Host


def test_hosts_run_the_binary_under_test(cluster: Cluster) -> None:
    binary = os.environ.get("K3S_BINARY")
    if binary:
        expected = {hashlib.sha256(Path(binary).read_bytes()).hexdigest()}
        assert {host.run("sha256sum /usr/local/bin/k3s").split()[0] for host in cluster.hosts} == expected
    else:
        assert len({host.run("sha256sum /usr/local/bin/k3s").split()[0] for host in cluster.hosts}) == 1


def test_version_is_what_every_kubelet_reports(cluster: Cluster, server: Host) -> None:
    first = server.run("k3s --version").splitlines()[0]
    match = re.fullmatch(r"k3s version (v\d+\.\d+\.\d+\+\S+) \(.+\)", first)
    assert match, first
    nodes = {item["metadata"]["name"]: item["status"]["nodeInfo"] for item in cluster.get("nodes")["items"]}
    assert {info["kubeletVersion"] for info in nodes.values()} == {match[1]}
    assert {host.name for host in cluster.hosts} == set(nodes)


@pytest.mark.parametrize("command", ["k3s kubectl get --raw /readyz", "k3s ctr version", "k3s etcd-snapshot ls"])
def test_commands_for_people_work_on_a_server(server: Host, command: str) -> None:
    assert server.run(command)


def test_ctr_speaks_to_the_nodes_containerd(agent: Host) -> None:
    assert agent.run("test -S /run/k3s/containerd/containerd.sock && k3s ctr images ls -q").strip()


def test_unit_reports_its_own_readiness(cluster: Cluster) -> None:
    for host in cluster.hosts:
        unit = cluster.unit(host)
        assert host.run(f"systemctl show -p Type -p ActiveState {unit}").split() == [
            "Type=notify",
            "ActiveState=active",
        ]
