"""Orders and fills as the exchange knows them.

Names and values follow https://docs.cdp.coinbase.com/api-reference/advanced-trade-api/rest-api/orders/create-order and
the pages beside it.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any


class OrderStatus(StrEnum):
    """PENDING is not matched yet, OPEN rests in the book, the others are final."""

    PENDING = "PENDING"
    OPEN = "OPEN"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"


class Side(StrEnum):
    """Whose side of the base currency."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    """What the price is bound by."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"


class TimeInForce(StrEnum):
    """How long what cannot be filled at once stays."""

    GTC = "GOOD_UNTIL_CANCELLED"
    GTD = "GOOD_UNTIL_DATE_TIME"
    IOC = "IMMEDIATE_OR_CANCEL"
    FOK = "FILL_OR_KILL"


class Liquidity(StrEnum):
    """Whether a fill took from the book or was taken from it."""

    MAKER = "MAKER"
    TAKER = "TAKER"


@dataclass(frozen=True)
class Instruction:
    """What a client asks for: `base_size` in base currency or `quote_size`, fees included, in quote currency.

    `configuration` is the order configuration as it came.
    """

    product_id: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    base_size: Decimal | None = None
    quote_size: Decimal | None = None
    limit_price: Decimal | None = None
    post_only: bool = False
    end_time: datetime | None = None
    configuration: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fill:
    """One match of an order: `size` in base, `price` and `commission` in quote currency; `sequence` rises by one."""

    sequence: int
    trade_id: str
    order_id: str
    product_id: str
    side: Side
    price: Decimal
    size: Decimal
    commission: Decimal
    liquidity: Liquidity
    time: datetime


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of price or size that was accepted."""

    price: Decimal
    size: Decimal
    time: datetime


@dataclass(eq=False)
class Order:
    """An order and what became of it.

    `sequence` is its place in the queue at its price, `number` its place in the history; `hold` is in quote currency
    for a buy and in base currency for a sell.
    """

    order_id: str
    client_order_id: str
    number: int
    sequence: int
    instruction: Instruction
    created: datetime
    base_size: Decimal | None
    limit_price: Decimal | None
    status: OrderStatus = OrderStatus.PENDING
    filled_size: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)
    hold: Decimal = Decimal(0)
    reject_reason: str = ""
    cancel_message: str = ""
    fills: list[Fill] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    @property
    def product_id(self) -> str:
        """The product."""
        return self.instruction.product_id

    @property
    def side(self) -> Side:
        """The side."""
        return self.instruction.side

    @property
    def remaining(self) -> Decimal:
        """Base size that is not filled; zero for an order by quote size."""
        return Decimal(0) if self.base_size is None else self.base_size - self.filled_size

    @property
    def final(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.status not in (OrderStatus.PENDING, OrderStatus.OPEN)

    @property
    def average_price(self) -> Decimal:
        """Of the fills, in quote currency, rounded to 12 places; zero without any."""
        if not self.filled_size:
            return Decimal(0)
        return round(self.filled_value / self.filled_size, 12)


class OrderRejected(Exception):
    """The order is not created. `error` and `preview` are the exchange's codes, `message` its wording."""

    def __init__(self, error: str, message: str = "", preview: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.message = message
        self.preview = preview or f"PREVIEW_{error}"


class EditRejected(Exception):
    """The order stays as it is; `reason` is the exchange's code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
