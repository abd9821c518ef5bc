"""The metrics of technical-indicators."""

from enum import StrEnum

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric

_LABELS = {"product_id": "a configured product", "interval": "length of the candle in seconds, as configured"}


class SkipReason(StrEnum):
    """Why a candle was not used."""

    REPEATED = "repeated"
    WRONG_STREAM = "wrong_stream"


INDICATORS = Metric(
    "indicators_total",
    "counter",
    "Entries with the indicators of a candle handed to the bus. The exemplar is the candle's trace id.",
    "entries",
    _LABELS,
)
LAST_INDICATORS = Metric(
    "indicators_last_timestamp_seconds",
    "gauge",
    "End of the newest candle whose indicators are known. 0 until the first.",
    "Unix seconds",
    _LABELS,
)
HISTORY = Metric(
    "indicators_history_candles",
    "gauge",
    "Candles that the indicators rest on, since the beginning or the last gap; below 200 some values are absent.",
    "candles",
    _LABELS,
)
RESETS = Metric(
    "indicators_resets_total",
    "counter",
    "Times that candles were missing for so long that the indicators start anew.",
    "resets",
    _LABELS,
)
SKIPPED = Metric(
    "indicators_candles_skipped_total",
    "counter",
    "Candles that were not used, by reason.",
    "candles",
    {"reason": "`repeated` (not newer than the last one), `wrong_stream` (of another product than its stream)"},
)
INDICATORS_METRICS = (INDICATORS, LAST_INDICATORS, HISTORY, RESETS, SKIPPED)


class IndicatorsMetrics:
    """The metrics, every series present from the start."""

    def __init__(
        self, registry: CollectorRegistry, products: tuple[str, ...], intervals_seconds: tuple[int, ...]
    ) -> None:
        entries, last = INDICATORS.counter(registry), LAST_INDICATORS.gauge(registry)
        history, resets, skipped = HISTORY.gauge(registry), RESETS.counter(registry), SKIPPED.counter(registry)
        keys = [(product, seconds) for product in products for seconds in intervals_seconds]
        labels = {key: {"product_id": key[0], "interval": str(key[1])} for key in keys}
        self.entries = {key: entries.labels(**labels[key]) for key in keys}
        self.last = {key: last.labels(**labels[key]) for key in keys}
        self.history = {key: history.labels(**labels[key]) for key in keys}
        self.resets = {key: resets.labels(**labels[key]) for key in keys}
        self.skipped = {reason: skipped.labels(reason=reason.value) for reason in SkipReason}
