"""Candles and quotes as folds: what comes of which entries."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from aggregation_support import EXCHANGES, PRODUCT, ticker, trade
from hypothesis import given, settings
from hypothesis import strategies as st
from tradewatch.collectors.aggregator.candles import CandleFold, TradeFate, microseconds
from tradewatch.collectors.aggregator.quotes import QuoteFold, QuoteLimits
from tradewatch.collectors.seen_ids import SeenIds
from tradewatch.common.events import Trade
from tradewatch.common.streams import Candle

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _us(seconds: float) -> int:
    return microseconds(_at(seconds))


def _fold(intervals: tuple[int, ...] = (1, 60), lateness: float = 0.5) -> CandleFold:
    return CandleFold(PRODUCT, EXCHANGES, intervals, lateness)


def test_a_candle_is_of_all_exchanges_with_their_volume_weighted_average() -> None:
    fold = _fold((1,))
    fold.add(_us(0.3), trade(_at(0.2), 1, "100", "1", "coinbase"))
    fold.add(_us(0.31), trade(_at(0.1), 1, "104", "3", "kraken"))
    last = trade(_at(0.9), 2, "98", "1", "kraken")
    fold.add(_us(0.95), last)
    assert fold.advance(_us(1.4)) == []
    assert fold.advance(_us(1.5)) == [
        Candle(
            PRODUCT,
            1,
            START,
            open=Decimal(104),
            high=Decimal(104),
            low=Decimal(98),
            close=Decimal(98),
            volume=Decimal(5),
            vwap=Decimal(102),
            trades=3,
            exchanges=EXCHANGES,
            trace_id=last.trace_id,
        )
    ]
    assert fold.advance(_us(90)) == [], "an interval without trades gives none"


def test_a_candle_does_not_wait_once_every_exchange_is_beyond_its_end() -> None:
    fold = _fold((1,))
    fold.add(_us(0.5), trade(_at(0.5), 1, exchange="coinbase"))
    fold.add(_us(1.02), trade(_at(1.01), 2, exchange="coinbase"))
    assert fold.advance(_us(1.04)) == []
    fold.add(_us(1.04), trade(_at(1.03), 1, exchange="kraken"))
    assert [candle.start for candle in fold.advance(_us(1.05))] == [START]


def test_a_late_trade_is_in_the_longer_candles_only_and_counted() -> None:
    fold = _fold()
    fold.add(_us(0.5), trade(_at(0.5), 1))
    assert len(fold.advance(_us(2))) == 1
    assert fold.add(_us(2), trade(_at(0.6), 2, "105")) == (None, [1])
    fold.add(_us(3), trade(_at(3), 3))
    by_length = {candle.interval_seconds: candle for candle in fold.advance(_us(61))}
    assert by_length[60].trades == 3
    assert by_length[60].high == 105
    assert by_length[1].start == _at(3)


def test_a_trade_from_before_the_first_whole_candle_is_not_late() -> None:
    fold = _fold()
    fold.restore({1: _us(0), 60: _us(60)})
    assert fold.add(_us(0.5), trade(_at(0.5), 1)) == (None, [])
    assert [candle.interval_seconds for candle in fold.advance(_us(2))] == [1]


def test_a_trade_seen_before_or_from_the_future_is_left_out() -> None:
    fold = _fold((1,))
    one = trade(_at(0.5), 1)
    assert fold.add(_us(0.5), one) == (None, [])
    assert fold.add(_us(0.6), replace(one, trace_id="1" * 32)) == (TradeFate.DUPLICATE, [])
    assert fold.add(_us(0.6), replace(one, exchange="kraken")) == (None, []), "ids are each exchange's own"
    assert fold.add(_us(0.6), trade(_at(61), 2)) == (TradeFate.FUTURE, [])
    assert fold.advance(_us(2))[0].trades == 2


def test_candles_close_in_the_order_of_their_ids() -> None:
    fold = _fold((1, 5, 60))
    for second in range(121):
        fold.add(_us(second), trade(_at(second), second + 1))
    closed = fold.advance(_us(121))
    keys = [(candle.start + timedelta(seconds=candle.interval_seconds), candle.interval_seconds) for candle in closed]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys) == 120 + 24 + 2


def _replay(entries: list[tuple[int, Trade]], until_us: int) -> list[Candle]:
    fold = _fold((1, 5, 60))
    closed = []
    for bus_us, event in entries:
        closed += fold.advance(bus_us)
        fold.add(bus_us, event)
    return closed + fold.advance(until_us)


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_neither_the_order_within_a_millisecond_nor_how_often_it_is_asked_matters(seed: int) -> None:
    rng = random.Random(seed)
    entries = []
    for number in range(200):
        bus_ms = rng.randrange(0, 20_000)
        late_ms = rng.choice((0, 0, 0, 20, 600, 2000))
        exchange = rng.choice(EXCHANGES)
        price, size = f"{rng.uniform(90, 110):.8f}", f"{rng.uniform(0.00000001, 3):.8f}"
        event = trade(_at((bus_ms - late_ms) / 1000), number + 1, price, size, exchange, trace_id=f"{number:032d}")
        entries.append((_us(0) + bus_ms * 1000, event))
    entries.sort(key=lambda entry: entry[0])
    mixed = sorted(entries, key=lambda entry: (entry[0], rng.random()))
    until = _us(120)
    fold = _fold((1, 5, 60))
    closed = []
    for bus_us, event in mixed:
        for step in sorted(rng.randrange(entries[0][0], bus_us + 1) for _ in range(2)):
            # The bus never goes back: only what is new is asked.
            if step > max([entries[0][0], *(us for us, _ in mixed if us < bus_us)]):
                closed += fold.advance(step)
        closed += fold.advance(bus_us)
        fold.add(bus_us, event)
    closed += fold.advance(until)
    assert closed == _replay(entries, until)


@given(st.lists(st.integers(0, 60), max_size=200))
def test_ids_are_new_once(numbers: list[int]) -> None:
    seen, known = SeenIds(), set()
    for number in numbers:
        assert seen.add(number) == (number not in known)
        known.add(number)


def test_ids_are_kept_in_bounded_memory_and_forgotten_ones_count_as_seen() -> None:
    seen = SeenIds(max_ranges=3)
    assert all(seen.add(number) for number in (0, 10, 20, 30))
    assert not seen.add(5), "below the newest three ranges it cannot be told any more"
    assert seen.add(25)


def _quotes(exchanges: tuple[str, ...] = EXCHANGES) -> QuoteFold:
    return QuoteFold(PRODUCT, exchanges, QuoteLimits(stale_seconds=10.0, outlier_ratio=0.02))


def test_the_best_of_all_exchanges() -> None:
    fold = _quotes()
    fold.add(ticker(_at(0.1), "99.5", "101", "coinbase", "3", "1"))
    fold.add(ticker(_at(0.2), "99", "100.5", "kraken", "1", "3"))
    (judged,) = fold.advance(_us(1))
    assert judged.quote is not None
    assert (judged.quote.best_bid, judged.quote.best_ask, judged.quote.mid) == (Decimal("99.5"), Decimal("100.5"), 100)
    assert judged.quote.spread_ratio == pytest.approx(0.01)
    assert judged.quote.imbalance == 0
    assert judged.quote.exchanges == EXCHANGES
    assert judged.quote.time == _at(1)
    assert fold.advance(_us(1.9)) == [], "once a second"


def test_a_stale_or_one_sided_exchange_is_left_out() -> None:
    fold = _quotes()
    fold.add(ticker(_at(0), exchange="coinbase"))
    fold.add(ticker(_at(5), exchange="kraken"))
    assert [judged.stale for judged in fold.advance(_us(12))][-1] == ("coinbase",)
    fold.add(ticker(_at(12.5), bid=None, exchange="kraken"))
    assert fold.advance(_us(13))[-1].quote is None
    assert len(fold.advance(_us(100_000))) < 20, "hours of silence are not gone through"


def test_of_three_exchanges_the_one_far_from_the_median_is_the_outlier() -> None:
    names = ("a", "b", "c")
    fold = _quotes(names)
    for name, bid, ask in (("a", "99", "101"), ("b", "99", "101"), ("c", "120", "122")):
        fold.add(ticker(_at(0), bid, ask, name))
    (judged,) = fold.advance(_us(1))
    assert judged.outliers == ("c",)
    assert judged.quote is not None
    assert judged.quote.exchanges == ("a", "b")
    assert judged.quote.outliers == ("c",)


def test_of_two_that_disagree_the_last_quote_says_which_to_believe() -> None:
    fold = _quotes()
    for name in EXCHANGES:
        fold.add(ticker(_at(0), exchange=name))
    fold.advance(_us(1))
    fold.add(ticker(_at(1.5), "198", "202", "kraken"))
    (judged,) = fold.advance(_us(2))
    assert judged.outliers == ("kraken",)
    assert judged.quote is not None
    assert judged.quote.mid == 100
    fold.add(ticker(_at(2.5), "148", "152", "coinbase"))
    assert fold.advance(_us(3))[0].quote is None, "neither is near the last quote: no quote rather than a guess"


def test_two_that_disagree_from_the_start_give_no_quote() -> None:
    fold = _quotes()
    fold.add(ticker(_at(0), exchange="coinbase"))
    fold.add(ticker(_at(0), "198", "202", "kraken"))
    (judged,) = fold.advance(_us(1))
    assert judged.quote is None
    assert judged.outliers == EXCHANGES


def test_one_that_is_left_alone_does_not_get_away_with_a_jump() -> None:
    fold = _quotes()
    for name in EXCHANGES:
        fold.add(ticker(_at(0), exchange=name))
    assert fold.advance(_us(9))[-1].quote is not None
    fold.add(ticker(_at(11), "198", "202", "kraken"))
    judged = fold.advance(_us(12))[-1]
    assert (judged.quote, judged.outliers, judged.stale) == (None, ("kraken",), ("coinbase",))
    for second in range(12, 75):
        fold.add(ticker(_at(second), "198", "202", "kraken"))
        judged = fold.advance(_us(second + 1))[-1]
    assert judged.quote is not None, "what holds for a minute is the price"
