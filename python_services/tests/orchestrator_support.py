"""The services around trade-orchestrator as small stand-ins that speak docs/trading.md, and the orchestrator itself."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from aiohttp import web
from postgres_support import Database
from prometheus_client import CollectorRegistry
from services_support import PASSWORD, ValkeyServer, ends
from tradewatch.common import bus, streams
from tradewatch.common.events import Side
from tradewatch.common.service import Liveness
from tradewatch.common.streams import SIGNALS_STREAM, Signal
from tradewatch.trading.identity import client_order_id
from tradewatch.trading.orchestrator.decisions import DecisionStore
from tradewatch.trading.orchestrator.metrics import OrchestratorMetrics, Peer
from tradewatch.trading.orchestrator.peers import Peers
from tradewatch.trading.orchestrator.pipeline import PipelineLimits
from tradewatch.trading.orchestrator.service import TradeOrchestrator, TradeOrchestratorSettings

Answer = dict[str, Any] | web.Response
Reply = Answer | Awaitable[Answer]

APPROVED = {
    "decision": "approve",
    "reason": "ok",
    "detail": "",
    "approved_quote_size": "100",
    "limit_price": "65100.5",
    "risk_score": 0.2,
}
DENIED = APPROVED | {"decision": "deny", "reason": "max_exposure", "approved_quote_size": None, "limit_price": None}
VALIDATED = {"decision": "approve", "reason": "ok", "reasons": ["good"], "model": "test", "tokens": 10}
DISMISSED = VALIDATED | {"decision": "deny", "reason": "news"}


def a_signal(seconds: float = 30.0, product_id: str = "BTC-USD", **changes: Any) -> Signal:
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "signal_id": uuid.uuid4(),
        "product_id": product_id,
        "side": Side.BUY,
        "confidence": 0.8,
        "reference_price": Decimal("65000.25"),
        "model_version": "v1",
        "created": now,
        "expires": now + timedelta(seconds=seconds),
        "rationale": "test",
        "trace_id": uuid.uuid4().hex,
    }
    return Signal(**fields | changes)


def order_answer(identifier: str, status: str = "filled", filled: str = "0.0015", final: bool = True) -> dict[str, Any]:
    return {
        "client_order_id": identifier,
        "status": status,
        "filled_size": filled,
        "average_price": "65100",
        "fees": "0.5",
        "final": final,
    }


def failing(status: int, code: str = "unavailable") -> web.Response:
    return web.json_response({"error": {"code": code, "message": "test"}}, status=status)


@dataclass
class Stubs:
    """What the peers answer; each may be replaced. `orders` is what trade-executor knows, `sent` what reached it."""

    url: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    traces: set[str] = field(default_factory=set)
    sent: list[dict[str, Any]] = field(default_factory=list)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    risk: Callable[[dict[str, Any]], Any] = lambda _: APPROVED
    llm: Callable[[dict[str, Any]], Any] = lambda _: VALIDATED
    order: Callable[[dict[str, Any]], Any] | None = None
    status: Callable[[str], Any] | None = None

    def count(self, path: str) -> int:
        return sum(path == called for called, _ in self.calls)

    def store_order(self, body: dict[str, Any], **answer: Any) -> dict[str, Any]:
        """What an executor does with an order that it takes."""
        identifier = str(client_order_id(uuid.UUID(body["decision_id"])))
        return self.orders.setdefault(identifier, order_answer(identifier, **answer))

    async def handle(self, request: web.Request) -> web.Response:
        self.traces.add(request.headers["traceparent"].split("-")[1])
        body = await request.json() if request.method == "POST" else {}
        self.calls.append((request.path.rsplit("/", 1)[-1], body.get("decision_id", "")))
        if request.path == "/v1/assessments":
            answer = self.risk(body)
        elif request.path == "/v1/validations":
            answer = self.llm(body)
        elif request.method == "POST":
            self.sent.append(body)
            answer = self.order(body) if self.order else self.store_order(body)
        else:
            identifier = request.match_info["id"]
            known = self.orders.get(identifier)
            answer = self.status(identifier) if self.status else known or failing(404, "unknown_order")
        if isinstance(answer, Awaitable):
            answer = await answer
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


async def healthy(_: web.Request) -> web.Response:
    return web.Response()


@asynccontextmanager
async def stubs() -> AsyncIterator[Stubs]:
    made = Stubs()
    application = web.Application()
    application.add_routes(
        [
            web.post("/v1/assessments", made.handle),
            web.post("/v1/validations", made.handle),
            web.post("/v1/orders", made.handle),
            web.get("/v1/orders/{id}", made.handle),
            web.get("/healthz", healthy),
        ]
    )
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


@dataclass
class Orchestration:
    """A running orchestrator."""

    orchestrator: TradeOrchestrator
    registry: CollectorRegistry
    peers: Peers
    valkey: Any
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    async def publish(self, *signals: Signal) -> None:
        for signal in signals:
            await self.valkey.xadd(SIGNALS_STREAM, streams.encode(signal))


@asynccontextmanager
async def orchestration(
    valkey: ValkeyServer, database: Database, around: Stubs, *, call_seconds: float = 1.0, **changes: Any
) -> AsyncIterator[Orchestration]:
    settings = TradeOrchestratorSettings(
        **{"resume_seconds": 0.4, "settle_seconds": 0.3, "claim_idle_seconds": 1.0} | changes
    )
    registry, liveness, stop = CollectorRegistry(), Liveness(), asyncio.Event()
    metrics = OrchestratorMetrics(registry)
    client = bus.connect(valkey.url, PASSWORD)
    limits = PipelineLimits(
        decision_seconds=settings.decision_seconds,
        settle_seconds=settings.settle_seconds,
        backoff_base_seconds=0.02,
        backoff_max_seconds=0.05,
        poll_max_seconds=0.05,
    )
    async with database.connect("orchestrator") as pool, httpx.AsyncClient(trust_env=False) as http:
        peers = Peers(http, metrics, dict.fromkeys(Peer, around.url), dict.fromkeys(Peer, call_seconds))
        orchestrator = TradeOrchestrator(
            client, DecisionStore(pool), peers, metrics, registry, liveness, settings, limits
        )
        task = asyncio.create_task(orchestrator.run(stop))
        try:
            yield Orchestration(orchestrator, registry, peers, client, stop, task)
        finally:
            stop.set()
            await ends(task)
            await client.aclose()
