"""Technical indicators that take one candle at a time.

Each gives, candle by candle, what TA-Lib (https://ta-lib.org) gives for the whole history at once, with its
conventions: simple averages start Wilder's and exponential ones, a value that has too little history is absent, and
MACD's fast average starts only where its slow one does. Sums over a window are made anew from the window, so that no
error builds up over days. Prices are in quote currency, volumes in base currency.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

# TA-Lib takes smaller numbers for zero when it divides.
_ZERO = 1e-14


@dataclass(frozen=True, slots=True)
class Bar:
    """A candle's numbers."""

    high: float
    low: float
    close: float
    volume: float


class Indicator(Protocol):
    """One indicator's state."""

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle. Returns the values that there is enough history for, by name."""


class _Sma:
    """Simple moving average of a series."""

    def __init__(self, period: int) -> None:
        self._window: deque[float] = deque(maxlen=period)
        self._period = period

    def update(self, value: float) -> float | None:
        self._window.append(value)
        return math.fsum(self._window) / self._period if len(self._window) == self._period else None


class _Ema:
    """Exponential moving average, starting from the simple average of the first `period` values."""

    def __init__(self, period: int) -> None:
        self._start = _Sma(period)
        self._factor = 2.0 / (period + 1)
        self._value: float | None = None

    def update(self, value: float) -> float | None:
        if self._value is None:
            self._value = self._start.update(value)
        else:
            self._value += self._factor * (value - self._value)
        return self._value


class _Wilder:
    """Wilder's smoothed average: starts from the simple average of the first `period` values."""

    def __init__(self, period: int) -> None:
        self._start = _Sma(period)
        self._period = period
        self._value: float | None = None

    def update(self, value: float) -> float | None:
        if self._value is None:
            self._value = self._start.update(value)
        else:
            self._value = (self._value * (self._period - 1) + value) / self._period
        return self._value


class SimpleMovingAverage:
    """`sma_<period>`: the mean of the last closes."""

    def __init__(self, period: int) -> None:
        self._name = f"sma_{period}"
        self._average = _Sma(period)

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        return _some({self._name: self._average.update(bar.close)})


class ExponentialMovingAverage:
    """`ema_<period>` of the close."""

    def __init__(self, period: int) -> None:
        self._name = f"ema_{period}"
        self._average = _Ema(period)

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        return _some({self._name: self._average.update(bar.close)})


class RelativeStrengthIndex:
    """`rsi_<period>`, 0 to 100 (J. W. Wilder, New Concepts in Technical Trading Systems, 1978); 0 without any move."""

    def __init__(self, period: int) -> None:
        self._name = f"rsi_{period}"
        self._gain, self._loss = _Wilder(period), _Wilder(period)
        self._close: float | None = None

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        before, self._close = self._close, bar.close
        if before is None:
            return {}
        change = bar.close - before
        gain, loss = self._gain.update(max(change, 0.0)), self._loss.update(max(-change, 0.0))
        if gain is None or loss is None:
            return {}
        return {self._name: _ratio(100.0 * gain, gain + loss)}


class Macd:
    """`macd`, `macd_signal`, `macd_histogram`: two exponential averages' difference, its average, and their difference.

    As in TA-Lib the fast average starts from the `fast` closes before the slow one's first value, and all three
    come together.
    """

    def __init__(self, fast: int = 12, slow: int = 26, signal: int = 9) -> None:
        self._fast, self._slow, self._signal = _Ema(fast), _Ema(slow), _Ema(signal)
        self._skip = slow - fast

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        slow = self._slow.update(bar.close)
        if self._skip:
            self._skip -= 1
            return {}
        fast = self._fast.update(bar.close)
        if fast is None or slow is None:
            return {}
        macd = fast - slow
        signal = self._signal.update(macd)
        if signal is None:
            return {}
        return {"macd": macd, "macd_signal": signal, "macd_histogram": macd - signal}


class BollingerBands:
    """`bollinger_upper`, `_middle`, `_lower`: mean of the last closes and that plus and minus standard deviations.

    `bollinger_width` is (upper - lower) / middle; `bollinger_percent_b` where the close is between lower (0) and
    upper (1), absent while the bands coincide.
    """

    def __init__(self, period: int = 20, deviations: float = 2.0) -> None:
        self._window: deque[float] = deque(maxlen=period)
        self._period = period
        self._deviations = deviations

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        self._window.append(bar.close)
        if len(self._window) < self._period:
            return {}
        middle = math.fsum(self._window) / self._period
        variance = math.fsum((close - middle) ** 2 for close in self._window) / self._period
        offset = self._deviations * math.sqrt(variance)
        upper, lower = middle + offset, middle - offset
        values = {
            "bollinger_upper": upper,
            "bollinger_middle": middle,
            "bollinger_lower": lower,
            "bollinger_width": (upper - lower) / middle,
        }
        if upper > lower:
            values["bollinger_percent_b"] = (bar.close - lower) / (upper - lower)
        return values


class AverageTrueRange:
    """`atr_<period>`, in quote currency (Wilder, 1978)."""

    def __init__(self, period: int) -> None:
        self._name = f"atr_{period}"
        self._average = _Wilder(period)
        self._before: Bar | None = None

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        before, self._before = self._before, bar
        return {} if before is None else _some({self._name: self._average.update(_true_range(before, bar))})


class DirectionalMovement:
    """`adx_<period>`, `plus_di_<period>`, `minus_di_<period>`, each 0 to 100 (Wilder, 1978)."""

    def __init__(self, period: int) -> None:
        self._period = period
        self._before: Bar | None = None
        self._count = 0
        self._plus = self._minus = self._range = 0.0
        self._index_sum = 0.0
        self._adx: float | None = None

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        before, self._before = self._before, bar
        if before is None:
            return {}
        self._count += 1
        if self._count >= self._period:
            # The first period - 1 moves are summed, later ones smoothed.
            keep = 1.0 - 1.0 / self._period
            self._plus, self._minus, self._range = self._plus * keep, self._minus * keep, self._range * keep
        up, down = bar.high - before.high, before.low - bar.low
        if down > 0 and up < down:
            self._minus += down
        elif up > 0 and up > down:
            self._plus += up
        self._range += _true_range(before, bar)
        if self._count < self._period:
            return {}
        plus, minus = _ratio(100.0 * self._plus, self._range), _ratio(100.0 * self._minus, self._range)
        values = {f"plus_di_{self._period}": plus, f"minus_di_{self._period}": minus}
        self._smooth_index(plus, minus)
        return values if self._adx is None else values | {f"adx_{self._period}": self._adx}

    def _smooth_index(self, plus: float, minus: float) -> None:
        known = plus + minus >= _ZERO
        index = 100.0 * abs(plus - minus) / (plus + minus) if known else 0.0
        if self._adx is not None:
            if known:
                self._adx = (self._adx * (self._period - 1) + index) / self._period
            return
        self._index_sum += index
        if self._count == 2 * self._period - 1:
            self._adx = self._index_sum / self._period


class OnBalanceVolume:
    """`obv`, in base currency: volume of rising candles less that of falling ones since the start of the history."""

    def __init__(self) -> None:
        self._close: float | None = None
        self._sum = 0.0

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        before, self._close = self._close, bar.close
        if before is None or bar.close > before:
            self._sum += bar.volume
        elif bar.close < before:
            self._sum -= bar.volume
        return {"obv": self._sum}


class Stochastic:
    """`stochastic_k`, `stochastic_d`, 0 to 100: where the close is in the range of the last candles, smoothed twice."""

    def __init__(self, period: int = 14, smooth: int = 3) -> None:
        self._highs: deque[float] = deque(maxlen=period)
        self._lows: deque[float] = deque(maxlen=period)
        self._period = period
        self._k, self._d = _Sma(smooth), _Sma(smooth)

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        self._highs.append(bar.high)
        self._lows.append(bar.low)
        if len(self._highs) < self._period:
            return {}
        high, low = max(self._highs), min(self._lows)
        k = self._k.update(100.0 * (bar.close - low) / (high - low) if high > low else 0.0)
        d = None if k is None else self._d.update(k)
        return {} if k is None or d is None else {"stochastic_k": k, "stochastic_d": d}


class RateOfChange:
    """`rate_of_change_<period>`: percent that the close changed by."""

    def __init__(self, period: int) -> None:
        self._name = f"rate_of_change_{period}"
        self._window: deque[float] = deque(maxlen=period + 1)
        self._period = period

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        self._window.append(bar.close)
        if len(self._window) <= self._period:
            return {}
        return {self._name: (bar.close / self._window[0] - 1.0) * 100.0}


class RealizedVolatility:
    """`realized_volatility_<period>`: root of the mean square of the last logarithmic returns, per candle.

    (T. G. Andersen et al., Econometrica 71, 579, 2003.) Times the root of the candles a year it is a year's.
    """

    def __init__(self, period: int) -> None:
        self._name = f"realized_volatility_{period}"
        self._squares: deque[float] = deque(maxlen=period)
        self._period = period
        self._close: float | None = None

    def update(self, bar: Bar) -> dict[str, float]:
        """Take the next candle."""
        before, self._close = self._close, bar.close
        if before is None:
            return {}
        self._squares.append(math.log(bar.close / before) ** 2)
        if len(self._squares) < self._period:
            return {}
        return {self._name: math.sqrt(math.fsum(self._squares) / self._period)}


def all_indicators() -> list[Indicator]:
    """The state of every indicator before the first candle."""
    return [
        RelativeStrengthIndex(14),
        Macd(),
        BollingerBands(),
        AverageTrueRange(14),
        *(ExponentialMovingAverage(period) for period in (9, 21, 50, 200)),
        *(SimpleMovingAverage(period) for period in (20, 50)),
        DirectionalMovement(14),
        OnBalanceVolume(),
        Stochastic(),
        RateOfChange(10),
        RealizedVolatility(30),
    ]


def update_all(indicators: Iterable[Indicator], bar: Bar, limit: float) -> dict[str, float]:
    """The next candle's values of all indicators, without those that are not a number within `limit`."""
    values: dict[str, float] = {}
    for indicator in indicators:
        values |= indicator.update(bar)
    return {name: value for name, value in values.items() if abs(value) <= limit}


def _true_range(before: Bar, bar: Bar) -> float:
    return max(bar.high - bar.low, abs(bar.high - before.close), abs(bar.low - before.close))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole >= _ZERO else 0.0


def _some(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
