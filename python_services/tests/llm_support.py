"""What the tests of LLM validation share: a simulated model and a validator, with a real bus and a real store."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from postgres_support import Database
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from services_support import PASSWORD, ValkeyServer
from tradewatch.common import bus, tracing
from tradewatch.common.api import json_route
from tradewatch.common.events import Side, new_trace_id
from tradewatch.common.http import HttpServer
from tradewatch.common.service import Liveness
from tradewatch.common.streams import Headline, Sentiment, Signal, encode, headlines_stream, sentiment_stream
from tradewatch.simulators.llm.completions import ChatServer
from tradewatch.simulators.llm.metrics import LlmSimulatorMetrics
from tradewatch.store.database import OUTAGE_ERRORS
from tradewatch.trading.contracts import ValidationRequest
from tradewatch.trading.llm.metrics import LlmMetrics
from tradewatch.trading.llm.service import LlmValidatorSettings
from tradewatch.trading.llm.store import ValidationStore
from tradewatch.trading.llm.validator import Validator

KEY = "sk-simulated-not-a-real-key"


def new_signal(side: Side = Side.BUY, confidence: float = 0.8, lifetime_seconds: float = 60.0) -> Signal:
    now = datetime.now(UTC)
    return Signal(
        uuid.uuid4(),
        "BTC-USD",
        side,
        confidence,
        Decimal("65000.01"),
        "v1",
        now,
        now + timedelta(seconds=lifetime_seconds),
        "momentum up",
        new_trace_id(),
    )


def new_request(signal: Signal) -> ValidationRequest:
    return ValidationRequest(decision_id=signal.signal_id, trace_id=signal.trace_id, signal=signal)


@asynccontextmanager
async def simulated_model(latency_seconds: float = 0.0) -> AsyncIterator[httpx.AsyncClient]:
    registry = CollectorRegistry()
    chat = ChatServer("simulated", SecretStr(KEY), latency_seconds, LlmSimulatorMetrics(registry))
    async with (
        HttpServer(0, registry, Liveness(), [], chat.routes()) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        yield client


async def fault(simulator: httpx.AsyncClient, **what: object) -> None:
    (await simulator.post("/faults", json=what)).raise_for_status()


@dataclass
class Validation:
    """A validator and all it depends on."""

    validator: Validator
    client: httpx.AsyncClient
    simulator: httpx.AsyncClient
    registry: CollectorRegistry
    bus: Any
    database: Database

    async def news(self, score: float = 0.2, age_seconds: float = 0.0, headlines: tuple[str, ...] = ()) -> None:
        now = datetime.now(UTC)
        for number, title in enumerate(headlines):
            entry = Headline("BTC", now, "post", f"{number}-{title[:20]}", title, 0.0, new_trace_id())
            await self.bus.xadd(headlines_stream("BTC"), encode(entry))
        sentiment = Sentiment("BTC", now - timedelta(seconds=age_seconds), score, 7, new_trace_id())
        await self.bus.xadd(sentiment_stream("BTC"), encode(sentiment))

    async def post(self, signal: Signal) -> httpx.Response:
        body = new_request(signal).model_dump_json()
        return await self.client.post("/v1/validations", content=body, headers=tracing.headers(signal.trace_id))

    async def answer(self, signal: Signal) -> dict[str, Any]:
        response = await self.post(signal)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def stored(self, query: str = "SELECT * FROM llm_validations ORDER BY validated") -> list[Any]:
        return await self.database.fetch(query)


@asynccontextmanager
async def validation(
    valkey: ValkeyServer, database: Database, *, base_url: str | None = None, **changed: Any
) -> AsyncIterator[Validation]:
    async with simulated_model() as simulator:
        settings = LlmValidatorSettings(
            **{
                "llm_base_url": base_url or f"{simulator.base_url}/v1",
                "llm_model": "simulated",
                "llm_api_key": SecretStr(KEY),
                "llm_max_retries": 0,
                "validation_seconds": 20.0,
                **changed,
            }
        )
        registry = CollectorRegistry()
        client = bus.connect(valkey.url, PASSWORD)
        model = settings.model()
        try:
            async with database.connect() as pool:
                metrics = LlmMetrics(registry, settings.llm_tokens_per_hour)
                validator = Validator(model, client, ValidationStore(pool), metrics, settings.limits())
                route = json_route("/v1/validations", ValidationRequest, validator.validate, outages=OUTAGE_ERRORS)
                async with (
                    HttpServer(0, registry, Liveness(), [], [route]) as server,
                    httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as caller,
                ):
                    yield Validation(validator, caller, simulator, registry, client, database)
        finally:
            await model.close()
            await client.aclose()
