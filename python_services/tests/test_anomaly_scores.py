"""The scores of anomaly-detector: their properties, and how often they are wrong in calm weather."""

import math
from pathlib import Path

import numpy as np
import pytest
from anomaly_support import DAY, noise, rhythm
from hypothesis import given, settings
from hypothesis import strategies as st
from tradewatch.monitoring.anomaly_detector import multivariate, scores
from tradewatch.monitoring.anomaly_detector.detector import Past, judge
from tradewatch.monitoring.anomaly_detector.metrics import Unscored
from tradewatch.monitoring.anomaly_detector.prometheus import Answer, Found
from tradewatch.monitoring.anomaly_detector.scores import HISTORY_STEP_SECONDS, BaselineKind, History, Points
from tradewatch.monitoring.anomaly_detector.series import DEFAULT_SERIES, SeriesQuery, Values, load_table, series_name

START = 1_700_006_400  # a midnight UTC
THRESHOLD = 6.0

RATE = SeriesQuery(name="rate", group="g", query="rate", floor=0.05, scale="log", direction="both")
ERRORS = SeriesQuery(name="errors", group="g", query="errors", floor=0.1)
PRICE = SeriesQuery(name="price", group="g", query="price", floor=1.0, checks=("flat",))

finite = st.floats(-1e12, 1e12)


def points(values: object, start: float = START, step: float = 60.0) -> Points:
    return Points(start, step, np.asarray(values, dtype=np.float64))


def history(query: SeriesQuery, values: Values, start: float = START) -> History:
    return History(query, points(values, start, HISTORY_STEP_SECONDS))


def daily(days: int, seed: int = 1) -> Values:
    times = START + HISTORY_STEP_SECONDS * np.arange(days * scores.SLOTS, dtype=np.float64)
    return 5 * rhythm(times, 0.8) * np.exp(noise(np.random.default_rng(seed), len(times), 0.1, 0.3))


@given(st.lists(finite | st.just(math.nan), min_size=1, max_size=60), st.floats(1e-6, 1e6))
def test_median_and_scale_are_finite_wherever_there_is_a_value(values: list[float], floor: float) -> None:
    median, scale = scores.median_and_scale(np.array(values), floor)
    known = [value for value in values if not math.isnan(value)]
    if known:
        assert min(known) <= median <= max(known)
        assert math.isfinite(scale)
        assert scale >= floor
    else:
        assert math.isnan(median)
        assert math.isnan(scale)


@given(st.lists(st.floats(-1e6, 1e6), min_size=40, max_size=60), st.floats(-1e6, 1e6), st.floats(0.01, 100))
def test_a_score_does_not_change_with_the_zero_point_and_falls_with_the_floor(
    values: list[float], shift: float, floor: float
) -> None:
    def z(shifted: float, least: float) -> float:
        query = SeriesQuery(name="x", group="g", query="x", floor=least, direction="both")
        level = scores.level(query, points(np.array(values) + shifted), None)
        assert level is not None
        return level.z

    assert z(shift, floor) == pytest.approx(z(0.0, floor), rel=1e-3, abs=1e-3 / floor)
    assert abs(z(0.0, 10 * floor)) <= abs(z(0.0, floor)) + 1e-9


@given(st.lists(st.floats(0, 1e9) | st.sampled_from([math.nan]), min_size=30, max_size=80), st.floats(0, 1e9))
def test_every_score_is_bounded_and_never_nan(values: list[float], newest: float) -> None:
    recent = points([*values, newest])
    for query in (RATE, ERRORS):
        level = scores.level(query, recent, None)
        if level is not None:
            assert abs(level.z) <= scores.MAX_SCORE
            assert math.isfinite(level.expected)
    flat = scores.flatness(recent, None)
    assert flat is None or 0 <= flat <= scores.MAX_SCORE


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_contributions_are_shares_of_which_the_largest_moved_most(now: dict[str, float]) -> None:
    shares = multivariate.contributions(now)
    assert all(0 <= share <= 1 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1.0) or not any(shares.values())
    largest = max(now, key=lambda name: abs(now[name]))
    assert shares[largest] == max(shares.values())


def test_a_constant_series_scores_nothing_until_it_moves_by_more_than_the_floor() -> None:
    calm = scores.level(ERRORS, points([0.0] * 60), None)
    moved = scores.level(ERRORS, points([0.0] * 59 + [1.0]), None)
    assert calm is not None
    assert moved is not None
    assert (calm.z, moved.z) == (0.0, pytest.approx(10.0))


def test_a_value_that_is_usual_at_noon_is_not_at_night() -> None:
    past = history(RATE, daily(5))
    night, afternoon = START + 5 * DAY + 3 * 3600, START + 5 * DAY + 15 * 3600
    levels = [scores.level(RATE, points([9.0] * 30, at - 29 * 60), past) for at in (night, afternoon)]
    assert [level.baseline for level in levels if level] == [BaselineKind.DAILY] * 2
    assert levels[0] is not None
    assert levels[1] is not None
    assert levels[0].z > THRESHOLD
    assert abs(levels[1].z) < 3
    assert levels[1].expected == pytest.approx(9.0, rel=0.1)


def test_with_fewer_than_three_days_it_says_that_it_compares_with_the_last_hours() -> None:
    rng = np.random.default_rng(1)
    recent = points(rng.normal(5, 0.1, 60), START + 2 * DAY)
    level = scores.level(RATE, recent, history(RATE, daily(2)))
    assert level is not None
    assert level.baseline is BaselineKind.RECENT


@pytest.mark.parametrize("seed", range(20))
def test_a_forgotten_past_incident_does_not_hide_the_next(seed: int) -> None:
    values = daily(5, seed)
    values[2 * scores.SLOTS + 30 : 2 * scores.SLOTS + 60] = 0.0
    at = START + 5 * DAY + 45 * HISTORY_STEP_SECONDS
    level = scores.level(RATE, points([0.0] * 30, at - 29 * 60), history(RATE, values))
    assert level is not None
    assert level.z < -THRESHOLD


def test_a_value_that_stands_still_is_found_only_where_it_used_to_move() -> None:
    moving = 100 + np.cumsum(np.random.default_rng(1).normal(0, 1, 60))
    frozen = scores.flatness(points([*moving, *[moving[-1]] * 20]), None)
    assert frozen is not None
    assert frozen > THRESHOLD
    still = history(PRICE, np.full(2000, 100.0))
    usual = scores.flatness(points([100.0] * 80), still)
    assert usual is not None
    assert usual < 1
    assert scores.flatness(points([100.0] * 80), None) is None, "nothing is known of before"


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_the_forest_gives_the_same_answer_for_the_same_seed(seed: int) -> None:
    rng = np.random.default_rng(1)
    past = {name: rng.normal(0, 1, 100) for name in "abc"}
    now = {"a": 0.1, "b": -7.0, "c": 0.2}
    assert multivariate.assess(past, now, seed) == multivariate.assess(past, now, seed)


def test_many_moderate_deviations_are_unusual_together_though_none_is_by_itself() -> None:
    rng = np.random.default_rng(3)
    past = {f"s{index}": rng.normal(0, 1, 2000) for index in range(8)}
    together = multivariate.assess(past, dict.fromkeys(past, 3.5), 1)
    usual = multivariate.assess(past, {name: float(rng.normal()) for name in past}, 1)
    assert together is not None
    assert usual is not None
    assert together.score > THRESHOLD
    assert usual.score < 4


def test_too_few_series_or_moments_give_no_group_score() -> None:
    assert multivariate.assess({"a": np.zeros(500)}, {"a": 1.0}, 1) is None
    assert multivariate.assess({"a": np.zeros(20), "b": np.zeros(20)}, {"a": 1.0, "b": 1.0}, 1) is None
    assert multivariate.assess({"a": np.full(500, np.nan), "b": np.full(500, np.nan)}, {"a": 1.0, "b": 1.0}, 1) is None


def test_a_calm_hour_gives_no_alarm() -> None:
    """Six seeds, eight series with a daily rhythm and noise that remembers, a score every quarter of an hour."""
    alarms: list[tuple[int, str, float]] = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        fine = START + 60.0 * np.arange(6 * 1440)
        series = {f"{index}": 5 * rhythm(fine, 0.6) * np.exp(noise(rng, len(fine), 0.15)) for index in range(8)}
        past_until = 5 * 1440
        found = [
            Found({"n": name}, points(values[:past_until:5], START, HISTORY_STEP_SECONDS), False)
            for name, values in series.items()
        ]
        past = {"rate": Past(RATE, Answer(tuple(found), False))}
        first = past_until + 120 + 60 * seed
        for end in range(first, first + 60, 15):
            recent = Answer(
                tuple(
                    Found({"n": name}, points(values[end - 120 : end + 1], START + 60.0 * (end - 120)), False)
                    for name, values in series.items()
                ),
                False,
            )
            report = judge([RATE], {"rate": recent}, past, missing_since=0, seed=1)
            assert len(report.scores) == 8
            alarms += [(seed, score.series, score.score) for score in report.scores if score.score >= THRESHOLD]
            alarms += [(seed, group.group, group.score) for group in report.groups if group.score >= THRESHOLD]
    assert not alarms


def test_what_is_gone_or_not_a_number_is_named_and_has_no_score() -> None:
    past = {"errors": Past(ERRORS, Answer((Found({"n": "gone"}, points([1.0] * 50, step=300), False),), False))}
    answer = Answer(
        (
            Found({"n": "nan"}, points([*[1.0] * 60, math.nan]), True),
            Found({"n": "new"}, points([1.0] * 5), False),
            Found({"n": "stopped"}, points([*[1.0] * 60, math.nan]), False),
        ),
        False,
    )
    report = judge([ERRORS], {"errors": answer}, past, missing_since=START, seed=1)
    assert not report.scores
    assert report.unscored == {
        ("g", "errors:gone"): Unscored.MISSING,
        ("g", "errors:nan"): Unscored.NOT_FINITE,
        ("g", "errors:new"): Unscored.TOO_LITTLE_HISTORY,
        ("g", "errors:stopped"): Unscored.MISSING,
    }
    forgotten = judge([ERRORS], {"errors": Answer((), False)}, past, missing_since=START + DAY, seed=1)
    assert not forgotten.unscored


def test_names_of_series_are_bounded_and_in_the_order_of_the_labels_names() -> None:
    assert series_name("rate", {"product_id": "BTC-USD", "exchange": "kraken"}) == "rate:kraken:BTC-USD"
    assert len(series_name("rate", {"bomb": "x" * 100_000})) == 200


def test_the_default_table_counts_nothing_twice() -> None:
    assert len({query.name for query in DEFAULT_SERIES}) == len(DEFAULT_SERIES)
    for query in DEFAULT_SERIES:
        assert 'job="kubernetes-pods-metrics"' in query.query, query.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("series = [", "no TOML"),
        ("", "must hold [[series]] entries"),
        ("[[series]]\nname = 'x'\ngroup = 'g'\nquery = 'up'\n", "series.0.floor: Field required"),
        ("[[series]]\nname = 'x'\ngroup = 'g'\nquery = 'up'\nfloor = 0.0\n", "greater than 0"),
        ("[[series]]\nname = 'X y'\ngroup = 'g'\nquery = 'up'\nfloor = 1.0\n", "series.0.name"),
        ("[[series]]\nname = 'x'\ngroup = 'g'\nquery = 'up'\nfloor = 1.0\n" * 2, "named twice"),
        ("[[series]]\nname = 'x'\ngroup = 'g'\nquery = 'up'\nfloor = 1.0\nflor = 1.0\n", "series.0.flor"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "series.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"series\.toml") as refused:
        load_table(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_of_ones_own_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "series.toml"
    path.write_text(
        "[[series]]\nname = 'x'\ngroup = 'g'\nquery = 'up'\nfloor = 1.0\nchecks = ['level', 'flat']\nsparse = true\n"
    )
    (query,) = load_table(path)
    assert (query.checks, query.sparse, query.scale) == (("level", "flat"), True, "linear")
