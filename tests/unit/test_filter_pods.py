"""Which pods serve: endpoints.json names their nodes."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.filter import pods


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": "analytics-1"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], **status},
    }


def test_a_ready_pod_serves() -> None:
    assert pods.tradewatch_serving_pods([pod("one"), pod("two")]) == [pod("one"), pod("two")]


@pytest.mark.parametrize(
    "other",
    [
        pod("pending", phase="Pending"),
        # A pod that has ended keeps its node, and may keep its condition.
        pod("evicted", phase="Failed"),
        pod("starting", conditions=[{"type": "Ready", "status": "False"}]),
        pod("unknown", conditions=None),
        {**pod("unscheduled"), "spec": {}},
        {**pod("leaving"), "metadata": {"name": "leaving", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"metadata": {"name": "new"}, "spec": {"nodeName": "analytics-1"}},
    ],
    ids=lambda other: str(other["metadata"]["name"]),
)
def test_others_do_not(other: dict[str, Any]) -> None:
    assert pods.tradewatch_serving_pods([other, pod("one")]) == [pod("one")]
