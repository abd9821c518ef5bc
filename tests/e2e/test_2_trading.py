"""The trading system on the cluster: one signal from the quote to the fill, and the kill switch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.faults import (
    NAMESPACE,
    PRODUCT,
    away,
    in_pod,
    json_trace,
    kill_switch_engaged,
    read,
    send_signal,
    state_of,
    story,
    trade,
    tradewatch,
)
from tests.lab_under_test import LabUnderTest
from tests.machines import wait


def details(told: dict[str, Any], source: str) -> list[dict[str, Any]]:
    return [step["details"] for step in told["steps"] if step["source"] == source]


@pytest.fixture(scope="module")
def traded(lab: LabUnderTest) -> Iterator[dict[str, Any]]:
    """The story of a trade, while the system makes none by itself: the next would take its exemplar's place."""
    with away(lab, "signal-generator"):
        yield trade(lab)


def test_every_service_is_ready(lab: LabUnderTest) -> None:
    for namespace in ("crypto-collectors", NAMESPACE):
        deployments = lab.get("deployments", "-n", namespace)["items"]
        assert deployments
        for deployment in deployments:
            assert deployment["status"].get("readyReplicas") == deployment["spec"]["replicas"], deployment["metadata"]


def test_a_signal_becomes_one_order_of_which_the_exchange_says_the_same(
    lab: LabUnderTest, traded: dict[str, Any]
) -> None:
    [order] = details(traded, "order")
    state = json.loads(read(lab, "exchange-simulator", "/state", "crypto-collectors"))
    [placed] = [each for each in state["orders"] if each["client_order_id"] == order["client_order_id"]]
    assert placed["status"] == "FILLED"
    assert Decimal(placed["filled_size"]) == Decimal(order["filled_size"]) > 0
    assert Decimal(placed["total_fees"]) == Decimal(order["fees"])
    positions = json.loads(in_pod(lab, "trade-orchestrator", "tradewatch", "positions", "--json"))
    held = {row["product_id"]: Decimal(row["quantity"]) for row in positions}
    assert held[PRODUCT] == Decimal(state["balances"]["BTC"]["total"])


def test_the_audit_tells_every_step_without_a_hole(traded: dict[str, Any]) -> None:
    steps = [step["step"] for step in details(traded, "audit")]
    assert sorted(steps) == list(range(1, len(steps) + 1))
    told = " ".join(step["what"] for step in traded["steps"])
    for service in ("trade-orchestrator", "risk-manager", "llm-validator", "trade-executor"):
        assert f"by {service}" in told, service


def test_one_trace_runs_from_the_quote_to_the_fill(lab: LabUnderTest, traded: dict[str, Any]) -> None:
    [trace_id] = traded["trace_ids"]
    for service in ("trade-orchestrator", "risk-manager", "llm-validator", "trade-executor"):
        log = lab.kubectl("logs", "-n", NAMESPACE, f"deployment/{service}", "--tail=2000")
        assert trace_id in log, service
    assert details(json_trace(lab, trace_id), "order")

    def exemplar() -> bool:
        query = 'pipeline_end_to_end_duration_seconds_bucket{namespace="crypto-trading"}'
        now = time.time()
        found = lab.prometheus("query_exemplars", query=query, start=str(now - 600), end=str(now))
        labels = [each["labels"] for series in found for each in series["exemplars"]]
        return any(each.get("trace_id") == trace_id for each in labels)

    wait(exemplar, "the trace as an exemplar in Prometheus", 120)


def test_the_kill_switch_stops_and_releases(lab: LabUnderTest) -> None:
    with kill_switch_engaged(lab):
        assert '"HALTED"' in tradewatch(lab, "kill-switch", "status", "--json")
        told = story(lab, send_signal(lab)["decision_id"])
        assert state_of(told) == "denied_risk"
        assert not details(told, "order")
        wait(lambda: lab.query("max(kill_switch_engaged) == 1"), "the engaged switch in Prometheus", 60)
    assert '"ACTIVE"' in tradewatch(lab, "kill-switch", "status", "--json")
