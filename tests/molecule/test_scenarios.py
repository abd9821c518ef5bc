"""`molecule test` for every scenario, on hosts and a cluster that they share, from the bare host upwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.commands import REPOSITORY, run
from tests.lab_under_test import MOLECULE_DIRECTORY, LabUnderTest
from tests.schedule import BUILD_SECONDS

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
# They run their role otherwise than the platform does; the next one that needs it runs it again.
OWN_VARIABLES = {"valkey", "promtail", "monitoring_services", "alertmanager"}
# What a scenario may skip, and how many tests of it: the lab has no Grafana, for no registry of packages carries it.
SKIPS = {
    "grafana": {"no artifact source gives Grafana's image here": 3, "the artifact cache has Grafana's image": 1},
}
LAB = {"TRADEWATCH_LAB_DIR": str(MOLECULE_DIRECTORY)}


@pytest.fixture(scope="module")
def stands() -> Iterator[set[str]]:
    """The roles that their scenarios have left on the shared hosts as the platform has them."""
    run("python", "-m", "lab", "down", env=LAB)
    yield set()
    run("python", "-m", "lab", "down", env=LAB)


def test_every_scenario_is_in_the_order(repository: Path) -> None:
    scenarios = {path.parent.name for path in (repository / "molecule").glob("*/molecule.yml")}
    assert scenarios == set(ORDER)


def seconds(scenario: str) -> int:
    """The bound of a scenario; from an empty cache, everything is built in the one of the artifacts."""
    return BUILD_SECONDS if scenario == "artifacts" else 1200


def skips(output: str) -> dict[str, int]:
    """Why tests were skipped, and how many, as pytest says at its end; without its last line it has run none."""
    output = re.sub(r"\x1b\[[\d;]*m", "", output)
    assert re.search(r"=+ .*\d+ (passed|skipped).* in [\d.]+s", output), "no summary of pytest's"
    counted: dict[str, int] = {}
    for number, reason in re.findall(r"SKIPPED \[(\d+)\] \S+?:\d+: (.+?)\s*$", output, re.MULTILINE):
        counted[reason] = counted.get(reason, 0) + int(number)
    said = sum(map(int, re.findall(r"=+ .*?(\d+) skipped.* in [\d.]+s", output)))
    assert sum(counted.values()) == said, f"{said} are skipped, of {counted} it is said why"
    return counted


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


def needed(scenario: str) -> list[str]:
    """The roles that the scenario's preparation runs as the platform does, where they do not stand yet."""
    playbook = REPOSITORY / "molecule" / scenario / "prepare.yml"
    plays = yaml.safe_load(playbook.read_text()) if playbook.exists() else []
    return [role for play in plays for role in play.get("vars", {}).get("needed", [])]


@pytest.mark.parametrize("scenario", [pytest.param(name, marks=pytest.mark.timeout(seconds(name))) for name in ORDER])
def test_scenario(scenario: str, stands: set[str], tmp_path: Path) -> None:
    lab = LabUnderTest(MOLECULE_DIRECTORY)
    # From an empty cache, everything is built in the one of the artifacts: its home directory is empty, and stays so.
    builds = scenario == "artifacts"
    env = {
        **(lab.env if builds else {}),
        "TRADEWATCH_MOLECULE_STANDS": ",".join(sorted(stands)),
        # What an earlier run noted as created and prepared may be gone by now.
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path / "state"),
    }
    command = ("molecule", "test", "--destroy=never", "--scenario-name", scenario)
    skipped = skips(run(*command, env=env, timeout=seconds(scenario), log=tmp_path / "log"))
    print(f"skipped: {skipped}")
    assert skipped.items() <= SKIPS.get(scenario, {}).items()
    if builds:
        assert [str(path) for path in lab.home.rglob("*")] == []
    stands |= {*needed(scenario), scenario}
    stands -= OWN_VARIABLES & {scenario}
