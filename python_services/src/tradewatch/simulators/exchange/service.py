"""exchange-simulator: wires the market, the matching engine, the protocols that speak about them, and the faults."""

import asyncio
import re
import ssl
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from tradewatch.common import service
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import CommonSettings, ProductIds, duration
from tradewatch.simulators.exchange.accounts import Accounts
from tradewatch.simulators.exchange.api_keys import ApiKeys, read_keys
from tradewatch.simulators.exchange.coinbase_websocket import CoinbaseFeed
from tradewatch.simulators.exchange.faults import FaultRoutes
from tradewatch.simulators.exchange.feed_server import FeedServer
from tradewatch.simulators.exchange.history import History
from tradewatch.simulators.exchange.kraken_websocket import KrakenFeed
from tradewatch.simulators.exchange.market import Market
from tradewatch.simulators.exchange.matching import Fees, MatchingEngine
from tradewatch.simulators.exchange.metrics import SimulatorMetrics
from tradewatch.simulators.exchange.prices import HALF_LIFE_SECONDS
from tradewatch.simulators.exchange.products import products_of
from tradewatch.simulators.exchange.request_faults import ActiveRequestFaults
from tradewatch.simulators.exchange.rest.accounts import AccountEndpoints
from tradewatch.simulators.exchange.rest.kraken import KrakenEndpoints
from tradewatch.simulators.exchange.rest.orders import OrderEndpoints
from tradewatch.simulators.exchange.rest.products import ProductEndpoints
from tradewatch.simulators.exchange.rest.server import RestServer

NAME = "exchange-simulator"
_BALANCE = re.compile(r"([A-Z0-9]{1,16})=([0-9]{1,15}(?:\.[0-9]{1,8})?)")


def _split_balances(value: object) -> object:
    """Turn `USD=100000,BTC=0.5` into pairs."""
    if not isinstance(value, str):
        return value
    balances = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        match = _BALANCE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part[:40]!r} is not a balance like USD=100000")
        if match[1] in balances:
            raise ValueError(f"{match[1]} is named twice")
        balances[match[1]] = Decimal(match[2])
    return tuple(balances.items())


Balances = Annotated[tuple[tuple[str, Decimal], ...], NoDecode, BeforeValidator(_split_balances)]


class ExchangeSimulatorSettings(CommonSettings):
    """Settings of exchange-simulator."""

    seed: int = Field(default=1, ge=0, le=2**63 - 1, description="the same seed gives the same prices")
    products: ProductIds = Field(default=("BTC-USD", "ETH-USD"), description="comma separated product ids")
    ticks_per_second: float = Field(
        default=10.0, allow_inf_nan=False, ge=0.01, le=20_000, description="matches a second, over all products"
    )
    price_half_life_seconds: float = duration(
        HALF_LIFE_SECONDS,
        1e9,
        "time in which a price is pulled half-way back to its anchor; short, it can be foreseen",
        least=1,
    )
    websocket_port: int = Field(default=8081, ge=0, le=65535, description="port of the WebSocket feeds")
    rest_port: int = Field(default=8082, ge=0, le=65535, description="port of the REST interfaces")
    rest_tls_file: Path | None = Field(
        default=None, description="PEM file with certificate and key; without it the REST port speaks plain HTTP"
    )
    rest_requests_per_second: float = Field(
        default=100.0, allow_inf_nan=False, gt=0, le=100_000, description="REST requests a second, else 429"
    )
    api_keys: SecretStr | None = Field(
        default=None, description='JSON array of {"name", "public_key"} in PEM; without it no key is known'
    )
    balances: Balances = Field(default=(("USD", Decimal(100_000)),), description="such as USD=100000,BTC=0.5")
    maker_fee_rate: Decimal = Field(default=Decimal("0.004"), ge=0, le=Decimal("0.1"), description="of a fill's value")
    taker_fee_rate: Decimal = Field(default=Decimal("0.006"), ge=0, le=Decimal("0.1"), description="of a fill's value")

    @field_validator("api_keys")
    @classmethod
    def _keys_are_usable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_keys(value.get_secret_value())
        return value

    @field_validator("rest_tls_file")
    @classmethod
    def _certificate_is_usable(cls, value: Path | None) -> Path | None:
        if value is not None:
            _tls(value)
        return value


def _tls(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(file)
    except (OSError, ssl.SSLError):
        raise ValueError(f"{file} does not hold a certificate and its key in PEM") from None
    return context


class ExchangeSimulator:
    """The market, the engine and the servers, wired; `routes` are its own on the HTTP port."""

    def __init__(self, settings: ExchangeSimulatorSettings, registry: CollectorRegistry, liveness: Liveness) -> None:
        self._max_silence_seconds = max(5.0, 3.0 / settings.ticks_per_second)
        metrics = SimulatorMetrics(registry, settings.products)
        self.market = Market(
            settings.seed,
            settings.products,
            settings.ticks_per_second,
            metrics,
            liveness,
            settings.price_half_life_seconds,
        )
        products = products_of(self.market.increments)
        balances = {currency: Decimal(0) for one in products.values() for currency in (one.base, one.quote)}
        accounts = Accounts(balances | dict(settings.balances), datetime.now(UTC))
        fees = Fees(settings.maker_fee_rate, settings.taker_fee_rate)
        self.engine = MatchingEngine(products, accounts, fees, metrics)
        # The engine hears of a tick before the feeds, which tell what it makes of it.
        self.market.listeners.append(lambda tick, state: self.engine.on_tick(tick, state.last_time))
        for state in self.market.states.values():
            self.engine.on_tick(state.last, state.last_time)
        history = History(self.market)
        keys = ApiKeys({}) if settings.api_keys is None else read_keys(settings.api_keys.get_secret_value())
        self.feeds = FeedServer(
            (CoinbaseFeed(self.market, self.engine, keys), KrakenFeed(self.market)),
            self.market,
            metrics,
            liveness,
            settings.websocket_port,
        )
        faults = ActiveRequestFaults()
        account_endpoints = AccountEndpoints(self.engine)
        self.rest = RestServer(
            settings.rest_port,
            [
                *account_endpoints.endpoints(),
                *ProductEndpoints(self.market, self.engine, history).endpoints(),
                *OrderEndpoints(self.engine, faults).endpoints(),
                *KrakenEndpoints(self.market, self.engine, history).endpoints(),
            ],
            keys,
            faults,
            metrics,
            settings.rest_requests_per_second,
            _tls(settings.rest_tls_file) if settings.rest_tls_file else None,
        )
        self.routes = [
            *FaultRoutes(metrics, self.feeds, faults).routes(),
            web.get("/state", account_endpoints.administrative),
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then WebSocket clients are told to go away (1001)."""
        await self.feeds.start()
        try:
            await self.rest.start()
            await service.until_stopped(stop, self._work())
        finally:
            await self.rest.stop()
            await self.feeds.stop()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.market.run())
            tasks.create_task(self.feeds.run())

    @property
    def listening(self) -> bool:
        """Whether clients can connect."""
        return self.feeds.listening and self.rest.listening

    def checks(self) -> list[Check]:
        """What `/readyz` asks."""
        return [
            Check("market", self._check_market),
            Check("websocket", self._check_websocket),
            Check("rest", self._check_rest),
        ]

    async def _check_market(self) -> CheckResult:
        silence = time.monotonic() - self.market.last_tick_at
        return CheckResult(silence <= self._max_silence_seconds, f"last tick {silence:.1f} s ago")

    async def _check_websocket(self) -> CheckResult:
        return _listening(self.feeds.listening, self.feeds.port)

    async def _check_rest(self) -> CheckResult:
        return _listening(self.rest.listening, self.rest.port)


def _listening(listening: bool, port: int) -> CheckResult:
    return CheckResult(listening, f"listening on port {port}" if listening else "not listening")


async def main(settings: ExchangeSimulatorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    simulator = ExchangeSimulator(settings, registry, liveness)
    server = HttpServer(settings.http_port, registry, liveness, simulator.checks(), simulator.routes)
    return await service.run(simulator, server, settings.drain_seconds)
