"""market-data-aggregator: every exchange's market data into candles and quotes."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode
from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.collectors.aggregator.candles import NEVER, SECOND_US, CandleFold, TradeFate, microseconds
from tradewatch.collectors.aggregator.metrics import AggregatorMetrics
from tradewatch.collectors.aggregator.quotes import Judgement, QuoteFold, QuoteLimits
from tradewatch.collectors.aggregator.standing import look_up
from tradewatch.collectors.exchanges import EXCHANGES
from tradewatch.common import bus, events, service, streams
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import MarketDataEvent, Ticker, Trade
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import IntervalsSeconds, ProductIds, StreamWriterSettings, duration
from tradewatch.common.stream_reader import Batch, Entry, StreamReader
from tradewatch.common.streams import Candle

NAME = "market-data-aggregator"
# How long a read may wait: quotes and candles of a quiet market are this much later.
BLOCK_SECONDS = 0.1

_log = get_logger("aggregator")


def _known_exchanges(value: object) -> object:
    if not isinstance(value, str):
        return value
    exchanges = tuple(part.strip() for part in value.split(",") if part.strip())
    if not exchanges:
        raise ValueError("name at least one exchange")
    for exchange in exchanges:
        if exchange not in EXCHANGES:
            raise ValueError(f"unknown exchange {exchange[:40]!r}; known: {', '.join(sorted(EXCHANGES))}")
    if len(set(exchanges)) != len(exchanges):
        raise ValueError("an exchange is named twice")
    return exchanges


class MarketDataAggregatorSettings(StreamWriterSettings):
    """Settings of market-data-aggregator; durations in seconds."""

    exchanges: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_known_exchanges)] = Field(
        default=tuple(sorted(EXCHANGES)), description="comma separated exchanges to take market data of"
    )
    products: ProductIds = Field(description="comma separated product ids, such as BTC-USD,ETH-USD")
    candle_intervals_seconds: IntervalsSeconds = Field(
        default=(1, 60, 300, 900, 3600), description="comma separated lengths of candles; multiples of the shortest"
    )
    allowed_lateness_seconds: float = duration(
        1.0,
        60,
        "how long a candle waits for the trades of an exchange that has given none from beyond its end",
        least=0,
    )
    quote_max_age_seconds: float = duration(10.0, 3600, "age above which an exchange's quote is left out")
    quote_outlier_ratio: float = Field(
        default=0.02,
        allow_inf_nan=False,
        gt=0,
        le=1,
        description="distance from the other exchanges' price above which a quote is left out",
    )
    trade_outlier_ratio: float = Field(
        default=0.1,
        allow_inf_nan=False,
        gt=0,
        le=1,
        description="distance from the last quote above which a trade is left out",
    )
    data_max_age_seconds: float = duration(60.0, 86_400, "age of a product's newest event above which /readyz fails")


@dataclass(frozen=True)
class AggregatorLimits:
    """What the settings of the same names say."""

    allowed_lateness_seconds: float
    quotes: QuoteLimits
    trade_outlier_ratio: float
    data_max_age_seconds: float


def decode_event(fields: Mapping[bytes, bytes]) -> MarketDataEvent:
    """The event of an entry; trades need an id that is a number. Raises EventDecodeError."""
    event = events.decode(fields)
    if isinstance(event, Trade) and not (event.trade_id.isascii() and event.trade_id.isdigit()):
        raise EventDecodeError("trade_id: not a whole number")
    return event


class _Product:
    """A product's folds and what of them has been published."""

    def __init__(
        self, product_id: str, exchanges: tuple[str, ...], intervals: tuple[int, ...], limits: AggregatorLimits
    ) -> None:
        self.product_id = product_id
        self.exchanges = exchanges
        self.candles = CandleFold(product_id, exchanges, intervals, limits.allowed_lateness_seconds)
        self.quotes = QuoteFold(product_id, exchanges, limits.quotes)
        self.at_us = NEVER
        self.quoted_us = NEVER
        self.newest_us = 0


class MarketDataAggregator:
    """Folds the exchanges' streams into candles and quotes.

    What it writes has ids made from its time, so that it is written once, whoever writes it how often: after a
    restart it reads again from where the candles stand and goes on.
    """

    def __init__(
        self,
        client: Valkey,
        reader: StreamReader[MarketDataEvent],
        writer: bus.StreamWriter,
        metrics: AggregatorMetrics,
        products: tuple[str, ...],
        exchanges: tuple[str, ...],
        intervals_seconds: tuple[int, ...],
        limits: AggregatorLimits,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._reader = reader
        self._writer = writer
        self._metrics = metrics
        self._exchanges = exchanges
        self._intervals = intervals_seconds
        self._limits = limits
        self._trade_ratio = Decimal(repr(limits.trade_outlier_ratio))
        self._backoff = backoff or Backoff(0.1, 5.0)
        self._throttle = Throttle()
        self._products = [_Product(product, exchanges, intervals_seconds, limits) for product in products]
        self._by_stream = {
            events.stream_name(exchange, product.product_id): (exchange, product)
            for product in self._products
            for exchange in exchanges
        }
        self._live_from_ms = 0
        self.caught_up = False

    async def run(self, stop: asyncio.Event) -> None:
        """Aggregate until `stop` is set, then write out what is closed."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._writer.run(stop), name="writer")
            tasks.create_task(service.until_stopped(stop, self._aggregate()), name="aggregator")

    async def _aggregate(self) -> None:
        for product in self._products:
            await self._restore(product)
        self._live_from_ms = time.time_ns() // 1_000_000
        while True:
            batch = await self._reader.read(BLOCK_SECONDS)
            self._fold(batch)
            if batch.caught_up and not self.caught_up:
                _log.info("caught up with the bus")
            self.caught_up = batch.caught_up

    async def _restore(self, product: _Product) -> None:
        """Find where the product's candles stand and have the reader start from there."""
        while True:
            try:
                standing = await look_up(self._client, product.product_id, self._exchanges, self._intervals)
                break
            except (exceptions.ValkeyError, OSError, TimeoutError) as error:
                name = type(error).__name__
                held = self._throttle.admit(f"restore:{name}")
                if held is not None:
                    _log.warning("cannot read where the candles stand", error=name, lines_held_back=held)
                await asyncio.sleep(self._backoff.next_seconds())
        product.candles.restore(standing.closed_us)
        for candle in standing.covering:
            product.candles.cover(candle, standing.covered_us)
        if standing.quote is not None:
            product.quotes.restore(standing.quote)
        product.quoted_us = standing.quoted_us
        self._reader.start_from(
            standing.read_from_ms, [events.stream_name(exchange, product.product_id) for exchange in self._exchanges]
        )
        _log.info(
            "starting from the bus",
            product_id=product.product_id,
            read_from_ms=standing.read_from_ms,
            covering_candles=len(standing.covering),
        )

    def _fold(self, batch: Batch[MarketDataEvent]) -> None:
        for entry in batch.entries:
            exchange, product = self._by_stream[entry.stream]
            if entry.item.exchange != exchange or entry.item.product_id != product.product_id:
                self._warn("an entry is not of its stream", entry.stream)
                continue
            self._advance(product, entry.id[0] * 1000)
            self._take(product, entry)
        for product in self._products:
            self._advance(product, batch.horizon_ms * 1000)

    def _take(self, product: _Product, entry: Entry[MarketDataEvent]) -> None:
        event = entry.item
        product.newest_us = max(product.newest_us, microseconds(event.exchange_time))
        if isinstance(event, Ticker):
            product.quotes.add(event)
            return
        bus_us = entry.id[0] * 1000
        fate: TradeFate | None = TradeFate.OUTLIER
        late: list[int] = []
        reference = product.quotes.reference(bus_us)
        if reference is None or abs(event.price - reference) <= self._trade_ratio * reference:
            fate, late = product.candles.add(bus_us, event)
        if entry.id[0] < self._live_from_ms:
            # Counted when it was seen for the first time.
            return
        if fate is not None:
            self._metrics.ignored[event.exchange, product.product_id, fate].inc()
            self._warn(f"trade left out: {fate.value}", entry.stream)
        for seconds in late:
            self._metrics.late[product.product_id, seconds].inc()

    def _advance(self, product: _Product, bus_us: int) -> None:
        if bus_us <= product.at_us:
            return
        product.at_us = bus_us
        for judgement in product.quotes.advance(bus_us):
            self._publish_quote(product, judgement)
        for candle in product.candles.advance(bus_us):
            self._publish_candle(candle, bus_us)

    def _publish_quote(self, product: _Product, judgement: Judgement) -> None:
        if judgement.at_us <= product.quoted_us:
            return
        for exchange in product.exchanges:
            self._metrics.stale[exchange, product.product_id].set(exchange in judgement.stale)
        for exchange in judgement.outliers:
            self._metrics.outliers[exchange, product.product_id].inc()
            self._warn("quote left out as an outlier", events.stream_name(exchange, product.product_id))
        quote = judgement.quote
        if quote is None:
            return
        self._metrics.quotes[product.product_id].inc()
        self._metrics.mid.labels(product_id=product.product_id).set(float(quote.mid))
        self._metrics.spread.labels(product_id=product.product_id).set(quote.spread_ratio)
        self._metrics.imbalance.labels(product_id=product.product_id).set(quote.imbalance)
        self._writer.publish(
            streams.quotes_stream(product.product_id), streams.encode(quote), f"{judgement.at_us // 1000}-0"
        )

    def _publish_candle(self, candle: Candle, bus_us: int) -> None:
        key = (candle.product_id, candle.interval_seconds)
        end_ms = (microseconds(candle.start) + candle.interval_seconds * SECOND_US) // 1000
        self._metrics.candles[key].inc(1, {"trace_id": candle.trace_id})
        self._metrics.last_candle[key].set(end_ms / 1000)
        if bus_us >= self._live_from_ms * 1000:
            self._metrics.close_delay[candle.interval_seconds].observe(
                max(0.0, time.time() - end_ms / 1000), {"trace_id": candle.trace_id}
            )
        self._writer.publish(
            streams.candles_stream(candle.product_id), streams.encode(candle), streams.candle_id(candle)
        )

    def _warn(self, message: str, stream: str) -> None:
        held = self._throttle.admit(f"{message}:{stream}")
        if held is not None:
            _log.warning(message, stream=stream, lines_held_back=held)

    async def check_data(self) -> CheckResult:
        """Readiness: every product has a recent event of some exchange, by the exchange's own time."""
        limit = self._limits.data_max_age_seconds
        oldest_us = (time.time() - limit) * SECOND_US
        stale = [product.product_id for product in self._products if product.newest_us < oldest_us]
        if stale:
            return CheckResult(False, f"no event younger than {limit:g} s: {', '.join(stale)}")
        return CheckResult(True, f"every product has an event younger than {limit:g} s")

    async def check_caught_up(self) -> CheckResult:
        """Readiness: the history has been read."""
        return CheckResult(self.caught_up, "read to the end" if self.caught_up else "reading history")


async def main(settings: MarketDataAggregatorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    # A read blocks its connection; writes and looking up have one of their own.
    client, reading = bus.connect_with(settings), bus.connect_with(settings)
    try:
        writer = bus.StreamWriter.of(settings, client, registry, liveness)
        names = [events.stream_name(exchange, p) for p in settings.products for exchange in settings.exchanges]
        aggregator = MarketDataAggregator(
            client,
            StreamReader(reading, registry, liveness, names, decode_event, hold=writer.crowded),
            writer,
            AggregatorMetrics(registry, settings.products, settings.exchanges, settings.candle_intervals_seconds),
            settings.products,
            settings.exchanges,
            settings.candle_intervals_seconds,
            AggregatorLimits(
                settings.allowed_lateness_seconds,
                QuoteLimits(settings.quote_max_age_seconds, settings.quote_outlier_ratio),
                settings.trade_outlier_ratio,
                settings.data_max_age_seconds,
            ),
        )
        checks = [
            Check("market_data", aggregator.check_data),
            Check("history", aggregator.check_caught_up),
            bus.check(client),
        ]
        server = HttpServer(settings.http_port, registry, liveness, checks)
        return await service.run(aggregator, server, settings.drain_seconds)
    finally:
        await client.aclose()
        await reading.aclose()
