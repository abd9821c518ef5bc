"""One more host in the inventory joins, is labelled and used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import run
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

FIFTH = "collectors-2"


@pytest.fixture
def inventory(lab: LabUnderTest) -> Iterator[Path]:
    file = lab.directory / "fifth.yml"
    file.write_text(f"collectors:\n  hosts:\n    {FIFTH}:\n")
    yield file
    if not os.environ.get("TRADEWATCH_E2E_KEEP"):
        lab.kubectl("delete", "node", FIFTH, "--ignore-not-found")
        run("python", "-m", "lab", "remove-host", FIFTH, env=lab.env)
        file.unlink()


def test_a_fifth_host_joins_and_is_used(lab: LabUnderTest, inventory: Path) -> None:
    hosts = ["control-1", "collectors-1", "trading-1", "analytics-1", FIFTH]
    run("python", "-m", "lab", "hosts", *hosts, env=lab.env)
    play = lab.play("-i", "inventory/lab", "-i", str(inventory), "site.yml")
    assert play.changed[FIFTH] > 0
    assert not any(play.changed[name] for name in hosts[:-1]), (play.changed, play.changed_tasks())

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
