"""Market data events and their form on the bus.

An event goes to the stream `market_data:<exchange>:<product_id>` as one entry of text fields: times as ISO 8601 in
UTC with microseconds, prices and sizes as plain decimals (no exponent), and `kind` saying which class it is.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from tradewatch.common.fields import EventDecodeError, FieldReader, format_time

SCHEMA_VERSION = "1"


class Side(StrEnum):
    """Which side of the book an order is on."""

    BUY = "BUY"
    SELL = "SELL"


@dataclass(frozen=True, slots=True)
class Ticker:
    """The best quote and last price of a product.

    Prices are in quote currency, sizes and `volume_24h` in base currency. `sequence` counts the messages of one
    connection to the exchange; `trace_id` is 32 hexadecimal digits, new for each event.
    """

    exchange: str
    product_id: str
    price: Decimal
    best_bid: Decimal | None
    best_bid_size: Decimal | None
    best_ask: Decimal | None
    best_ask_size: Decimal | None
    volume_24h: Decimal | None
    exchange_time: datetime
    received_time: datetime
    sequence: int
    trace_id: str


@dataclass(frozen=True, slots=True)
class Trade:
    """One match at the exchange.

    `price` is in quote currency, `size` in base currency. `taker_side` is the side of the order that took liquidity;
    the (exchange, product_id, trade_id) triple is unique and is what consumers drop duplicates by.
    """

    exchange: str
    product_id: str
    trade_id: str
    price: Decimal
    size: Decimal
    taker_side: Side
    exchange_time: datetime
    received_time: datetime
    sequence: int
    trace_id: str


MarketDataEvent = Ticker | Trade


def new_trace_id() -> str:
    """A random trace id: 32 hexadecimal digits, as in W3C Trace Context."""
    return secrets.token_hex(16)


def stream_name(exchange: str, product_id: str) -> str:
    """The stream that holds a product's events."""
    return f"market_data:{exchange}:{product_id}"


def encode(event: MarketDataEvent) -> dict[str, str]:
    """The stream fields of an event. Optional numbers that are absent have no field."""
    fields = {
        "kind": "ticker" if isinstance(event, Ticker) else "trade",
        "schema": SCHEMA_VERSION,
        "exchange": event.exchange,
        "product_id": event.product_id,
        "price": format(event.price, "f"),
        "exchange_time": format_time(event.exchange_time),
        "received_time": format_time(event.received_time),
        "sequence": str(event.sequence),
        "trace_id": event.trace_id,
    }
    if isinstance(event, Trade):
        fields["trade_id"] = event.trade_id
        fields["size"] = format(event.size, "f")
        fields["taker_side"] = event.taker_side.value
        return fields
    for name, value in (
        ("best_bid", event.best_bid),
        ("best_bid_size", event.best_bid_size),
        ("best_ask", event.best_ask),
        ("best_ask_size", event.best_ask_size),
        ("volume_24h", event.volume_24h),
    ):
        if value is not None:
            fields[name] = format(value, "f")
    return fields


def decode(fields: Mapping[bytes, bytes] | Mapping[str, str]) -> MarketDataEvent:
    """The event of a stream entry, as the client returned it (bytes or text).

    Raises:
        EventDecodeError: a field is missing, malformed or out of range, or the kind or schema is unknown.
    """
    reader = FieldReader(fields)
    if reader.text("schema") != SCHEMA_VERSION:
        raise EventDecodeError("schema: unknown version")
    kind = reader.text("kind")
    if kind == "trade":
        try:
            side = Side(reader.text("taker_side"))
        except ValueError:
            raise EventDecodeError("taker_side: neither BUY nor SELL") from None
        return Trade(
            exchange=reader.text("exchange"),
            product_id=reader.text("product_id"),
            trade_id=reader.text("trade_id"),
            price=reader.positive("price"),
            size=reader.positive("size"),
            taker_side=side,
            exchange_time=reader.time("exchange_time"),
            received_time=reader.time("received_time"),
            sequence=reader.integer("sequence"),
            trace_id=reader.text("trace_id"),
        )
    if kind == "ticker":
        return Ticker(
            exchange=reader.text("exchange"),
            product_id=reader.text("product_id"),
            price=reader.positive("price"),
            best_bid=reader.optional_positive("best_bid"),
            best_bid_size=reader.optional_size("best_bid_size"),
            best_ask=reader.optional_positive("best_ask"),
            best_ask_size=reader.optional_size("best_ask_size"),
            volume_24h=reader.optional_size("volume_24h"),
            exchange_time=reader.time("exchange_time"),
            received_time=reader.time("received_time"),
            sequence=reader.integer("sequence"),
            trace_id=reader.text("trace_id"),
        )
    raise EventDecodeError("kind: neither ticker nor trade")
