"""Candles of one product over all exchanges: a fold over its trades in the order of the bus.

Nothing here reads a clock. Bus time is the time in an entry's id, so the same entries give the same candles whether
they are read live or again after a restart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from enum import StrEnum

from tradewatch.collectors.seen_ids import SeenIds
from tradewatch.common.events import Trade
from tradewatch.common.streams import Candle

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND_US = 1_000_000
NEVER = -1
# A trade from further ahead of the bus's time is the mark of a broken clock (the collector's own limit).
MAX_AHEAD_US = 60 * SECOND_US
# Sums are exact, so that they do not depend on the order of the trades; the average has the digits of a price.
_EXACT = Context(prec=120)
_VWAP = Context(prec=20)


class TradeFate(StrEnum):
    """Why a trade is in no candle, or not in all."""

    DUPLICATE = "duplicate"
    FUTURE = "future"
    OUTLIER = "outlier"


def microseconds(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - EPOCH) // MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The time that is so many microseconds after 1970."""
    return EPOCH + value * MICROSECOND


@dataclass(slots=True)
class _Open:
    """A candle in the making; the keys order its trades by time, exchange and id."""

    first_key: tuple[int, str, int]
    last_key: tuple[int, str, int]
    open: Decimal
    close: Decimal
    high: Decimal
    low: Decimal
    trace_id: str
    volume: Decimal = Decimal(0)
    turnover: Decimal = Decimal(0)
    trades: int = 0
    exchanges: set[str] = field(default_factory=set)

    def add(self, other: "_Open") -> None:
        if other.first_key < self.first_key:
            self.first_key, self.open = other.first_key, other.open
        if other.last_key > self.last_key:
            self.last_key, self.close, self.trace_id = other.last_key, other.close, other.trace_id
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.volume = _EXACT.add(self.volume, other.volume)
        self.turnover = _EXACT.add(self.turnover, other.turnover)
        self.trades += other.trades
        self.exchanges |= other.exchanges


@dataclass(slots=True)
class _Interval:
    """One interval's open candles by their start; candles that ended by `closed_us` are closed.

    Those that ended by `begun_us` were closed or left out before this fold began: a trade of theirs is not late.
    """

    seconds: int
    length_us: int
    closed_us: int = NEVER
    begun_us: int = NEVER
    # Trades before this are in the candles already: they came with finer candles (CandleFold.restore).
    covered_us: int = NEVER
    open: dict[int, _Open] = field(default_factory=dict)


class CandleFold:
    """All intervals of a product.

    A candle is closed when bus time has passed its end and either every exchange has given a trade from beyond the
    end, or `lateness_seconds` have passed since. What comes for a closed candle is late for it, though not
    necessarily for the longer intervals. An interval without trades gives no candle.
    """

    def __init__(
        self, product_id: str, exchanges: Sequence[str], intervals_seconds: Iterable[int], lateness_seconds: float
    ) -> None:
        self._product_id = product_id
        self._lateness_us = round(lateness_seconds * SECOND_US)
        self._intervals = [_Interval(seconds, seconds * SECOND_US) for seconds in sorted(intervals_seconds)]
        self._seen = {exchange: SeenIds() for exchange in exchanges}
        self._newest_us = dict.fromkeys(exchanges, NEVER)
        self._at_us = NEVER

    def add(self, bus_us: int, trade: Trade) -> tuple[TradeFate | None, list[int]]:
        """Take a trade that was put onto the bus at `bus_us`.

        Returns why it is in no candle (else None), and the intervals (seconds) for which it came too late.
        """
        at = microseconds(trade.exchange_time)
        if at > bus_us + MAX_AHEAD_US:
            return TradeFate.FUTURE, []
        number = int(trade.trade_id)
        if not self._seen[trade.exchange].add(number):
            return TradeFate.DUPLICATE, []
        self._newest_us[trade.exchange] = max(self._newest_us[trade.exchange], at)
        key = (at, trade.exchange, number)
        price = trade.price
        late = []
        for interval in self._intervals:
            start = at - at % interval.length_us
            if start < interval.closed_us:
                if start >= interval.begun_us:
                    late.append(interval.seconds)
                continue
            if at < interval.covered_us:
                continue
            single = _Open(
                key,
                key,
                price,
                price,
                price,
                price,
                trade.trace_id,
                trade.size,
                _EXACT.multiply(price, trade.size),
                1,
                {trade.exchange},
            )
            self._merge(interval, start, single)
        return None, late

    def advance(self, bus_us: int) -> list[Candle]:
        """Close what is to be closed at this bus time, given that every earlier entry was taken.

        Each time counts once: entries of one millisecond have no order, so nothing closes between them.
        """
        if bus_us <= self._at_us:
            return []
        self._at_us = bus_us
        bound = max(bus_us - self._lateness_us, min(bus_us, *self._newest_us.values()))
        closed: list[tuple[int, int, Candle]] = []
        for interval in self._intervals:
            frontier = bound - bound % interval.length_us
            if frontier <= interval.closed_us:
                continue
            interval.closed_us = frontier
            for start in [start for start in interval.open if start < frontier]:
                candle = self._candle(interval, start, interval.open.pop(start))
                closed.append((start + interval.length_us, interval.seconds, candle))
        closed.sort(key=lambda entry: entry[:2])
        return [candle for _, _, candle in closed]

    def restore(self, closed_us: dict[int, int]) -> None:
        """Start with everything that ended by `closed_us[interval in seconds]` closed."""
        for interval in self._intervals:
            interval.begun_us = interval.closed_us = closed_us[interval.seconds]

    def cover(self, candle: Candle, until_us: int) -> None:
        """Take a closed candle of the shortest interval in place of its trades, into the longer intervals' open ones.

        Trades before `until_us` are then left out of those.
        """
        start_us = microseconds(candle.start)
        length_us = candle.interval_seconds * SECOND_US
        whole = _Open(
            (start_us, "", 0),
            (start_us + length_us - 1, "", 0),
            candle.open,
            candle.close,
            candle.high,
            candle.low,
            candle.trace_id,
            candle.volume,
            _EXACT.multiply(candle.vwap, candle.volume),
            candle.trades,
            set(candle.exchanges),
        )
        for interval in self._intervals[1:]:
            start = start_us - start_us % interval.length_us
            if start >= interval.closed_us and interval.length_us % length_us == 0:
                interval.covered_us = until_us
                self._merge(interval, start, whole)

    @staticmethod
    def _merge(interval: _Interval, start: int, part: _Open) -> None:
        known = interval.open.get(start)
        if known is None:
            interval.open[start] = _Open(
                part.first_key,
                part.last_key,
                part.open,
                part.close,
                part.high,
                part.low,
                part.trace_id,
                part.volume,
                part.turnover,
                part.trades,
                set(part.exchanges),
            )
        else:
            known.add(part)

    def _candle(self, interval: _Interval, start: int, done: _Open) -> Candle:
        average = _VWAP.divide(done.turnover, done.volume)
        return Candle(
            product_id=self._product_id,
            interval_seconds=interval.seconds,
            start=from_microseconds(start),
            open=done.open,
            high=done.high,
            low=done.low,
            close=done.close,
            volume=done.volume,
            # Rounding must not put the average outside of the prices that it is of.
            vwap=min(max(average, done.low), done.high),
            trades=done.trades,
            exchanges=tuple(sorted(done.exchanges)),
            trace_id=done.trace_id,
        )
