"""One edit of the inventory, one run: another host joins, is labelled and used, and another service is a target."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

FIFTH = "collectors-2"
SECOND = "market-data-collector-second"


def lab_variable(lab: LabUnderTest, name: str, folder: Path) -> Any:
    """A variable of the lab's inventory, templates resolved."""
    file = folder / f"{name}.json"
    lab.play("tests/e2e/show_variable.yml", "-e", f"name={name}", "-e", f"path={file}")
    return json.loads(file.read_text())


@pytest.fixture
def edits(lab: LabUnderTest, tmp_path: Path) -> Iterator[list[str]]:
    """The arguments that stand for the edited inventory. After the test all is as it was before."""
    services = lab_variable(lab, "tradewatch_services", tmp_path)
    inventory = tmp_path / "fifth.yml"
    inventory.write_text(f"collectors:\n  hosts:\n    {FIFTH}:\n")
    table = tmp_path / "services.json"
    table.write_text(json.dumps({"tradewatch_services": [*services, {**services[0], "name": SECOND}]}))
    yield ["-i", "inventory/lab", "-i", str(inventory), "--extra-vars", f"@{table}"]
    if not os.environ.get("TRADEWATCH_E2E_KEEP"):
        lab.kubectl("delete", "node", FIFTH, "--ignore-not-found")
        run("python", "-m", "lab", "remove-host", FIFTH, env=lab.env)
        lab.play("site.yml")
        assert SECOND not in lab.kubectl("-n", "crypto-collectors", "get", "all,networkpolicy,sa")


def test_another_host_and_another_service(lab: LabUnderTest, edits: list[str]) -> None:
    hosts = ["control-1", "collectors-1", "trading-1", "analytics-1", FIFTH]
    run("python", "-m", "lab", "hosts", *hosts, env=lab.env)
    play = lab.play(*edits, "site.yml")
    assert play.changed[FIFTH] > 0
    assert not any(play.changed[name] for name in hosts[:-1]), (play.changed, play.changed_tasks())

    query = f'up{{job="kubernetes-services-metrics", service="{SECOND}"}} == 1'
    wait(lambda: lab.query(query), "the second target")

    node = lab.get("node", FIFTH)
    assert node["metadata"]["labels"]["tradewatch/role"] == "collectors"
    # Used: a second replica of the collector lands there, for replicas spread over the role's hosts.
    deployment = "deployment/market-data-collector-coinbase"
    lab.kubectl("cordon", "collectors-1")
    lab.kubectl("-n", "crypto-collectors", "rollout", "restart", deployment)
    selector = "app.kubernetes.io/name=market-data-collector-coinbase"

    def moved() -> bool:
        pods = lab.get("pods", "-n", "crypto-collectors", "-l", selector)["items"]
        return [pod["spec"].get("nodeName") for pod in pods if pod["status"]["phase"] == "Running"] == [FIFTH]

    wait(moved, "the collector on the fifth host")
    wait(lambda: lab.get(deployment, "-n", "crypto-collectors")["status"].get("readyReplicas"), "its readiness")
    lab.kubectl("uncordon", "collectors-1")
    lab.kubectl("-n", "crypto-collectors", "rollout", "restart", deployment)
    lab.kubectl("drain", FIFTH, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
