"""risk-manager on a real store and a real bus: one answer for ever, automatic stops, and a kill switch that holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from aiohttp import web
from postgres_support import Database
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from services_support import PASSWORD, ValkeyServer, ends, eventually, value
from tradewatch.common import bus, settings, tracing
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import Side
from tradewatch.common.http import Check, HttpServer
from tradewatch.common.service import Liveness
from tradewatch.common.streams import Quote, Signal, encode, quotes_stream
from tradewatch.store import database as store
from tradewatch.trading.risk.kill_switch import KillSwitch
from tradewatch.trading.risk.metrics import RiskMetrics
from tradewatch.trading.risk.service import RiskManager, routes
from tradewatch.trading.risk.settings import RiskManagerSettings

TOKEN, EXECUTOR_TOKEN = "kill-switch-token-of-the-tests", "executor-token-of-the-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
TRACE = "ab" * 16
PRODUCT = "BTC-USD"


@dataclass
class Executor:
    """trade-executor's cancel-all, on a real socket."""

    status: int = 503
    calls: list[tuple[str | None, Any]] = field(default_factory=list)
    url: str = ""

    async def cancel_all(self, request: web.Request) -> web.Response:
        self.calls.append((request.headers.get("Authorization"), await request.json()))
        return web.json_response({"cancelled": ["order-1"]}, status=self.status)


@pytest.fixture
async def executor() -> AsyncIterator[Executor]:
    made = Executor()
    async with HttpServer(
        0, CollectorRegistry(), Liveness(), [], [web.post("/v1/cancel-all", made.cancel_all)]
    ) as http:
        made.url = f"http://127.0.0.1:{http.port}"
        yield made


@dataclass
class Running:
    client: httpx.AsyncClient
    registry: CollectorRegistry

    async def assess(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = await self.client.post("/v1/assessments", json=request, headers=tracing.headers(TRACE))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def switch(self, action: str, reason: str = "drill") -> dict[str, Any]:
        body = {"action": action, "reason": reason, "actor": "ann"}
        answer = await self.client.post("/v1/kill-switch", json=body, headers=AUTHORIZED)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def state(self) -> dict[str, Any]:
        return dict((await self.client.get("/v1/state")).json())


@asynccontextmanager
async def running(
    database: Database, valkey: ValkeyServer, executor_url: str = "http://127.0.0.1:1", **changes: Any
) -> AsyncIterator[Running]:
    configured = RiskManagerSettings(
        products=(PRODUCT, "ETH-USD"),
        kill_switch_token=SecretStr(TOKEN),
        executor_token=SecretStr(EXECUTOR_TOKEN),
        executor_url=executor_url,
        daily_loss_limit=Decimal(500),
        **{"refresh_seconds": 0.1, **changes},
    )
    registry, liveness, stop = CollectorRegistry(), Liveness(), asyncio.Event()
    bus_client = bus.connect(valkey.url, PASSWORD)
    async with database.connect() as pool, httpx.AsyncClient() as to_executor:
        switch = KillSwitch(
            pool,
            to_executor,
            configured.executor_url,
            configured.executor_token,
            liveness,
            poll_seconds=0.05,
            backoff=Backoff(0.05, 0.1),
        )
        manager = RiskManager(
            pool,
            bus_client,
            configured.limits(),
            RiskMetrics(registry, configured.products),
            switch,
            liveness,
            refresh_seconds=configured.refresh_seconds,
        )
        checks = [store.check(pool), bus.check(bus_client), Check("quotes", manager.check_quotes)]
        async with (
            HttpServer(0, registry, liveness, checks, routes(manager, switch, configured)) as server,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client,
        ):
            task = asyncio.create_task(manager.run(stop))
            try:
                yield Running(client, registry)
            finally:
                stop.set()
                await ends(task)
                await bus_client.aclose()


def request_for(side: Side = Side.BUY, stage: str = "before_llm", decision: UUID | None = None) -> dict[str, Any]:
    decision, now = decision or uuid4(), datetime.now(UTC)
    made = Signal(decision, PRODUCT, side, 0.5, Decimal(100), "v1", now, now + timedelta(seconds=30), "why not", TRACE)
    return {"decision_id": str(decision), "stage": stage, "trace_id": TRACE, "signal": encode(made)}


async def put_quote(valkey: ValkeyServer, product: str = PRODUCT, age: float = 0, **changes: str) -> None:
    at = datetime.now(UTC) - timedelta(seconds=age)
    price = Decimal(100)
    made = Quote(product, at, price - Decimal("0.1"), price + Decimal("0.1"), price, 0.002, 0.0, ("kraken",), (), TRACE)
    client = bus.connect(valkey.url, PASSWORD)
    try:
        await client.xadd(quotes_stream(product), {**encode(made), **changes})
    finally:
        await client.aclose()


async def put_equity(database: Database, total: int = 10_000, age: float = 0) -> None:
    await database.fetch(
        "INSERT INTO equity VALUES (now() - make_interval(secs => $1), $2, 0, $2)", age, Decimal(total)
    )


async def audited(database: Database) -> list[str]:
    return [row["action"] for row in await database.fetch("SELECT action FROM audit_log ORDER BY sequence")]


@pytest.fixture
async def fresh(database: Database, valkey: ValkeyServer) -> None:
    await put_quote(valkey)
    await put_equity(database)


@pytest.mark.usefixtures("fresh")
async def test_an_answer_is_stored_audited_counted_and_never_changes(database: Database, valkey: ValkeyServer) -> None:
    request = request_for()
    async with running(database, valkey) as risk, running(database, valkey) as replica:
        answers = await asyncio.gather(*(one.assess(request) for one in (risk, replica) for _ in range(5)))
        assert answers == [answers[0]] * 10
        assert (answers[0]["decision"], answers[0]["reason"]) == ("approve", "within_limits")
        assert (answers[0]["approved_quote_size"], answers[0]["limit_price"]) == ("500.00", "100.2001")
        await risk.switch("engage")
        assert await risk.assess(request) == answers[0], "the stored answer, whatever happened since"
        denied = await risk.assess({**request, "stage": "before_execution"})
        assert (denied["decision"], denied["reason"], denied["approved_quote_size"]) == ("deny", "halted", None)
        other = {**request_for(Side.SELL, decision=UUID(request["decision_id"]))}
        conflict = await risk.client.post("/v1/assessments", json=other)
        assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "conflict")
        counted = [
            one.registry.get_sample_value("risk_decisions_total", {"decision": "approve", "reason": "within_limits"})
            for one in (risk, replica)
        ]
        assert sum(number or 0 for number in counted) == 1
        exposed = await risk.client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert f'trace_id="{TRACE}"' in exposed.text
    rows = await database.fetch("SELECT step, action, trace_id, details FROM audit_log WHERE step > 0 ORDER BY step")
    assert [(row["step"], row["action"]) for row in rows] == [
        (1, "risk_before_llm_approve"),
        (2, "risk_before_execution_deny"),
    ]
    assert {row["trace_id"] for row in rows} == {TRACE}


@pytest.mark.usefixtures("fresh")
async def test_approvals_that_are_no_order_yet_count_as_exposure(database: Database, valkey: ValkeyServer) -> None:
    async with running(database, valkey, max_product_exposure=Decimal(1_200), max_open_orders=9) as risk:
        await eventually(lambda: value(risk.registry, "risk_exposure_used_ratio", product_id=PRODUCT) == 0)
        answers = await asyncio.gather(*(risk.assess(request_for(stage="before_execution")) for _ in range(4)))
        await eventually(lambda: value(risk.registry, "risk_exposure_used_ratio", product_id=PRODUCT) == 1)
    sizes = sorted(Decimal(answer["approved_quote_size"] or 0) for answer in answers)
    assert sizes == [0, 200, 500, 500]
    assert [answer["reason"] for answer in answers].count("product_exposure") == 1


async def test_what_is_missing_or_unusable_denies(database: Database, valkey: ValkeyServer) -> None:
    async with running(database, valkey) as risk:

        async def reason() -> str:
            answer = await risk.assess(request_for())
            assert answer["decision"] == "deny"
            return str(answer["reason"])

        assert await reason() == "no_equity"
        await put_equity(database, age=1000)
        assert await reason() == "stale_equity"
        await put_equity(database)
        assert await reason() == "no_quote"
        ready = await risk.client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["quotes"]["ok"]) == (503, False)
        await put_quote(valkey, best_bid="NaN")
        assert await reason() == "no_quote"
        await put_quote(valkey, product_id="ETH-USD")
        assert await reason() == "no_quote"
        await put_quote(valkey, age=6)
        assert await reason() == "stale_price"
        await put_quote(valkey)
        await put_quote(valkey, "ETH-USD")
        assert (await risk.assess(request_for()))["decision"] == "approve"
        assert (await risk.client.get("/readyz")).status_code == 200


@pytest.mark.usefixtures("fresh")
async def test_an_outage_is_never_a_yes_and_leaves_nothing_behind(database: Database, valkey: ValkeyServer) -> None:
    async with running(database, valkey) as risk:
        valkey.stop()
        answer = await risk.client.post("/v1/assessments", json=request_for())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert await database.fetch("SELECT * FROM risk_assessments") == []
    valkey.start()
    away = Database("postgresql://tradewatch@127.0.0.1:1/nowhere", "")
    async with running(away, valkey) as risk:
        for call in (
            risk.client.post("/v1/assessments", json=request_for()),
            risk.client.get("/v1/state"),
            risk.client.post(
                "/v1/kill-switch", json={"action": "engage", "reason": "x", "actor": "y"}, headers=AUTHORIZED
            ),
        ):
            answer = await call
            assert answer.status_code == 503, answer.text
            assert "127.0.0.1" not in answer.text


@pytest.mark.usefixtures("fresh")
async def test_the_kill_switch_holds_over_a_restart_and_cancels_until_done(
    database: Database, valkey: ValkeyServer, executor: Executor
) -> None:
    async with running(database, valkey, executor.url) as risk:
        engaged = await risk.switch("engage", "exchange looks odd")
        assert (engaged["state"], engaged["kill_switch"], engaged["cancelled"]) == ("HALTED", True, None)
        assert engaged["cancel_all"] == "failed, being retried: trade-executor answered 503"
        await eventually(lambda: len(executor.calls) > 2)
    assert executor.calls[0] == (f"Bearer {EXECUTOR_TOKEN}", {"reason": "exchange looks odd"})
    executor.status = 200
    async with running(database, valkey, executor.url) as risk:
        await eventually(lambda: _cancelled(risk))
        asked = len(executor.calls)
        assert (await risk.assess(request_for()))["reason"] == "halted"
        await eventually(lambda: value(risk.registry, "kill_switch_engaged") == 1)
        await eventually(lambda: value(risk.registry, "kill_switch_cancel_pending") == 0)
        assert value(risk.registry, "trading_state", state="HALTED") == 1
        assert value(risk.registry, "trading_state", state="ACTIVE") == 0
        assert len(executor.calls) == asked, "what is done is not asked for again"
        released = await risk.switch("release", "looked into")
        assert (released["state"], released["actor"], released["cancel_all"]) == ("ACTIVE", "ann", "not needed")
        assert (await risk.assess(request_for()))["decision"] == "approve"
    actions = await audited(database)
    assert [action for action in actions if "risk" not in action] == [
        "kill_switch_engaged",
        "open_orders_cancelled",
        "kill_switch_released",
    ]


async def _cancelled(risk: Running) -> bool:
    return (await risk.state())["cancelled"] is not None


async def test_engaging_twice_keeps_the_first_reason_and_asks_again(
    database: Database, valkey: ValkeyServer, executor: Executor
) -> None:
    executor.status = 200
    async with running(database, valkey, executor.url) as risk:
        assert (await risk.switch("engage", "first"))["cancel_all"] == "done"
        again = await risk.switch("engage", "second")
        assert (again["reason"], again["cancel_all"]) == ("first", "done")
        assert len(executor.calls) >= 2
        await risk.switch("release")
        assert (await risk.switch("release"))["state"] == "ACTIVE"


async def test_without_the_token_the_switch_does_not_move(database: Database, valkey: ValkeyServer) -> None:
    body = {"action": "engage", "reason": "x", "actor": "y"}
    async with running(database, valkey) as risk:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Bearer {EXECUTOR_TOKEN}"}):
            assert (await risk.client.post("/v1/kill-switch", json=body, headers=headers)).status_code == 401
        for bad in ({**body, "action": "explode"}, {**body, "reason": ""}, {**body, "actor": "y" * 101}):
            assert (await risk.client.post("/v1/kill-switch", json=bad, headers=AUTHORIZED)).status_code == 422
        assert (await risk.state())["state"] == "ACTIVE"


@pytest.mark.parametrize(
    ("lost", "state", "reason"), [(600, "REDUCING", "daily loss: lost 600.00"), (1_000, "HALTED", "drawdown: ")]
)
async def test_losses_make_the_state_stricter_until_a_person_releases_it(
    database: Database, valkey: ValkeyServer, lost: int, state: str, reason: str
) -> None:
    await put_quote(valkey)
    async with running(database, valkey) as risk:
        await put_equity(database, 10_000)
        await put_equity(database, 10_000 - lost)

        async def stricter() -> bool:
            return (await risk.state())["state"] == state

        await eventually(stricter)
        found = await risk.state()
        assert (found["kill_switch"], found["actor"]) == (False, "risk-manager")
        assert found["reason"].startswith(reason)
        assert value(risk.registry, "portfolio_drawdown_ratio") == pytest.approx(lost / 10_000)
        assert value(risk.registry, "portfolio_daily_loss") == lost
        assert (await risk.assess(request_for()))["decision"] == "deny"
        await put_equity(database, 11_000)
        await eventually(lambda: value(risk.registry, "portfolio_drawdown_ratio") == 0)
        assert (await risk.state())["state"] == state, "it gets looser by a person alone"
        await put_equity(database, 11_000 - lost)
        assert (await risk.switch("release"))["state"] == "ACTIVE"
        await eventually(lambda: value(risk.registry, "portfolio_daily_loss") == 0)
        assert (await risk.assess(request_for()))["decision"] == "approve", "measured anew from the release"
    assert (await audited(database))[0] == "trading_state_tightened"


def test_limits_that_contradict_each_other_are_one_line_each() -> None:
    with pytest.raises(settings.SettingsError) as refused:
        RiskManagerSettings(
            products=(PRODUCT, "ETH-EUR"),
            min_order_quote_size=Decimal(2_000),
            max_total_exposure=Decimal(1),
            limit_offset_ratio=Decimal("0.5"),
            kill_switch_token=SecretStr("short"),
            executor_token=SecretStr(EXECUTOR_TOKEN),
            paper=False,
        )
    assert [line.split(":")[0].removeprefix("TRADEWATCH_") for line in refused.value.lines] == [
        "LIVE",
        "DAILY_LOSS_LIMIT",
        "MIN_ORDER_QUOTE_SIZE",
        "MAX_PRODUCT_EXPOSURE",
        "LIMIT_OFFSET_RATIO",
        "PRODUCTS",
        "KILL_SWITCH_TOKEN_FILE",
    ]
    assert "short" not in str(refused.value)
