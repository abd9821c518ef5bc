"""The seeded price process.

The logarithm of price over anchor is an Ornstein-Uhlenbeck process, dX = -theta X dt + sigma dW, so prices move like
a geometric Brownian motion in the short run and are pulled back to the anchor in the long run (a lab that runs for
weeks stays at sensible prices). It is advanced by its exact discretisation over a step of dt seconds
(D. T. Gillespie, Phys. Rev. E 54, 2084, 1996):

    X' = X exp(-theta dt) + sigma sqrt((1 - exp(-2 theta dt)) / (2 theta)) N(0, 1)

The prices and sizes of a product's n-th tick depend only on (seed, product, step, n), never on the clock.
"""

import hashlib
import math
import random
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

# sigma = 0.8 a year is typical of these assets.
SECONDS_A_YEAR = 365 * 24 * 3600
SIGMA = 0.8 / math.sqrt(SECONDS_A_YEAR)
# How long it takes to be pulled half-way back.
HALF_LIFE_SECONDS = 6 * 3600.0
# A step this long would be one tick every half day; longer ones only lose precision.
MAX_STEP_SECONDS = 3600.0

_ANCHORS = {"BTC": 65000.0, "ETH": 3200.0, "SOL": 150.0, "XRP": 0.6, "ADA": 0.45, "DOGE": 0.15, "LTC": 80.0}
SIZE_QUANTUM = Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class Tick:
    """One match and the best quote after it.

    Prices in quote currency, sizes in base currency; `trade_id` rises by one a product; `buyer_is_maker` says which
    side was resting.
    """

    product_id: str
    trade_id: int
    price: Decimal
    size: Decimal
    buyer_is_maker: bool
    best_bid: Decimal
    best_bid_size: Decimal
    best_ask: Decimal
    best_ask_size: Decimal


class PriceProcess:
    """The endless sequence of a product's ticks, `step_seconds` of market time apart."""

    def __init__(
        self,
        seed: int,
        product_id: str,
        step_seconds: float,
        first_trade_id: int = 1,
        half_life_seconds: float = HALF_LIFE_SECONDS,
    ) -> None:
        theta = math.log(2) / half_life_seconds
        step = min(step_seconds, MAX_STEP_SECONDS)
        self._product_id = product_id
        # A string seed goes through SHA-512, so it is the same on every Python and machine.
        self._random = random.Random(f"{seed}:{product_id}")  # noqa: S311
        self._anchor = _anchor(product_id)
        self._decay = math.exp(-theta * step)
        self._spread_of_step = SIGMA * math.sqrt((1.0 - math.exp(-2.0 * theta * step)) / (2.0 * theta))
        self._x = 0.0
        self._trade_id = first_trade_id - 1
        # Five significant digits before the increment: 0.01 for BTC, 0.00001 for DOGE.
        self.increment = Decimal(1).scaleb(max(-8, min(0, math.floor(math.log10(self._anchor)) - 6)))

    def next_tick(self) -> Tick:
        """Advance by one step."""
        self._x = self._x * self._decay + self._spread_of_step * self._random.gauss(0.0, 1.0)
        self._trade_id += 1
        middle = Decimal(self._anchor * math.exp(self._x))
        half_spread = max(self.increment, self._round(middle * Decimal("0.00005")))
        best_bid = max(self.increment, self._round(middle - half_spread))
        best_ask = best_bid + 2 * half_spread
        buyer_is_maker = self._random.random() < 0.5
        return Tick(
            product_id=self._product_id,
            trade_id=self._trade_id,
            price=best_bid if buyer_is_maker else best_ask,
            size=self._size(1000.0),
            buyer_is_maker=buyer_is_maker,
            best_bid=best_bid,
            best_bid_size=self._size(20000.0),
            best_ask=best_ask,
            best_ask_size=self._size(20000.0),
        )

    def _round(self, price: Decimal) -> Decimal:
        return price.quantize(self.increment, ROUND_HALF_EVEN)

    def _size(self, notional: float) -> Decimal:
        """A log-normal size worth about `notional` in quote currency."""
        size = notional / self._anchor * math.exp(self._random.gauss(0.0, 1.0))
        return max(SIZE_QUANTUM, Decimal(size).quantize(SIZE_QUANTUM))


def _anchor(product_id: str) -> float:
    """The price a product is pulled back to; one that is not in the table gets a steady one from its name."""
    base, quote = product_id.split("-", 1)
    if quote in ("USD", "USDC", "USDT", "EUR") and base in _ANCHORS:
        return _ANCHORS[base]
    digest = hashlib.sha256(product_id.encode()).digest()
    return float(1.0 + int.from_bytes(digest[:2], "big") / 100.0)
