"""market-data-collector: one exchange's live market data, checked, onto the bus."""

import asyncio
import time
from typing import Annotated

from pydantic import BeforeValidator, Field
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from tradewatch.collectors.back_fill import BackFill, BackFillLimits
from tradewatch.collectors.event_filter import EventFilter
from tradewatch.collectors.exchanges import EXCHANGES
from tradewatch.collectors.exchanges.protocol import Exchange, Frame
from tradewatch.collectors.feed import Feed, FeedLimits
from tradewatch.collectors.metrics import BackFillFailure, CollectionMetrics, FilterReason, ReconnectReason
from tradewatch.collectors.past_trades import PastTrades
from tradewatch.common import bus, service
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import MarketDataEvent, Trade, decode, encode, new_trace_id, stream_name
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import Throttle, get_logger, trace
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import HTTP, ProductIds, StreamWriterSettings, duration, require_url

NAME = "market-data-collector"
LIVENESS_LOOP = "collector"
# A connection that held this long, with data, was good: the next back-off starts from the base again.
STABLE_SECONDS = 10.0
# How far back, and how long at most, a start reads which trades are on the bus.
RECALL_ENTRIES = 1000
RECALL_SECONDS = 10.0
NO_REST = "none"
# What every reconnect's snapshot and every page of past trades repeats: that is how gaps are repaired, not an error.
_REPEATS = (FilterReason.DUPLICATE_TRADE, FilterReason.STALE_TRADE)

_log = get_logger("collector")


def _known_exchange(value: object) -> object:
    if isinstance(value, str) and value not in EXCHANGES:
        raise ValueError(f"unknown exchange; known: {', '.join(sorted(EXCHANGES))}")
    return value


def _websocket_url(value: object) -> object:
    if isinstance(value, str) and value:
        require_url(value, ("ws", "wss"), query=True)
    return value


def _rest_url(value: object) -> object:
    if isinstance(value, str) and value not in ("", NO_REST):
        require_url(value, HTTP, note=f", or {NO_REST}")
    return value


class MarketDataCollectorSettings(StreamWriterSettings):
    """Settings of market-data-collector; durations in seconds."""

    exchange: Annotated[str, BeforeValidator(_known_exchange)] = Field(
        description=f"which exchange to collect from: {', '.join(sorted(EXCHANGES))}"
    )
    products: ProductIds = Field(description="comma separated product ids, such as BTC-USD,ETH-USD")
    exchange_websocket_url: Annotated[str, BeforeValidator(_websocket_url)] = Field(
        default="", description="WebSocket of the exchange; the exchange's own where not set"
    )
    exchange_rest_url: Annotated[str, BeforeValidator(_rest_url)] = Field(
        default="",
        description="REST of the exchange for missing trades, or none for no back-fill; the exchange's own where not "
        "set, but none if the WebSocket is not the exchange's own",
    )
    data_max_age_seconds: float = duration(60.0, 86_400, "age of a product's newest event above which /readyz fails")
    heartbeat_timeout_seconds: float = duration(
        5.0, 60, "silence of the exchange after which the connection is given up"
    )
    max_frame_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="largest message taken from the exchange"
    )


class MarketDataCollector:
    """Keeps one feed alive and puts what it accepts onto the bus."""

    def __init__(
        self,
        exchange: Exchange,
        url: str,
        products: tuple[str, ...],
        metrics: CollectionMetrics,
        client: Valkey,
        writer: bus.StreamWriter,
        liveness: Liveness,
        limits: FeedLimits,
        *,
        data_max_age_seconds: float,
        past_trades: PastTrades | None = None,
        back_fill_limits: BackFillLimits | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._exchange = exchange
        self._products = products
        self._metrics = metrics
        self._writer = writer
        self._liveness = liveness
        self._data_max_age_seconds = data_max_age_seconds
        self._backoff = backoff or Backoff(0.5, 30.0)
        self._client = client
        self._filter = EventFilter(products)
        self._streams = {product: stream_name(exchange.name, product) for product in products}
        self._newest: dict[str, float] = {}
        self._throttle = Throttle()
        self._frame_seconds = limits.frame_seconds
        self._back_fill: BackFill | None = None
        if past_trades is not None:
            self._back_fill = BackFill(
                products,
                past_trades,
                exchange.rest_interval_seconds,
                metrics,
                self._is_new,
                self._forward_trade,
                writer.crowded,
                back_fill_limits,
            )
        self._feed = Feed(exchange, url, metrics, self._accept, lambda: liveness.beat(LIVENESS_LOOP), limits)

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until `stop` is set, then write out what is buffered."""
        collected = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            # On `stop` collecting ends at once and the writer when its buffer is empty; if either fails both end.
            tasks.create_task(self._writer.run(collected), name="writer")
            tasks.create_task(self._collect_until(stop, collected), name="collector")

    async def _collect_until(self, stop: asyncio.Event, collected: asyncio.Event) -> None:
        try:
            await service.until_stopped(stop, self._collect())
        finally:
            if self._back_fill is not None:
                self._back_fill.release_all()
            collected.set()

    async def _collect(self) -> None:
        await self._recall()
        async with asyncio.TaskGroup() as tasks:
            if self._back_fill is not None:
                tasks.create_task(self._back_fill.run(), name="back-fill")
            tasks.create_task(self._connect_again_and_again(), name="feed")

    async def _recall(self) -> None:
        """Learn from the streams which trades an earlier process forwarded; without the bus, do without."""
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                for product_id, stream in self._streams.items():
                    self._liveness.beat(LIVENESS_LOOP)
                    trades = _trades(await self._client.xrevrange(stream, count=RECALL_ENTRIES))
                    self._filter.remember(product_id, (int(trade.trade_id) for trade in trades))
                    if self._back_fill is not None:
                        self._back_fill.remember(product_id, trades)
        except (ValkeyError, OSError, TimeoutError) as error:
            self._metrics.backfill_failures[BackFillFailure.BUS].inc()
            _log.warning("the trades on the bus are not known", error=type(error).__name__)

    async def _connect_again_and_again(self) -> None:
        while True:
            self._liveness.beat(LIVENESS_LOOP)
            trace_id = new_trace_id()
            with trace(trace_id):
                started = time.monotonic()
                reason = await self._feed.run(trace_id)
                lasted = time.monotonic() - started
                self._metrics.reconnects[reason].inc()
                if lasted >= STABLE_SECONDS and reason is not ReconnectReason.CONNECT_FAILED:
                    self._backoff.reset()
                delay = self._backoff.next_seconds()
                _log.warning(
                    "reconnecting", reason=reason.value, lasted_seconds=round(lasted, 3), delay_seconds=round(delay, 3)
                )
            self._liveness.beat(LIVENESS_LOOP)
            await asyncio.sleep(delay)

    def _accept(self, frame: Frame, event: MarketDataEvent) -> bool:
        refused = self._filter.judge(event)
        if refused is not None:
            if not (frame.snapshot and refused in _REPEATS):
                self._count(refused, event)
            return False
        if self._back_fill is not None and isinstance(event, Trade):
            self._back_fill.take(event)
        else:
            self._forward(event, frame.channel)
        return True

    def _is_new(self, trade: Trade) -> bool:
        refused = self._filter.judge(trade)
        if refused is not None and refused not in _REPEATS:
            self._count(refused, trade)
        return refused is None

    def _count(self, refused: FilterReason, event: MarketDataEvent) -> None:
        self._metrics.errors[refused].inc()
        held = self._throttle.admit(refused.value)
        if held is not None:
            _log.info("not forwarded", reason=refused.value, product_id=event.product_id, lines_held_back=held)

    def _forward_trade(self, trade: Trade) -> None:
        self._forward(trade, self._exchange.trade_channel)

    def _forward(self, event: MarketDataEvent, channel: str) -> None:
        product_id = event.product_id
        self._writer.publish(self._streams[product_id], encode(event))
        self._metrics.messages[product_id, channel].inc(1, {"trace_id": event.trace_id})
        at = event.exchange_time.timestamp()
        if at > self._newest.get(product_id, 0.0):
            self._newest[product_id] = at
            self._metrics.last_event[product_id].set(at)

    async def check_feed(self) -> CheckResult:
        """Readiness: the connection is up and the exchange is not silent."""
        at = self._feed.last_frame_at
        if at is None:
            return CheckResult(False, f"not connected to {self._exchange.name}")
        silence = time.monotonic() - at
        return CheckResult(silence <= self._frame_seconds, f"last message {silence:.1f} s ago")

    async def check_data(self) -> CheckResult:
        """Readiness: every product's newest event is recent, by the exchange's own time."""
        now = time.time()
        limit = self._data_max_age_seconds
        stale = [product for product in self._products if now - self._newest.get(product, 0.0) > limit]
        if not stale:
            return CheckResult(True, f"every product has an event younger than {limit:g} s")
        return CheckResult(False, f"no event younger than {limit:g} s: {', '.join(stale)}")


def _trades(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Trade]:
    """The trades among a stream's entries; what cannot be read is none of ours."""
    found = []
    for _, fields in entries:
        try:
            event = decode(fields)
        except EventDecodeError:
            continue
        if isinstance(event, Trade) and event.trade_id.isascii() and event.trade_id.isdigit():
            found.append(event)
    return found


def _past_trades(
    settings: MarketDataCollectorSettings, exchange: Exchange, metrics: CollectionMetrics
) -> PastTrades | None:
    """Where missing trades come from, if from anywhere: never from another place than the live ones by default."""
    url = settings.exchange_rest_url
    if not url and settings.exchange_websocket_url in ("", exchange.websocket_url):
        url = exchange.rest_url
    if url in ("", NO_REST):
        _log.info("missing trades are not fetched: no REST URL")
        return None
    return PastTrades(exchange, url, metrics)


async def main(settings: MarketDataCollectorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    exchange = EXCHANGES[settings.exchange](settings.products)
    registry = new_registry(NAME)
    liveness = Liveness()
    metrics = CollectionMetrics(registry, exchange.name, settings.products, exchange.event_channels)
    past_trades = _past_trades(settings, exchange, metrics)
    client = bus.connect_with(settings)
    try:
        writer = bus.StreamWriter.of(settings, client, registry, liveness)
        collector = MarketDataCollector(
            exchange,
            settings.exchange_websocket_url or exchange.websocket_url,
            settings.products,
            metrics,
            client,
            writer,
            liveness,
            FeedLimits(
                frame_seconds=settings.heartbeat_timeout_seconds,
                event_seconds=settings.data_max_age_seconds,
                max_frame_bytes=settings.max_frame_bytes,
            ),
            data_max_age_seconds=settings.data_max_age_seconds,
            past_trades=past_trades,
        )

        server = HttpServer(
            settings.http_port,
            registry,
            liveness,
            [
                Check("exchange", collector.check_feed),
                Check("market_data", collector.check_data),
                bus.check(client),
            ],
        )
        return await service.run(collector, server, settings.drain_seconds)
    finally:
        if past_trades is not None:
            await past_trades.aclose()
        await client.aclose()
