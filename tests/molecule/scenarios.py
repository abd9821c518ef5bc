"""How scenarios are run: `molecule test`, on hosts and a cluster that those of a file share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import REPOSITORY, run
from tests.lab_under_test import LabUnderTest

# They run their role otherwise than the platform does; the next one that needs it runs it again.
OWN_VARIABLES = {"valkey", "promtail", "monitoring_services", "alertmanager"}
# What a scenario may skip, and how many tests of it: the lab has no Grafana, for no registry of packages carries it.
SKIPS = {
    "grafana": {"no artifact source gives Grafana's image here": 3, "the artifact cache has Grafana's image": 1},
}


def seconds(scenario: str) -> int:
    """The bound of a scenario; from an empty cache, everything is built in the one of the artifacts."""
    return 3600 if scenario == "artifacts" else 1200


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


def needed(scenario: str) -> list[str]:
    """The roles that the scenario's preparation runs as the platform does, where they do not stand yet."""
    playbook = REPOSITORY / "molecule" / scenario / "prepare.yml"
    plays = yaml.safe_load(playbook.read_text()) if playbook.exists() else []
    return [role for play in plays for role in play.get("vars", {}).get("needed", [])]


def params(order: list[str]) -> list[Any]:
    """The scenarios as a test's parameters, each with its bound."""
    return [pytest.param(name, marks=pytest.mark.timeout(seconds(name))) for name in order]


@dataclass
class SharedHosts:
    """The hosts of one lab, and the roles that scenarios have left on them as the platform has them."""

    lab: LabUnderTest
    roles: set[str] = field(default_factory=set)

    def test(self, scenario: str, folder: Path) -> None:
        """Run one scenario; its log and Molecule's notes go to ``folder``."""
        # From an empty cache, everything is built in this one: its home directory is empty, and stays so.
        builds = scenario == "artifacts"
        env = {
            **(self.lab.env if builds else {}),
            # Below .lab/tests: Molecule's configuration says where.
            "TRADEWATCH_MOLECULE_LAB": self.lab.directory.name,
            "TRADEWATCH_MOLECULE_STANDS": ",".join(sorted(self.roles)),
            # What an earlier run noted as created and prepared may be gone by now.
            "MOLECULE_EPHEMERAL_DIRECTORY": str(folder / "state"),
        }
        command = ("molecule", "test", "--destroy=never", "--scenario-name", scenario)
        skipped = skips(run(*command, env=env, timeout=seconds(scenario), log=folder / "log"))
        print(f"skipped: {skipped}")
        assert skipped.items() <= SKIPS.get(scenario, {}).items()
        if builds:
            assert [str(path) for path in self.lab.home.rglob("*")] == []
        self.roles |= {*needed(scenario), scenario}
        self.roles -= OWN_VARIABLES & {scenario}


@contextlib.contextmanager
def shared_hosts(directory: Path) -> Iterator[SharedHosts]:
    """A lab for scenarios, which boot its hosts; gone before and after."""
    env = {"TRADEWATCH_LAB_DIR": str(directory)}
    run("python", "-m", "lab", "down", env=env)
    yield SharedHosts(LabUnderTest(directory))
    run("python", "-m", "lab", "down", env=env)
