"""The public order book of a product: several levels made from the last tick, less what was taken since.

The price process knows only the best bid and ask. Behind each of them this puts levels a spread apart that grow by half
of the best level's size with each step, so that a larger order fills in parts at worse prices. The next tick makes the
book anew, as makers of a liquid market do.
"""

from dataclasses import dataclass
from decimal import Decimal

from tradewatch.simulators.exchange.prices import SIZE_QUANTUM, Tick

LEVELS = 10
_GROWTH = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Level:
    """A price in quote currency and the size in base currency that rests there."""

    price: Decimal
    size: Decimal


class Book:
    """Bids and asks of one product, best first."""

    def __init__(self, price_increment: Decimal) -> None:
        self._increment = price_increment
        self._tick: Tick | None = None
        self._taken: dict[Decimal, Decimal] = {}

    def refresh(self, tick: Tick) -> None:
        """Take the quote of a tick; what was taken before it is forgotten."""
        self._tick = tick
        if self._taken:
            self._taken = {}

    def bids(self) -> list[Level]:
        """What there is to sell to."""
        if self._tick is None:
            return []
        return self._levels(self._tick.best_bid, self._tick.best_bid_size, -self._step(self._tick))

    def asks(self) -> list[Level]:
        """What there is to buy."""
        if self._tick is None:
            return []
        return self._levels(self._tick.best_ask, self._tick.best_ask_size, self._step(self._tick))

    def take(self, price: Decimal, size: Decimal) -> None:
        """Remove a size from the level at a price until the next tick."""
        self._taken[price] = self._taken.get(price, Decimal(0)) + size

    def _step(self, tick: Tick) -> Decimal:
        return max(self._increment, tick.best_ask - tick.best_bid)

    def _levels(self, best: Decimal, size: Decimal, step: Decimal) -> list[Level]:
        levels = []
        for index in range(LEVELS):
            price = best + step * index
            left = (size * (1 + _GROWTH * index)).quantize(SIZE_QUANTUM) - self._taken.get(price, Decimal(0))
            if price > 0 and left > 0:
                levels.append(Level(price, left))
        return levels
