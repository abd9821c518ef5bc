"""What fills do to a position: average cost, with fees kept apart."""

from dataclasses import dataclass
from decimal import Decimal

from tradewatch.common.events import Side


@dataclass(frozen=True)
class Position:
    """A product held: `quantity` in base currency, the rest in quote currency.

    `quantity` is below zero only where more was sold than was known; `realized_pnl` leaves the `fees` out.
    """

    quantity: Decimal = Decimal(0)
    average_price: Decimal = Decimal(0)
    realized_pnl: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)

    def after(self, side: Side, price: Decimal, size: Decimal, fee: Decimal) -> "Position":
        """The position after a fill of `size` base currency at `price`."""
        change = size if side is Side.BUY else -size
        quantity = self.quantity + change
        closed = min(size, abs(self.quantity)) if self.quantity * change < 0 else Decimal(0)
        gain = closed * (price - self.average_price) * (1 if self.quantity > 0 else -1)
        if quantity == 0:
            average = Decimal(0)
        elif not closed:
            average = (abs(self.quantity) * self.average_price + size * price) / abs(quantity)
        else:
            average = price if closed < size else self.average_price
        return Position(quantity, average, self.realized_pnl + gain, self.fees + fee)
