"""trade-orchestrator: takes signals from the bus and brings each to one final state, across crashes."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import asyncpg
import httpx
from prometheus_client import CollectorRegistry
from pydantic import AfterValidator, BeforeValidator, Field
from valkey.asyncio import Valkey

from tradewatch.common import bus, service, streams
from tradewatch.common.consumer import ConsumerLimits, Message, StreamConsumer
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.http import HttpServer
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import ValkeySettings, duration, http_url
from tradewatch.common.streams import SIGNALS_STREAM, Signal
from tradewatch.store import database
from tradewatch.store.database import OUTAGE_ERRORS, DatabaseSettings
from tradewatch.trading.contracts import ValidationRequest
from tradewatch.trading.orchestrator.decisions import DecisionStore
from tradewatch.trading.orchestrator.metrics import OrchestratorMetrics, Peer
from tradewatch.trading.orchestrator.peers import Peers
from tradewatch.trading.orchestrator.pipeline import Pipeline, PipelineLimits
from tradewatch.trading.orchestrator.scheduler import Scheduler

NAME = "trade-orchestrator"
LIVENESS_LOOP = "decisions"
RESUME_RETRY_SECONDS = 0.5

_log = get_logger("orchestrator")


HttpUrl = Annotated[str, BeforeValidator(http_url), AfterValidator(lambda url: url.rstrip("/"))]


class TradeOrchestratorSettings(ValkeySettings, DatabaseSettings):
    """Settings of trade-orchestrator; durations in seconds."""

    risk_manager_url: HttpUrl = Field(default="http://risk-manager:8080", description="risk-manager")
    llm_validator_url: HttpUrl = Field(default="http://llm-validator:8080", description="llm-validator")
    trade_executor_url: HttpUrl = Field(default="http://trade-executor:8080", description="trade-executor")
    risk_timeout_seconds: float = duration(5.0, 60, "time limit of a call to risk-manager")
    llm_timeout_seconds: float = duration(30.0, 300, "time limit of a call to llm-validator; longer than its own")
    order_timeout_seconds: float = duration(15.0, 60, "time limit of a call to trade-executor")
    decision_seconds: float = duration(
        120.0, 3600, "age of a decision after which no order may come into being, if its signal lives so long"
    )
    settle_seconds: float = duration(
        5.0, 60, "how long after that an order that trade-executor does not know may still turn up"
    )
    max_concurrent_decisions: int = Field(
        default=16, ge=1, le=256, description="decisions driven at once; one at a time for a product"
    )
    max_open_decisions: int = Field(
        default=1000, ge=1, le=100_000, description="decisions in hand above which signals wait on the bus"
    )
    resume_seconds: float = duration(10.0, 60, "a decision that nobody has moved for so long is taken up again")
    claim_idle_seconds: float = duration(
        60.0, 3600, "silence of another replica after which the signals it was given are taken over"
    )


class Busy(Exception):
    """As many decisions are in hand as may be; the signal waits on the bus."""


class TradeOrchestrator:
    """Accepts signals, takes up again what a crash left, and drives all of it."""

    def __init__(
        self,
        valkey: Valkey,
        store: DecisionStore,
        peers: Peers,
        metrics: OrchestratorMetrics,
        registry: CollectorRegistry,
        liveness: Liveness,
        settings: TradeOrchestratorSettings,
        limits: PipelineLimits | None = None,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._liveness = liveness
        self._settings = settings
        self._throttle = Throttle()
        self._stopping = asyncio.Event()
        limits = limits or PipelineLimits(
            decision_seconds=settings.decision_seconds, settle_seconds=settings.settle_seconds
        )
        pipeline = Pipeline(store, peers, metrics, limits, self._stopping)
        self._scheduler = Scheduler(pipeline.drive, settings.max_concurrent_decisions, settings.max_open_decisions)
        self._consumer = StreamConsumer(
            valkey,
            registry,
            liveness,
            group=NAME,
            streams=(SIGNALS_STREAM,),
            handler=self.accept,
            outages=(Busy, *OUTAGE_ERRORS),
            limits=ConsumerLimits(claim_idle_seconds=settings.claim_idle_seconds),
        )
        metrics.open_decisions.set_function(lambda: len(self._scheduler))
        metrics.oldest_open_decision.set_function(self._oldest_seconds)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then let the calls in hand end."""
        await service.until_stopped(stop, self._resume_until_done())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._consumer.run(stop), name="consumer")
            tasks.create_task(service.until_stopped(stop, self._resume_on_a_timer()), name="resume")
            await stop.wait()
            self._stopping.set()
        await self._scheduler.wait()

    async def accept(self, message: Message) -> None:
        """Store a signal of the bus; a known one is stored already.

        Raises:
            EventDecodeError: it is no signal that can be asked about.
            Busy, and OUTAGE_ERRORS of the store: try again.
        """
        signal = _read(message)
        if self._scheduler.full:
            raise Busy
        try:
            decision = await self._store.accept(signal)
        except (asyncpg.DataError, asyncpg.CheckViolationError) as error:
            # What the table does not take, such as a confidence above 1 or text with a zero byte.
            raise EventDecodeError(f"signal: cannot be stored: {type(error).__name__}") from None
        if decision is not None:
            self._scheduler.submit(decision)

    async def _resume_until_done(self) -> None:
        # What was left comes before what is new, so that a product's order is kept.
        while not await self._resume(0.0):
            await asyncio.sleep(RESUME_RETRY_SECONDS)

    async def _resume_on_a_timer(self) -> None:
        while True:
            # Half, so that a decision waits at most one and a half times as long.
            await asyncio.sleep(self._settings.resume_seconds / 2)
            await self._resume(self._settings.resume_seconds)

    async def _resume(self, idle_seconds: float) -> bool:
        """Take up the decisions without an end that nobody has moved for so long; False while the store is away."""
        self._liveness.beat(LIVENESS_LOOP)
        try:
            unfinished = await self._store.unfinished(idle_seconds, self._settings.max_open_decisions)
        except OUTAGE_ERRORS as error:
            held = self._throttle.admit("resume")
            if held is not None:
                _log.warning("cannot look for unfinished decisions", error=type(error).__name__, lines_held_back=held)
            return False
        for decision in unfinished:
            if self._scheduler.submit(decision):
                self._metrics.resumed.inc()
                _log.info(
                    "decision taken up again",
                    decision_id=str(decision.decision_id),
                    state=decision.state.value,
                    trace_id=decision.signal.trace_id,
                )
        return True

    def _oldest_seconds(self) -> float:
        oldest = self._scheduler.oldest()
        return (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0


def _read(message: Message) -> Signal:
    """The signal of an entry, if every service can be asked about it."""
    signal = streams.decode(Signal, message.fields)
    try:
        ValidationRequest(decision_id=signal.signal_id, trace_id=signal.trace_id, signal=signal)
    except ValueError:
        raise EventDecodeError("trace_id: not 32 hexadecimal digits") from None
    return signal


async def main(settings: TradeOrchestratorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    metrics = OrchestratorMetrics(registry)
    valkey = bus.connect_with(settings)
    limits = httpx.Limits(max_connections=2 * settings.max_concurrent_decisions)
    try:
        async with settings.connect(NAME) as pool, httpx.AsyncClient(trust_env=False, limits=limits) as client:
            peers = Peers(
                client,
                metrics,
                {
                    Peer.RISK_MANAGER: settings.risk_manager_url,
                    Peer.LLM_VALIDATOR: settings.llm_validator_url,
                    Peer.TRADE_EXECUTOR: settings.trade_executor_url,
                },
                {
                    Peer.RISK_MANAGER: settings.risk_timeout_seconds,
                    Peer.LLM_VALIDATOR: settings.llm_timeout_seconds,
                    Peer.TRADE_EXECUTOR: settings.order_timeout_seconds,
                },
            )
            orchestrator = TradeOrchestrator(valkey, DecisionStore(pool), peers, metrics, registry, liveness, settings)
            checks = [bus.check(valkey), database.check(pool, "database"), *peers.checks()]
            server = HttpServer(settings.http_port, registry, liveness, checks)
            return await service.run(orchestrator, server, settings.drain_seconds)
    finally:
        await valkey.aclose()
