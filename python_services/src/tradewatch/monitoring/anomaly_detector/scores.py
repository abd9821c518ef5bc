"""How far a series is from what is usual for it, in robust standard deviations.

The score is the modified z-score of Iglewicz and Hoaglin ("How to Detect and Handle Outliers", 1993): the distance from
the median over 1.4826 times the median absolute deviation (MAD), and over 1.2533 times the mean absolute deviation
where more than half of the values are equal. A spread below the query's floor is not believed: so a constant series
has a score too.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from tradewatch.monitoring.anomaly_detector.series import SeriesQuery, Values

DAY_SECONDS = 86_400
HISTORY_STEP_SECONDS = 300
SLOTS = DAY_SECONDS // HISTORY_STEP_SECONDS
# A time of day is compared with the half hour before and after it.
SLOTS_EACH_SIDE = 6
MIN_DAYS = 3
MIN_RECENT_POINTS = 20
# The newest points are not part of what is usual: an anomaly that has just begun would hide itself.
SETTLING_POINTS = 5
MAX_SCORE = 1000.0
# A run of equal values counts as long from this on, whatever the series did before.
MIN_RUN_STEPS = 5
# A run twice as long as any before scores 6.
RUN_SCORE = 3.0

_MAD_TO_SIGMA = 1.4826
_MEAN_DEVIATION_TO_SIGMA = 1.2533


class BaselineKind(StrEnum):
    """What a value was compared with: the same time of day on past days, or the last hours."""

    DAILY = "daily"
    RECENT = "recent"


@dataclass(frozen=True)
class Points:
    """A series on a regular grid; NaN where Prometheus had no finite value. `start` and `step` in Unix seconds."""

    start: float
    step: float
    values: Values

    def times(self) -> Values:
        """Each point's time."""
        return self.start + self.step * np.arange(len(self.values), dtype=np.float64)


@dataclass(frozen=True)
class Level:
    """How far a value is off: `z` signed, `expected` in the series' unit."""

    z: float
    expected: float
    baseline: BaselineKind


def median_and_scale(values: Values, min_scale: float, axis: int | None = None) -> tuple[Any, Any]:
    """Median and robust standard deviation of the values that are not NaN; both NaN where there are none."""
    known = np.isfinite(values)
    any_known = known.any(axis=axis, keepdims=axis is not None)
    # A column without any value would make numpy warn, though NaN is what is wanted there.
    safe = np.where(any_known | known, values, 0.0)
    median = np.nanmedian(safe, axis=axis, keepdims=True)
    deviations = np.abs(safe - median)
    mad = _MAD_TO_SIGMA * np.nanmedian(deviations, axis=axis, keepdims=True)
    mean = _MEAN_DEVIATION_TO_SIGMA * np.nanmean(deviations, axis=axis, keepdims=True)
    scale = np.maximum(np.where(mad > 0, mad, mean), min_scale)
    if axis is None:
        return (float(median.item()), float(scale.item())) if any_known else (np.nan, np.nan)
    return (
        np.where(any_known, median, np.nan).squeeze(axis),
        np.where(any_known, scale, np.nan).squeeze(axis),
    )


class History:
    """What a series did over the past days: its usual level at each time of day, and for how long it ever stood still.

    `z` has each past point's own deviation, for learning how series move together.
    """

    def __init__(self, query: SeriesQuery, points: Points) -> None:
        values = query.transform(points.values)
        self.start = points.start
        self._expected, self._scale = _profile(values, points, query.min_scale)
        slots = _slots(points.times())
        overall, spread = median_and_scale(values, query.min_scale)
        expected = np.where(np.isfinite(self._expected[slots]), self._expected[slots], overall)
        scale = np.where(np.isfinite(self._scale[slots]), self._scale[slots], spread)
        self.z = (values - expected) / scale
        self.longest_run_seconds = longest_run(points.values) * points.step
        self.known_points = int(np.isfinite(values).sum())

    def usual_at(self, time: Values) -> tuple[Values, Values]:
        """Median and scale for these times of day, on the transformed scale; NaN where too few days are known."""
        slots = _slots(time)
        return self._expected[slots], self._scale[slots]


def _slots(times: Values) -> Any:
    return (times % DAY_SECONDS // HISTORY_STEP_SECONDS).astype(int)


def _profile(values: Values, points: Points, min_scale: float) -> tuple[Values, Values]:
    times = points.times()
    days = (times // DAY_SECONDS).astype(int)
    table = np.full((days.max() - days.min() + 1 if len(days) else 1, SLOTS), np.nan)
    table[days - days.min() if len(days) else days, _slots(times)] = values
    around = np.stack([np.roll(table, shift, axis=1) for shift in range(-SLOTS_EACH_SIDE, SLOTS_EACH_SIDE + 1)])
    days_known = (np.isfinite(around).sum(axis=0) > SLOTS_EACH_SIDE).sum(axis=0)
    median, scale = median_and_scale(around.reshape(-1, SLOTS), min_scale, axis=0)
    enough = days_known >= MIN_DAYS
    return np.where(enough, median, np.nan), np.where(enough, scale, np.nan)


def level(query: SeriesQuery, recent: Points, history: History | None) -> Level | None:
    """How far the newest point is from what is usual; None where too little is known to say. The point is finite."""
    values = query.transform(recent.values)
    if history is not None:
        expected, scale = history.usual_at(recent.times()[-1:])
        if np.isfinite(expected[0]):
            return _level(query, float(values[-1]), float(expected[0]), float(scale[0]), BaselineKind.DAILY)
    before = values[:-SETTLING_POINTS]
    if np.isfinite(before).sum() < MIN_RECENT_POINTS:
        return None
    median, scale_now = median_and_scale(before, query.min_scale)
    return _level(query, float(values[-1]), median, scale_now, BaselineKind.RECENT)


def _level(query: SeriesQuery, value: float, expected: float, scale: float, kind: BaselineKind) -> Level:
    z = float(np.clip((value - expected) / scale, -MAX_SCORE, MAX_SCORE))
    return Level(z, query.restore(expected), kind)


def in_direction(query: SeriesQuery, z: Values) -> Values:
    """Deviations, those that go the way that does not count made 0."""
    if query.direction == "up":
        return np.maximum(z, 0.0)
    return np.minimum(z, 0.0) if query.direction == "down" else z


def recent_z(query: SeriesQuery, recent: Points, history: History | None) -> Values:
    """Each recent point's deviation, from its time of day where that is known, else from the recent median."""
    values = query.transform(recent.values)
    median, spread = median_and_scale(values[:-SETTLING_POINTS], query.min_scale)
    expected, scale = np.full(len(values), median), np.full(len(values), spread)
    if history is not None:
        daily, daily_scale = history.usual_at(recent.times())
        known = np.isfinite(daily)
        expected, scale = np.where(known, daily, expected), np.where(known, daily_scale, scale)
    return np.asarray((values - expected) / scale)


def longest_run(values: Values) -> int:
    """Steps of the longest stretch in which the value did not change; a point that is missing ends it."""
    longest = run = 0
    for equal in np.diff(values) == 0:
        run = run + 1 if equal else 0
        longest = max(longest, run)
    return longest


def current_run(values: Values) -> int:
    """Steps for which the newest value has not changed."""
    changed = np.flatnonzero(np.diff(values) != 0)
    return len(values) - 1 - (int(changed[-1]) + 1 if len(changed) else 0)


def flatness(recent: Points, history: History | None) -> float | None:
    """How long the value has stood still against the longest time it ever did; None where too little is known."""
    run = current_run(recent.values)
    earlier = recent.values[: len(recent.values) - run]
    known_before = int(np.isfinite(earlier).sum()) + (history.known_points if history is not None else 0)
    if known_before < MIN_RECENT_POINTS:
        return None
    longest = longest_run(earlier) * recent.step
    if history is not None:
        longest = max(longest, history.longest_run_seconds)
    return min(RUN_SCORE * run * recent.step / max(longest, MIN_RUN_STEPS * recent.step), MAX_SCORE)
