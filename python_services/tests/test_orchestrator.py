"""trade-orchestrator with a real Valkey and a real PostgreSQL; the services that it asks are stand-ins."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from orchestrator_support import (
    APPROVED,
    DENIED,
    DISMISSED,
    Stubs,
    a_signal,
    failing,
    orchestration,
    order_answer,
    stubs,
)
from postgres_support import Database
from services_support import WAIT_SECONDS, ValkeyServer, eventually, value
from tradewatch.common import streams
from tradewatch.common.streams import SIGNALS_STREAM, Signal
from tradewatch.trading.identity import client_order_id
from tradewatch.trading.orchestrator.decisions import Conflict, DecisionStore
from tradewatch.trading.orchestrator.machine import State

WAY = ["received", "risk_before", "llm", "risk_after", "executing", "filled"]


@pytest.fixture
async def around() -> AsyncIterator[Stubs]:
    async with stubs() as made:
        yield made


async def decision(database: Database, signal: Signal) -> Any:
    rows = await database.fetch("SELECT * FROM decisions WHERE decision_id = $1", signal.signal_id)
    return rows[0] if rows else None


async def ended(database: Database, signal: Signal, seconds: float = WAIT_SECONDS) -> tuple[str, str]:
    async def final() -> Any:
        row = await decision(database, signal)
        return row if row and row["finished"] else None

    row = await eventually(final, seconds)
    return row["state"], row["reason"]


async def audited(database: Database, signal: Signal) -> list[str]:
    """The states that the audit tells of, in order; fails where its steps have a hole."""
    rows = await database.fetch(
        "SELECT step, action, trace_id FROM audit_log WHERE decision_id = $1 ORDER BY step", signal.signal_id
    )
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["trace_id"] for row in rows} <= {signal.trace_id}
    return [row["action"].removeprefix("decision.") for row in rows]


async def test_a_signal_goes_all_the_way(valkey: ValkeyServer, database: Database, around: Stubs) -> None:
    signal = a_signal()
    async with orchestration(valkey, database, around) as run:
        await run.publish(signal)
        assert await ended(database, signal) == ("filled", "")
        assert await audited(database, signal) == WAY
        assert [path for path, _ in around.calls] == ["assessments", "validations", "assessments", "orders"]
        assert around.traces == {signal.trace_id}
        (sent,) = around.sent
        assert (sent["quote_size"], sent["limit_price"], sent["side"]) == ("100", "65100.5", "BUY")
        (row,) = await database.fetch("SELECT * FROM signals")
        assert (row["reference_price"], row["created"]) == (signal.reference_price, signal.created)
        await eventually(lambda: value(run.registry, "pipeline_decisions_total", outcome="filled") == 1)
        for stage in WAY[:-1]:
            assert value(run.registry, "pipeline_stage_duration_seconds_count", stage=stage) == 1
        assert value(run.registry, "pipeline_end_to_end_duration_seconds_count") == 1
        assert value(run.registry, "pipeline_open_decisions") == 0
        assert all([(await check.run()).ok for check in run.peers.checks()])


async def test_a_signal_that_comes_twice_is_one_decision(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    signal = a_signal()
    async with orchestration(valkey, database, around) as run:
        await run.publish(signal, signal)
        await ended(database, signal)
        await run.publish(signal)
        await eventually(lambda: value(run.registry, "consumed_total", status="ok") == 3)
        assert await audited(database, signal) == WAY
        assert len(around.sent) == 1


@pytest.mark.parametrize(
    ("stage", "state", "reason", "orders"),
    [
        ("before_llm", "denied_risk", "max_exposure", 0),
        ("llm", "denied_llm", "news", 0),
        ("before_execution", "denied_risk", "max_exposure", 0),
    ],
)
async def test_a_no_is_the_end(
    valkey: ValkeyServer, database: Database, around: Stubs, stage: str, state: str, reason: str, orders: int
) -> None:
    around.risk = lambda body: DENIED if body["stage"] == stage else APPROVED
    if stage == "llm":
        around.llm = lambda _: DISMISSED
    signal = a_signal()
    async with orchestration(valkey, database, around) as run:
        await run.publish(signal)
        assert await ended(database, signal) == (state, reason)
        assert len(around.sent) == orders


async def test_a_signal_that_is_too_old_asks_nobody(valkey: ValkeyServer, database: Database, around: Stubs) -> None:
    old, long = a_signal(-1), a_signal(10_000, "ETH-USD")
    around.risk = lambda _: failing(503)
    async with orchestration(valkey, database, around, decision_seconds=2.0) as run:
        await run.publish(old, long)
        assert await ended(database, old) == ("expired", "signal_expired")
        # However late a signal expires, its decision does not live longer than decisions may.
        assert await ended(database, long) == ("expired", "risk_manager_server_error")
        assert old.signal_id.hex not in [uuid.UUID(key).hex for _, key in around.calls]


def _hangs(_: object) -> Any:
    return asyncio.sleep(5, {})


async def test_an_outage_is_never_a_yes(valkey: ValkeyServer, database: Database, around: Stubs) -> None:
    outages: list[tuple[Any, str]] = [
        (lambda: failing(503), "server_error"),
        (lambda: asyncio.sleep(5, {}), "timeout"),
        (lambda: {"decision": "maybe"}, "invalid_answer"),
        (lambda: APPROVED | {"limit_price": None}, "invalid_answer"),
        (lambda: APPROVED | {"approved_quote_size": "-5"}, "invalid_answer"),
        (lambda: APPROVED | {"limit_price": "NaN"}, "invalid_answer"),
        (lambda: web.Response(text="<html>", content_type="text/html"), "invalid_answer"),
    ]

    def risk(body: dict[str, Any]) -> Any:
        number = int(body["signal"]["product_id"][1])
        return APPROVED if body["stage"] == "before_llm" else outages[number][0]()

    around.risk = risk
    async with orchestration(valkey, database, around, call_seconds=1.0) as run:
        signals = [a_signal(8, f"P{number}-USD") for number in range(len(outages))]
        await run.publish(*signals)
        for signal, (_, reason) in zip(signals, outages, strict=True):
            assert await ended(database, signal) == ("expired", f"risk_manager_{reason}")
            assert value(run.registry, "pipeline_call_failures_total", peer="risk-manager", reason=reason) >= 2
    assert around.sent == []


async def test_an_outage_that_ends_in_time_delays_and_no_more(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    answers = iter([failing(503), failing(500), {"decision": "?"}])
    around.llm = lambda _: next(answers, {"decision": "approve", "reason": "", "reasons": [], "model": "", "tokens": 0})
    signal = a_signal()
    async with orchestration(valkey, database, around) as run:
        await run.publish(signal)
        assert await ended(database, signal) == ("filled", "")
        assert await audited(database, signal) == WAY


async def test_a_refused_call_fails_the_decision_at_once(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    around.llm = lambda _: failing(422, "invalid_request")
    signal = a_signal()
    async with orchestration(valkey, database, around) as run:
        await run.publish(signal)
        assert await ended(database, signal) == ("failed", "llm_validator_refused_invalid_request")


async def test_an_order_is_followed_to_its_end(valkey: ValkeyServer, database: Database, around: Stubs) -> None:
    signal = a_signal()
    identifier = str(client_order_id(signal.signal_id))
    around.order = lambda body: around.store_order(body, status="open", filled="0", final=False)
    async with orchestration(valkey, database, around) as run:
        await run.publish(signal)
        await eventually(lambda: around.count(identifier) >= 3)
        around.orders[identifier] = order_answer(identifier, "cancelled", "0.001")
        assert await ended(database, signal) == ("partially_filled", "order_cancelled")
        assert len(around.sent) == 1


async def test_an_unclear_answer_to_an_order_is_asked_about_for_as_long_as_it_takes(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    down = True

    def order(body: dict[str, Any]) -> Any:
        around.store_order(body)
        return failing(500)

    around.order = order
    around.status = lambda identifier: failing(503) if down else around.orders[identifier]
    async with orchestration(valkey, database, around) as run:
        signal = a_signal(3)
        await run.publish(signal)
        await eventually(lambda: around.count(str(client_order_id(signal.signal_id))) >= 20)
        row = await decision(database, signal)
        assert row["state"] == "executing", "the outcome was guessed"
        down = False
        assert await ended(database, signal) == ("filled", "")
        assert len(around.sent) == 1


async def test_an_order_that_never_arrived_is_sent_again_while_there_is_time(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    signal = a_signal()
    around.order = lambda body: failing(503) if len(around.sent) < 3 else around.store_order(body)
    async with orchestration(valkey, database, around) as run:
        await run.publish(signal)
        assert await ended(database, signal) == ("filled", "")
        assert len(around.sent) == 3
        assert {body["expires"] for body in around.sent} == {around.sent[0]["expires"]}


async def test_an_order_that_never_arrived_in_time_ends_without_one(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    around.order = lambda _: failing(503)
    async with orchestration(valkey, database, around) as run:
        signal = a_signal(3)
        await run.publish(signal)
        assert await ended(database, signal) == ("expired", "order_not_placed_in_time")


async def test_an_order_that_is_refused_is_looked_up_before_the_decision_fails(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    refused, known, late = a_signal(), a_signal(product_id="ETH-USD"), a_signal(product_id="SOL-USD")

    def order(body: dict[str, Any]) -> web.Response:
        if body["product_id"] == "ETH-USD":
            around.store_order(body)
        return failing(409, "expired" if body["product_id"] == "SOL-USD" else "not_reconciled")

    around.order = order
    async with orchestration(valkey, database, around) as run:
        await run.publish(refused, known, late)
        assert await ended(database, refused) == ("failed", "trade_executor_refused_not_reconciled")
        assert await ended(database, known) == ("filled", "")
        assert await ended(database, late) == ("expired", "order_not_placed_in_time")


@pytest.mark.parametrize("state", ["received", "risk_before", "llm", "risk_after", "executing", "sent"])
async def test_whatever_a_crash_leaves_is_brought_to_its_end(
    valkey: ValkeyServer, database: Database, around: Stubs, state: str
) -> None:
    signal = a_signal()
    async with database.connect() as pool:
        store = DecisionStore(pool)
        left = await store.accept(signal)
        assert left is not None
        for following in WAY[1:]:
            if left.state == state or (state == "sent" and left.state == "executing"):
                break
            size = left.signal.reference_price if following == "executing" else None
            left = await store.move(left, State(following), "", quote_size=size, limit_price=size)
    if state == "sent":
        around.store_order({"decision_id": str(signal.signal_id)})
    async with orchestration(valkey, database, around) as run:
        assert await ended(database, signal) == ("filled", "")
        assert value(run.registry, "pipeline_resumed_decisions_total") == 1
    assert await audited(database, signal) == WAY
    assert len(around.sent) == (0 if state == "sent" else 1)
    if state in ("executing", "sent"):
        # It is not known whether the order was sent, so the executor is asked first.
        assert around.calls[0][0] == str(client_order_id(signal.signal_id))


async def test_a_product_keeps_its_order_and_others_do_not_wait(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    release = asyncio.Event()
    first, second, other = a_signal(), a_signal(), a_signal(product_id="ETH-USD")

    async def slow() -> dict[str, Any]:
        await release.wait()
        return APPROVED

    around.risk = lambda body: slow() if body["decision_id"] == str(first.signal_id) else APPROVED
    async with orchestration(valkey, database, around, call_seconds=10) as run:
        await run.publish(first, second, other)
        assert await ended(database, other) == ("filled", "")
        assert (await decision(database, second))["state"] == "received"
        release.set()
        assert await ended(database, second) == ("filled", "")
        assert [body["decision_id"] for body in around.sent[1:]] == [str(first.signal_id), str(second.signal_id)]


async def test_so_many_decisions_and_no_more_are_in_hand_and_the_rest_waits_on_the_bus(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    release = asyncio.Event()

    async def slow() -> dict[str, Any]:
        await release.wait()
        return APPROVED

    around.risk = lambda _: slow()
    signals = [a_signal(product_id=f"P{number}-USD") for number in range(12)]
    async with orchestration(
        valkey, database, around, call_seconds=10, max_open_decisions=6, max_concurrent_decisions=3
    ) as run:
        await run.publish(*signals)
        await eventually(lambda: value(run.registry, "consumed_total", status="retried") >= 1)
        await eventually(lambda: around.count("assessments") >= 3)
        await asyncio.sleep(0.5)
        assert len(await database.fetch("SELECT 1 FROM decisions")) == 6
        assert around.count("assessments") == 3
        release.set()
        for signal in signals:
            assert await ended(database, signal) == ("filled", "")


async def test_two_orchestrators_make_one_way_and_one_order(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    signals = [a_signal(product_id=f"P{number % 4}-USD") for number in range(20)]
    async with (
        orchestration(valkey, database, around, resume_seconds=0.01) as one,
        orchestration(valkey, database, around, resume_seconds=0.01),
    ):
        await one.publish(*signals)
        for signal in signals:
            assert await ended(database, signal) == ("filled", "")
            assert await audited(database, signal) == WAY
    assert len(around.orders) == 20


async def test_a_version_that_has_moved_on_is_a_conflict(database: Database) -> None:
    async with database.connect() as pool:
        store = DecisionStore(pool)
        made = await store.accept(a_signal())
        assert made is not None
        assert await store.accept(made.signal) is None
        await store.move(made, State.RISK_BEFORE, "")
        with pytest.raises(Conflict):
            await store.move(made, State.RISK_BEFORE, "")
        assert await audited(database, made.signal) == ["received", "risk_before"]


async def test_what_is_no_signal_goes_to_the_dead_letters(
    valkey: ValkeyServer, database: Database, around: Stubs
) -> None:
    good = streams.encode(a_signal())
    bad: list[dict[str, str]] = [
        {"nonsense": "1"},
        good | {"reference_price": "NaN"},
        good | {"reference_price": "-1"},
        good | {"side": "HOLD"},
        good | {"signal_id": "1"},
        good | {"confidence": "inf"},
        good | {"expires": "tomorrow"},
        good | {"trace_id": "x"},
        good | {"rationale": "zero\x00byte"},
        good | {"confidence": "1.5"},
    ]
    async with orchestration(valkey, database, around) as run:
        for fields in bad:
            await run.valkey.xadd(SIGNALS_STREAM, fields)
        await eventually(lambda: value(run.registry, "consumed_total", status="undecodable") == len(bad))
        assert await run.valkey.xlen("dead_letters") == len(bad)
    assert await database.fetch("SELECT 1 FROM signals") == []
    assert around.calls == []
