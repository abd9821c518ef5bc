"""The life of an order, as a pure state machine.

    pending -> submitted -> open -> partially_filled -> filled | cancelled | expired | rejected
                  |  ^
                  v  |      (looked up, never sent again)
                unknown

`pending` is not sent, or answered in a way that means it was not taken. `submitted` may be at the exchange. `unknown`
is a send without an answer that says which. A final state stays, and the filled size never shrinks.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from tradewatch.trading.contracts import OrderStatus

FINAL = frozenset({OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED, OrderStatus.EXPIRED})
AT_EXCHANGE = frozenset({OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED})


class Reason(StrEnum):
    """Why an order ended as it did: the values of `orders.reason` and of the metric's label."""

    COMPLETE = "complete"
    HALTED = "halted"
    REDUCING_ONLY = "reducing_only"
    NO_POSITION = "no_position"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    PRODUCT_UNAVAILABLE = "product_unavailable"
    NEVER_SENT = "never_sent"
    NEVER_REACHED = "never_reached_exchange"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    UNAUTHORIZED = "unauthorized"
    EXCHANGE_REFUSED = "exchange_refused"
    EXCHANGE_FAILED = "exchange_failed"
    UNFILLED_REST = "unfilled_rest"
    TIME_LIMIT = "time_limit"
    CANCEL_ALL = "cancel_all"
    EXPIRED = "expired"


_DEFAULT_REASON = {
    OrderStatus.FILLED: Reason.COMPLETE,
    OrderStatus.CANCELLED: Reason.UNFILLED_REST,
    OrderStatus.EXPIRED: Reason.EXPIRED,
    OrderStatus.REJECTED: Reason.EXCHANGE_FAILED,
}


@dataclass(frozen=True)
class OrderState:
    """What the machine knows of an order; `filled_size` in base currency, the sum of the fills that are stored."""

    status: OrderStatus = OrderStatus.PENDING
    filled_size: Decimal = Decimal(0)
    exchange_order_id: str | None = None
    reason: Reason | None = None

    @property
    def final(self) -> bool:
        """Whether its status can no longer change."""
        return self.status in FINAL


@dataclass(frozen=True)
class Sending:
    """The request is about to leave: from now on it may be at the exchange."""


@dataclass(frozen=True)
class NotAccepted:
    """The exchange certainly did not take it: it was throttled, or never reached."""


@dataclass(frozen=True)
class Accepted:
    """The exchange took it."""

    exchange_order_id: str


@dataclass(frozen=True)
class NoAnswer:
    """Nobody can say whether the exchange took it."""


@dataclass(frozen=True)
class Rejected:
    """It ends without having been at the exchange: refused there or here, or looked for in vain."""

    reason: Reason


@dataclass(frozen=True)
class Observed:
    """What the exchange says of it.

    `status` is OPEN or a final one, `filled_size` the exchange's sum, `stored_size` the sum of the fills known here.
    """

    exchange_order_id: str
    status: OrderStatus
    filled_size: Decimal
    stored_size: Decimal


Event = Sending | NotAccepted | Accepted | NoAnswer | Rejected | Observed


class InvalidTransition(Exception):
    """The event cannot happen to an order in this state."""


def advance(order: OrderState, event: Event) -> OrderState:
    """The order after an event.

    Raises:
        InvalidTransition: above all when something would send an order that may be at the exchange already.
    """
    if isinstance(event, Observed):
        return _observe(order, event)
    if order.final:
        raise InvalidTransition(f"{type(event).__name__} of an order that is {order.status}")
    match event:
        case Sending() if order.status is OrderStatus.PENDING:
            return replace(order, status=OrderStatus.SUBMITTED)
        case NotAccepted() if order.status is OrderStatus.SUBMITTED:
            return replace(order, status=OrderStatus.PENDING)
        case Accepted() if order.status in (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN):
            return replace(order, status=OrderStatus.OPEN, exchange_order_id=event.exchange_order_id)
        case NoAnswer() if order.status in (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN):
            return replace(order, status=OrderStatus.UNKNOWN)
        case Rejected() if order.status not in AT_EXCHANGE:
            return replace(order, status=OrderStatus.REJECTED, reason=event.reason)
    raise InvalidTransition(f"{type(event).__name__} of an order that is {order.status}")


def _observe(order: OrderState, event: Observed) -> OrderState:
    filled = max(order.filled_size, event.stored_size)
    if order.final:
        return replace(order, filled_size=filled)
    known = replace(order, filled_size=filled, exchange_order_id=event.exchange_order_id)
    if event.status not in FINAL or filled < event.filled_size:
        # An end without all of its fills is not yet the end: the position would lack them.
        return replace(known, status=OrderStatus.PARTIALLY_FILLED if filled else OrderStatus.OPEN)
    reason = Reason.COMPLETE if event.status is OrderStatus.FILLED else order.reason or _DEFAULT_REASON[event.status]
    return replace(known, status=event.status, reason=reason)
