"""Nothing lost, nothing twice: services are killed and Valkey and PostgreSQL restarted while signals flow.

`TRADEWATCH_CHAOS_SIGNALS` is how many; more take longer, at `TRADEWATCH_CHAOS_SIGNALS_PER_SECOND`.
"""

import asyncio
import os
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from services_support import eventually
from tradewatch.trading.identity import client_order_id
from tradewatch.trading.orchestrator.machine import FINAL
from world import PRODUCTS, SERVICES, START_CASH, World

SIGNALS = int(os.environ.get("TRADEWATCH_CHAOS_SIGNALS", "2000"))
PER_SECOND = float(os.environ.get("TRADEWATCH_CHAOS_SIGNALS_PER_SECOND", "25"))
HARM_EVERY_SECONDS = 4.0
SETTLE_SECONDS = 150.0


@pytest.mark.timeout(480)
async def test_nothing_is_lost_and_nothing_happens_twice(world: World) -> None:
    await world.start()
    harming = asyncio.create_task(world.harm_for_ever(HARM_EVERY_SECONDS))
    try:
        fed = await world.feed(SIGNALS, PER_SECOND)
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
    await eventually(lambda: _positions_agree(world), 30)
    assert set(world.harm) >= {*SERVICES, "valkey", "postgres", "exchange"} or SIGNALS < 1000


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
