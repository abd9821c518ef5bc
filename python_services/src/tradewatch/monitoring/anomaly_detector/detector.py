"""From a run's answers to scores: what is known of each series' past, and the judgement of its present."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tradewatch.monitoring.anomaly_detector import multivariate, scores
from tradewatch.monitoring.anomaly_detector.metrics import Unscored
from tradewatch.monitoring.anomaly_detector.prometheus import Answer, Found
from tradewatch.monitoring.anomaly_detector.scores import HISTORY_STEP_SECONDS, SETTLING_POINTS, History
from tradewatch.monitoring.anomaly_detector.series import SeriesQuery, Values, series_name

SCORED = "scored"


@dataclass(frozen=True)
class Score:
    """One series' score by one check; `value` and `expected` in the series' unit, `expected` of `level` only."""

    group: str
    series: str
    check: str
    baseline: str
    score: float
    value: float
    expected: float | None = None


@dataclass(frozen=True)
class Group:
    """A group's score, and each series' share in it."""

    group: str
    score: float
    contributions: Mapping[str, float]


@dataclass
class Report:
    """What a run found. `unscored` is by group and series; `found` and `truncated` by query."""

    scores: list[Score] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    unscored: dict[tuple[str, str], Unscored] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, bool] = field(default_factory=dict)

    def states(self) -> Counter[str]:
        """Number of series by what became of them."""
        counted = Counter(reason.value for reason in self.unscored.values())
        counted[SCORED] = len({(score.group, score.series) for score in self.scores})
        return counted


class Past:
    """One query's series over the past days: the history of each, and when each was last there (Unix seconds)."""

    def __init__(self, query: SeriesQuery, answer: Answer) -> None:
        self.histories: dict[str, History] = {}
        self.last_seen: dict[str, float] = {}
        for found in answer.series:
            known = np.flatnonzero(np.isfinite(found.points.values))
            if len(known):
                name = series_name(query.name, found.labels)
                self.histories[name] = History(query, found.points)
                self.last_seen[name] = float(found.points.times()[known[-1]])


@dataclass
class _Moves:
    """A group's deviations: of now by series, and of the past by series and by grid."""

    now: dict[str, float] = field(default_factory=dict)
    recent: dict[str, Values] = field(default_factory=dict)
    histories: dict[str, tuple[float, Values] | None] = field(default_factory=dict)


def judge(
    table: Sequence[SeriesQuery],
    answers: Mapping[str, Answer],
    past: Mapping[str, Past],
    *,
    missing_since: float,
    seed: int,
) -> Report:
    """Score every series of the answers, by query name; a query without an answer has no part in the report.

    A series that was there after `missing_since` (Unix seconds) and is not now is missing.
    """
    report = Report()
    moves: defaultdict[str, _Moves] = defaultdict(_Moves)
    for query in table:
        answer = answers.get(query.name)
        if answer is None:
            continue
        report.found[query.name] = len(answer.series)
        report.truncated[query.name] = answer.truncated
        known = past.get(query.name)
        series = {series_name(query.name, found.labels): found for found in answer.series}
        for name, found in series.items():
            _judge_series(query, name, found, known, report, moves[query.group])
        # Where there are more series than are taken, one that is not among them need not be gone.
        if known is not None and not query.sparse and not answer.truncated:
            for name, seen in known.last_seen.items():
                if name not in series and seen >= missing_since:
                    report.unscored[query.group, name] = Unscored.MISSING
    for group, moved in moves.items():
        judged = multivariate.assess(_past_of(moved), moved.now, seed)
        if judged is not None:
            report.groups.append(Group(group, judged.score, judged.contributions))
    return report


def _judge_series(
    query: SeriesQuery, name: str, found: Found, known: Past | None, report: Report, moves: _Moves
) -> None:
    recent = found.points
    value = float(recent.values[-1])
    if not np.isfinite(value):
        if not query.sparse:
            report.unscored[query.group, name] = Unscored.NOT_FINITE if found.ends_not_finite else Unscored.MISSING
        return
    history = known.histories.get(name) if known is not None else None
    made = []
    if "level" in query.checks and (level := scores.level(query, recent, history)) is not None:
        z = float(scores.in_direction(query, np.array(level.z)))
        made.append(Score(query.group, name, "level", level.baseline.value, abs(z), value, level.expected))
        moves.now[name] = z
        moves.recent[name] = scores.in_direction(query, scores.recent_z(query, recent, history))[:-SETTLING_POINTS]
        moves.histories[name] = (history.start, scores.in_direction(query, history.z)) if history is not None else None
    if "flat" in query.checks and (score := scores.flatness(recent, history)) is not None:
        baseline = scores.BaselineKind.RECENT if history is None else scores.BaselineKind.DAILY
        made.append(Score(query.group, name, "flat", baseline.value, score, value))
    if not made:
        report.unscored[query.group, name] = Unscored.TOO_LITTLE_HISTORY
    report.scores.extend(made)


def _past_of(moves: _Moves) -> dict[str, Values]:
    """Each series' past deviations, moment by moment the same: first the days before, then the last hours."""
    kept = [history for history in moves.histories.values() if history is not None]
    start = max((first for first, _ in kept), default=0.0)
    end = min((first + HISTORY_STEP_SECONDS * len(z) for first, z in kept), default=0.0)
    length = max(round((end - start) / HISTORY_STEP_SECONDS), 0)
    rows = {}
    for name, recent in moves.recent.items():
        history = moves.histories[name]
        before = np.full(length, np.nan)
        if history is not None:
            offset = round((start - history[0]) / HISTORY_STEP_SECONDS)
            before = history[1][offset : offset + length]
        rows[name] = np.concatenate([before, recent])
    return rows
