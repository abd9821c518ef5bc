"""The trading system on the cluster: one signal from the quote to the fill, and the kill switch."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from tests.commands import run
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

NAMESPACE = "crypto-trading"
PRODUCT = "BTC-USD"
# In the orchestrator's pod, with its credentials: a signal at the newest quote, whose trace it takes up.
SIGNAL = """
import asyncio, json, os, sys, uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tradewatch.common import bus
from tradewatch.common.events import Side
from tradewatch.common.streams import SIGNALS_STREAM, Quote, Signal, decode, encode, quotes_stream

async def main():
    password = Path(os.environ["TRADEWATCH_VALKEY_PASSWORD_FILE"]).read_text()
    client = bus.connect(os.environ["TRADEWATCH_VALKEY_URL"], password)
    [(_, fields)] = await client.xrevrange(quotes_stream(sys.argv[1]), count=1)
    quote, now = decode(Quote, fields), datetime.now(UTC)
    expires = now + timedelta(seconds=60)
    signal = Signal(
        uuid.uuid4(), sys.argv[1], Side.BUY, 0.9, quote.mid, "by hand", now, expires, "a test", quote.trace_id
    )
    await client.xadd(SIGNALS_STREAM, encode(signal))
    print(json.dumps({"decision_id": str(signal.signal_id), "trace_id": signal.trace_id}))
    await client.aclose()

asyncio.run(main())
"""
# In the news simulator's pod: headlines that speak for the product's asset, in every feed.
GOOD_NEWS = """
import json, sys, urllib.request
fault = {"fault": "extreme", "tone": "positive", "asset": sys.argv[1], "count": 50, "seconds": 3600}
request = urllib.request.Request(
    "http://127.0.0.1:8080/faults", json.dumps(fault).encode(), {"Content-Type": "application/json"}
)
print(urllib.request.urlopen(request, timeout=10).status)
"""
STATE = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/state', timeout=10).read().decode())"
FINAL = {"filled", "partially_filled", "cancelled", "rejected", "denied_risk", "denied_llm", "expired", "failed"}


def in_pod(lab: LabUnderTest, service: str, *command: str, namespace: str = NAMESPACE, code: int = 0) -> str:
    return lab.kubectl("exec", "--namespace", namespace, f"deployment/{service}", "--", *command, code=code)


def send_signal(lab: LabUnderTest) -> dict[str, str]:
    sent: dict[str, str] = json.loads(in_pod(lab, "trade-orchestrator", "python3", "-c", SIGNAL, PRODUCT))
    return sent


def json_trace(lab: LabUnderTest, identity: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(in_pod(lab, "trade-orchestrator", "tradewatch", "trace", identity, "--json"))
    return told


def story(lab: LabUnderTest, decision_id: str) -> dict[str, Any]:
    """What `tradewatch trace` tells of a decision that has come to its end."""

    def ended() -> Any:
        decisions = json.loads(in_pod(lab, "trade-orchestrator", "tradewatch", "decisions", "--json"))
        return [d for d in decisions if d["decision_id"] == decision_id and d["state"] in FINAL]

    wait(ended, f"the end of decision {decision_id}", 120)
    return json_trace(lab, decision_id)


def state_of(told: dict[str, Any]) -> str:
    return str(next(step["details"]["state"] for step in told["steps"] if step["source"] == "decision"))


def details(told: dict[str, Any], source: str) -> list[dict[str, Any]]:
    return [step["details"] for step in told["steps"] if step["source"] == source]


@pytest.fixture(scope="module")
def good_news(lab: LabUnderTest) -> None:
    """The news speaks for the product: the language model's stand-in denies a signal that the news contradicts."""
    asset = PRODUCT.split("-")[0]
    in_pod(lab, "news-simulator", "python3", "-c", GOOD_NEWS, asset, namespace="crypto-collectors")
    wait(lambda: lab.query(f'sentiment_score{{asset="{asset}"}} > 0'), f"good news of {asset}", 180)


@pytest.fixture(scope="module")
def traded(lab: LabUnderTest, good_news: None) -> dict[str, Any]:
    """The story of a decision that ended in a fill at the exchange: of a few, as the price may run away from one."""
    for _ in range(5):
        told = story(lab, send_signal(lab)["decision_id"])
        if state_of(told) == "filled":
            return told
    raise AssertionError(f"no signal was traded; the last one: {told}")


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
    state = json.loads(in_pod(lab, "exchange-simulator", "python3", "-c", STATE, namespace="crypto-collectors"))
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
    command = str(lab.directory / "bin/tradewatch")
    run(command, "kill-switch", "engage", "--reason", "drill", "--actor", "e2e", env=lab.env)
    try:
        assert '"HALTED"' in run(command, "kill-switch", "status", "--json", env=lab.env)
        told = story(lab, send_signal(lab)["decision_id"])
        assert state_of(told) == "denied_risk"
        assert not details(told, "order")
        wait(lambda: lab.query("max(kill_switch_engaged) == 1"), "the engaged switch in Prometheus", 60)
    finally:
        run(command, "kill-switch", "release", "--reason", "drill over", "--actor", "e2e", env=lab.env)
    assert '"ACTIVE"' in run(command, "kill-switch", "status", "--json", env=lab.env)
