"""From the exchange's tick to its order as in production: each service a process, a real Valkey, a real PostgreSQL.

The exchange is the world outside: it is never killed, for a real one keeps its orders, but it answers badly on request.
"""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from exchange_support import ApiKey, Client, key_file
from postgres_support import Database, PostgresServer
from services_support import PASSWORD, ValkeyServer, eventually, free_port
from tradewatch.common import bus, streams
from tradewatch.common.events import Side
from tradewatch.common.streams import SIGNALS_STREAM, Sentiment, Signal, sentiment_stream
from valkey.exceptions import ValkeyError

PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD", "ADA-USD", "DOGE-USD")
SERVICES = (
    "market-data-collector",
    "market-data-aggregator",
    "llm-simulator",
    "llm-validator",
    "risk-manager",
    "trade-executor",
    "trade-orchestrator",
)
# The services beside that way, which `World(beside=True)` runs too.
BESIDE = ("technical-indicators", "news-simulator", "sentiment-analyzer", "signal-generator", "health-monitor")
START_CASH = Decimal(10_000_000)
SIGNAL_SECONDS = 120
_ORDERS_PATH = "/api/v3/brokerage/orders"
EXCHANGE_FAULTS: tuple[dict[str, object], ...] = (
    {"fault": "timeout", "method": "POST", "path": _ORDERS_PATH, "count": 2},
    {"fault": "status", "status": 503, "count": 5},
    {"fault": "status", "status": 429, "retry_after_seconds": 0, "count": 5},
    {"fault": "latency", "delay_seconds": 0.5, "count": 5},
)


@dataclass
class Service:
    """`tradewatch run NAME` as a process that can be killed."""

    name: str
    port: int
    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tradewatch", "run", self.name], env=self.environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def restart(self) -> None:
        """Kill it and start it again at once."""
        self.kill()
        self.start()

    async def open_metrics(self) -> str:
        """Its metrics with exemplars."""
        accept = {"Accept": "application/openmetrics-text"}
        async with httpx.AsyncClient(trust_env=False, timeout=10, headers=accept) as client:
            return (await client.get(self.url + "/metrics")).text

    async def alive(self, path: str = "/readyz") -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            with contextlib.suppress(httpx.HTTPError):
                return (await client.get(self.url + path)).is_success
        return False


@dataclass
class World:
    """All of it, and what was done to it.

    `changes` are settings by service, without their prefix, in the place of those below.
    """

    directory: Path
    valkey: ValkeyServer
    postgres: PostgresServer
    database: Database
    rng: random.Random
    changes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    beside: bool = False
    key: ApiKey = field(default_factory=ApiKey)
    services: dict[str, Service] = field(default_factory=dict)
    harm: Counter[str] = field(default_factory=Counter)
    rest_port: int = field(default_factory=free_port)
    feed_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        ports = {name: free_port() for name in ("exchange-simulator", *SERVICES, *(BESIDE if self.beside else ()))}
        for name, port in ports.items():
            self.services[name] = Service(name, port, self._environment(name, ports), self.directory / f"{name}.log")

    def _environment(self, name: str, ports: dict[str, int]) -> dict[str, str]:
        def url(peer: str) -> str:
            return f"http://127.0.0.1:{ports[peer]}"

        on_the_bus = {"VALKEY_URL": self.valkey.url, "VALKEY_PASSWORD_FILE": self._secret("valkey", PASSWORD)}
        stored = {
            "DATABASE_URL": self.database.url,
            "DATABASE_PASSWORD_FILE": self._secret("database", self.database.password),
        }
        bus_and_store = {**on_the_bus, **stored}
        products = {"PRODUCTS": ",".join(PRODUCTS)}
        tokens = {
            "EXECUTOR_TOKEN_FILE": self._secret("executor", "executor-token-of-the-tests"),
            "KILL_SWITCH_TOKEN_FILE": self._secret("kill-switch", "kill-switch-token-of-the-tests"),
        }
        of_service: dict[str, dict[str, str]] = {
            "exchange-simulator": {
                **products,
                "TICKS_PER_SECOND": "60",
                "WEBSOCKET_PORT": str(self.feed_port),
                "REST_PORT": str(self.rest_port),
                "REST_REQUESTS_PER_SECOND": "5000",
                "API_KEYS_FILE": self._secret("keys", key_file(self.key)),
                "BALANCES": f"USD={START_CASH}",
            },
            "market-data-collector": {
                **on_the_bus,
                **products,
                "EXCHANGE": "coinbase",
                "EXCHANGE_WEBSOCKET_URL": f"ws://127.0.0.1:{self.feed_port}/",
            },
            "market-data-aggregator": {**on_the_bus, **products, "EXCHANGES": "coinbase"},
            "llm-simulator": {"LATENCY_SECONDS": "0.01"},
            "llm-validator": {
                **bus_and_store,
                "LLM_BASE_URL": url("llm-simulator") + "/v1",
                "LLM_MODEL": "simulated",
                "LLM_TOKENS_PER_HOUR": "1000000000",
                "VALIDATION_SECONDS": "5",
                "SENTIMENT_MAX_AGE_SECONDS": "3600",
            },
            "risk-manager": {
                **bus_and_store,
                **products,
                **tokens,
                "EXECUTOR_URL": url("trade-executor"),
                "MAX_ORDER_QUOTE_SIZE": "1000",
                "MAX_PRODUCT_EXPOSURE": "5000000",
                "MAX_TOTAL_EXPOSURE": "9000000",
                "MAX_CONCENTRATION_RATIO": "1",
                "MAX_QUOTE_AGE_SECONDS": "60",
                "MAX_EQUITY_AGE_SECONDS": "600",
                "MAX_DRAWDOWN_RATIO": "1",
                "MAX_SPREAD_RATIO": "1",
                "PRICE_COLLAR_RATIO": "1",
                "LIMIT_OFFSET_RATIO": "0.02",
                "MAX_ORDERS_PER_MINUTE": "10000",
                "MAX_OPEN_ORDERS": "10000",
                "LOSS_COOLDOWN_SECONDS": "0",
                "REFRESH_SECONDS": "15",
            },
            "trade-executor": {
                **stored,
                **products,
                "EXECUTOR_TOKEN_FILE": tokens["EXECUTOR_TOKEN_FILE"],
                "EXCHANGE_KEY_NAME_FILE": self._secret("key-name", self.key.name),
                "EXCHANGE_PRIVATE_KEY_FILE": self._secret("private-key", self.key.private_pem),
                "EXCHANGE_URL": f"http://127.0.0.1:{self.rest_port}",
                "EXCHANGE_TIMEOUT_SECONDS": "1",
                "RECONCILE_SECONDS": "5",
                "EQUITY_SECONDS": "5",
            },
            "trade-orchestrator": {
                **bus_and_store,
                "RISK_MANAGER_URL": url("risk-manager"),
                "LLM_VALIDATOR_URL": url("llm-validator"),
                "TRADE_EXECUTOR_URL": url("trade-executor"),
                "RESUME_SECONDS": "2",
                "CLAIM_IDLE_SECONDS": "5",
                "ORDER_TIMEOUT_SECONDS": "5",
            },
            "technical-indicators": {**on_the_bus, **products, "INDICATOR_INTERVALS_SECONDS": "1"},
            "news-simulator": {},
            "sentiment-analyzer": {
                **on_the_bus,
                "FEEDS": f"coinpost={url('news-simulator')}/feeds/coinpost" if self.beside else "",
                "ASSETS": ",".join(product.partition("-")[0] for product in PRODUCTS),
            },
            "signal-generator": {**bus_and_store, **products, "SIGNAL_INTERVAL_SECONDS": "1"},
            "health-monitor": {**on_the_bus, **products, "EXCHANGES": "coinbase"},
        }
        own = of_service[name] | {"HTTP_PORT": str(ports[name]), "LOG_LEVEL": "info"} | dict(self.changes.get(name, {}))
        return {"PATH": os.environ["PATH"]} | {f"TRADEWATCH_{variable}": text for variable, text in own.items()}

    def _secret(self, name: str, text: str) -> str:
        path = self.directory / f"secret-{name}"
        path.write_text(text)
        return str(path)

    async def start(self) -> None:
        """Start everything, the market first, and wait until all of it is ready."""
        exchange = self.services["exchange-simulator"]
        exchange.start()
        await eventually(exchange.alive, 60)
        await self.tell_news()
        others = [service for service in self.services.values() if service is not exchange]
        for service in others:
            service.start()
        for service in others:
            try:
                await eventually(service.alive, 60)
            except AssertionError:
                raise AssertionError(f"{service.name} is not ready:\n{service.log.read_text()[-3000:]}") from None

    def end(self) -> None:
        for service in self.services.values():
            service.kill()

    async def mid_prices(self) -> dict[str, Decimal]:
        client = Client(f"http://127.0.0.1:{self.rest_port}", self.key)
        books = (await client.get("/best_bid_ask", product_ids=list(PRODUCTS)))["pricebooks"]
        return {
            book["product_id"]: (Decimal(book["bids"][0]["price"]) + Decimal(book["asks"][0]["price"])) / 2
            for book in books
        }

    async def tell_news(self) -> None:
        """Write what the sentiment analyzer would: calm news of each asset."""
        client = bus.connect(self.valkey.url, PASSWORD)
        try:
            for product in PRODUCTS:
                asset = product.partition("-")[0]
                told = Sentiment(asset, datetime.now(UTC), 0.0, 5, uuid.uuid4().hex)
                await client.xadd(sentiment_stream(asset), streams.encode(told))
        finally:
            await client.aclose()

    async def feed(self, count: int, per_second: float) -> list[Signal]:
        """Write so many signals, each until Valkey took it; a repeat of one that it took already does no harm."""
        fed: list[Signal] = []
        prices = await self.mid_prices()
        told_at = asyncio.get_running_loop().time()
        client = bus.connect(self.valkey.url, PASSWORD)
        try:
            while len(fed) < count:
                if asyncio.get_running_loop().time() - told_at > 5:
                    with contextlib.suppress(ValkeyError, OSError, AssertionError, httpx.HTTPError, KeyError):
                        prices = await self.mid_prices()
                        await self.tell_news()
                    told_at = asyncio.get_running_loop().time()
                product = self.rng.choice(PRODUCTS)
                now = datetime.now(UTC)
                signal = Signal(
                    signal_id=uuid.UUID(int=self.rng.getrandbits(128), version=4),
                    product_id=product,
                    side=Side.SELL if self.rng.random() < 0.2 else Side.BUY,
                    confidence=round(self.rng.uniform(0.4, 0.99), 3),
                    reference_price=prices[product],
                    model_version="chaos",
                    created=now,
                    expires=now + timedelta(seconds=SIGNAL_SECONDS),
                    rationale="chaos",
                    trace_id=uuid.uuid4().hex,
                )
                while True:
                    try:
                        await client.xadd(SIGNALS_STREAM, streams.encode(signal))
                        break
                    except (ValkeyError, OSError, TimeoutError):
                        await asyncio.sleep(0.05)
                fed.append(signal)
                await asyncio.sleep(self.rng.expovariate(per_second))
        finally:
            await client.aclose()
        return fed

    async def harm_for_ever(self, every_seconds: float) -> None:
        """Kill, restart and misbehave at random, until cancelled; the last harm is undone."""
        targets = [*SERVICES, "trade-orchestrator", "trade-executor", "valkey", "postgres", "exchange"]
        # Every one of them once, in a random order and at a steady pace, before chance decides.
        following = self.rng.sample(targets, len(targets))
        while True:
            await asyncio.sleep(every_seconds if following else self.rng.expovariate(1 / every_seconds))
            target = following.pop() if following else self.rng.choice(targets)
            await asyncio.shield(self._harm(target))

    async def _harm(self, target: str) -> None:
        pause = self.rng.uniform(0, 1.5)
        self.harm[target] += 1
        if target == "valkey":
            self.valkey.signal(9)
            self.valkey.stop()
            await asyncio.sleep(pause)
            await asyncio.to_thread(self.valkey.start)
        elif target == "postgres":
            await asyncio.to_thread(self.rng.choice((self.postgres.stop, self.postgres.kill)))
            await asyncio.sleep(pause)
            await asyncio.to_thread(self.postgres.start)
        elif target == "exchange":
            async with httpx.AsyncClient(trust_env=False) as client:
                fault = self.rng.choice(EXCHANGE_FAULTS)
                answer = await client.post(self.services["exchange-simulator"].url + "/faults", json=fault)
                assert answer.status_code == 202, answer.text
        else:
            self.services[target].kill()
            await asyncio.sleep(pause)
            self.services[target].start()

    async def exchange_state(self) -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            return (await client.get(self.services["exchange-simulator"].url + "/state")).json()
