"""signal-generator: a feature vector for every closed candle, and a signal where the model is sure enough."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import numpy as np
from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.common import bus, service, streams
from tradewatch.common.backoff import Backoff
from tradewatch.common.fields import EventDecodeError, format_time
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.stream_reader import StreamReader
from tradewatch.common.streams import Indicators, Quote, Sentiment, Signal
from tradewatch.store import database
from tradewatch.trading.signals.accuracy import MAX_SIGNALS, Accuracy
from tradewatch.trading.signals.features import FeatureRow, MissingFeaturesError, ProductFeatures
from tradewatch.trading.signals.metrics import SignalMetrics, Suppression
from tradewatch.trading.signals.model import ArtifactError, Prediction
from tradewatch.trading.signals.settings import SignalGeneratorSettings
from tradewatch.trading.signals.store import SignalStore, StoredModel
from tradewatch.trading.signals.trainer import Trainer

NAME = "signal-generator"
BLOCK_SECONDS = 1.0
FLUSH_SECONDS = 0.5
FLUSH_ROWS = 500
# Rows kept in memory while the store is away; the bus's history gives them again after a restart.
MAX_PENDING_ROWS = 20_000
PRUNE_SECONDS = 3600.0
MIN_DRIFT_ROWS = 50
# Candles before the newest stored one that are read again at a start, for the returns of the next.
WARM_UP_CANDLES = 10
# Never to be changed: a candle's signal would come again under another id.
_SIGNAL_NAMESPACE = UUID("4c1e1a4e-1d1b-4f52-9a6e-0f7f4ac8f0b3")

Followed = Indicators | Quote | Sentiment
_log = get_logger("signals")


def decode_followed(fields: Mapping[bytes, bytes]) -> Followed:
    """The indicators, quote or sentiment of an entry. Raises EventDecodeError."""
    match fields.get(b"kind"):
        case b"indicators":
            return streams.decode(Indicators, fields)
        case b"quote":
            return streams.decode(Quote, fields)
        case b"sentiment":
            return streams.decode(Sentiment, fields)
    raise EventDecodeError("kind: none that is followed")


def signal_id(product_id: str, at: datetime, model_version: str) -> UUID:
    """The id of the signal of a candle's end: UUIDv5, so that a restart cannot give it another."""
    return uuid5(_SIGNAL_NAMESPACE, f"{product_id}|{format_time(at)}|{model_version}")


class SignalGenerator:
    """Follows indicators, quotes and sentiment; stores a row a candle; trains; signals.

    Whatever is missing, old or unknown means no signal, counted by its reason.
    """

    def __init__(
        self,
        client: Valkey,
        reader: StreamReader[Followed],
        writer: bus.StreamWriter,
        store: SignalStore,
        metrics: SignalMetrics,
        settings: SignalGeneratorSettings,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._reader = reader
        self._writer = writer
        self._store = store
        self._metrics = metrics
        self._settings = settings
        self._backoff = backoff or Backoff(0.1, 5.0)
        self._throttle = Throttle()
        self._trainer = Trainer(store, metrics, settings)
        self._interval = timedelta(seconds=settings.signal_interval_seconds)
        self._features = {
            product: ProductFeatures(
                settings.signal_interval_seconds, settings.quote_max_age_seconds, settings.sentiment_max_age_seconds
            )
            for product in settings.products
        }
        self._newest: dict[str, datetime] = {}
        self._recent: deque[tuple[float, ...]] = deque(maxlen=settings.drift_rows)
        self._accuracy = Accuracy(
            timedelta(seconds=settings.horizon_seconds),
            2 * self._interval + timedelta(seconds=settings.quote_max_age_seconds),
            timedelta(seconds=settings.accuracy_window_seconds),
            settings.cost_ratio,
        )
        self._last_signal: dict[str, datetime] = {}
        self._pending: deque[FeatureRow] = deque()
        self._store_ok = True
        self.model: StoredModel | None = None
        self.recalled = False
        self.caught_up = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then store the rows in hand and write out the signals."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._writer.run(stop), name="writer")
            tasks.create_task(service.until_stopped(stop, self._work()), name="signals")
        if self._pending:
            await self._flush()

    async def _work(self) -> None:
        await self._recall()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="follow")
            tasks.create_task(self._keep_rows(), name="rows")
            tasks.create_task(self._keep_training(), name="training")

    async def _recall(self) -> None:
        """Take up where the last run ended: its model, its newest rows, its signals."""
        while not self.recalled:
            try:
                await self._recall_model()
                await self._recall_rows_and_signals()
            except (*database.STORE_ERRORS, exceptions.ValkeyError) as error:
                name = type(error).__name__
                held = self._throttle.admit(f"recall:{name}")
                if held is not None:
                    _log.warning("cannot read what was there before", error=name, lines_held_back=held)
                await asyncio.sleep(self._backoff.next_seconds())
                continue
            self.recalled = True

    async def _recall_model(self) -> None:
        try:
            self._use(await self._store.active_model())
        except ArtifactError as error:
            _log.error("the active model cannot be used", problem=str(error))

    async def _recall_rows_and_signals(self) -> None:
        settings = self._settings
        rows = await self._store.rows(settings.products, settings.drift_rows)
        newest = await self._store.newest_times(settings.products)
        entries = await self._client.xrevrange(streams.SIGNALS_STREAM, count=MAX_SIGNALS)
        for _, fields in reversed(entries):
            try:
                signal = streams.decode(Signal, fields)
            except EventDecodeError:
                continue
            if signal.product_id in self._features:
                self._accuracy.expect(signal.product_id, signal.side, signal.reference_price, signal.created)
                self._last_signal[signal.product_id] = signal.created
        for row in rows:
            self._recent.append(row.values)
            self._accuracy.take_price(row.product_id, row.price, row.time)
        self._newest = newest
        if len(newest) == len(settings.products):
            before = WARM_UP_CANDLES * settings.signal_interval_seconds + settings.sentiment_max_age_seconds
            self._reader.start_from(int((min(newest.values()).timestamp() - before) * 1000))

    def _use(self, model: StoredModel | None) -> None:
        self.model = model
        self._metrics.available.set(model is not None)
        self._set_age()

    def _set_age(self) -> None:
        model = self.model
        self._metrics.age.set(time.time() - model.trained.timestamp() if model else float("nan"))

    async def _follow(self) -> None:
        while True:
            batch = await self._reader.read(BLOCK_SECONDS)
            for entry in batch.entries:
                self._take(entry.stream, entry.item)
            if batch.caught_up and not self.caught_up:
                _log.info("caught up with the bus")
            self.caught_up = batch.caught_up
            self._set_age()

    def _take(self, stream: str, item: Followed) -> None:
        if isinstance(item, Sentiment):
            for product, features in self._features.items():
                if stream == streams.sentiment_stream(_asset(product)) and item.asset == _asset(product):
                    features.take_sentiment(item)
            return
        product_features = self._features.get(item.product_id)
        if product_features is None or not stream.endswith(f":{item.product_id}"):
            return
        if isinstance(item, Quote):
            product_features.take_quote(item)
            self._accuracy.take_price(item.product_id, item.mid, item.time)
            self._metrics.accuracy.set(self._accuracy.ratio)
            self._metrics.accuracy_signals.set(self._accuracy.count)
        elif item.interval_seconds == self._settings.signal_interval_seconds:
            self._take_indicators(product_features, item)

    def _take_indicators(self, features: ProductFeatures, indicators: Indicators) -> None:
        known = self._newest.get(indicators.product_id)
        try:
            row = features.row(indicators)
        except MissingFeaturesError as error:
            if self._is_current(indicators.time):
                self._suppress(Suppression.MISSING_FEATURES, indicators.product_id, str(error))
            return
        finally:
            if known is None or indicators.time > known:
                self._newest[indicators.product_id] = indicators.time
        if known is not None and row.time <= known:
            return
        self._metrics.rows[row.product_id].inc()
        self._recent.append(row.values)
        self._pending.append(row)
        if len(self._pending) > MAX_PENDING_ROWS:
            self._pending.popleft()
            self._metrics.rows_dropped.inc()
        if self._is_current(row.time):
            self._decide(features, row)
        elif self.caught_up:
            self._suppress(Suppression.NOT_CURRENT, row.product_id)

    def _is_current(self, at: datetime) -> bool:
        return (datetime.now(UTC) - at).total_seconds() <= self._settings.indicators_max_age_seconds

    def _decide(self, features: ProductFeatures, row: FeatureRow) -> None:
        now = datetime.now(UTC)
        quote = features.newest_quote()
        if quote is None or (now - quote.time).total_seconds() > self._settings.quote_max_age_seconds:
            self._suppress(Suppression.STALE_QUOTE, row.product_id)
            return
        model = self.model
        reason = self._silenced(now)
        if reason is not None or model is None:
            self._suppress(reason or Suppression.NO_MODEL, row.product_id)
            return
        prediction = model.model.predict(row.values)
        if prediction.confidence < self._settings.min_confidence:
            self._suppress(Suppression.LOW_CONFIDENCE, row.product_id)
            return
        last = self._last_signal.get(row.product_id)
        if last is not None and (now - last).total_seconds() < self._settings.cooldown_seconds:
            self._suppress(Suppression.COOLDOWN, row.product_id)
            return
        self._signal(row, quote, model, prediction, now)

    def _silenced(self, now: datetime) -> Suppression | None:
        """Why no candle can make a signal now, whatever the model says of it."""
        settings = self._settings
        if not self._store_ok:
            return Suppression.STORE_UNAVAILABLE
        if self.model is None:
            return Suppression.NO_MODEL
        if (now - self.model.trained).total_seconds() > settings.model_max_age_seconds:
            return Suppression.OLD_MODEL
        if len(self._recent) < MIN_DRIFT_ROWS:
            return Suppression.DRIFT
        drift = self.model.model.drift(np.array(self._recent))
        self._metrics.drift.set(drift)
        if drift > settings.max_drift_score:
            return Suppression.DRIFT
        judged = self._accuracy.count >= settings.min_accuracy_signals
        if judged and self._accuracy.ratio < settings.min_accuracy_ratio:
            return Suppression.LOW_ACCURACY
        return None

    def _signal(self, row: FeatureRow, quote: Quote, model: StoredModel, prediction: Prediction, now: datetime) -> None:
        signal = Signal(
            signal_id(row.product_id, row.time, model.version),
            row.product_id,
            prediction.side,
            prediction.confidence,
            quote.mid,
            model.version,
            now,
            now + timedelta(seconds=self._settings.signal_lifetime_seconds),
            prediction.rationale,
            row.trace_id,
        )
        self._writer.publish(streams.SIGNALS_STREAM, streams.encode(signal))
        self._last_signal[row.product_id] = now
        self._accuracy.expect(row.product_id, signal.side, quote.mid, now)
        exemplar = {"trace_id": row.trace_id}
        self._metrics.signals[row.product_id, signal.side].inc(1, exemplar)
        self._metrics.confidence.observe(signal.confidence, exemplar)
        _log.info(
            "signal",
            trace_id=row.trace_id,
            signal_id=str(signal.signal_id),
            product_id=row.product_id,
            side=signal.side.value,
            confidence=round(signal.confidence, 4),
            model_version=model.version,
            rationale=signal.rationale,
        )

    def _suppress(self, reason: Suppression, product: str, detail: str = "") -> None:
        self._metrics.suppressed[reason].inc()
        held = self._throttle.admit(reason.value)
        if held is not None:
            _log.info("no signal", reason=reason.value, product_id=product, detail=detail, lines_held_back=held)

    async def _keep_rows(self) -> None:
        """Store rows as they come, and delete those beyond the retention."""
        pruned = float("-inf")
        while True:
            if self._pending and not await self._flush():
                await asyncio.sleep(self._backoff.next_seconds())
                continue
            if time.monotonic() - pruned > PRUNE_SECONDS:
                await self._prune()
                pruned = time.monotonic()
            if len(self._pending) < FLUSH_ROWS:
                await asyncio.sleep(FLUSH_SECONDS)

    async def _flush(self) -> bool:
        """Store the oldest rows in hand. Returns False when the store cannot take them now."""
        batch = [self._pending[index] for index in range(min(FLUSH_ROWS, len(self._pending)))]
        try:
            await self._store.add_rows(batch)
        except database.STORE_ERRORS as error:
            self._store_ok = False
            name = type(error).__name__
            held = self._throttle.admit(f"rows:{name}")
            if held is not None:
                _log.warning("the store does not take rows", error=name, rows=len(self._pending), lines_held_back=held)
            return False
        # While they were written the oldest may have been given up.
        for row in batch:
            if self._pending and self._pending[0] is row:
                self._pending.popleft()
        self._store_ok = True
        self._backoff.reset()
        return True

    async def _prune(self) -> None:
        before = datetime.now(UTC) - timedelta(seconds=self._settings.row_retention_seconds)
        try:
            await self._store.prune(self._settings.products, before)
        except database.STORE_ERRORS as error:
            _log.warning("old rows not deleted", error=type(error).__name__)

    async def _keep_training(self) -> None:
        # The first training takes what the history gave.
        while not self.caught_up or self._pending:
            await asyncio.sleep(FLUSH_SECONDS / 5)
        await asyncio.sleep(self._trainer.delay_seconds(self.model))
        while True:
            accepted, next_seconds = await self._trainer.train()
            if accepted is not None:
                self._use(accepted)
            await asyncio.sleep(next_seconds)

    async def check_indicators(self) -> CheckResult:
        """Readiness: every product's newest indicators are there when they are due."""
        limit = 2 * self._interval + timedelta(seconds=self._settings.indicators_max_age_seconds)
        now = datetime.now(UTC)
        late = [
            product for product in self._features if product not in self._newest or now - self._newest[product] > limit
        ]
        if late:
            return CheckResult(False, f"no recent indicators: {', '.join(late)}")
        return CheckResult(True, "every product has recent indicators")


def _asset(product: str) -> str:
    return product.partition("-")[0]


def followed_streams(products: tuple[str, ...]) -> list[str]:
    """The streams that the service reads."""
    names = [name(product) for product in products for name in (streams.indicators_stream, streams.quotes_stream)]
    return names + sorted({streams.sentiment_stream(_asset(product)) for product in products})


async def main(settings: SignalGeneratorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    # A read blocks its connection; writes have one of their own.
    client, reading = bus.connect_with(settings), bus.connect_with(settings)
    try:
        async with settings.connect(NAME) as pool:
            writer = bus.StreamWriter.of(settings, client, registry, liveness)
            names = followed_streams(settings.products)
            generator = SignalGenerator(
                client,
                StreamReader(reading, registry, liveness, names, decode_followed),
                writer,
                SignalStore(pool),
                SignalMetrics(registry, settings.products),
                settings,
            )

            checks = [
                database.check(pool),
                Check("indicators", generator.check_indicators),
                bus.check(client),
            ]
            server = HttpServer(settings.http_port, registry, liveness, checks)
            return await service.run(generator, server, settings.drain_seconds)
    finally:
        await client.aclose()
        await reading.aclose()
