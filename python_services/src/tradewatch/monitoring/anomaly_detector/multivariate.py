"""How unusual the series of a group are together: an isolation forest over their deviations, and which of them moved.

The forest (Liu, Ting, Zhou: "Isolation Forest", 2008) is grown over moments of the past and the present one, each tree
over all of them: a tree that has not seen the present takes a value beyond those of the past for no more unusual than
the largest of them. Its score is between 0 and 1. What is usual for it depends on the number of series and on their
tails, so it is compared, as a series' value is, with the scores of the past: in robust standard deviations above their
median.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

from tradewatch.monitoring.anomaly_detector.scores import MAX_SCORE, median_and_scale
from tradewatch.monitoring.anomaly_detector.series import Values

MIN_SERIES = 2
MIN_ROWS = 64
TREES = 100
MAX_ROWS = 512
# Beyond this a deviation is one whatever its size; without a bound one series would leave the others no room.
MAX_DEVIATION = 20.0
# Scores of the past that are all nearly equal must not make of a small difference a large one.
MIN_SCORE_SCALE = 0.02


@dataclass(frozen=True)
class GroupScore:
    """A group's score in robust standard deviations, and each series' share in it: they add up to 1, or are all 0."""

    score: float
    contributions: dict[str, float]


def contributions(now: Mapping[str, float]) -> dict[str, float]:
    """Each series' share in the squared deviations of all: which inputs moved most."""
    squares = {name: min(abs(z), MAX_DEVIATION) ** 2 for name, z in now.items()}
    total = sum(squares.values())
    return {name: square / total if total > 0 else 0.0 for name, square in squares.items()}


def assess(past: Mapping[str, Values], now: Mapping[str, float], seed: int) -> GroupScore | None:
    """Judge the deviations `now` by those of the `past`, one array a series and all of one length.

    A moment of the past counts where at least half of the series are known; the others count as usual (0). None where
    there are too few series or moments to learn from. The same input and seed give the same answer.
    """
    names = sorted(now)
    if len(names) < MIN_SERIES:
        return None
    rows = np.stack([past[name] for name in names], axis=1)
    known = np.isfinite(rows)
    rows = np.where(known, rows, 0.0)[known.mean(axis=1) >= 0.5].clip(-MAX_DEVIATION, MAX_DEVIATION)
    if len(rows) < MIN_ROWS:
        return None
    if len(rows) > MAX_ROWS:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), MAX_ROWS, replace=False))]
    present = np.array([[now[name] for name in names]]).clip(-MAX_DEVIATION, MAX_DEVIATION)
    together = np.concatenate([rows, present])
    forest = IsolationForest(n_estimators=TREES, max_samples=len(together), random_state=seed, n_jobs=1).fit(together)
    unusual = -forest.score_samples(together)
    median, scale = median_and_scale(unusual[:-1], MIN_SCORE_SCALE)
    score = float(np.clip((unusual[-1] - median) / scale, 0.0, MAX_SCORE))
    return GroupScore(score, contributions(now))
