"""A trained model: what it says of a feature vector, and its form in the store.

The artifact is JSON, not a pickle: reading one can give wrong numbers but never run code. It is read only where its
SHA-256 and its version are the ones stored beside it, so what was cut off or altered is found before it is used.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradewatch.common.events import Side
from tradewatch.trading.signals.features import FEATURES, SCHEMA

Array = NDArray[np.float64]
VERSION_PREFIX = f"logistic-{SCHEMA}-"
DOWN, FLAT, UP = range(3)
CLASSES = 3
# Probabilities are kept this far from 0 and 1, so that one surprise costs a finite loss.
MIN_PROBABILITY = 1e-3
_RATIONALE_FEATURES = 3


class ArtifactError(Exception):
    """A stored artifact cannot be trusted or read; the message says why."""


@dataclass(frozen=True)
class Prediction:
    """The likelier side, the calibrated probability that the price moves that way beyond costs, and why."""

    side: Side
    confidence: float
    rationale: str


@dataclass(frozen=True)
class Model:
    """A multinomial logistic regression on standardised features, with a calibration and the training's distribution.

    `coefficients` are CLASSES rows of one number a feature; `slope` and `offset` calibrate (J. Platt, 1999, in
    "Advances in Large Margin Classifiers"); `knots` are quantiles of each feature in training, `shares` the share of
    the training's rows that are at most as large.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]
    slope: float
    offset: float
    knots: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...]

    def encode(self) -> bytes:
        """The artifact; the same for the same model."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False).encode()

    @cached_property
    def _numbers(self) -> tuple[Array, Array, Array, Array, Array]:
        knots = np.array(self.knots)
        return (
            knots[:, [0, -1]].T,
            np.array(self.means),
            np.array(self.scales),
            np.array(self.coefficients),
            np.array(self.intercepts),
        )

    def predict(self, values: tuple[float, ...]) -> Prediction:
        """What the model says of a feature vector in the order of FEATURES.

        A feature beyond all of training counts as the nearest that was seen: what was learnt in calm weather
        says nothing of a storm, such as the sentiment after one loud headline.
        """
        (lowest, highest), means, scales, coefficients, intercepts = self._numbers
        standardised = (np.clip(np.array(values), lowest, highest) - means) / scales
        probabilities = softmax(standardised @ coefficients.T + intercepts)
        up = probabilities[UP] >= probabilities[DOWN]
        chosen, other = (UP, DOWN) if up else (DOWN, UP)
        confidence = calibrated(float(probabilities[chosen]), self.slope, self.offset)
        parts = (coefficients[chosen] - coefficients[other]) * standardised
        top = sorted(range(len(parts)), key=lambda index: -abs(parts[index]))[:_RATIONALE_FEATURES]
        reasons = ", ".join(f"{FEATURES[index]} {values[index]:.4g} ({parts[index]:+.2f})" for index in top)
        side = Side.BUY if up else Side.SELL
        return Prediction(side, confidence, f"{'up' if up else 'down'}: {reasons}")

    def drift(self, rows: Array) -> float:
        """How far recent rows (one vector each) are from the training's, 0 to 1.

        The mean over the features of the Kolmogorov-Smirnov distance, taken at the training's quantiles. It is
        bounded, so that one slow feature, such as the sentiment, cannot make the score by itself.
        """
        distances = []
        for column, (knots, shares) in enumerate(zip(self.knots, self.shares, strict=True)):
            found = np.searchsorted(np.sort(rows[:, column]), knots, side="right") / len(rows)
            distances.append(float(np.max(np.abs(found - np.array(shares)))))
        return math.fsum(distances) / len(distances)


def softmax(logits: Array) -> Array:
    """Probabilities of the classes, each at least about MIN_PROBABILITY."""
    powers = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    floored: Array = (shares + MIN_PROBABILITY) / (1 + CLASSES * MIN_PROBABILITY)
    return floored


def calibrated(probability: float, slope: float, offset: float) -> float:
    """How often the model was right out of sample when it said `probability`."""
    return 1 / (1 + math.exp(-(slope * log_odds(probability) + offset)))


def log_odds(probability: float) -> float:
    """ln(p / (1 - p))."""
    return math.log(probability / (1 - probability))


def digest(artifact: bytes) -> str:
    """SHA-256 of an artifact, hexadecimal."""
    return hashlib.sha256(artifact).hexdigest()


def version_of(artifact: bytes) -> str:
    """A model's version: named by its content, so that the same training makes the same one."""
    return VERSION_PREFIX + digest(artifact)[:16]


def decode(version: str, artifact: bytes, sha256: str) -> Model:
    """The model of an artifact.

    Raises:
        ArtifactError: it is not what was stored under that version, or not a model of this schema.
    """
    if not version.startswith(VERSION_PREFIX):
        raise ArtifactError("of another schema")
    if digest(artifact) != sha256 or version_of(artifact) != version:
        raise ArtifactError("is not what its SHA-256 says")
    try:
        fields: dict[str, Any] = json.loads(artifact)
        model = Model(**{name: _frozen(value) for name, value in fields.items()})
    except (ValueError, TypeError, AttributeError):
        raise ArtifactError("is not a model") from None
    width = len(FEATURES)
    tables = (model.coefficients, model.knots, model.shares)
    shapes = [len(model.means), len(model.scales), len(model.knots), *map(len, model.coefficients)]
    if model.features != FEATURES or any(shape != width for shape in shapes) or not all(tables):
        raise ArtifactError("is of other features")
    return model


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
