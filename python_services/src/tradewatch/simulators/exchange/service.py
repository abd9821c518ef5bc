"""exchange-simulator: wires the market, the protocols that speak about it, and the faults."""

import asyncio
import time

from pydantic import Field

from tradewatch.common import service
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import CommonSettings, ProductIds
from tradewatch.simulators.exchange.coinbase_websocket import CoinbaseFeed
from tradewatch.simulators.exchange.faults import FaultRoutes
from tradewatch.simulators.exchange.feed_server import FeedServer
from tradewatch.simulators.exchange.kraken_websocket import KrakenFeed
from tradewatch.simulators.exchange.market import Market
from tradewatch.simulators.exchange.metrics import SimulatorMetrics

NAME = "exchange-simulator"


class ExchangeSimulatorSettings(CommonSettings):
    """Settings of exchange-simulator."""

    seed: int = Field(default=1, ge=0, le=2**63 - 1, description="the same seed gives the same prices")
    products: ProductIds = Field(default=("BTC-USD", "ETH-USD"), description="comma separated product ids")
    ticks_per_second: float = Field(
        default=10.0, allow_inf_nan=False, ge=0.01, le=20_000, description="matches a second, over all products"
    )
    websocket_port: int = Field(default=8081, ge=0, le=65535, description="port of the WebSocket feeds")


class ExchangeSimulator:
    """Runs the market and the feeds."""

    def __init__(self, market: Market, feeds: FeedServer, max_silence_seconds: float) -> None:
        self._market = market
        self._feeds = feeds
        self._max_silence_seconds = max_silence_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then clients are told to go away (1001)."""
        await self._feeds.start()
        try:
            await service.until_stopped(stop, self._work())
        finally:
            await self._feeds.stop()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._market.run())
            tasks.create_task(self._feeds.run())

    async def check_market(self) -> CheckResult:
        """Readiness: the market ticks."""
        silence = time.monotonic() - self._market.last_tick_at
        return CheckResult(silence <= self._max_silence_seconds, f"last tick {silence:.1f} s ago")

    async def check_websocket(self) -> CheckResult:
        """Readiness: the feeds accept connections."""
        if not self._feeds.listening:
            return CheckResult(False, "not listening")
        return CheckResult(True, f"listening on port {self._feeds.port}")


def serve_feeds(market: Market, metrics: SimulatorMetrics, liveness: Liveness, port: int) -> FeedServer:
    """The server of every exchange's feed about one market; it listens once it is started."""
    return FeedServer((CoinbaseFeed(market), KrakenFeed(market)), market, metrics, liveness, port)


async def main(settings: ExchangeSimulatorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    metrics = SimulatorMetrics(registry, settings.products)
    market = Market(settings.seed, settings.products, settings.ticks_per_second, metrics, liveness)
    feeds = serve_feeds(market, metrics, liveness, settings.websocket_port)
    simulator = ExchangeSimulator(market, feeds, max(5.0, 3.0 / settings.ticks_per_second))
    faults = FaultRoutes(metrics, feeds.apply, feeds.active_faults, feeds.clear_faults)
    server = HttpServer(
        settings.http_port,
        registry,
        liveness,
        [Check("market", simulator.check_market), Check("websocket", simulator.check_websocket)],
        faults.routes(),
    )
    return await service.run(simulator, server, settings.drain_seconds)
