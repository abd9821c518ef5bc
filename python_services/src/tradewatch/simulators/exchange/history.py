"""The market's past since the start: trades and one-minute candles, for REST back-fill."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tradewatch.simulators.exchange.market import Market, ProductState
from tradewatch.simulators.exchange.prices import Tick

MAX_TRADES = 10_000
MINUTE_SECONDS = 60
MAX_CANDLES = 2 * 24 * 60


@dataclass(slots=True)
class Candle:
    """Prices in quote, volume in base, turnover in quote currency; `start` in seconds since 1970."""

    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    turnover: Decimal
    trades: int

    def merge(self, later: "Candle") -> None:
        """Take in the candle that follows."""
        self.high, self.low = max(self.high, later.high), min(self.low, later.low)
        self.close = later.close
        self.volume += later.volume
        self.turnover += later.turnover
        self.trades += later.trades


class History:
    """Trades and candles of every product, oldest first."""

    def __init__(self, market: Market) -> None:
        self.trades: dict[str, deque[tuple[Tick, datetime]]] = {}
        self._minutes: dict[str, deque[Candle]] = {}
        for product, state in market.states.items():
            self.trades[product] = deque(maxlen=MAX_TRADES)
            self._minutes[product] = deque(maxlen=MAX_CANDLES)
            self._on_tick(state.last, state)
        market.listeners.append(self._on_tick)

    def candles(self, product: str, width_seconds: int, start: int, end: int) -> list[Candle]:
        """Candles of a width of whole minutes whose start lies from `start` to `end`; without trades there is none."""
        found: list[Candle] = []
        for minute in self._minutes[product]:
            opening = minute.start - minute.start % width_seconds
            if not start <= opening <= end:
                continue
            part = Candle(
                opening,
                minute.open,
                minute.high,
                minute.low,
                minute.close,
                minute.volume,
                minute.turnover,
                minute.trades,
            )
            if found and found[-1].start == opening:
                found[-1].merge(part)
            else:
                found.append(part)
        return found

    def _on_tick(self, tick: Tick, state: ProductState) -> None:
        self.trades[tick.product_id].append((tick, state.last_time))
        seconds = int(state.last_time.timestamp())
        start = seconds - seconds % MINUTE_SECONDS
        candle = Candle(start, tick.price, tick.price, tick.price, tick.price, tick.size, tick.price * tick.size, 1)
        minutes = self._minutes[tick.product_id]
        if minutes and minutes[-1].start == start:
            minutes[-1].merge(candle)
        else:
            minutes.append(candle)
