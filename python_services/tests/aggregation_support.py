"""What the tests of the aggregator and the indicators share: market data on a real Valkey, and the services on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry
from services_support import PASSWORD, ValkeyServer, ends, kill
from tradewatch.collectors.aggregator.metrics import AggregatorMetrics
from tradewatch.collectors.aggregator.quotes import QuoteLimits
from tradewatch.collectors.aggregator.service import AggregatorLimits, MarketDataAggregator, decode_event
from tradewatch.collectors.indicators.metrics import IndicatorsMetrics
from tradewatch.collectors.indicators.service import TechnicalIndicators, decode_candle
from tradewatch.common import bus, events, streams
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import MarketDataEvent, Side, Ticker, Trade, new_trace_id
from tradewatch.common.service import Liveness
from tradewatch.common.stream_reader import StreamReader

EXCHANGES = ("coinbase", "kraken")
PRODUCT = "BTC-USD"
INTERVALS = (1, 5, 60)


def trade(
    at: datetime,
    number: int,
    price: str = "100",
    size: str = "1",
    exchange: str = "coinbase",
    product_id: str = PRODUCT,
    trace_id: str = "",
) -> Trade:
    return Trade(
        exchange=exchange,
        product_id=product_id,
        trade_id=str(number),
        price=Decimal(price),
        size=Decimal(size),
        taker_side=Side.BUY,
        exchange_time=at,
        received_time=at,
        sequence=0,
        trace_id=trace_id or new_trace_id(),
    )


def ticker(
    at: datetime,
    bid: str | None = "99",
    ask: str | None = "101",
    exchange: str = "coinbase",
    bid_size: str = "1",
    ask_size: str = "1",
    product_id: str = PRODUCT,
) -> Ticker:
    return Ticker(
        exchange=exchange,
        product_id=product_id,
        price=Decimal("100"),
        best_bid=None if bid is None else Decimal(bid),
        best_bid_size=Decimal(bid_size),
        best_ask=None if ask is None else Decimal(ask),
        best_ask_size=Decimal(ask_size),
        volume_24h=None,
        exchange_time=at,
        received_time=at,
        sequence=0,
        trace_id=new_trace_id(),
    )


async def put(client: Any, event: MarketDataEvent) -> None:
    """Put an event onto the bus."""
    await client.xadd(events.stream_name(event.exchange, event.product_id), dict(events.encode(event)))


async def put_past(client: Any, entries: list[tuple[datetime, MarketDataEvent]]) -> None:
    """Put events onto the bus as if each had been put there at its time."""
    pipeline = client.pipeline(transaction=False)
    for at, event in sorted(entries, key=lambda entry: entry[0]):
        stream = events.stream_name(event.exchange, event.product_id)
        pipeline.xadd(stream, dict(events.encode(event)), id=f"{round(at.timestamp() * 1000)}-*")
    await pipeline.execute()


async def candles(client: Any, product: str = PRODUCT) -> list[streams.Candle]:
    return [
        streams.decode(streams.Candle, fields) for _, fields in await client.xrange(streams.candles_stream(product))
    ]


async def raw(client: Any, stream: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: list[tuple[bytes, dict[bytes, bytes]]] = await client.xrange(stream)
    return found


@asynccontextmanager
async def bus_client(valkey: ValkeyServer) -> AsyncIterator[Any]:
    client = bus.connect(valkey.url, PASSWORD)
    try:
        yield client
    finally:
        await client.aclose()


@dataclass
class Running:
    """A running service."""

    service: Any
    registry: CollectorRegistry
    writer: bus.StreamWriter
    task: "asyncio.Task[None]"
    stop: asyncio.Event

    async def kill(self) -> None:
        """End it as SIGKILL would: what is in memory is gone."""
        await kill(self.task)


@asynccontextmanager
async def _running(valkey: ValkeyServer, make: Any) -> AsyncIterator[Running]:
    registry, liveness = CollectorRegistry(), Liveness()
    client, reading = bus.connect(valkey.url, PASSWORD), bus.connect(valkey.url, PASSWORD)
    writer = bus.StreamWriter(
        client, registry, liveness, max_length=100_000, buffer_entries=20_000, backoff=Backoff(0.02, 0.1)
    )
    service = make(registry, liveness, client, reading, writer)
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        yield Running(service, registry, writer, task, stop)
    finally:
        stop.set()
        try:
            if not task.done():
                await ends(task)
        finally:
            await client.aclose()
            await reading.aclose()


def aggregation(
    valkey: ValkeyServer,
    *,
    products: tuple[str, ...] = (PRODUCT,),
    intervals: tuple[int, ...] = INTERVALS,
    lateness_seconds: float = 0.5,
) -> Any:
    def make(registry: Any, liveness: Any, client: Any, reading: Any, writer: Any) -> MarketDataAggregator:
        names = [events.stream_name(exchange, product) for product in products for exchange in EXCHANGES]
        return MarketDataAggregator(
            client,
            StreamReader(
                reading, registry, liveness, names, decode_event, hold=writer.crowded, backoff=Backoff(0.02, 0.1)
            ),
            writer,
            AggregatorMetrics(registry, products, EXCHANGES, intervals),
            products,
            EXCHANGES,
            intervals,
            AggregatorLimits(lateness_seconds, QuoteLimits(10.0, 0.02), 0.1, 60.0),
            Backoff(0.02, 0.1),
        )

    return _running(valkey, make)


def indication(
    valkey: ValkeyServer,
    *,
    products: tuple[str, ...] = (PRODUCT,),
    intervals: tuple[int, ...] = (1, 60),
    max_gap_candles: int = 60,
) -> Any:
    def make(registry: Any, liveness: Any, client: Any, reading: Any, writer: Any) -> TechnicalIndicators:
        names = [streams.candles_stream(product) for product in products]
        return TechnicalIndicators(
            client,
            StreamReader(reading, registry, liveness, names, decode_candle, hold=writer.crowded),
            writer,
            IndicatorsMetrics(registry, products, intervals),
            products,
            intervals,
            max_gap_candles=max_gap_candles,
            candle_max_age_seconds=30.0,
            backoff=Backoff(0.02, 0.1),
        )

    return _running(valkey, make)


def minute_ago(seconds: float = 0.0) -> datetime:
    """A whole five minutes boundary in the past, plus seconds."""
    now = datetime.now(UTC).timestamp()
    return datetime.fromtimestamp(now - now % 300 - 600, UTC) + timedelta(seconds=seconds)
