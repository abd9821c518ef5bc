"""Faults of the lab, and what drives the trading system meanwhile: signals and their stories, news, the kill switch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

from tests.commands import run
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

NAMESPACE = "crypto-trading"
PRODUCT = "BTC-USD"
# In the quote currency, ten times the smallest order.
ENOUGH_TO_SELL = 100
FINAL = {"filled", "partially_filled", "cancelled", "rejected", "denied_risk", "denied_llm", "expired", "failed"}
SIMULATORS = {
    "exchange-simulator": "crypto-collectors",
    "llm-simulator": "crypto-trading",
    "news-simulator": "crypto-collectors",
}
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
        uuid.uuid4(), sys.argv[1], Side(sys.argv[2]), 0.9, quote.mid, "by hand", now, expires, "a test", quote.trace_id
    )
    await client.xadd(SIGNALS_STREAM, encode(signal))
    print(json.dumps({"decision_id": str(signal.signal_id), "trace_id": signal.trace_id}))
    await client.aclose()

asyncio.run(main())
"""
# In a service's pod: what it answers.
READ = """
import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1:8080" + sys.argv[1], timeout=10).read().decode())
"""
# In a simulator's pod: the fault that its argument describes.
FAULT = """
import sys, urllib.request
headers = {"Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8080/faults", sys.argv[1].encode(), headers)
print(urllib.request.urlopen(request, timeout=10).status)
"""
NO_FAULTS = """
import urllib.request
request = urllib.request.Request("http://127.0.0.1:8080/faults", method="DELETE")
print(urllib.request.urlopen(request, timeout=10).status)
"""


def in_pod(lab: LabUnderTest, service: str, *command: str, namespace: str = NAMESPACE, code: int = 0) -> str:
    return lab.kubectl("exec", "--namespace", namespace, f"deployment/{service}", "--", *command, code=code)


def read(lab: LabUnderTest, service: str, path: str, namespace: str) -> str:
    """What a service answers to a GET from within its pod, where nothing is asked for a token."""
    return in_pod(lab, service, "python3", "-c", READ, path, namespace=namespace)


def send_signal(lab: LabUnderTest, side: str = "") -> dict[str, str]:
    """Send a signal of this side, or of one that there is room for."""
    arguments = (PRODUCT, side or side_with_room(lab))
    sent: dict[str, str] = json.loads(in_pod(lab, "trade-orchestrator", "python3", "-c", SIGNAL, *arguments))
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
    """The state in which the decision of a story stands."""
    return str(next(step["details"]["state"] for step in told["steps"] if step["source"] == "decision"))


def fault(lab: LabUnderTest, simulator: str, **fields: Any) -> None:
    """Switch a fault of a simulator on."""
    in_pod(lab, simulator, "python3", "-c", FAULT, json.dumps(fields), namespace=SIMULATORS[simulator])


def no_faults(lab: LabUnderTest, *simulators: str) -> None:
    """Switch all faults of these simulators off, of all where none is named."""
    for simulator in simulators or SIMULATORS:
        in_pod(lab, simulator, "python3", "-c", NO_FAULTS, namespace=SIMULATORS[simulator])


def side_with_room(lab: LabUnderTest) -> str:
    """The side of which risk-manager takes an order: the system trades by itself too, and may hold only so much."""
    rows = json.loads(in_pod(lab, "trade-orchestrator", "tradewatch", "positions", "--json"))
    held = sum(Decimal(row["quantity"]) * Decimal(row["average_price"]) for row in rows if row["product_id"] == PRODUCT)
    return "SELL" if held > ENOUGH_TO_SELL else "BUY"


def news_for(lab: LabUnderTest, side: str) -> None:
    """Have the news speak for the side: the language model's stand-in denies a signal that they contradict.

    News count for hours: those for the other side, of a call before, must be outweighed.
    """
    asset = PRODUCT.split("-")[0]
    tone, comes_to = ("positive", "> 0") if side == "BUY" else ("negative", "< 0")
    no_faults(lab, "news-simulator")
    score = f'sentiment_score{{asset="{asset}"}} {comes_to}'
    for times in (1, 2, 4):
        for _ in range(times):
            fault(lab, "news-simulator", fault="extreme", tone=tone, asset=asset, count=50, seconds=3600)
        # The lab reads its feeds and scores them each ten seconds; then the score is scraped.
        with suppress(AssertionError):
            wait(lambda: lab.query(score), f"{tone} news of {asset}", 60)
            return
    raise AssertionError(f"no {tone} news of {asset}")


def trade(lab: LabUnderTest) -> dict[str, Any]:
    """The story of a decision that ended in a fill at the exchange: of a few, as the price may run away from one."""
    for _ in range(5):
        side = side_with_room(lab)
        news_for(lab, side)
        told = story(lab, send_signal(lab, side)["decision_id"])
        if state_of(told) == "filled":
            return told
    raise AssertionError(f"no signal was traded; the last one: {told}")


def tradewatch(lab: LabUnderTest, *arguments: str) -> str:
    """The output of the command for people."""
    return run(str(lab.directory / "bin/tradewatch"), *arguments, env=lab.env)


@contextmanager
def kill_switch_engaged(lab: LabUnderTest) -> Iterator[None]:
    """Nothing is traded meanwhile."""
    tradewatch(lab, "kill-switch", "engage", "--reason", "drill", "--actor", "e2e")
    try:
        yield
    finally:
        tradewatch(lab, "kill-switch", "release", "--reason", "drill over", "--actor", "e2e")


@contextmanager
def away(lab: LabUnderTest, name: str, kind: str = "deployment", namespace: str = NAMESPACE) -> Iterator[None]:
    """No pod of a deployment or a stateful set of one replica meanwhile."""
    scale = ("scale", "--namespace", namespace, f"{kind}/{name}")
    lab.kubectl(*scale, "--replicas=0")
    try:
        yield
    finally:
        lab.kubectl(*scale, "--replicas=1")
        lab.kubectl("rollout", "status", "-n", namespace, f"{kind}/{name}", "--timeout=110s")


def kill_a_container(lab: LabUnderTest, service: str) -> None:
    """End the first process of a pod of crypto-collectors; the kubelet starts it again."""
    before = lab.get("pods", "-n", "crypto-collectors", "-l", f"app.kubernetes.io/name={service}")["items"]
    restarts = before[0]["status"]["containerStatuses"][0]["restartCount"]
    code = "import os, signal; os.kill(1, signal.SIGTERM)"
    in_pod(lab, service, "python3", "-c", code, namespace="crypto-collectors")

    def restarted() -> bool:
        after = lab.get("pods", "-n", "crypto-collectors", "-l", f"app.kubernetes.io/name={service}")["items"]
        return any(status["restartCount"] > restarts for pod in after for status in pod["status"]["containerStatuses"])

    wait(restarted, f"{service} started again", 60)
