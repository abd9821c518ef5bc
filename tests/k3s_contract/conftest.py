"""The running lab that the contract is held against: $TRADEWATCH_LAB_DIR, or the tests' own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab_under_test import LabUnderTest
from tests.machines import Cluster, Host


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    given = os.environ.get("TRADEWATCH_LAB_DIR")
    lab: LabUnderTest = LabUnderTest(Path(given).resolve()) if given else request.getfixturevalue("lab")
    return lab.cluster()


@pytest.fixture(scope="session")
def server(cluster: Cluster) -> Host:
    return next(host for host in cluster.hosts if cluster.unit(host) == "k3s")


@pytest.fixture(scope="session")
def agent(cluster: Cluster) -> Host:
    return next(host for host in cluster.hosts if cluster.unit(host) == "k3s-agent")
