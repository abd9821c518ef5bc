"""The metrics of signal-generator (docs/metrics.md)."""

from enum import StrEnum

from prometheus_client import CollectorRegistry

from tradewatch.common.events import Side
from tradewatch.common.metrics import Metric


class Suppression(StrEnum):
    """Why a candle made no signal."""

    NOT_CURRENT = "not_current"
    MISSING_FEATURES = "missing_features"
    STALE_QUOTE = "stale_quote"
    STORE_UNAVAILABLE = "store_unavailable"
    NO_MODEL = "no_model"
    OLD_MODEL = "old_model"
    DRIFT = "drift"
    LOW_ACCURACY = "low_accuracy"
    LOW_CONFIDENCE = "low_confidence"
    COOLDOWN = "cooldown"


class Training(StrEnum):
    """What a training came to."""

    ACCEPTED = "accepted"
    TOO_FEW_ROWS = "too_few_rows"
    ONE_OUTCOME = "one_outcome"
    TOO_FEW_BLOCKS = "too_few_blocks"
    NO_BETTER_THAN_NAIVE = "no_better_than_naive"
    NOT_CALIBRATED = "not_calibrated"
    STORE_UNAVAILABLE = "store_unavailable"
    FAILED = "failed"


_PRODUCT = {"product_id": "a configured product"}
SIGNALS = Metric(
    "trading_signals_total",
    "counter",
    "Signals handed to the bus. The exemplar is the trace id.",
    "signals",
    {**_PRODUCT, "side": ", ".join(f"`{side.value}`" for side in Side)},
)
CONFIDENCE = Metric(
    "trading_signal_confidence",
    "histogram",
    "Calibrated confidence of the signals handed to the bus. The exemplar is the trace id.",
    "ratio",
    buckets=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
)
SUPPRESSED = Metric(
    "signals_suppressed_total",
    "counter",
    "Candles that made no signal, by the first reason that applied.",
    "candles",
    {"reason": ", ".join(f"`{reason.value}`" for reason in Suppression)},
)
ACCURACY = Metric(
    "model_accuracy_ratio",
    "gauge",
    "Share of past signals after which the price moved their way beyond costs; NaN before the first is due.",
    "ratio",
)
ACCURACY_SIGNALS = Metric("model_accuracy_signals", "gauge", "Signals that `model_accuracy_ratio` rests on.", "signals")
DRIFT = Metric(
    "model_drift_score",
    "gauge",
    "How far recent features are from the model's training, 0 to 1: the mean Kolmogorov-Smirnov distance of the"
    " features. NaN without a model or enough rows.",
    "ratio",
)
AGE = Metric("model_age_seconds", "gauge", "Time since the active model was trained; NaN without one.", "seconds")
AVAILABLE = Metric("model_available", "gauge", "1 while a model is active, else 0.", "none")
TRAININGS = Metric(
    "model_trainings_total",
    "counter",
    "Trainings by what came of them.",
    "trainings",
    {"outcome": ", ".join(f"`{outcome.value}`" for outcome in Training)},
)
TRAINING_DURATION = Metric(
    "model_training_duration_seconds",
    "histogram",
    "Time of a training with its walk-forward test.",
    "seconds",
    buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
ROWS = Metric(
    "feature_rows_total",
    "counter",
    "Complete feature vectors made, those of the history read again at a start included.",
    "rows",
    _PRODUCT,
)
ROWS_DROPPED = Metric(
    "feature_rows_dropped_total", "counter", "Feature vectors given up because the store was away for long.", "rows"
)
SIGNALS_METRICS = (
    SIGNALS,
    CONFIDENCE,
    SUPPRESSED,
    ACCURACY,
    ACCURACY_SIGNALS,
    DRIFT,
    AGE,
    AVAILABLE,
    TRAININGS,
    TRAINING_DURATION,
    ROWS,
    ROWS_DROPPED,
)


class SignalMetrics:
    """The metrics, every series present from the start."""

    def __init__(self, registry: CollectorRegistry, products: tuple[str, ...]) -> None:
        signals, suppressed = SIGNALS.counter(registry), SUPPRESSED.counter(registry)
        trainings, rows = TRAININGS.counter(registry), ROWS.counter(registry)
        self.signals = {
            (product, side): signals.labels(product_id=product, side=side.value)
            for product in products
            for side in Side
        }
        self.confidence = CONFIDENCE.histogram(registry)
        self.suppressed = {reason: suppressed.labels(reason=reason.value) for reason in Suppression}
        self.accuracy = ACCURACY.gauge(registry)
        self.accuracy.set(float("nan"))
        self.accuracy_signals = ACCURACY_SIGNALS.gauge(registry)
        self.drift = DRIFT.gauge(registry)
        self.drift.set(float("nan"))
        self.age = AGE.gauge(registry)
        self.age.set(float("nan"))
        self.available = AVAILABLE.gauge(registry)
        self.trainings = {outcome: trainings.labels(outcome=outcome.value) for outcome in Training}
        self.training_duration = TRAINING_DURATION.histogram(registry)
        self.rows = {product: rows.labels(product_id=product) for product in products}
        self.rows_dropped = ROWS_DROPPED.counter(registry)
