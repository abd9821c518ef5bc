"""The scenarios from the bare host to the monitoring, in this order: each needs what those before it leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, run
from tests.molecule import test_services
from tests.molecule.scenarios import SKIPS, SharedHosts, params, shared_hosts, skips

DIRECTORY = REPOSITORY / ".lab/tests/molecule"
ORDER = [
    "host_baseline",
    "artifacts",
    "k3s_server",
    "k3s_agent",
    "cluster_policy",
    "node_exporter",
    "kube_state_metrics",
    "loki",
    "promtail",
    "alertmanager",
    "monitoring_services",
    "grafana",
    "prometheus",
]


@pytest.fixture(scope="module")
def stands() -> Iterator[SharedHosts]:
    with shared_hosts(DIRECTORY) as hosts:
        yield hosts


def test_every_scenario_is_in_an_order(repository: Path) -> None:
    scenarios = sorted(path.parent.name for path in (repository / "molecule").glob("*/molecule.yml"))
    assert scenarios == sorted(ORDER + test_services.ORDER)


def test_skips_are_counted_by_their_reason(tmp_path: Path) -> None:
    body = "import pytest\n\n"
    for number, (reason, count) in enumerate(SKIPS["grafana"].items()):
        mark = f'@pytest.mark.parametrize("a", range({count}))\n@pytest.mark.skip(reason="{reason}")\n'
        body += f"{mark}def test_{number}(a):\n    pass\n\n"
    (tmp_path / "test_some.py").write_text(f"{body}def test_passes():\n    pass\n")
    for color in ("yes", "no"):
        said = run("pytest", "-ra", f"--color={color}", "-p", "no:cacheprovider", str(tmp_path))
        assert skips(said) == SKIPS["grafana"]
    assert skips("=== 2 passed in 0.10s ===") == {}
    for output in ("", "=== 1 passed, 1 skipped in 0.10s ==="):
        with pytest.raises(AssertionError):
            skips(output)


@pytest.mark.parametrize("scenario", params(ORDER))
def test_scenario(scenario: str, stands: SharedHosts, tmp_path: Path) -> None:
    stands.test(scenario, tmp_path)
