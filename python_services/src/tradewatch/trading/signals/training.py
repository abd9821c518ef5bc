"""Training with a walk-forward test: a model may trade only where it beats a naive one on data it had not seen.

Rows are taken in the order of time. Each of the FOLDS later stretches is predicted by a model that was trained on the
rows before it whose outcome was known when the stretch began (the others are purged: M. López de Prado, "Advances in
Financial Machine Learning", 2018, chapter 7). The naive model says of each stretch how often each outcome came before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tradewatch.trading.signals.features import FEATURES, FeatureRow
from tradewatch.trading.signals.model import CLASSES, DOWN, FLAT, MIN_PROBABILITY, UP, Array, Model, log_odds, softmax

FOLDS = 5
# The first stretch is predicted from this share of the rows.
FIRST_SHARE = 0.4
# Rows of a market are far from independent, so little is believed of each.
REGULARISATION = 0.002
# Losses are compared in blocks of two horizons, whose outcomes hardly overlap. With eight blocks a mean this many
# standard errors above zero comes by chance about once in fifty (Student's t); of 60 simulated random walks none had.
MIN_BLOCKS = 8
MIN_STANDARD_ERRORS = 2.5
QUANTILES = 20
_SEED = 1
_ABSENT_CLASS = -20.0

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Rows whose outcome is known, in the order of time: `times` in Unix seconds, `labels` DOWN, FLAT or UP."""

    times: Array
    values: Array
    labels: Labels


@dataclass(frozen=True)
class Outcome:
    """What a training came to: a model and its figures, and whether it may trade; `reason` says why not."""

    model: Model | None
    metrics: dict[str, float | int | str]
    accepted: bool
    reason: str


def label(change: float, cost_ratio: float) -> int:
    """The outcome of a relative change of the price: beyond the costs of a trade up or down, or neither."""
    return UP if change > cost_ratio else DOWN if change < -cost_ratio else FLAT


def dataset(rows: Sequence[FeatureRow], horizon: timedelta, tolerance: timedelta, cost_ratio: float) -> Dataset:
    """The rows that have one of the same product `horizon` later (at most `tolerance` more), with what came of them."""
    ordered = sorted(rows, key=lambda row: (row.time, row.product_id))
    by_product: dict[str, list[FeatureRow]] = {}
    for row in ordered:
        by_product.setdefault(row.product_id, []).append(row)
    known: list[tuple[float, tuple[float, ...], int]] = []
    for of_product in by_product.values():
        later = 0
        for row in of_product:
            due = row.time + horizon
            while later < len(of_product) and of_product[later].time < due:
                later += 1
            if later < len(of_product) and of_product[later].time - due <= tolerance:
                change = float(of_product[later].price / row.price) - 1
                known.append((row.time.timestamp(), row.values, label(change, cost_ratio)))
    known.sort(key=lambda one: one[0])
    return Dataset(
        np.array([time for time, _, _ in known], dtype=np.float64),
        np.array([values for _, values, _ in known], dtype=np.float64).reshape(len(known), len(FEATURES)),
        np.array([came for _, _, came in known], dtype=np.int64),
    )


def train(data: Dataset, horizon_seconds: float, min_rows: int) -> Outcome:
    """Train on `data` and judge by walking forward. The same data give the same outcome."""
    if len(data.times) < min_rows:
        return Outcome(None, {"rows": len(data.times)}, False, "too_few_rows")
    tested = _walk_forward(data, horizon_seconds)
    if tested is None or len(np.unique(data.labels)) < 2:
        return Outcome(None, {"rows": len(data.times)}, False, "one_outcome")
    indices, probabilities, naive = tested
    labels = data.labels[indices]
    gains = np.log(probabilities[np.arange(len(labels)), labels]) - np.log(naive[np.arange(len(labels)), labels])
    blocks, standard_errors = _significance(data.times[indices], gains, 2 * horizon_seconds)
    sides = np.where(probabilities[:, UP] >= probabilities[:, DOWN], UP, DOWN)
    hits = (sides == labels).astype(np.int64)
    hit_ratio = float(np.mean(hits))
    naive_hit_ratio = max(float(np.mean(labels == UP)), float(np.mean(labels == DOWN)))
    slope, offset = _calibrate(probabilities[np.arange(len(labels)), sides], hits)
    metrics: dict[str, float | int | str] = {
        "rows": len(data.times),
        "out_of_sample_rows": len(labels),
        "log_loss": float(-np.mean(np.log(probabilities[np.arange(len(labels)), labels]))),
        "naive_log_loss": float(-np.mean(np.log(naive[np.arange(len(labels)), labels]))),
        "blocks": blocks,
        "standard_errors": standard_errors,
        "hit_ratio": hit_ratio,
        "naive_hit_ratio": naive_hit_ratio,
        "calibration_slope": slope,
        "calibration_offset": offset,
    }
    reason = ""
    if blocks < MIN_BLOCKS:
        reason = "too_few_blocks"
    elif standard_errors < MIN_STANDARD_ERRORS or hit_ratio <= naive_hit_ratio:
        reason = "no_better_than_naive"
    elif slope <= 0:
        reason = "not_calibrated"
    metrics["reason"] = reason
    return Outcome(_final(data, slope, offset), metrics, not reason, reason)


def _walk_forward(data: Dataset, horizon_seconds: float) -> tuple[NDArray[np.int64], Array, Array] | None:
    """The rows predicted out of sample, the model's probabilities and the naive ones; None where nothing was."""
    count = len(data.times)
    edges = np.linspace(FIRST_SHARE * count, count, FOLDS + 1).astype(np.int64)
    parts: list[tuple[NDArray[np.int64], Array, Array]] = []
    for begin, end in pairwise(edges):
        stretch = np.arange(begin, end)
        known = data.times + horizon_seconds < data.times[begin]
        labels = data.labels[known]
        if len(np.unique(labels)) < 2:
            continue
        seen = data.values[known]
        fitted = _fit(seen, labels)
        logits = _logits(fitted, np.clip(data.values[stretch], seen.min(axis=0), seen.max(axis=0)))
        counts = np.bincount(labels, minlength=CLASSES) + 1.0
        naive = (counts / counts.sum() + MIN_PROBABILITY) / (1 + CLASSES * MIN_PROBABILITY)
        parts.append((stretch, softmax(logits), np.tile(naive, (len(stretch), 1))))
    if not parts:
        return None
    stretches, probabilities, naives = zip(*parts, strict=True)
    return np.concatenate(stretches), np.concatenate(probabilities), np.concatenate(naives)


def _fit(values: Array, labels: Labels) -> Any:
    model = LogisticRegression(C=REGULARISATION, max_iter=1000, random_state=_SEED)
    return make_pipeline(StandardScaler(), model).fit(values, labels)


def _linear(fitted: Any) -> tuple[Array, Array]:
    """Coefficients and intercepts of all CLASSES: a class that training did not have is next to impossible."""
    regression = fitted[-1]
    coefficients = np.zeros((CLASSES, regression.coef_.shape[1]))
    intercepts = np.full(CLASSES, _ABSENT_CLASS)
    if len(regression.classes_) == 2:
        intercepts[regression.classes_] = (0.0, regression.intercept_[0])
        coefficients[regression.classes_[1]] = regression.coef_[0]
    else:
        coefficients[regression.classes_] = regression.coef_
        intercepts[regression.classes_] = regression.intercept_
    return coefficients, intercepts


def _logits(fitted: Any, values: Array) -> Array:
    coefficients, intercepts = _linear(fitted)
    logits: Array = fitted[0].transform(values) @ coefficients.T + intercepts
    return logits


def _significance(times: Array, gains: Array, block_seconds: float) -> tuple[int, float]:
    """The number of blocks, and how many standard errors their mean gain is above zero."""
    numbers = ((times - times[0]) // block_seconds).astype(np.int64)
    sums, counts = np.bincount(numbers, gains), np.bincount(numbers)
    means = sums[counts > 0] / counts[counts > 0]
    if len(means) < 2 or np.std(means) == 0:
        return len(means), 0.0
    return len(means), float(np.mean(means) / (np.std(means, ddof=1) / np.sqrt(len(means))))


def _calibrate(probabilities: Array, hits: Labels) -> tuple[float, float]:
    """Platt's slope and offset of the out-of-sample predictions; a slope of 0 where they were all right or wrong."""
    if len(np.unique(hits)) < 2:
        return 0.0, 0.0
    scores = np.array([[log_odds(float(probability))] for probability in probabilities])
    fitted = LogisticRegression(C=1.0, random_state=_SEED).fit(scores, hits)
    return float(fitted.coef_[0][0]), float(fitted.intercept_[0])


def _final(data: Dataset, slope: float, offset: float) -> Model:
    """The model of all rows, as it is kept."""
    fitted = _fit(data.values, data.labels)
    coefficients, intercepts = _linear(fitted)
    knots = np.quantile(data.values, np.linspace(0, 1, QUANTILES + 1), axis=0).T
    ordered = np.sort(data.values, axis=0)
    shares = [np.searchsorted(ordered[:, column], knots[column], side="right") for column in range(len(FEATURES))]
    return Model(
        FEATURES,
        _numbers(fitted[0].mean_),
        _numbers(fitted[0].scale_),
        tuple(_numbers(row) for row in coefficients),
        _numbers(intercepts),
        slope,
        offset,
        tuple(_numbers(row) for row in knots),
        tuple(_numbers(row / len(data.values)) for row in shares),
    )


def _numbers(row: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in row)
