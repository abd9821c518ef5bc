"""How often past signals were right, counted as training counts it."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tradewatch.common.events import Side

MAX_SIGNALS = 200


@dataclass(frozen=True, slots=True)
class _Due:
    product_id: str
    side: Side
    price: Decimal
    at: datetime


class Accuracy:
    """Signals waiting for their outcome, and the outcomes of the window.

    A signal counts at the first price of its product `horizon` after it, at most `tolerance` later; one that meets
    none is not counted, for nothing is known of it.
    """

    def __init__(self, horizon: timedelta, tolerance: timedelta, window: timedelta, cost_ratio: float) -> None:
        self._horizon = horizon
        self._tolerance = tolerance
        self._window = window
        self._cost_ratio = cost_ratio
        self._due: deque[_Due] = deque(maxlen=MAX_SIGNALS)
        self._outcomes: deque[tuple[datetime, bool]] = deque(maxlen=MAX_SIGNALS)

    def expect(self, product_id: str, side: Side, price: Decimal, created: datetime) -> None:
        """A signal was made at this mid price."""
        self._due.append(_Due(product_id, side, price, created + self._horizon))

    def take_price(self, product_id: str, price: Decimal, at: datetime) -> None:
        """A mid price: judges the product's signals that are due, and forgets outcomes older than the window."""
        waiting = []
        for signal in self._due:
            if signal.product_id != product_id or at < signal.at:
                waiting.append(signal)
            elif at - signal.at <= self._tolerance:
                change = float(price / signal.price) - 1
                gain = change if signal.side is Side.BUY else -change
                self._outcomes.append((at, gain > self._cost_ratio))
        if len(waiting) < len(self._due):
            self._due = deque(waiting, maxlen=MAX_SIGNALS)
        while self._outcomes and at - self._outcomes[0][0] > self._window:
            self._outcomes.popleft()

    @property
    def count(self) -> int:
        """Signals judged within the window."""
        return len(self._outcomes)

    @property
    def ratio(self) -> float:
        """Share of them that were right; NaN without any."""
        return sum(right for _, right in self._outcomes) / self.count if self.count else float("nan")
