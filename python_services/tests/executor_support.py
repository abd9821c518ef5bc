"""A running executor, in this process or in one of its own, against the exchange simulator and PostgreSQL."""

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from exchange_support import ApiKey, Client, key_file
from postgres_support import Database
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from services_support import WAIT_SECONDS, ends, eventually, free_port
from tradewatch.common.http import HttpServer
from tradewatch.common.service import Liveness
from tradewatch.simulators.exchange.service import ExchangeSimulator, ExchangeSimulatorSettings
from tradewatch.trading.execution.coinbase import Coinbase, Limits
from tradewatch.trading.execution.lifecycle import Patience
from tradewatch.trading.execution.metrics import ExecutionMetrics
from tradewatch.trading.execution.service import TradeExecutor
from tradewatch.trading.execution.signing import Signer
from tradewatch.trading.identity import client_order_id

PRODUCTS = ("BTC-USD", "ETH-USD")
TOKEN = "a-token-of-some-length"
TRACE = "5" * 32


@dataclass
class Exchange:
    """A running simulator and a key for it."""

    simulator: ExchangeSimulator
    key: ApiKey
    admin: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.simulator.rest.port}"

    @property
    def client(self) -> Client:
        return Client(self.url, self.key)

    async def fault(self, **fault: object) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.admin}/faults", json=fault)
        assert answer.status_code == 202, answer.text

    async def orders(self) -> list[Any]:
        return list((await self.client.get("/orders/historical/batch"))["orders"])

    async def balance(self, currency: str) -> Decimal:
        accounts = (await self.client.get("/accounts"))["accounts"]
        return next(
            (
                Decimal(account["available_balance"]["value"]) + Decimal(account["hold"]["value"])
                for account in accounts
                if account["currency"] == currency
            ),
            Decimal(0),
        )

    async def mid(self, product: str = "BTC-USD") -> Decimal:
        [book] = (await self.client.get("/best_bid_ask", product_ids=product))["pricebooks"]
        return (Decimal(book["bids"][0]["price"]) + Decimal(book["asks"][0]["price"])) / 2


@asynccontextmanager
async def exchange(**settings: Any) -> AsyncIterator[Exchange]:
    key = ApiKey()
    registry, liveness = CollectorRegistry(), Liveness()
    made = ExchangeSimulatorSettings(
        products=PRODUCTS,
        ticks_per_second=50,
        websocket_port=0,
        rest_port=0,
        rest_requests_per_second=10_000,
        api_keys=SecretStr(key_file(key)),
        **settings,
    )
    simulator = ExchangeSimulator(made, registry, liveness)
    stop = asyncio.Event()
    async with HttpServer(0, registry, liveness, [], simulator.routes) as http:
        task = asyncio.create_task(simulator.run(stop))
        try:
            await eventually(lambda: simulator.listening)
            found = Exchange(simulator, key, f"http://127.0.0.1:{http.port}")
            await eventually(found.mid)
            yield found
        finally:
            stop.set()
            await ends(task)


@dataclass
class Executor:
    """A running executor's HTTP side."""

    url: str
    registry: CollectorRegistry

    async def place(
        self,
        decision_id: uuid.UUID,
        limit_price: Decimal,
        side: str = "BUY",
        quote_size: str = "100",
        product_id: str = "BTC-USD",
        lives_seconds: float = 60,
    ) -> httpx.Response:
        body = {
            "decision_id": str(decision_id),
            "trace_id": TRACE,
            "product_id": product_id,
            "side": side,
            "quote_size": quote_size,
            "limit_price": format(limit_price.quantize(Decimal("0.01")), "f"),
            "expires": (datetime.now(UTC) + timedelta(seconds=lives_seconds)).isoformat(),
        }
        async with httpx.AsyncClient(timeout=WAIT_SECONDS) as client:
            return await client.post(f"{self.url}/v1/orders", json=body)

    async def order(self, decision_id: uuid.UUID) -> httpx.Response:
        async with httpx.AsyncClient(timeout=WAIT_SECONDS) as client:
            return await client.get(f"{self.url}/v1/orders/{client_order_id(decision_id)}")

    async def ended(self, decision_id: uuid.UUID, seconds: float = WAIT_SECONDS) -> Any:
        async def final() -> Any:
            with contextlib.suppress(httpx.HTTPError):
                answer = await self.order(decision_id)
                if answer.status_code == 200 and answer.json()["final"]:
                    return answer.json()
            return None

        return await eventually(final, seconds)

    async def cancel_all(self, token: str = TOKEN) -> httpx.Response:
        async with httpx.AsyncClient(timeout=WAIT_SECONDS) as client:
            headers = {"Authorization": f"Bearer {token}"}
            return await client.post(f"{self.url}/v1/cancel-all", json={"reason": "test"}, headers=headers)

    async def ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=WAIT_SECONDS) as client:
                return (await client.get(f"{self.url}/readyz")).status_code == 200
        return False


@asynccontextmanager
async def executor(
    database: Database,
    exchange: Exchange,
    *,
    patience: Patience | None = None,
    limits: Limits | None = None,
    wait_ready: bool = True,
    **settings: Any,
) -> AsyncIterator[Executor]:
    registry, liveness = CollectorRegistry(), Liveness()
    metrics = ExecutionMetrics(registry, PRODUCTS)
    signer = Signer(exchange.key.name, exchange.key.private_pem)
    async with (
        database.connect("trade-executor") as pool,
        database.connect("trade-executor-lock") as lock_pool,
        Coinbase(exchange.url, signer, metrics, limits or Limits(total=1.0)) as client,
    ):
        settings = {"reconcile_seconds": 0.2, "lock_seconds": 0.1, "equity_seconds": 1.0, **settings}
        service = TradeExecutor(
            pool,
            lock_pool,
            client,
            metrics,
            liveness,
            PRODUCTS,
            patience or Patience(send=2, rest=1, lookup=1.0),
            **settings,
        )
        stop = asyncio.Event()
        routes = service.routes(SecretStr(TOKEN))
        async with HttpServer(0, registry, liveness, service.checks(), routes) as http:
            task = asyncio.create_task(service.run(stop))
            found = Executor(f"http://127.0.0.1:{http.port}", registry)
            try:
                if wait_ready:
                    await eventually(found.ready)
                yield found
            finally:
                stop.set()
                await ends(task)


# What was marked as sent when the process died, and never was, is looked for so long: the least that there may be.
ORDER_LOOKUP_SECONDS = 31


class ExecutorProcess:
    """`tradewatch run trade-executor` in a process that can be killed."""

    def __init__(self, database: Database, exchange: Exchange, directory: Path) -> None:
        self.port = free_port()
        self.api = Executor(f"http://127.0.0.1:{self.port}", CollectorRegistry())
        files = {
            "EXECUTOR_TOKEN": TOKEN,
            "DATABASE_PASSWORD": database.password,
            "EXCHANGE_KEY_NAME": exchange.key.name,
            "EXCHANGE_PRIVATE_KEY": exchange.key.private_pem,
        }
        self._environment = {
            "PATH": os.environ["PATH"],
            "TRADEWATCH_HTTP_PORT": str(self.port),
            "TRADEWATCH_PRODUCTS": ",".join(PRODUCTS),
            "TRADEWATCH_DATABASE_URL": database.url,
            "TRADEWATCH_EXCHANGE_URL": exchange.url,
            "TRADEWATCH_ORDER_LOOKUP_SECONDS": str(ORDER_LOOKUP_SECONDS),
            "TRADEWATCH_RECONCILE_SECONDS": "1",
        }
        for name, text in files.items():
            path = directory / name
            path.write_text(text)
            self._environment[f"TRADEWATCH_{name}_FILE"] = str(path)
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tradewatch", "run", "trade-executor"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_SECONDS)
            self._process = None

    @property
    def log(self) -> str:
        return self._log.read_text()
