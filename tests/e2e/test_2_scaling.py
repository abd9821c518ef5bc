"""One edit of the inventory, one run: another host joins and is used, and the examples of docs/extending.md are there.

Those are a namespace with a service, an exporter outside the cluster and a dashboard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests import extending
from tests.commands import run
from tests.e2e.faults import in_pod
from tests.e2e.test_2_dashboards import loki
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

FIFTH = "collectors-2"
NAMESPACE = "crypto-research"
SERVICE = "market-data-collector-research"
# Outside the cluster: a program on a host, of which Kubernetes knows nothing, with metrics in a file.
EXPORTER_PORT = 9101
EXPORTER = f"""
mkdir -p /run/server-room && cd /run/server-room && echo 'room_temperature_celsius 21.5' > metrics
systemctl --quiet is-active server-room ||
systemd-run --unit=server-room --collect --working-directory=/run/server-room python3 -m http.server {EXPORTER_PORT}
"""
NO_EXPORTER = "systemctl stop server-room; rm -rf /run/server-room"
# The kernel's word on the first process of a pod: user, capabilities, whether it may gain any, system call filter.
CONFINED = """
fields = dict(line.split(":", 1) for line in open("/proc/1/status"))
print(fields["Uid"].split()[0], int(fields["CapBnd"], 16), fields["NoNewPrivs"].strip(), fields["Seccomp"].strip())
"""
T = TypeVar("T")


@pytest.fixture
def exporter(lab: LabUnderTest) -> Iterator[str]:
    """The address of an exporter outside the cluster."""
    host = lab.host("collectors-1")
    host.run(EXPORTER)
    yield f"{host.address}:{EXPORTER_PORT}"
    if not os.environ.get("TRADEWATCH_E2E_KEEP"):
        host.run(NO_EXPORTER)


@pytest.fixture
def edits(lab: LabUnderTest, exporter: str, tmp_path: Path) -> Iterator[list[str]]:
    """The arguments that stand for the edited inventory.

    The other host is gone after the test; the next run takes the rest away (test_3_convergence.py).
    """
    inventory = tmp_path / "fifth.yml"
    inventory.write_text(f"collectors:\n  hosts:\n    {FIFTH}:\n")
    dashboards = tmp_path / "dashboards"
    dashboards.mkdir()
    (dashboards / "research.json").write_text(json.dumps(extending.dashboard()))
    (target,) = extending.entries()["prometheus_external_targets"]
    variables = {
        **extending.edited_tables("inventory/lab"),
        "prometheus_external_targets": [{**target, "targets": [exporter]}],
        "tradewatch_dashboard_dirs": [str(dashboards)],
    }
    file = tmp_path / "edits.json"
    file.write_text(json.dumps(variables))
    yield ["-i", "inventory/lab", "-i", str(inventory), "--extra-vars", f"@{file}"]
    if not os.environ.get("TRADEWATCH_E2E_KEEP"):
        lab.kubectl("delete", "node", FIFTH, "--ignore-not-found")
        run("python", "-m", "lab", "remove-host", FIFTH, env=lab.env)


def settled(ask: Callable[[], T], what: str) -> T:
    """What ``ask`` gives once it is true; a pod that has just been rolled may not be reached yet."""
    return wait(ask, what, despite=(OSError,))


def test_another_host_and_what_is_added(lab: LabUnderTest, exporter: str, edits: list[str]) -> None:
    hosts = ["control-1", "collectors-1", "trading-1", "analytics-1", FIFTH]
    run("python", "-m", "lab", "hosts", *hosts, env=lab.env)
    play = lab.play(*edits, "site.yml")
    assert play.changed[FIFTH] > 0
    assert not any(play.changed[name] for name in hosts[:-1]), (play.changed, play.changed_tasks())

    the_service_is_watched(lab)
    its_pod_is_restricted(lab)
    the_exporter_is_scraped(lab, exporter)
    the_dashboard_is_shown(lab)
    the_host_is_used(lab)


def the_service_is_watched(lab: LabUnderTest) -> None:
    """Both of its jobs, kube-state-metrics and the logs, in a namespace that none of them was told of."""
    where = f'namespace="{NAMESPACE}"'
    for query in (
        f'up{{job="kubernetes-services-metrics", service="{SERVICE}", {where}}} == 1',
        f'up{{job="kubernetes-pods-metrics", service="{SERVICE}", {where}}} == 1',
        f'kube_deployment_status_replicas_available{{deployment="{SERVICE}", {where}}} == 1',
    ):
        settled(lambda query=query: lab.query(query), query)  # type: ignore[misc]
    selector = f'{{{where}, service="{SERVICE}"}}'
    settled(lambda: loki(lab, "query_range", query=selector, limit="1")["result"], f"log lines of {selector}")


def its_pod_is_restricted(lab: LabUnderTest) -> None:
    confined = in_pod(lab, SERVICE, "python3", "-c", CONFINED, namespace=NAMESPACE)
    assert confined.split() == ["10001", "0", "1", "2"]
    labels = lab.get("namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    refused = lab.kubectl(
        *("run", "intruder", "--namespace", NAMESPACE, "--image=example.invalid/intruder"),
        *("--privileged", "--dry-run=server"),
        code=1,
    )
    assert 'violates PodSecurity "restricted' in refused
    assert lab.get("resourcequota", "tradewatch", "-n", NAMESPACE)["status"]["used"]["pods"] == "1"


def the_exporter_is_scraped(lab: LabUnderTest, address: str) -> None:
    query = 'room_temperature_celsius{job="external", service="server-room", site="main"} == 21.5'
    (series,) = settled(lambda: lab.query(query), query)
    assert series["metric"]["instance"] == address


def the_dashboard_is_shown(lab: LabUnderTest) -> None:
    """It is beside ours, and its panel draws what the exporter says."""

    def titles() -> list[str]:
        index = lab.ask("dashboards", "dashboards")
        assert index["problems"] == []
        return [entry["title"] for entry in index["dashboards"]]

    settled(lambda: "Research" in titles(), "the dashboard")
    assert titles() == ["Crypto Trading Engine", "Research", "Unified System"]

    def drawn() -> Any:
        panel = lab.ask("dashboards", "dashboards/research/panels/1", **{"from": "now-5m", "to": "now"})
        assert panel["errors"] == []
        return [value for series in panel["series"] for value in series["values"] if value is not None]

    assert set(settled(drawn, "values of the panel")) == {21.5}


def the_host_is_used(lab: LabUnderTest) -> None:
    """The collector lands there when its other host takes no more pods."""
    node = lab.get("node", FIFTH)
    assert node["metadata"]["labels"]["tradewatch/role"] == "collectors"
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
    lab.kubectl("-n", "crypto-collectors", "rollout", "status", deployment, "--timeout=110s")
