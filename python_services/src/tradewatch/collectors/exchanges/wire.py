"""What the exchanges' parsers share: reading JSON and its fields when neither can be trusted."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from tradewatch.collectors.exchanges.protocol import FrameError, FrameReason, ItemReason
from tradewatch.common.events import MarketDataEvent, Trade
from tradewatch.common.fields import parse_number, parse_time

MAX_TRADE_ID_DIGITS = 20
MAX_ERROR_CHARACTERS = 200
# What an event carries as its message's number where the exchange gives none.
NO_SEQUENCE = 0

EventT = TypeVar("EventT", bound=MarketDataEvent)


class Rejected(Exception):
    """One item of a frame cannot be used."""

    def __init__(self, reason: ItemReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def read_object(data: str | bytes, number: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """The JSON object of a frame; `number` makes the value of a JSON number from its text. Raises FrameError."""
    try:
        message = json.loads(data, parse_constant=_refuse_constant, parse_int=number, parse_float=number)
    except (ValueError, RecursionError):
        raise FrameError(FrameReason.INVALID_JSON) from None
    if not isinstance(message, dict):
        raise FrameError(FrameReason.INVALID_FRAME)
    return message


def read_items(
    items: Iterable[Any], read: Callable[[dict[str, Any]], EventT]
) -> tuple[tuple[EventT, ...], tuple[ItemReason, ...]]:
    """The events of the items that `read` takes, in the order of time, and why it raised Rejected for the others."""
    accepted: list[EventT] = []
    rejected: list[ItemReason] = []
    for item in items:
        try:
            if not isinstance(item, dict):
                raise Rejected(ItemReason.INVALID_EVENT)
            accepted.append(read(item))
        except Rejected as error:
            rejected.append(error.reason)
    accepted.sort(key=_order)
    return tuple(accepted), tuple(rejected)


def read_error(value: object) -> str:
    """The exchange's own complaint, cut to what a log line can hold."""
    return value[:MAX_ERROR_CHARACTERS] if isinstance(value, str) else "no message"


def read_product(value: object, known: dict[str, str]) -> str:
    """Our own string for the exchange's name of a product: labels and stream names come from configuration only."""
    if not isinstance(value, str):
        raise Rejected(ItemReason.INVALID_EVENT)
    product = known.get(value)
    if product is None:
        raise Rejected(ItemReason.UNKNOWN_PRODUCT)
    return product


def read_trade_id(text: object) -> str:
    """A whole number of a bounded length, as text."""
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or len(text) > MAX_TRADE_ID_DIGITS:
        raise Rejected(ItemReason.INVALID_EVENT)
    return text


def read_number(text: object, reason: ItemReason, allow_zero: bool = False) -> Decimal:
    """A number from its text; anything else is Rejected with `reason`."""
    if not isinstance(text, str):
        raise Rejected(reason)
    try:
        return parse_number(text, allow_zero)
    except ValueError:
        raise Rejected(reason) from None


def read_time(value: object) -> datetime:
    """A time with its zone, as text."""
    if not isinstance(value, str):
        raise Rejected(ItemReason.BAD_TIMESTAMP)
    try:
        return parse_time(value)
    except ValueError:
        raise Rejected(ItemReason.BAD_TIMESTAMP) from None


def refuse_crossed(best_bid: Decimal | None, best_ask: Decimal | None) -> None:
    """A bid above the ask cannot be a resting quote."""
    if best_bid is not None and best_ask is not None and best_bid > best_ask:
        raise Rejected(ItemReason.CROSSED_QUOTE)


def _order(event: MarketDataEvent) -> tuple[datetime, int]:
    return event.exchange_time, int(event.trade_id) if isinstance(event, Trade) else 0


def _refuse_constant(name: str) -> NoReturn:
    """Python's JSON reader takes NaN and Infinity, which JSON does not have."""
    raise ValueError(name)
