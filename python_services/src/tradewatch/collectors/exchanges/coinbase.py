"""Coinbase Advanced Trade market data over WebSocket.

Source: https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels and the AsyncAPI
description beside it. Every message has `channel`, `timestamp`, `sequence_num` and `events`; `client_id` is in the
prose but not always on the wire, and `heartbeat_counter` is a number or a string, so neither is relied on.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

from tradewatch.collectors.exchanges.protocol import Frame, FrameError, FrameReason, ItemReason
from tradewatch.common.events import MarketDataEvent, Side, Ticker, Trade, new_trace_id, parse_number, parse_time

MAX_SEQUENCE = 2**63 - 1
MAX_TRADE_ID_DIGITS = 20
MAX_ERROR_CHARACTERS = 200
_MAKER_TO_TAKER = {"BUY": Side.SELL, "SELL": Side.BUY}


class _Rejected(Exception):
    """One item of a frame cannot be used."""

    def __init__(self, reason: ItemReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Coinbase:
    """The `ticker`, `market_trades` and `heartbeats` channels of Coinbase Advanced Trade."""

    name = "coinbase"
    websocket_url = "wss://advanced-trade-ws.coinbase.com"
    event_channels: tuple[str, ...] = ("ticker", "market_trades")

    def __init__(self, products: tuple[str, ...]) -> None:
        self._products = products
        # Lookup by the wire's string gives our own one back: labels and stream names come from configuration only.
        self._known = {product: product for product in products}
        self._readers: dict[str, tuple[str, Callable[[dict[str, Any], _Envelope], MarketDataEvent]]] = {
            "ticker": ("tickers", self._ticker),
            "market_trades": ("trades", self._trade),
        }

    def subscribe_messages(self) -> list[str]:
        """One message a channel, as the exchange demands; heartbeats take no products."""
        products = list(self._products)
        return [
            json.dumps({"type": "subscribe", "channel": "heartbeats"}),
            *(
                json.dumps({"type": "subscribe", "product_ids": products, "channel": channel})
                for channel in self.event_channels
            ),
        ]

    def parse(self, data: str | bytes, received_time: datetime) -> Frame:
        """Understand one message. Raises FrameError, and nothing else whatever the bytes."""
        try:
            message = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise FrameError(FrameReason.INVALID_JSON) from None
        if not isinstance(message, dict):
            raise FrameError(FrameReason.INVALID_FRAME)
        if message.get("type") == "error":
            text = message.get("message")
            return Frame("error", None, error=text[:MAX_ERROR_CHARACTERS] if isinstance(text, str) else "no message")
        sequence = message.get("sequence_num")
        if type(sequence) is not int or not 0 <= sequence <= MAX_SEQUENCE:
            raise FrameError(FrameReason.INVALID_FRAME)
        channel = message.get("channel")
        events = message.get("events")
        if not isinstance(channel, str) or not isinstance(events, list):
            raise FrameError(FrameReason.INVALID_FRAME, sequence)
        if channel in ("heartbeats", "subscriptions"):
            return Frame(channel, sequence)
        reader = self._readers.get(channel)
        if reader is None:
            raise FrameError(FrameReason.UNKNOWN_CHANNEL, sequence)
        items_name, read = reader
        try:
            envelope = _Envelope(parse_time(_text(message.get("timestamp"))), received_time, sequence)
        except ValueError:
            raise FrameError(FrameReason.INVALID_FRAME, sequence) from None
        accepted: list[MarketDataEvent] = []
        rejected: list[ItemReason] = []
        for item in _items(events, items_name):
            try:
                if not isinstance(item, dict):
                    raise _Rejected(ItemReason.INVALID_EVENT)
                accepted.append(read(item, envelope))
            except _Rejected as error:
                rejected.append(error.reason)
        # Snapshots of trades come newest first; streams are to be in the order of time.
        accepted.sort(key=_order)
        snapshot = any(isinstance(event, dict) and event.get("type") == "snapshot" for event in events)
        return Frame(channel, sequence, tuple(accepted), tuple(rejected), snapshot)

    def _ticker(self, item: dict[str, Any], envelope: "_Envelope") -> Ticker:
        best_bid = _optional(item, "best_bid", ItemReason.BAD_PRICE)
        best_ask = _optional(item, "best_ask", ItemReason.BAD_PRICE)
        if best_bid is not None and best_ask is not None and best_bid > best_ask:
            raise _Rejected(ItemReason.CROSSED_QUOTE)
        return Ticker(
            exchange=self.name,
            product_id=self._product(item),
            price=_number(item.get("price"), ItemReason.BAD_PRICE),
            best_bid=best_bid,
            best_bid_size=_optional(item, "best_bid_quantity", ItemReason.BAD_SIZE, allow_zero=True),
            best_ask=best_ask,
            best_ask_size=_optional(item, "best_ask_quantity", ItemReason.BAD_SIZE, allow_zero=True),
            volume_24h=_optional(item, "volume_24_h", ItemReason.BAD_SIZE, allow_zero=True),
            exchange_time=envelope.time,
            received_time=envelope.received_time,
            sequence=envelope.sequence,
            trace_id=new_trace_id(),
        )

    def _trade(self, item: dict[str, Any], envelope: "_Envelope") -> Trade:
        product_id = self._product(item)
        trade_id = item.get("trade_id")
        if (
            not isinstance(trade_id, str)
            or not (trade_id.isascii() and trade_id.isdigit())
            or len(trade_id) > MAX_TRADE_ID_DIGITS
        ):
            raise _Rejected(ItemReason.INVALID_EVENT)
        # The wire gives the maker's side; what moves a price is the taker's.
        side = item.get("side")
        taker_side = _MAKER_TO_TAKER.get(side) if isinstance(side, str) else None
        if taker_side is None:
            raise _Rejected(ItemReason.INVALID_EVENT)
        try:
            time = parse_time(_text(item.get("time")))
        except ValueError:
            raise _Rejected(ItemReason.BAD_TIMESTAMP) from None
        return Trade(
            exchange=self.name,
            product_id=product_id,
            trade_id=trade_id,
            price=_number(item.get("price"), ItemReason.BAD_PRICE),
            size=_number(item.get("size"), ItemReason.BAD_SIZE),
            taker_side=taker_side,
            exchange_time=time,
            received_time=envelope.received_time,
            sequence=envelope.sequence,
            trace_id=new_trace_id(),
        )

    def _product(self, item: dict[str, Any]) -> str:
        product_id = item.get("product_id")
        if not isinstance(product_id, str):
            raise _Rejected(ItemReason.INVALID_EVENT)
        known = self._known.get(product_id)
        if known is None:
            raise _Rejected(ItemReason.UNKNOWN_PRODUCT)
        return known


class _Envelope:
    """What the events of one message share."""

    __slots__ = ("received_time", "sequence", "time")

    def __init__(self, time: datetime, received_time: datetime, sequence: int) -> None:
        self.time = time
        self.received_time = received_time
        self.sequence = sequence


def _order(event: MarketDataEvent) -> tuple[datetime, int]:
    return event.exchange_time, int(event.trade_id) if isinstance(event, Trade) else 0


def _items(events: list[Any], name: str) -> Iterator[Any]:
    """The tickers or trades of all events of a message; a malformed event yields one item that is none."""
    for event in events:
        items = event.get(name) if isinstance(event, dict) else None
        if isinstance(items, list):
            yield from items
        else:
            yield None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    return value


def _number(value: object, reason: ItemReason, allow_zero: bool = False) -> Decimal:
    """A number given as text, the only form the exchange uses."""
    if not isinstance(value, str):
        raise _Rejected(reason)
    try:
        return parse_number(value, allow_zero)
    except ValueError:
        raise _Rejected(reason) from None


def _optional(item: dict[str, Any], name: str, reason: ItemReason, allow_zero: bool = False) -> Decimal | None:
    value = item.get(name)
    return None if value is None or value == "" else _number(value, reason, allow_zero)


def _refuse_constant(name: str) -> NoReturn:
    """Python's JSON reader takes NaN and Infinity, which JSON does not have."""
    raise ValueError(name)
