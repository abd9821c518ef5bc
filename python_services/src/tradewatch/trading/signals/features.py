"""The feature vector: what the model is shown of a product at the end of a candle.

Every feature is free of the price's level, so that products can be learnt together. All come from what was known at
the candle's end: indicators, the last returns, the newest quote and sentiment that are not younger.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tradewatch.common.streams import Indicators, Quote, Sentiment

# To be raised whenever a feature is added, left out or calculated otherwise: rows and models of another are not used.
SCHEMA = "1"
RETURN_CANDLES = (1, 5)
# Quotes come once a second, and a candle's indicators within seconds of its end.
_KEPT_QUOTES = 120


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """A complete vector: `values` in the order of FEATURES; `price` is the mid price then, in quote currency."""

    product_id: str
    time: datetime
    price: Decimal
    values: tuple[float, ...]
    trace_id: str


_INDICATORS: dict[str, Callable[[Mapping[str, float], float], float]] = {
    "rsi": lambda value, _: value["rsi_14"] / 100,
    "macd": lambda value, close: value["macd"] / close,
    "macd_histogram": lambda value, close: value["macd_histogram"] / close,
    "bollinger_percent_b": lambda value, _: value["bollinger_percent_b"],
    "bollinger_width": lambda value, _: value["bollinger_width"],
    "atr": lambda value, close: value["atr_14"] / close,
    "above_ema_9": lambda value, close: close / value["ema_9"] - 1,
    "above_ema_21": lambda value, close: close / value["ema_21"] - 1,
    "above_sma_50": lambda value, close: close / value["sma_50"] - 1,
    "adx": lambda value, _: value["adx_14"] / 100,
    "directional_balance": lambda value, _: (value["plus_di_14"] - value["minus_di_14"]) / 100,
    "stochastic": lambda value, _: value["stochastic_k"] / 100,
    "rate_of_change": lambda value, _: value["rate_of_change_10"] / 100,
    "volatility": lambda value, _: value["realized_volatility_30"],
}
FEATURES = (
    *_INDICATORS,
    *(f"return_{candles}" for candles in RETURN_CANDLES),
    "spread",
    "imbalance",
    "sentiment",
)


class MissingFeaturesError(Exception):
    """A vector would not be complete, or of old parts; the message says why."""


class ProductFeatures:
    """What is known of one product, and the vectors made of it."""

    def __init__(self, interval_seconds: int, quote_max_age_seconds: float, sentiment_max_age_seconds: float) -> None:
        self._length = timedelta(seconds=interval_seconds)
        self._quote_max_age = timedelta(seconds=quote_max_age_seconds)
        self._sentiment_max_age = timedelta(seconds=sentiment_max_age_seconds)
        self._quotes: deque[Quote] = deque(maxlen=_KEPT_QUOTES)
        self._sentiments: deque[Sentiment] = deque(maxlen=_KEPT_QUOTES)
        self._closes: deque[tuple[datetime, float]] = deque(maxlen=max(RETURN_CANDLES) + 1)

    def take_quote(self, quote: Quote) -> None:
        """Know a quote."""
        self._quotes.append(quote)

    def take_sentiment(self, sentiment: Sentiment) -> None:
        """Know the asset's sentiment."""
        self._sentiments.append(sentiment)

    def newest_quote(self) -> Quote | None:
        """The newest quote known."""
        return self._quotes[-1] if self._quotes else None

    def row(self, indicators: Indicators) -> FeatureRow:
        """The vector at the end of the candle of `indicators`.

        Raises:
            MissingFeaturesError: something is missing, too old, or not a finite number.
        """
        close = float(indicators.close)
        self._closes.append((indicators.time, close))
        values = self._of_indicators(indicators, close)
        values += [self._return(candles) for candles in RETURN_CANDLES]
        quote = next((quote for quote in reversed(self._quotes) if quote.time <= indicators.time), None)
        if quote is None or indicators.time - quote.time > self._quote_max_age:
            raise MissingFeaturesError("no recent quote")
        sentiment = next((known for known in reversed(self._sentiments) if known.time <= indicators.time), None)
        if sentiment is None or indicators.time - sentiment.time > self._sentiment_max_age:
            raise MissingFeaturesError("no recent sentiment")
        values += [quote.spread_ratio, quote.imbalance, sentiment.score]
        if not all(math.isfinite(value) for value in values):
            raise MissingFeaturesError("a feature is not a finite number")
        return FeatureRow(indicators.product_id, indicators.time, quote.mid, tuple(values), indicators.trace_id)

    @staticmethod
    def _of_indicators(indicators: Indicators, close: float) -> list[float]:
        try:
            return [calculate(indicators.values, close) for calculate in _INDICATORS.values()]
        except KeyError as error:
            raise MissingFeaturesError(f"no {error.args[0]}") from None
        except ZeroDivisionError:
            raise MissingFeaturesError("an average is zero") from None

    def _return(self, candles: int) -> float:
        """The change of the close over so many candles, none of them missing."""
        if len(self._closes) <= candles:
            raise MissingFeaturesError(f"no {candles} candles before")
        now, before = self._closes[-1], self._closes[-1 - candles]
        if now[0] - before[0] != candles * self._length:
            raise MissingFeaturesError(f"a candle of the last {candles} is missing")
        return now[1] / before[1] - 1
