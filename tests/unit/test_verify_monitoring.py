"""What verify says of Prometheus' targets."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.tradewatch_verify.monitoring import target_problems

SERVICE = ("crypto-trading", "risk-manager")


def target(job: str, health: str = "up", service: tuple[str, str] = SERVICE) -> dict[str, Any]:
    labels = {"job": job, "instance": "10.0.0.1:8080"}
    if job.startswith("kubernetes-"):
        labels |= {"namespace": service[0], "service": service[1]}
    return {"labels": labels, "health": health, "lastError": "refused" if health == "down" else ""}


CALM = [target("kubernetes-services-metrics"), target("kubernetes-pods-metrics"), target("kubelet")]


@pytest.mark.parametrize(
    ("targets", "problems"),
    [
        (CALM, []),
        ([*CALM, target("external", "down"), target("loki", "unknown")], []),
        ([*CALM, target("loki", "down")], ["loki 10.0.0.1:8080 is down: refused"]),
        (CALM[1:], ["crypto-trading/risk-manager is no up target"]),
        (
            [*CALM, target("kubernetes-pods-metrics")],
            ["crypto-trading/risk-manager: 2 replicas are up targets, expected 1"],
        ),
        (
            [CALM[0], target("kubernetes-pods-metrics", "down"), CALM[2]],
            ["crypto-trading/risk-manager: 0 replicas are up targets, expected 1"],
        ),
        # A service of somebody else's, which is not in the table.
        ([*CALM, target("kubernetes-pods-metrics", service=("crypto-trading", "another"))], []),
    ],
)
def test_each_problem_is_one_line(targets: list[dict[str, Any]], problems: list[str]) -> None:
    assert list(target_problems(targets, {SERVICE}, {SERVICE: 1})) == problems
