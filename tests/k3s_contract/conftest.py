"""The running lab that the contract is held against: its folder is $TRADEWATCH_LAB_DIR, or .lab."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.k3s_contract.machines import Cluster, Host


@pytest.fixture(scope="session")
def cluster(repository: Path) -> Cluster:
    lab = Path(os.environ.get("TRADEWATCH_LAB_DIR") or repository / ".lab").resolve()
    if not (lab / "kubeconfig").exists():
        pytest.fail(f"{lab} holds no running lab; run: make lab")
    hosts = json.loads((lab / "lab.json").read_text())["hosts"]
    return Cluster(lab, tuple(Host(name, address, lab) for name, address in sorted(hosts.items())))


@pytest.fixture(scope="session")
def server(cluster: Cluster) -> Host:
    return next(host for host in cluster.hosts if cluster.unit(host) == "k3s")


@pytest.fixture(scope="session")
def agent(cluster: Cluster) -> Host:
    return next(host for host in cluster.hosts if cluster.unit(host) == "k3s-agent")
