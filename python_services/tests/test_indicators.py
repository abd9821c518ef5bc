"""Indicators against TA-Lib's batch functions on the same history."""

import math
import random

import numpy
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tradewatch.collectors.indicators.calculations import Bar, all_indicators, update_all

Series = NDArray[numpy.float64]


def _walk(seed: int, length: int, price: float, step: float, still: float = 0.0) -> list[Bar]:
    """A random walk of candles; a share `still` of them does not move."""
    rng = random.Random(seed)
    bars = []
    close = price
    for _ in range(length):
        start = close
        if rng.random() >= still:
            close *= math.exp(rng.gauss(0, step))
        high = max(start, close) * math.exp(abs(rng.gauss(0, step / 2)))
        low = min(start, close) * math.exp(-abs(rng.gauss(0, step / 2)))
        bars.append(Bar(high, low, close, rng.expovariate(1.0)))
    return bars


def _batch(bars: list[Bar]) -> dict[str, Series]:
    high, low, close, volume = (
        numpy.array([getattr(bar, name) for bar in bars]) for name in ("high", "low", "close", "volume")
    )
    macd, macd_signal, macd_histogram = talib.MACD(close)
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    stochastic_k, stochastic_d = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    squares = numpy.concatenate([[math.nan], numpy.diff(numpy.log(close)) ** 2])
    volatility = numpy.full(len(close), math.nan)
    for end in range(30, len(close)):
        volatility[end] = math.sqrt(squares[end - 29 : end + 1].mean())
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return {
            "rsi_14": talib.RSI(close, 14),
            "macd": macd,
            "macd_signal": macd_signal,
            "macd_histogram": macd_histogram,
            "bollinger_upper": upper,
            "bollinger_middle": middle,
            "bollinger_lower": lower,
            "bollinger_width": (upper - lower) / middle,
            "bollinger_percent_b": (close - lower) / (upper - lower),
            "atr_14": talib.ATR(high, low, close, 14),
            **{f"ema_{period}": talib.EMA(close, period) for period in (9, 21, 50, 200)},
            **{f"sma_{period}": talib.SMA(close, period) for period in (20, 50)},
            "adx_14": talib.ADX(high, low, close, 14),
            "plus_di_14": talib.PLUS_DI(high, low, close, 14),
            "minus_di_14": talib.MINUS_DI(high, low, close, 14),
            "obv": talib.OBV(close, volume),
            "stochastic_k": stochastic_k,
            "stochastic_d": stochastic_d,
            "rate_of_change_10": talib.ROC(close, 10),
            "realized_volatility_30": volatility,
        }


_OF_HUNDRED = {"rate_of_change_10", "stochastic_k", "stochastic_d", "rsi_14", "adx_14", "plus_di_14", "minus_di_14"}


def _scale(name: str, bar: Bar, values: dict[str, float], total_volume: float) -> float:
    """What a value is a difference of: of near numbers, so that the tolerance is of these, not of the difference."""
    if name.startswith("macd"):
        return bar.close
    if name == "bollinger_width":
        return 1.0
    if name == "bollinger_percent_b":
        return 1.0 / values["bollinger_width"]
    if name in _OF_HUNDRED:
        return 100.0
    return total_volume if name == "obv" else 0.0


def _assert_identical(bars: list[Bar], skip: frozenset[str] = frozenset()) -> None:
    indicators = all_indicators()
    batch = _batch(bars)
    total_volume = sum(bar.volume for bar in bars)
    for index, bar in enumerate(bars):
        values = update_all(indicators, bar, 1e18)
        expected = {name: series[index] for name, series in batch.items() if not math.isnan(series[index])}
        assert values.keys() - skip == expected.keys() - skip, f"candle {index}"
        for name in values.keys() - skip:
            tolerance = 1e-9 * _scale(name, bar, values, total_volume)
            close_enough = pytest.approx(expected[name], rel=1e-9, abs=tolerance)
            assert values[name] == close_enough, f"{name} at candle {index}"


@settings(max_examples=25)
@given(
    st.integers(0, 2**32),
    st.integers(1, 320),
    st.sampled_from([0.00002, 0.6, 150.0, 65000.0]),
    st.sampled_from([0.001, 0.01, 0.05]),
)
def test_each_is_what_ta_lib_gives_for_the_whole_history(seed: int, length: int, price: float, step: float) -> None:
    # TA-Lib takes a variance below 1e-14 for zero: of the cheapest prices it has no bands to compare with.
    cheap = frozenset({"bollinger_upper", "bollinger_lower", "bollinger_width", "bollinger_percent_b"})
    _assert_identical(_walk(seed, length, price, step), cheap if price < 0.1 else frozenset())


def test_candles_that_do_not_move_are_no_trouble() -> None:
    deviation = frozenset({"bollinger_upper", "bollinger_lower", "bollinger_width", "bollinger_percent_b"})
    for seed in range(5):
        _assert_identical(_walk(seed, 300, 100.0, 0.01, still=0.7), deviation)
    flat = [Bar(100.0, 100.0, 100.0, 1.0)] * 250
    _assert_identical(flat, deviation)


def test_what_was_never_seen_has_no_value() -> None:
    first = update_all(all_indicators(), Bar(101.0, 99.0, 100.0, 2.0), 1e18)
    assert first == {"obv": 2.0}
