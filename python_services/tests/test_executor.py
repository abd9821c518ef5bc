"""trade-executor over sockets: every fault of the exchange has its right end, and no decision has two orders."""

import asyncio
import random
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from executor_support import (
    ORDER_LOOKUP_SECONDS,
    PRODUCTS,
    TRACE,
    Exchange,
    Executor,
    ExecutorProcess,
    exchange,
    executor,
)
from postgres_support import Database, PostgresServer
from services_support import WAIT_SECONDS, ends, eventually, value
from tradewatch.common.events import Side
from tradewatch.trading.contracts import OrderRequest
from tradewatch.trading.execution.leadership import LOCK, Leadership
from tradewatch.trading.execution.lifecycle import LIMIT_IOC, Patience
from tradewatch.trading.execution.store import OrderStore
from tradewatch.trading.identity import client_order_id

ABOVE, BELOW = Decimal("1.02"), Decimal("0.9")
CREATE = {"method": "POST", "path": "*/orders"}


LOCK_HOLDER = f"""
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) + objid::bigint = {LOCK}
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def stored(database: Database, decision_id: uuid.UUID) -> Any:
    [row] = await database.fetch("SELECT * FROM orders WHERE decision_id = $1", decision_id)
    return row


async def check_books(database: Database, at: Exchange) -> None:
    """One order a decision at the exchange, fills and positions the same on both sides, an audit without a hole."""
    orders = await at.orders()
    ids = [order["client_order_id"] for order in orders]
    assert len(ids) == len(set(ids))
    rows = {str(row["client_order_id"]): row for row in await database.fetch("SELECT * FROM orders")}
    assert set(ids) <= set(rows)
    for order in orders:
        assert rows[order["client_order_id"]]["filled_size"] == Decimal(order["filled_size"])
    for product in PRODUCTS:
        [row] = await database.fetch("SELECT quantity FROM positions WHERE product_id = $1", product)
        assert row["quantity"] == await at.balance(product.partition("-")[0])
    holes = await database.fetch(
        "SELECT decision_id FROM audit_log WHERE step IS NOT NULL GROUP BY 1 HAVING max(step) <> count(*)"
    )
    assert not holes


async def test_a_decision_becomes_one_order_its_fills_and_a_position(database: Database) -> None:
    decision = uuid.uuid4()
    async with exchange() as at, executor(database, at) as run:
        limit = await at.mid() * ABOVE
        answers = await asyncio.gather(*(run.place(decision, limit) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {202}
        ended = await run.ended(decision)
        assert (ended["status"], ended["reason"]) == ("filled", "complete")
        assert ended["client_order_id"] == str(client_order_id(decision))
        assert (await run.place(decision, limit)).json() == ended
        assert len(await at.orders()) == 1
        await check_books(database, at)
        [position] = await database.fetch("SELECT * FROM positions WHERE product_id = 'BTC-USD'")
        assert position["quantity"] == Decimal(ended["filled_size"])
        assert position["average_price"] == pytest.approx(Decimal(ended["average_price"]), rel=Decimal("1e-9"))
        assert position["fees"] == Decimal(ended["fees"]) > 0
        actions = await database.fetch("SELECT action, trace_id FROM audit_log WHERE decision_id = $1", decision)
        assert [row["action"] for row in actions] == [
            "order_pending",
            "order_submitted",
            "order_open",
            "order_filled",
        ]
        assert {row["trace_id"] for row in actions} == {TRACE}
        assert value(run.registry, "trade_executions_total", status="filled", reason="complete") == 1
        async with httpx.AsyncClient() as client:
            accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
            text = (await client.get(f"{run.url}/metrics", headers=accept)).text
        lines = [line for line in text.splitlines() if line.startswith("trade_execution_duration_seconds_bucket")]
        assert any(TRACE in line for line in lines)
        await eventually(lambda: database.fetch("SELECT 1 FROM equity"))
        drift = await eventually(lambda: value(run.registry, "position_drift_units", product_id="BTC-USD") == 0)
        assert drift

        sale = uuid.uuid4()
        await run.place(sale, await at.mid() * BELOW, side="SELL", quote_size="100000")
        assert (await run.ended(sale))["filled_size"] == ended["filled_size"]
        [position] = await database.fetch("SELECT * FROM positions WHERE product_id = 'BTC-USD'")
        assert position["quantity"] == 0
        assert position["realized_pnl"] != 0
        await check_books(database, at)


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"fault": "timeout", "delay_seconds": 2.0, **CREATE}, "filled", "complete"),
    ({"fault": "timeout", "delay_seconds": 0.0, **CREATE}, "filled", "complete"),
    ({"fault": "status", "status": 503, "accepted": True, **CREATE}, "filled", "complete"),
    ({"fault": "status", "status": 500, **CREATE}, "rejected", "never_reached_exchange"),
    ({"fault": "status", "status": 429, "retry_after_seconds": 1, **CREATE}, "filled", "complete"),
    ({"fault": "status", "status": 429, "retry_after_seconds": 60, **CREATE}, "rejected", "throttled"),
    ({"fault": "status", "status": 400, **CREATE}, "rejected", "exchange_refused"),
    ({"fault": "status", "status": 401, **CREATE}, "rejected", "unauthorized"),
    ({"fault": "reject"}, "rejected", "exchange_refused"),
    ({"fault": "reject", "reason": "INSUFFICIENT_FUND"}, "rejected", "insufficient_funds"),
    ({"fault": "reject", "as_order": True}, "rejected", "exchange_failed"),
    ({"fault": "partial_fill", "fraction": 0.5}, "cancelled", "unfilled_rest"),
    (
        {"fault": "status", "status": 503, "method": "GET", "path": "*/historical/*", "count": 3},
        "filled",
        "complete",
    ),
]


async def test_every_fault_has_its_right_end(database: Database) -> None:
    # Only the faults' own requests: the comparison with the exchange waits meanwhile.
    async with exchange() as at, executor(database, at, reconcile_seconds=60) as run:
        for fault, status, reason in FAULTS:
            decision, before = uuid.uuid4(), len(await at.orders())
            limit = await at.mid() * ABOVE
            await at.fault(**fault)
            assert (await run.place(decision, limit)).status_code == 202
            ended = await run.ended(decision)
            assert (ended["status"], ended["reason"]) == (status, reason), fault
            assert len(await at.orders()) - before <= 1, fault
            if status == "cancelled":
                assert 0 < Decimal(ended["filled_size"]) < (await stored(database, decision))["base_size"]
            assert value(run.registry, "orders_unknown_outcome") == 0
            assert value(run.registry, "trade_executions_total", status=status, reason=reason) >= 1
            async with httpx.AsyncClient() as client:
                await client.delete(f"{at.admin}/faults")
        await check_books(database, at)


async def test_an_unknown_order_is_seen_and_looked_up_never_sent_again(database: Database) -> None:
    decision = uuid.uuid4()
    async with (
        exchange() as at,
        executor(database, at, patience=Patience(2, 1, 30), reconcile_seconds=60, cancel_seconds=0.2) as run,
    ):
        limit = await at.mid() * ABOVE
        await at.fault(fault="status", status=500, **CREATE)
        await at.fault(fault="status", status=503, method="GET", path="*/historical/*", count=1000)
        answer = (await run.place(decision, limit)).json()
        assert (answer["status"], answer["final"]) == ("unknown", False)
        assert value(run.registry, "orders_unknown_outcome") == 1
        async with httpx.AsyncClient() as client:
            await client.delete(f"{at.admin}/faults")
        await asyncio.sleep(0.5)
        assert await at.orders() == []


async def test_no_order_in_a_halted_system_nor_a_purchase_in_a_reducing_one(database: Database) -> None:
    async with exchange(balances=(("USD", Decimal(1000)), ("BTC", Decimal(1)))) as at, executor(database, at) as run:
        limit = await at.mid() * ABOVE
        await database.fetch("UPDATE trading_state SET state = 'REDUCING'")
        purchase, sale, halted = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
        answer = (await run.place(purchase, limit)).json()
        assert (answer["status"], answer["reason"], answer["final"]) == ("rejected", "reducing_only", True)
        await run.place(sale, await at.mid() * BELOW, side="SELL")
        assert (await run.ended(sale))["status"] == "filled"
        await database.fetch("UPDATE trading_state SET state = 'HALTED', kill_switch = true")
        answer = (await run.place(halted, limit, side="SELL")).json()
        assert (answer["status"], answer["reason"]) == ("rejected", "halted")
        await database.fetch("UPDATE trading_state SET state = 'ACTIVE', kill_switch = false")
        assert (await run.place(halted, limit, side="SELL")).json() == answer
        assert len(await at.orders()) == 1
        await check_books(database, at)


async def test_cancel_all_leaves_nothing_open(database: Database) -> None:
    decisions = [uuid.uuid4() for _ in range(3)]
    patience = Patience(send=2, rest=60, lookup=1)
    async with exchange() as at, executor(database, at, patience=patience, order_type="limit_gtc") as run:
        limit = await at.mid() * BELOW
        await at.client.order("somebody-elses", "BUY", limit_limit_gtc={"base_size": "0.001", "limit_price": "1000"})
        await asyncio.gather(*(run.place(decision, limit) for decision in decisions))
        assert {order["status"] for order in await at.orders()} == {"OPEN"}
        await eventually(lambda: value(run.registry, "orders_foreign_open") == 1)
        assert (await run.cancel_all("wrong")).status_code == 401
        answer = await run.cancel_all()
        assert sorted(answer.json()["cancelled"]) == sorted(str(client_order_id(one)) for one in decisions)
        assert {order["status"] for order in await at.orders()} == {"CANCELLED"}
        row = await stored(database, decisions[0])
        assert (row["status"], row["reason"]) == ("cancelled", "cancel_all")
        assert (await run.cancel_all()).json() == {"cancelled": []}


async def test_a_resting_order_is_cancelled_when_its_time_is_over(database: Database) -> None:
    decision = uuid.uuid4()
    patience = Patience(send=2, rest=0.3, lookup=1)
    async with exchange() as at, executor(database, at, patience=patience, order_type="limit_gtc") as run:
        await run.place(decision, await at.mid() * BELOW)
        ended = await run.ended(decision)
        assert (ended["status"], ended["reason"]) == ("cancelled", "time_limit")


async def test_nothing_is_taken_before_or_long_after_a_comparison_with_the_exchange(database: Database) -> None:
    async with exchange() as at:
        limit = await at.mid() * ABOVE
        await at.fault(fault="status", status=503, method="GET", path="*/accounts", seconds=60.0)
        async with executor(database, at, wait_ready=False, reconcile_max_age_seconds=2.0) as run:
            decision = uuid.uuid4()
            await eventually(lambda: value(run.registry, "executor_active") == 1)
            assert (await run.place(decision, limit)).status_code == 503
            assert not await run.ready()
            async with httpx.AsyncClient() as client:
                await client.delete(f"{at.admin}/faults")
            await eventually(run.ready)
            assert (await run.place(decision, limit)).status_code == 202
            await run.ended(decision)
            await at.fault(fault="status", status=503, method="GET", path="*/accounts", seconds=60.0)
            assert await eventually(lambda: _refused(run, limit))
        assert len(await at.orders()) == 1


async def _refused(run: Executor, limit: Decimal) -> bool:
    # A sale without a holding, so that asking does not trade.
    return (await run.place(uuid.uuid4(), limit, side="SELL", product_id="ETH-USD")).status_code == 503


async def test_a_drift_is_measured_and_left_alone(database: Database) -> None:
    async with exchange(balances=(("USD", Decimal(1000)), ("BTC", Decimal(1)))) as at, executor(database, at) as run:
        assert value(run.registry, "position_drift_units", product_id="BTC-USD") == 0
        await at.client.order("by-hand", "SELL", market_market_ioc={"base_size": "0.25"})
        await eventually(lambda: value(run.registry, "position_drift_units", product_id="BTC-USD") == -0.25)
        [position] = await database.fetch("SELECT quantity FROM positions WHERE product_id = 'BTC-USD'")
        assert position["quantity"] == 1


async def test_only_one_of_two_executors_sends_and_the_other_takes_over(database: Database) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    async with exchange() as at:
        limit = await at.mid() * ABOVE
        async with executor(database, at) as one, executor(database, at, wait_ready=False) as two:
            assert (await one.place(first, limit)).status_code == 202
            assert (await two.place(first, limit)).status_code == 503
            assert not await two.ready()
            # The server ends the session that holds the lock: it is lost without the holder being asked.
            [held] = await database.fetch(LOCK_HOLDER)
            await database.fetch("SELECT pg_terminate_backend($1)", held["pid"])

            async def noticed() -> bool:
                return value(one.registry, "executor_active") == 0

            async def taken_over() -> bool:
                holders = await database.fetch(LOCK_HOLDER)
                other = bool(holders) and holders[0]["pid"] != held["pid"]
                return other and await one.ready() != await two.ready()

            await eventually(noticed)
            await eventually(taken_over)
            assert value(one.registry, "executor_active") + value(two.registry, "executor_active") == 1
            answers = await asyncio.gather(one.place(second, limit), two.place(second, limit))
            assert sorted(answer.status_code for answer in answers) == [202, 503]
        await check_books(database, at)
        assert len(await at.orders()) == 2


async def test_who_gives_the_lock_up_frees_it(database: Database) -> None:
    async with database.connect() as pool:

        async def held_once() -> None:
            held = asyncio.Event()
            one = Leadership(pool, lambda: None, lambda active: held.set() if active else None, interval_seconds=0.05)
            running = asyncio.create_task(one.run())
            try:
                await ends(held.wait())
            finally:
                running.cancel()
                await asyncio.wait({running})

        await held_once()
        # On another connection of the same pool, which would keep the first one's session.
        async with pool.acquire():
            await held_once()


async def test_calls_about_one_decision_at_the_same_time_find_one_order(database: Database) -> None:
    async with database.connect() as pool:
        store = OrderStore(pool)
        for _ in range(40):
            request = OrderRequest(
                decision_id=uuid.uuid4(),
                trace_id=TRACE,
                product_id="BTC-USD",
                side=Side.BUY,
                quote_size=Decimal(100),
                limit_price=Decimal(65_000),
                expires=datetime.now(UTC) + timedelta(minutes=1),
            )
            changes = await asyncio.gather(*(store.accept(request, None, LIMIT_IOC) for _ in range(5)))
            assert {change.order.client_order_id for change in changes} == {client_order_id(request.decision_id)}


async def test_bad_orders_are_refused(database: Database) -> None:
    refused: list[tuple[dict[str, Any], int]] = [
        ({"product_id": "DOGE-USD"}, 422),
        ({"quote_size": "-1"}, 422),
        ({"quote_size": "NaN"}, 422),
        ({"lives_seconds": -1}, 409),
    ]
    async with exchange() as at, executor(database, at) as run:
        for change, status in refused:
            assert (await run.place(uuid.uuid4(), Decimal(100), **change)).status_code == status
        answer = (await run.place(uuid.uuid4(), Decimal(100), quote_size="0.0000001")).json()
        assert (answer["status"], answer["reason"]) == ("rejected", "too_small")
        assert await at.orders() == []


async def test_the_store_may_restart_while_orders_are_under_way(postgres: PostgresServer, database: Database) -> None:
    decisions = [uuid.uuid4() for _ in range(8)]
    async with exchange() as at, executor(database, at) as run:
        limit = await at.mid() * ABOVE
        placing = [asyncio.create_task(_insist(run, decision, limit)) for decision in decisions]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.start)
        await asyncio.gather(*placing)
        ends = [await run.ended(decision) for decision in decisions]
        assert {end["status"] for end in ends} <= {"filled", "rejected"}
        assert {end["reason"] for end in ends} <= {"complete", "never_sent", "never_reached_exchange"}
        await eventually(run.ready)
        await check_books(database, at)


async def _insist(run: Executor, decision: uuid.UUID, limit: Decimal) -> None:
    async def taken() -> bool:
        try:
            return (await run.place(decision, limit, quote_size="50")).status_code == 202
        except httpx.HTTPError:
            return False

    await eventually(taken, 2 * WAIT_SECONDS)


@pytest.mark.timeout(240)
async def test_a_killed_executor_loses_nothing_and_repeats_nothing(database: Database, tmp_path: Path) -> None:
    rng = random.Random(7)
    decisions = [uuid.UUID(int=rng.getrandbits(128), version=4) for _ in range(12)]
    async with exchange() as at:
        limit = await at.mid() * ABOVE
        process = ExecutorProcess(database, at, tmp_path)
        process.start()
        try:
            await eventually(process.api.ready)
            placing = [asyncio.create_task(_insist(process.api, decision, limit)) for decision in decisions]
            for _ in range(2):
                await asyncio.sleep(rng.uniform(0.02, 0.2))
                await asyncio.to_thread(process.kill)
                process.start()
                await eventually(process.api.ready)
            await asyncio.gather(*placing)
            ends = [await process.api.ended(decision, ORDER_LOOKUP_SECONDS + WAIT_SECONDS) for decision in decisions]
            assert {end["status"] for end in ends} <= {"filled", "rejected"}
            await eventually(process.api.ready)
            afterwards = uuid.uuid4()
            await _insist(process.api, afterwards, limit)
            assert (await process.api.ended(afterwards, WAIT_SECONDS))["status"] == "filled"
            await check_books(database, at)
        finally:
            process.kill()
    assert "PRIVATE KEY" not in process.log
    assert all(TRACE in line for line in process.log.splitlines() if "order ended" in line)
