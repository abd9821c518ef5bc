"""What was changed by hand is put back, and only that. (That a second run changes nothing: test_1_main_job.py.)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.lab_under_test import LabUnderTest
from tests.machines import wait


def test_what_was_changed_by_hand_is_put_back_and_only_that(lab: LabUnderTest) -> None:
    deployment = "market-data-collector-coinbase"
    lab.kubectl("label", "node", "trading-1", "tradewatch/role-", "--overwrite")
    lab.kubectl("-n", "crypto-collectors", "delete", "deployment", deployment)
    lab.ssh("analytics-1", "echo '# by hand' >> /etc/rancher/k3s/config.yaml")

    play = lab.play("site.yml", "--diff")

    lab.assert_no_secret(play.output)
    changed = {host for host, count in play.changed.items() if count}
    assert changed == {"analytics-1", "localhost"}, (play.changed, play.changed_tasks())
    # k3s never read what was written by hand, so it is not restarted.
    assert len(play.changed_tasks()) == 3, play.changed_tasks()
    assert lab.get("node", "trading-1")["metadata"]["labels"]["tradewatch/role"] == "trading"
    assert lab.get("deployment", deployment, "-n", "crypto-collectors")["status"]["readyReplicas"] == 1
    assert "by hand" not in lab.ssh("analytics-1", "cat /etc/rancher/k3s/config.yaml")


def test_check_on_a_converged_cluster_reports_nothing(lab: LabUnderTest) -> None:
    play = lab.play("site.yml", "--check", "--diff")
    assert sum(play.changed.values()) == 0, (play.changed, play.changed_tasks())


def test_another_entry_is_another_target(lab: LabUnderTest, tmp_path: Path) -> None:
    services = lab_variable(lab, "tradewatch_services", tmp_path)
    second = {**services[0], "name": "market-data-collector-second"}
    extra = tmp_path / "services.json"
    extra.write_text(json.dumps({"tradewatch_services": [*services, second]}))
    try:
        lab.play("site.yml", "--extra-vars", f"@{extra}")
        query = 'up{job="kubernetes-services-metrics", service="market-data-collector-second"} == 1'
        wait(lambda: lab.query(query), "the second target")
    finally:
        lab.play("site.yml")
    assert "market-data-collector-second" not in lab.kubectl("-n", "crypto-collectors", "get", "all,networkpolicy,sa")


def lab_variable(lab: LabUnderTest, name: str, folder: Path) -> Any:
    """A variable of the lab's inventory, templates resolved."""
    file = folder / f"{name}.json"
    lab.play("tests/e2e/show_variable.yml", "-e", f"name={name}", "-e", f"path={file}")
    return json.loads(file.read_text())
