"""What signal-generator learns and what it refuses to; features, accuracy, artifacts."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from signal_support import FORESEEABLE_SECONDS, RANDOM_WALK_SECONDS, history, market, sentiment
from tradewatch.common.events import Side
from tradewatch.trading.signals import model, training
from tradewatch.trading.signals.accuracy import Accuracy
from tradewatch.trading.signals.features import FEATURES, FeatureRow, MissingFeaturesError, ProductFeatures
from tradewatch.trading.signals.training import Outcome

HORIZON = timedelta(seconds=10)
COST_RATIO = 0.00005
START = datetime(2026, 1, 1, tzinfo=UTC)


def _trained(rows: list[FeatureRow]) -> Outcome:
    data = training.dataset(rows, HORIZON, timedelta(seconds=2), COST_RATIO)
    return training.train(data, HORIZON.total_seconds(), 300)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_market_that_can_be_foreseen_is_learnt_and_the_confidence_means_what_it_says(seed: int) -> None:
    rows = history(seed, FORESEEABLE_SECONDS, 900)
    past = [row for row in rows if row.time <= START + timedelta(seconds=450)]
    outcome = _trained(past)
    assert outcome.accepted, outcome.metrics
    assert outcome.model is not None
    assert outcome.metrics["log_loss"] < outcome.metrics["naive_log_loss"]  # type: ignore[operator]
    later = training.dataset(
        [row for row in rows if row.time > START + timedelta(seconds=460)], HORIZON, timedelta(seconds=2), COST_RATIO
    )
    sides = {Side.BUY: training.UP, Side.SELL: training.DOWN}
    predictions = [outcome.model.predict(tuple(values)) for values in later.values]
    hits = [sides[said.side] == came for said, came in zip(predictions, later.labels, strict=True)]
    said = [prediction.confidence for prediction in predictions]
    assert np.mean(hits) > 0.55
    assert abs(np.mean(hits) - np.mean(said)) < 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_random_walk_is_refused(seed: int) -> None:
    outcome = _trained(history(seed, RANDOM_WALK_SECONDS, 450))
    assert not outcome.accepted
    assert outcome.reason == "no_better_than_naive"


def _after_a_headline(rows: list[FeatureRow], seconds: float) -> list[FeatureRow]:
    """The same market, whose sentiment changes a little from minute to minute, and so many seconds on by a lot."""

    def score(row: FeatureRow) -> float:
        passed = (row.time - START).total_seconds()
        return 0.1 + 0.01 * math.sin(passed // 60) + (0.8 if passed > seconds else 0.0)

    return [replace(row, values=(*row.values[:-1], score(row))) for row in rows]


@pytest.mark.parametrize("seed", range(4))
def test_a_loud_headline_does_not_spoil_what_is_learnt(seed: int) -> None:
    outcome = _trained(_after_a_headline(history(seed, FORESEEABLE_SECONDS, 500), 300))
    assert outcome.accepted, outcome.metrics


def test_a_feature_beyond_all_of_training_counts_as_the_nearest_that_was_seen() -> None:
    rows = _after_a_headline(history(1, FORESEEABLE_SECONDS, 300), 1e9)
    trained = _trained(rows).model
    assert trained is not None
    *others, _ = rows[-1].values
    loudest = max(row.values[-1] for row in rows)
    assert trained.predict((*others, 0.9)).confidence == trained.predict((*others, loudest)).confidence
    assert trained.predict((*others, 0.1)).confidence != trained.predict((*others, loudest)).confidence


def test_the_same_rows_make_the_same_model_and_too_few_make_none() -> None:
    rows = history(1, FORESEEABLE_SECONDS, 300)
    first, second = _trained(rows), _trained(list(reversed(rows)))
    assert first.model is not None
    assert second.model is not None
    assert first.model.encode() == second.model.encode()
    assert _trained(rows[:200]).reason == "too_few_rows"
    still = [replace(row, price=Decimal(100)) for row in rows]
    assert _trained(still).reason == "one_outcome"


def test_no_training_row_has_an_outcome_that_the_test_stretch_could_know(monkeypatch: pytest.MonkeyPatch) -> None:
    data = training.dataset(history(1, FORESEEABLE_SECONDS, 300), HORIZON, timedelta(seconds=2), COST_RATIO)
    seen: list[int] = []
    fit = training._fit

    def spying(values: model.Array, labels: training.Labels) -> object:
        seen.append(len(labels))
        return fit(values, labels)

    monkeypatch.setattr(training, "_fit", spying)
    training.train(data, HORIZON.total_seconds(), 300)
    edges = np.linspace(training.FIRST_SHARE * len(data.times), len(data.times), training.FOLDS + 1).astype(int)[:-1]
    assert seen[:-1] == [int(np.sum(data.times + 10 < data.times[edge])) for edge in edges]
    assert all(count <= edge - 2 * 10 for count, edge in zip(seen, edges, strict=False))


def test_outcomes_are_those_beyond_costs_at_the_horizon_and_unknown_ones_are_left_out() -> None:
    values = (0.0,) * len(FEATURES)
    prices = {0: "100", 10: "100.2", 20: "100.1", 30: "100", 45: "101"}
    rows = [
        FeatureRow("BTC-USD", START + timedelta(seconds=at), Decimal(price), values, "") for at, price in prices.items()
    ]
    data = training.dataset(rows, HORIZON, timedelta(seconds=2), 0.00095)
    assert data.labels.tolist() == [training.UP, training.DOWN, training.DOWN]
    assert training.dataset(rows, HORIZON, timedelta(seconds=2), 0.0011).labels.tolist() == [
        training.UP,
        training.FLAT,
        training.FLAT,
    ]


def test_an_artifact_that_was_altered_or_is_of_other_features_is_not_read() -> None:
    outcome = _trained(history(1, FORESEEABLE_SECONDS, 300))
    assert outcome.model is not None
    artifact = outcome.model.encode()
    version = model.version_of(artifact)
    assert model.decode(version, artifact, model.digest(artifact)) == outcome.model
    altered = artifact.replace(b"0.", b"1.", 1)
    for name, content, sha256 in (
        (version, altered, model.digest(artifact)),
        (version, altered, model.digest(altered)),
        ("other-1-0", artifact, model.digest(artifact)),
    ):
        with pytest.raises(model.ArtifactError):
            model.decode(name, content, sha256)
    for other in (b"[]", b"{}", b"\x80\x04N.", replace(outcome.model, features=FEATURES[1:]).encode()):
        with pytest.raises(model.ArtifactError):
            model.decode(model.version_of(other), other, model.digest(other))


def test_drift_is_near_none_on_the_training_and_large_elsewhere() -> None:
    rows = history(1, FORESEEABLE_SECONDS, 300)
    outcome = _trained(rows)
    assert outcome.model is not None
    known = np.array([row.values for row in rows])
    assert outcome.model.drift(known) < 0.05
    assert outcome.model.drift(known + 10 * known.std(axis=0) + 1) > 0.9


def test_a_vector_needs_every_part_fresh_and_knows_nothing_of_the_future() -> None:
    made = market(1, FORESEEABLE_SECONDS, 70, START)

    def problem(features: ProductFeatures, number: int) -> str:
        with pytest.raises(MissingFeaturesError) as caught:
            features.row(made[number][1])
        return str(caught.value)

    features = ProductFeatures(1, 5.0, 180.0)
    assert problem(features, 0) == "no rsi_14"
    features = ProductFeatures(1, 5.0, 180.0)
    assert {problem(features, number) for number in range(50, 55)} <= {"no 1 candles before", "no 5 candles before"}
    for quote, _ in made[40:50]:
        features.take_quote(quote)
    assert problem(features, 55) == "no recent quote", "the newest is six seconds old"
    for quote, _ in made[57:]:
        features.take_quote(quote)
    assert problem(features, 56) == "no recent quote", "quotes of the future are not known"
    assert problem(features, 57) == "no recent sentiment"
    features.take_sentiment(sentiment(START - timedelta(seconds=130)))
    assert problem(features, 58) == "no recent sentiment"
    features.take_sentiment(sentiment(START + timedelta(seconds=30), score=0.5))
    row = features.row(made[59][1])
    quote = made[59][0]
    assert (row.price, row.values[-3:]) == (quote.mid, (quote.spread_ratio, quote.imbalance, 0.5))
    assert problem(features, 61) == "a candle of the last 1 is missing"


def test_past_signals_are_judged_once_at_the_first_price_that_is_due() -> None:
    accuracy = Accuracy(HORIZON, timedelta(seconds=5), timedelta(seconds=60), 0.001)

    def at(seconds: float) -> datetime:
        return START + timedelta(seconds=seconds)

    accuracy.expect("BTC-USD", Side.BUY, Decimal(100), at(0))
    accuracy.expect("BTC-USD", Side.SELL, Decimal(100), at(0))
    accuracy.expect("ETH-USD", Side.BUY, Decimal(100), at(0))
    accuracy.take_price("BTC-USD", Decimal(102), at(9))
    assert accuracy.count == 0
    accuracy.take_price("BTC-USD", Decimal(101), at(11))
    accuracy.take_price("BTC-USD", Decimal(90), at(12))
    assert (accuracy.count, accuracy.ratio) == (2, 0.5)
    accuracy.take_price("ETH-USD", Decimal(101), at(30))
    assert accuracy.count == 2, "a price that comes too late says nothing"
    accuracy.expect("ETH-USD", Side.BUY, Decimal(100), at(60))
    accuracy.take_price("ETH-USD", Decimal("100.05"), at(72))
    assert (accuracy.count, accuracy.ratio) == (1, 0.0), "not beyond costs is not right; old outcomes are forgotten"
