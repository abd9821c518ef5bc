"""risk-manager: answers whether a signal may become an order, watches the account, and holds the kill switch."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import httpx
from aiohttp import web
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from tradewatch.common import bus, service
from tradewatch.common.api import json_get, json_route
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import Throttle, get_logger, trace
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.streams import Quote
from tradewatch.store import database
from tradewatch.store.database import Connection, Pool
from tradewatch.trading.contracts import (
    AssessmentAnswer,
    AssessmentRequest,
    KillSwitchRequest,
    StateAnswer,
    TradingState,
)
from tradewatch.trading.risk import assessments, state
from tradewatch.trading.risk.decision import Portfolio, Snapshot, assess, breach, exposure_used, total_exposure
from tradewatch.trading.risk.kill_switch import KillSwitch
from tradewatch.trading.risk.limits import Limits
from tradewatch.trading.risk.metrics import RiskMetrics
from tradewatch.trading.risk.settings import RiskManagerSettings
from tradewatch.trading.risk.snapshot import read_portfolio, read_quotes
from tradewatch.trading.risk.state import StoredState

NAME = "risk-manager"
LIVENESS_LOOP = "portfolio"
# Above any answer in good order, below the time limits of callers: a store that hangs is an outage, not a wait.
ASSESS_SECONDS = 5.0
OUTAGES = (*database.OUTAGE_ERRORS, ValkeyError)

_log = get_logger("risk")


class RiskManager:
    """Assesses on request, and looks at the portfolio on a timer.

    Assessments follow one another, over all replicas: each holds the lock on the row of the trading state, so that it
    sees what those before it approved.
    """

    def __init__(
        self,
        pool: Pool,
        valkey: Valkey,
        limits: Limits,
        metrics: RiskMetrics,
        kill_switch: KillSwitch,
        liveness: Liveness,
        *,
        refresh_seconds: float,
    ) -> None:
        self._pool = pool
        self._valkey = valkey
        self._limits = limits
        self._metrics = metrics
        self._kill_switch = kill_switch
        self._liveness = liveness
        self._refresh_seconds = refresh_seconds
        self._throttle = Throttle()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.until_stopped(stop, self._watch()), name="portfolio")
            tasks.create_task(service.until_stopped(stop, self._kill_switch.run()), name="kill switch")

    async def assess(self, request: AssessmentRequest) -> AssessmentAnswer:
        """The answer to a request, stored; a repeated one gets the answer that it got first.

        Raises:
            ApiError: 409, the decision was about something else before.
            OUTAGES: store or bus do not answer; nothing was approved.
        """
        with trace(request.trace_id):
            async with asyncio.timeout(ASSESS_SECONDS):
                answer = await assessments.find(self._pool, request)
                return answer or await self._assess_anew(request)

    async def _assess_anew(self, request: AssessmentRequest) -> AssessmentAnswer:
        started = time.perf_counter()
        quotes = await read_quotes(self._valkey, self._limits.products)
        async with self._pool.acquire() as connection, connection.transaction():
            stored = await state.read(connection, lock=True)
            snapshot = await self._snapshot(connection, stored, quotes)
            await self._tighten(connection, stored, snapshot.portfolio)
            assessment = assess(request.signal, snapshot, self._limits)
            added = await assessments.store(connection, request, assessment)
        if not added and (earlier := await assessments.find(self._pool, request)):
            return earlier
        exemplar = {"trace_id": request.trace_id}
        self._metrics.duration[request.stage].observe(time.perf_counter() - started, exemplar)
        self._metrics.decisions[assessment.reason].inc(1, exemplar)
        if request.signal.product_id in self._metrics.score:
            self._metrics.score[request.signal.product_id].set(assessment.risk_score)
        answer = assessments.answer_of(assessment)
        _log.info(
            "assessed",
            decision_id=str(request.decision_id),
            stage=request.stage.value,
            decision=answer.decision,
            reason=answer.reason,
            detail=answer.detail,
            product_id=request.signal.product_id,
        )
        return answer

    async def read_state(self, _: web.Request) -> StateAnswer:
        """The trading state as it is stored."""
        return (await state.read(self._pool)).answer()

    async def _snapshot(self, connection: Connection, stored: StoredState, quotes: Mapping[str, Quote]) -> Snapshot:
        now = datetime.now(UTC)
        portfolio = await read_portfolio(connection, now, stored.measured_from)
        return Snapshot(now, stored.state, quotes, portfolio)

    async def _tighten(self, connection: Connection, stored: StoredState, portfolio: Portfolio) -> StoredState:
        wanted, figures = breach(portfolio.equity, self._limits)
        after = await state.tighten(connection, stored, wanted, figures)
        if after.state is not stored.state:
            _log.error("trading state tightened", before=stored.state.value, after=after.state.value, reason=figures)
        return after

    async def _watch(self) -> None:
        while True:
            self._liveness.beat(LIVENESS_LOOP)
            try:
                async with asyncio.timeout(ASSESS_SECONDS):
                    await self.refresh()
            except OUTAGES as error:
                # The type only: messages of client libraries can hold addresses and credentials.
                held = self._throttle.admit("refresh")
                if held is not None:
                    _log.error("cannot look at the portfolio", error=type(error).__name__, lines_held_back=held)
            await asyncio.sleep(self._refresh_seconds)

    async def refresh(self) -> None:
        """Make the state stricter where losses call for it, and set the gauges."""
        async with self._pool.acquire() as connection, connection.transaction():
            stored = await state.read(connection, lock=True)
            portfolio = await read_portfolio(connection, datetime.now(UTC), stored.measured_from)
            stored = await self._tighten(connection, stored, portfolio)
        self._show_state(stored)
        quotes = await read_quotes(self._valkey, self._limits.products)
        self._show_portfolio(Snapshot(datetime.now(UTC), stored.state, quotes, portfolio))
        self._metrics.last_refresh.set(time.time())

    def _show_state(self, stored: StoredState) -> None:
        for name in TradingState:
            self._metrics.state[name].set(name is stored.state)
        self._metrics.kill_switch.set(stored.kill_switch)
        self._metrics.cancel_pending.set(stored.cancel_wanted)

    def _show_portfolio(self, snapshot: Snapshot) -> None:
        equity, exposed = snapshot.portfolio.equity, total_exposure(snapshot)
        unknown = float("nan")
        if equity and equity.total > 0 and exposed is not None:
            self._metrics.exposure_ratio.set(float(exposed / equity.total))
        else:
            self._metrics.exposure_ratio.set(unknown)
        for product, gauge in self._metrics.exposure_used.items():
            used = exposure_used(product, snapshot, self._limits)
            gauge.set(unknown if used is None else float(used))
        self._metrics.drawdown_ratio.set(float(equity.drawdown_ratio) if equity else unknown)
        self._metrics.daily_loss.set(float(equity.daily_loss) if equity else unknown)

    async def check_quotes(self) -> CheckResult:
        """Readiness: every product's newest quote is young enough to trade on."""
        try:
            quotes = await read_quotes(self._valkey, self._limits.products)
        except (ValkeyError, OSError, TimeoutError) as error:
            return CheckResult(False, f"no answer: {type(error).__name__}")
        now, limit = datetime.now(UTC), self._limits.quote_age
        stale = [
            product
            for product in sorted(self._limits.products)
            if product not in quotes or abs(now - quotes[product].time) > limit
        ]
        if not stale:
            return CheckResult(True, f"every product has a quote younger than {limit.total_seconds():g} s")
        return CheckResult(False, f"no quote younger than {limit.total_seconds():g} s: {', '.join(stale)}")


def routes(manager: RiskManager, kill_switch: KillSwitch, settings: RiskManagerSettings) -> list[web.RouteDef]:
    """The HTTP calls of docs/trading.md."""
    return [
        json_route("/v1/assessments", AssessmentRequest, manager.assess, outages=OUTAGES),
        json_route(
            "/v1/kill-switch",
            KillSwitchRequest,
            kill_switch.switch,
            token=settings.kill_switch_token,
            outages=OUTAGES,
        ),
        json_get("/v1/state", manager.read_state, outages=OUTAGES),
    ]


async def main(settings: RiskManagerSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    valkey = bus.connect_with(settings)
    try:
        async with settings.connect(NAME) as pool, httpx.AsyncClient(trust_env=False) as client:
            kill_switch = KillSwitch(pool, client, settings.executor_url, settings.executor_token, liveness)
            manager = RiskManager(
                pool,
                valkey,
                settings.limits(),
                RiskMetrics(registry, settings.products),
                kill_switch,
                liveness,
                refresh_seconds=settings.refresh_seconds,
            )
            checks = [
                database.check(pool),
                bus.check(valkey),
                Check("quotes", manager.check_quotes),
            ]
            served = routes(manager, kill_switch, settings)
            server = HttpServer(settings.http_port, registry, liveness, checks, served)
            if not settings.paper:
                _log.warning("live: orders that are approved here are made with real money")
            return await service.run(manager, server, settings.drain_seconds)
    finally:
        await valkey.aclose()
