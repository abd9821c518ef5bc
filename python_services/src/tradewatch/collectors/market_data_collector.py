"""market-data-collector: one exchange's live market data, checked, onto the bus."""

import asyncio
import time
from typing import Annotated

from pydantic import BeforeValidator, Field

from tradewatch.collectors.event_filter import EventFilter
from tradewatch.collectors.exchanges import EXCHANGES
from tradewatch.collectors.exchanges.protocol import Exchange, Frame
from tradewatch.collectors.feed import Feed, FeedLimits
from tradewatch.collectors.metrics import CollectionMetrics, FilterReason, ReconnectReason
from tradewatch.common import bus, service
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import MarketDataEvent, encode, new_trace_id, stream_name
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import Throttle, get_logger, trace
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import ProductIds, StreamWriterSettings, split_url

NAME = "market-data-collector"
LIVENESS_LOOP = "collector"
# A connection that held this long, with data, was good: the next back-off starts from the base again.
STABLE_SECONDS = 10.0

_log = get_logger("collector")


def _known_exchange(value: object) -> object:
    if isinstance(value, str) and value not in EXCHANGES:
        raise ValueError(f"unknown exchange; known: {', '.join(sorted(EXCHANGES))}")
    return value


def _websocket_url(value: object) -> object:
    if isinstance(value, str) and value:
        parts = split_url(value)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError("must be a ws:// or wss:// URL with a host")
        if parts.username or parts.password:
            raise ValueError("must not hold credentials")
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
    data_max_age_seconds: float = Field(
        default=60.0,
        allow_inf_nan=False,
        gt=0,
        le=86_400,
        description="age of a product's newest event above which /readyz fails",
    )
    heartbeat_timeout_seconds: float = Field(
        default=5.0,
        allow_inf_nan=False,
        gt=0,
        le=60,
        description="silence of the exchange after which the connection is given up",
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
        writer: bus.StreamWriter,
        liveness: Liveness,
        limits: FeedLimits,
        *,
        data_max_age_seconds: float,
        backoff: Backoff | None = None,
    ) -> None:
        self._exchange = exchange
        self._products = products
        self._metrics = metrics
        self._writer = writer
        self._liveness = liveness
        self._data_max_age_seconds = data_max_age_seconds
        self._backoff = backoff or Backoff(0.5, 30.0)
        self._filter = EventFilter(products)
        self._streams = {product: stream_name(exchange.name, product) for product in products}
        self._newest: dict[str, float] = {}
        self._throttle = Throttle()
        self._frame_seconds = limits.frame_seconds
        self._feed = Feed(exchange, url, metrics, self._accept, lambda: liveness.beat(LIVENESS_LOOP), limits)

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until `stop` is set, then write out what is buffered."""
        async with asyncio.TaskGroup() as tasks:
            # On `stop` collecting ends at once and the writer when its buffer is empty; if either fails both end.
            tasks.create_task(self._writer.run(stop), name="writer")
            tasks.create_task(service.until_stopped(stop, self._collect()), name="collector")

    async def _collect(self) -> None:
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
            if frame.snapshot and refused is FilterReason.DUPLICATE_TRADE:
                # Every reconnect's snapshot repeats what is known; that is how gaps are repaired, not an error.
                return False
            self._metrics.errors[refused].inc()
            held = self._throttle.admit(refused.value)
            if held is not None:
                _log.info("not forwarded", reason=refused.value, product_id=event.product_id, lines_held_back=held)
            return False
        product_id = event.product_id
        self._writer.publish(self._streams[product_id], encode(event))
        self._metrics.messages[product_id, frame.channel].inc(1, {"trace_id": event.trace_id})
        at = event.exchange_time.timestamp()
        if at > self._newest.get(product_id, 0.0):
            self._newest[product_id] = at
            self._metrics.last_event[product_id].set(at)
        return True

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


async def main(settings: MarketDataCollectorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    exchange = EXCHANGES[settings.exchange](settings.products)
    registry = new_registry(NAME)
    liveness = Liveness()
    client = bus.connect_with(settings)
    try:
        writer = bus.StreamWriter(
            client,
            registry,
            liveness,
            max_length=settings.stream_max_length,
            buffer_entries=settings.buffer_max_entries,
        )
        collector = MarketDataCollector(
            exchange,
            settings.exchange_websocket_url or exchange.websocket_url,
            settings.products,
            CollectionMetrics(registry, exchange.name, settings.products, exchange.event_channels),
            writer,
            liveness,
            FeedLimits(
                frame_seconds=settings.heartbeat_timeout_seconds,
                event_seconds=settings.data_max_age_seconds,
                max_frame_bytes=settings.max_frame_bytes,
            ),
            data_max_age_seconds=settings.data_max_age_seconds,
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
        await client.aclose()
