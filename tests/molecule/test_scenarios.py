"""`molecule test` for every scenario, on hosts and a cluster that they share, from the bare host upwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, run

# Each scenario needs what those before it leave.
ORDER = [
    "host_baseline",
    "artifacts",
    "k3s_server",
    "k3s_agent",
    "cluster_policy",
    "valkey",
    "postgresql",
    "trading_services",
    "node_exporter",
    "kube_state_metrics",
    "loki",
    "promtail",
    "alertmanager",
    "monitoring_services",
    "grafana",
    "prometheus",
]
LAB = {"TRADEWATCH_LAB_DIR": str(REPOSITORY / ".lab/tests/molecule")}


@pytest.fixture(scope="module")
def shared_hosts() -> Iterator[None]:
    yield
    run("python", "-m", "lab", "down", env=LAB)


def test_every_scenario_is_in_the_order(repository: Path) -> None:
    scenarios = {path.parent.name for path in (repository / "molecule").glob("*/molecule.yml")}
    assert scenarios == set(ORDER)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scenario", ORDER)
@pytest.mark.usefixtures("shared_hosts")
def test_scenario(scenario: str) -> None:
    run("molecule", "test", "--scenario-name", scenario, env={"TRADEWATCH_MOLECULE_KEEP": "1"}, timeout=1200)
