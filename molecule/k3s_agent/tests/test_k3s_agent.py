"""The agent, seen from the cluster: joined, labelled, and able to run a pod that reaches the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_cluster import Cluster
from testinfra.host import Host

from tests.machines import join_secrets


@pytest.fixture
def host(hosts: dict[str, Host]) -> Host:
    return hosts["trading-1"]


def test_node_is_ready_and_labelled(kubectl: Callable[..., Any]) -> None:
    node = kubectl("get", "node", "trading-1")
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert node["metadata"]["labels"]["tradewatch/role"] == "trading"


def test_node_has_the_address_of_the_inventory(kubectl: Callable[..., Any], lab_dir: Path) -> None:
    address = json.loads((lab_dir / "lab.json").read_text())["hosts"]["trading-1"]
    addresses = {a["type"]: a["address"] for a in kubectl("get", "node", "trading-1")["status"]["addresses"]}
    assert addresses["InternalIP"] == address


def test_agent_has_read_what_an_earlier_run_wrote(cluster: Cluster) -> None:
    # prepare.yml leaves it running with 97.
    answer = json.loads(cluster.text("get", "--raw", "/api/v1/nodes/trading-1/proxy/configz"))
    assert answer["kubeletconfig"]["maxPods"] == 110


def test_token_is_in_no_unit_argument_or_journal(host: Host, lab_dir: Path) -> None:
    token = json.loads((lab_dir / "secrets.json").read_text())["k3s_token"]
    assert host.file("/etc/rancher/k3s/token").mode == 0o600
    for command in ("systemctl cat k3s-agent", "ps -eo args", "journalctl -u k3s-agent --no-pager"):
        printed = host.run(command).stdout
        for name, secret in join_secrets(token).items():
            assert secret not in printed, f"{name} stands in: {command}"


def test_kubelet_refuses_strangers(host: Host) -> None:
    answer = host.run("curl -sk -o /dev/null -w '%{http_code}' https://127.0.0.1:10250/pods")
    assert answer.stdout == "401"
