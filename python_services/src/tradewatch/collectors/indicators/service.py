"""technical-indicators: an entry of indicators for every closed candle."""

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta

from pydantic import Field
from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.collectors.indicators.calculations import Bar, all_indicators, update_all
from tradewatch.collectors.indicators.metrics import IndicatorsMetrics, SkipReason
from tradewatch.common import bus, service, streams
from tradewatch.common.backoff import Backoff
from tradewatch.common.fields import MAX_NUMBER
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import IntervalsSeconds, ProductIds, StreamWriterSettings, duration
from tradewatch.common.stream_reader import StreamReader
from tradewatch.common.streams import Candle, Indicators

NAME = "technical-indicators"
# Entries of the candles' streams come one a second at most: there is nothing to gather.
BLOCK_SECONDS = 1.0

_log = get_logger("indicators")


class TechnicalIndicatorsSettings(StreamWriterSettings):
    """Settings of technical-indicators; durations in seconds."""

    products: ProductIds = Field(description="comma separated product ids, such as BTC-USD,ETH-USD")
    indicator_intervals_seconds: IntervalsSeconds = Field(
        default=(60,), description="comma separated lengths of the candles to take indicators of"
    )
    max_gap_candles: int = Field(
        default=60, ge=1, le=100_000, description="missing candles in a row after which the indicators start anew"
    )
    candle_max_age_seconds: float = duration(
        30.0, 86_400, "how long after it was due a candle may be missing before /readyz fails"
    )


class _Series:
    """The indicators of one product and interval."""

    def __init__(self, interval_seconds: int) -> None:
        self.length = timedelta(seconds=interval_seconds)
        self.start_anew()
        self.last: Candle | None = None

    def start_anew(self) -> None:
        self.indicators = all_indicators()
        self.candles = 0

    def update(self, candle: Candle) -> dict[str, float]:
        self.last = candle
        self.candles += 1
        bar = Bar(float(candle.high), float(candle.low), float(candle.close), float(candle.volume))
        return update_all(self.indicators, bar, float(MAX_NUMBER))


class TechnicalIndicators:
    """Follows the candles' streams from their beginning and writes indicators for each candle that has none yet.

    An entry has its candle's id, so it is written once, however often the history is read again.
    """

    def __init__(
        self,
        client: Valkey,
        reader: StreamReader[Candle],
        writer: bus.StreamWriter,
        metrics: IndicatorsMetrics,
        products: tuple[str, ...],
        intervals_seconds: tuple[int, ...],
        *,
        max_gap_candles: int,
        candle_max_age_seconds: float,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._reader = reader
        self._writer = writer
        self._metrics = metrics
        self._max_gap_candles = max_gap_candles
        self._candle_max_age_seconds = candle_max_age_seconds
        self._backoff = backoff or Backoff(0.1, 5.0)
        self._throttle = Throttle()
        self._intervals = intervals_seconds
        self._product_of = {streams.candles_stream(product): product for product in products}
        self._series = {(product, seconds): _Series(seconds) for product in products for seconds in intervals_seconds}
        self._written: dict[str, tuple[int, int]] = {}
        self.caught_up = False

    async def run(self, stop: asyncio.Event) -> None:
        """Calculate until `stop` is set, then write out what is known."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._writer.run(stop), name="writer")
            tasks.create_task(service.until_stopped(stop, self._follow()), name="indicators")

    async def _follow(self) -> None:
        for product in self._product_of.values():
            self._written[product] = await self._newest_id(streams.indicators_stream(product))
        while True:
            batch = await self._reader.read(BLOCK_SECONDS)
            for entry in batch.entries:
                self._take(self._product_of[entry.stream], entry.id, entry.item)
            if batch.caught_up and not self.caught_up:
                _log.info("caught up with the candles")
            self.caught_up = batch.caught_up

    async def _newest_id(self, stream: str) -> tuple[int, int]:
        """The id of a stream's newest entry; (0, 0) where it has none."""
        while True:
            try:
                newest = await self._client.xrevrange(stream, count=1)
            except (exceptions.ValkeyError, OSError, TimeoutError) as error:
                name = type(error).__name__
                held = self._throttle.admit(f"newest:{name}")
                if held is not None:
                    _log.warning("cannot read what was written", error=name, lines_held_back=held)
                await asyncio.sleep(self._backoff.next_seconds())
                continue
            if not newest:
                return (0, 0)
            milliseconds, _, sequence = newest[0][0].decode().partition("-")
            return (int(milliseconds), int(sequence))

    def _take(self, product: str, entry_id: tuple[int, int], candle: Candle) -> None:
        if candle.interval_seconds not in self._intervals:
            return
        if candle.product_id != product:
            self._skip(SkipReason.WRONG_STREAM, product)
            return
        key = (product, candle.interval_seconds)
        series = self._series[key]
        if series.last is not None:
            if candle.start <= series.last.start:
                self._skip(SkipReason.REPEATED, product)
                return
            missing = (candle.start - series.last.start) // series.length - 1
            if missing > self._max_gap_candles:
                series.start_anew()
                self._metrics.resets[key].inc()
                _log.warning(
                    "starting anew after a gap",
                    product_id=product,
                    interval_seconds=candle.interval_seconds,
                    missing_candles=missing,
                )
        values = series.update(candle)
        end = candle.start + series.length
        self._metrics.history[key].set(series.candles)
        self._metrics.last[key].set(end.timestamp())
        if entry_id <= self._written[product]:
            return
        self._metrics.entries[key].inc(1, {"trace_id": candle.trace_id})
        entry = Indicators(product, candle.interval_seconds, end, candle.close, values, candle.trace_id)
        self._writer.publish(streams.indicators_stream(product), streams.encode(entry), streams.candle_id(candle))

    def _skip(self, reason: SkipReason, product: str) -> None:
        self._metrics.skipped[reason].inc()
        held = self._throttle.admit(reason.value)
        if held is not None:
            _log.warning("candle not used", reason=reason.value, product_id=product, lines_held_back=held)

    async def check_candles(self) -> CheckResult:
        """Readiness: every product's newest candle of the shortest interval is there when it is due."""
        shortest = self._intervals[0]
        limit = 2 * shortest + self._candle_max_age_seconds
        now = time.time()
        late = [
            product
            for (product, seconds), series in self._series.items()
            if seconds == shortest and (series.last is None or now - series.last.start.timestamp() > limit)
        ]
        if late:
            return CheckResult(False, f"no recent candle of {shortest} s: {', '.join(late)}")
        return CheckResult(True, f"every product has a recent candle of {shortest} s")

    async def check_caught_up(self) -> CheckResult:
        """Readiness: the history has been read."""
        return CheckResult(self.caught_up, "read to the end" if self.caught_up else "reading history")


def decode_candle(fields: Mapping[bytes, bytes]) -> Candle:
    """The candle of an entry. Raises EventDecodeError."""
    return streams.decode(Candle, fields)


async def main(settings: TechnicalIndicatorsSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    # A read blocks its connection; writes have one of their own.
    client, reading = bus.connect_with(settings), bus.connect_with(settings)
    try:
        writer = bus.StreamWriter.of(settings, client, registry, liveness)
        names = [streams.candles_stream(product) for product in settings.products]
        indicators = TechnicalIndicators(
            client,
            StreamReader(reading, registry, liveness, names, decode_candle, hold=writer.crowded),
            writer,
            IndicatorsMetrics(registry, settings.products, settings.indicator_intervals_seconds),
            settings.products,
            settings.indicator_intervals_seconds,
            max_gap_candles=settings.max_gap_candles,
            candle_max_age_seconds=settings.candle_max_age_seconds,
        )
        checks = [
            Check("candles", indicators.check_candles),
            Check("history", indicators.check_caught_up),
            bus.check(client),
        ]
        server = HttpServer(settings.http_port, registry, liveness, checks)
        return await service.run(indicators, server, settings.drain_seconds)
    finally:
        await client.aclose()
        await reading.aclose()
