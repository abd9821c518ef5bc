"""Nothing lost, nothing twice: services are killed and Valkey and PostgreSQL restarted while signals flow.

Before the first harm one trace is followed from the tick to the fill.

`TRADEWATCH_CHAOS_SIGNALS` is how many; more take longer, at `TRADEWATCH_CHAOS_SIGNALS_PER_SECOND`.
"""

import asyncio
import os
import re
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from services_support import PASSWORD, eventually
from tradewatch.common import bus, streams
from tradewatch.common.events import Side, stream_name
from tradewatch.common.streams import SIGNALS_STREAM, Quote, Signal, quotes_stream
from tradewatch.trading.identity import client_order_id
from tradewatch.trading.orchestrator.machine import FINAL
from world import PRODUCTS, SERVICES, SIGNAL_SECONDS, START_CASH, World

SIGNALS = int(os.environ.get("TRADEWATCH_CHAOS_SIGNALS", "2000"))
PER_SECOND = float(os.environ.get("TRADEWATCH_CHAOS_SIGNALS_PER_SECOND", "25"))
HARM_EVERY_SECONDS = 4.0
SETTLE_SECONDS = 150.0
# Who takes part in a decision, and the metric of each that has the trace id as its exemplar.
EXEMPLARS = {
    "trade-orchestrator": "pipeline_end_to_end_duration_seconds_bucket",
    "risk-manager": "risk_decisions_total",
    "llm-validator": "llm_validation_duration_seconds_bucket",
    "trade-executor": "trade_execution_duration_seconds_bucket",
}


@pytest.mark.timeout(480)
async def test_nothing_is_lost_and_nothing_happens_twice(world: World) -> None:
    await world.start()
    traced = await _follow_one_trace(world)
    harming = asyncio.create_task(world.harm_for_ever(HARM_EVERY_SECONDS))
    try:
        fed = [traced, *await world.feed(SIGNALS, PER_SECOND)]
    finally:
        harming.cancel()
        await asyncio.gather(harming, return_exceptions=True)

    async def all_ended() -> bool:
        (row,) = await world.database.fetch("SELECT count(*) AS ended FROM decisions WHERE finished IS NOT NULL")
        return bool(row["ended"] >= len(fed))

    await asyncio.sleep(3)
    await eventually(all_ended, SETTLE_SECONDS)

    decisions = await world.database.fetch("SELECT * FROM decisions")
    outcomes = Counter(row["state"] for row in decisions)
    reasons = Counter(f"{row['state']} {row['reason']}".strip() for row in decisions)
    print(f"signals {len(fed)}, outcomes {dict(reasons)}, harm {dict(world.harm)}")
    assert {row["decision_id"] for row in decisions} == {signal.signal_id for signal in fed}
    assert {row["state"] for row in decisions} <= FINAL
    assert outcomes["filled"] >= len(fed) // 5, "a run without trades proves nothing"
    await _assert_audit_has_no_hole(world, decisions)
    await _assert_one_order_a_decision(world, decisions)
    await eventually(lambda: _positions_agree(world))
    assert set(world.harm) >= {*SERVICES, "valkey", "postgres", "exchange"} or SIGNALS < 1000


async def _follow_one_trace(world: World) -> Signal:
    """One trace id from the exchange's tick to the fill: on the bus, in the logs, in the audit and as exemplars."""
    client = bus.connect(world.valkey.url, PASSWORD)
    try:
        ((_, fields),) = await eventually(lambda: client.xrevrange(quotes_stream(PRODUCTS[0]), count=1))
        quote, now = streams.decode(Quote, fields), datetime.now(UTC)
        ticks = await client.xrevrange(stream_name("coinbase", PRODUCTS[0]), count=1_000)
        assert quote.trace_id.encode() in {tick[b"trace_id"] for _, tick in ticks if tick[b"kind"] == b"ticker"}
        expires = now + timedelta(seconds=SIGNAL_SECONDS)
        signal = Signal(
            uuid.uuid4(), PRODUCTS[0], Side.BUY, 0.9, quote.mid, "chaos", now, expires, "traced", quote.trace_id
        )
        await client.xadd(SIGNALS_STREAM, streams.encode(signal))
    finally:
        await client.aclose()
    query = """
SELECT decisions.trace_id AS decided, orders.trace_id AS ordered, fills.trade_id
FROM decisions JOIN orders USING (decision_id) JOIN fills USING (client_order_id)
WHERE decision_id = $1 AND decisions.finished IS NOT NULL"""
    rows = await eventually(lambda: world.database.fetch(query, signal.signal_id))
    assert {(row["decided"], row["ordered"]) for row in rows} == {(quote.trace_id, quote.trace_id)}
    audit = await world.database.fetch("SELECT actor, trace_id FROM audit_log WHERE decision_id = $1", signal.signal_id)
    assert {(row["actor"], row["trace_id"]) for row in audit} == {(name, quote.trace_id) for name in EXEMPLARS}
    for name, metric in EXEMPLARS.items():
        assert quote.trace_id in world.services[name].log.read_text(), f"{name} does not log it"
        text = await world.services[name].open_metrics()
        exemplar = rf'^{metric}\{{.*\}} \S+ # \{{trace_id="{quote.trace_id}"\}}'
        assert re.search(exemplar, text, re.MULTILINE), f"{name} has no such exemplar"
    return signal


async def _assert_audit_has_no_hole(world: World, decisions: list[Any]) -> None:
    rows = await world.database.fetch(
        "SELECT * FROM audit_log WHERE decision_id IS NOT NULL ORDER BY decision_id, step"
    )
    told: dict[Any, list[Any]] = {}
    for row in rows:
        told.setdefault(row["decision_id"], []).append(row)
    for decision in decisions:
        lines = told[decision["decision_id"]]
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
        states = [line["action"].removeprefix("decision.") for line in lines if line["actor"] == "trade-orchestrator"]
        assert len(states) == decision["version"], f"moves without a line in the audit: {states}"
        assert states[0] == "received"
        assert states[-1] == decision["state"]
        assert sum(state in FINAL for state in states) == 1
        assert {line["trace_id"] for line in lines} == {decision["trace_id"]}


async def _assert_one_order_a_decision(world: World, decisions: list[Any]) -> None:
    at_exchange = (await world.exchange_state())["orders"]
    sent = Counter(order["client_order_id"] for order in at_exchange)
    assert [identifier for identifier, count in sent.items() if count > 1] == []
    by_order = {str(client_order_id(row["decision_id"])): row for row in decisions}
    assert set(sent) <= set(by_order), "an order that no decision made"
    known = {str(row["client_order_id"]): row for row in await world.database.fetch("SELECT * FROM orders")}
    assert set(sent) <= set(known), "an order that the store does not know"
    for order in at_exchange:
        ours, decision = known[order["client_order_id"]], by_order[order["client_order_id"]]
        assert ours["filled_size"] == Decimal(order["filled_size"])
        traded = decision["state"] in ("filled", "partially_filled")
        assert traded == (Decimal(order["filled_size"]) > 0), f"{decision['state']} with {order['filled_size']} filled"
    for identifier, row in by_order.items():
        if row["state"] in ("filled", "partially_filled"):
            assert identifier in sent


async def _positions_agree(world: World) -> bool:
    """Whether the positions and the cash are those of the exchange."""
    balances = (await world.exchange_state())["balances"]
    held = {
        row["product_id"]: row["quantity"]
        for row in await world.database.fetch("SELECT product_id, quantity FROM positions")
    }
    fills = await world.database.fetch("SELECT side, price * size AS value, fee FROM fills")
    cash = START_CASH - sum(
        ((row["value"] if row["side"] == "BUY" else -row["value"]) + row["fee"] for row in fills), Decimal(0)
    )
    at_exchange = {
        product: Decimal(balances.get(product.partition("-")[0], {"total": "0"})["total"]) for product in PRODUCTS
    }
    agree = all(held.get(product, Decimal(0)) == quantity for product, quantity in at_exchange.items())
    return agree and abs(cash - Decimal(balances["USD"]["total"])) < Decimal("0.01")
