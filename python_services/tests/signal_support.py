"""What the tests of signal-generator share: seeded markets, as the bus and the store would have them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from postgres_support import Database
from prometheus_client import CollectorRegistry
from services_support import PASSWORD, ValkeyServer, ends, kill, value
from tradewatch.collectors.indicators.calculations import Bar, all_indicators, update_all
from tradewatch.common import bus
from tradewatch.common.backoff import Backoff
from tradewatch.common.service import Liveness
from tradewatch.common.stream_reader import StreamReader
from tradewatch.common.streams import (
    Indicators,
    Quote,
    Sentiment,
    encode,
    indicators_stream,
    quotes_stream,
    sentiment_stream,
)
from tradewatch.simulators.exchange.prices import PriceProcess
from tradewatch.trading.signals.features import FeatureRow, MissingFeaturesError, ProductFeatures
from tradewatch.trading.signals.metrics import SignalMetrics
from tradewatch.trading.signals.service import SignalGenerator, decode_followed, followed_streams
from tradewatch.trading.signals.settings import SignalGeneratorSettings
from tradewatch.trading.signals.store import SignalStore

PRODUCTS = ("BTC-USD", "ETH-USD")
TICKS_PER_CANDLE = 5
# Pulled back within seconds, a price can be foreseen; within years it is a random walk.
FORESEEABLE_SECONDS, RANDOM_WALK_SECONDS = 5.0, 1e9


def market(
    seed: int, half_life_seconds: float, candles: int, start: datetime, product: str = PRODUCTS[0]
) -> list[tuple[Quote, Indicators]]:
    """So many seconds of one product: of each the quote and the indicators at its end."""
    process = PriceProcess(seed, product, 1 / TICKS_PER_CANDLE, half_life_seconds=half_life_seconds)
    state = all_indicators()
    made = []
    for number in range(1, candles + 1):
        ticks = [process.next_tick() for _ in range(TICKS_PER_CANDLE)]
        prices = [float(tick.price) for tick in ticks]
        bar = Bar(max(prices), min(prices), prices[-1], float(sum(tick.size for tick in ticks)))
        last = ticks[-1]
        mid = (last.best_bid + last.best_ask) / 2
        time = start + timedelta(seconds=number)
        trace_id = f"{number:032x}"
        bid_size, ask_size = last.best_bid_size, last.best_ask_size
        quote = Quote(
            product,
            time,
            last.best_bid,
            last.best_ask,
            mid,
            float((last.best_ask - last.best_bid) / mid),
            float((bid_size - ask_size) / (bid_size + ask_size)),
            ("coinbase", "kraken"),
            (),
            trace_id,
        )
        values = update_all(state, bar, 1e18)
        made.append((quote, Indicators(product, 1, time, Decimal(str(prices[-1])), values, trace_id)))
    return made


def sentiment(at: datetime, asset: str = "BTC", score: float = 0.1) -> Sentiment:
    return Sentiment(asset, at, score, 3, "0" * 31 + "1")


def history(seed: int, half_life_seconds: float, candles: int) -> list[FeatureRow]:
    """The feature rows of so many seconds of PRODUCTS."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = []
    for product in PRODUCTS:
        features = ProductFeatures(1, 5.0, 1e6)
        features.take_sentiment(sentiment(start, product.partition("-")[0]))
        for quote, indicators in market(seed, half_life_seconds, candles, start, product):
            features.take_quote(quote)
            try:
                rows.append(features.row(indicators))
            except MissingFeaturesError:
                continue
    return rows


LAB = {
    "signal_interval_seconds": "1",
    "horizon_seconds": "10",
    "cost_ratio": "0.00005",
    "min_training_rows": "300",
    "retrain_seconds": "60",
    "min_confidence": "0.5",
    "cooldown_seconds": "0",
    "max_drift_score": "0.6",
    "products": ",".join(PRODUCTS),
}


async def put_market(client: Any, seed: int, candles: int, end: datetime, half_life_seconds: float) -> None:
    """Put so many seconds of PRODUCTS onto the bus that end at `end`, each entry as if it came at its time."""
    start = end - timedelta(seconds=candles)
    pipeline = client.pipeline(transaction=False)
    for product in PRODUCTS:
        asset = product.partition("-")[0]
        for number in range(-1, candles, 30):
            at = start + timedelta(seconds=number)
            pipeline.xadd(sentiment_stream(asset), dict(encode(sentiment(at, asset))), id=f"{_ms(at)}-0")
        for quote, indicators in market(seed, half_life_seconds, candles, start, product):
            pipeline.xadd(quotes_stream(product), dict(encode(quote)), id=f"{_ms(quote.time)}-0")
            pipeline.xadd(indicators_stream(product), dict(encode(indicators)), id=f"{_ms(indicators.time)}-1")
    await pipeline.execute()


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


@dataclass
class Running:
    """A running signal-generator."""

    service: SignalGenerator
    registry: CollectorRegistry
    task: "asyncio.Task[None]"

    def suppressed(self, reason: str) -> float:
        return value(self.registry, "signals_suppressed_total", reason=reason)

    def trainings(self, outcome: str) -> float:
        return value(self.registry, "model_trainings_total", outcome=outcome)

    async def kill(self) -> None:
        """End it as SIGKILL would: what is in memory is gone."""
        await kill(self.task)


@asynccontextmanager
async def generation(valkey: ValkeyServer, database: Database, **changed: str) -> AsyncIterator[Running]:
    """A signal-generator with the lab's settings, and those of `changed`."""
    settings = SignalGeneratorSettings(**(LAB | changed))  # type: ignore[arg-type]
    registry, liveness = CollectorRegistry(), Liveness()
    client, reading = bus.connect(valkey.url, PASSWORD), bus.connect(valkey.url, PASSWORD)
    writer = bus.StreamWriter(
        client, registry, liveness, max_length=100_000, buffer_entries=20_000, backoff=Backoff(0.02, 0.1)
    )
    stop = asyncio.Event()
    async with database.connect("signal-generator") as pool:
        generator = SignalGenerator(
            client,
            StreamReader(reading, registry, liveness, followed_streams(settings.products), decode_followed),
            writer,
            SignalStore(pool),
            SignalMetrics(registry, settings.products),
            settings,
            Backoff(0.02, 0.1),
        )
        task = asyncio.create_task(generator.run(stop))
        try:
            yield Running(generator, registry, task)
        finally:
            stop.set()
            try:
                if not task.done():
                    await ends(task)
            finally:
                await client.aclose()
                await reading.aclose()
