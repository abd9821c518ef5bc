"""Coinbase Advanced Trade market data over WebSocket, and its past trades over REST.

Source: https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels and the AsyncAPI
description beside it. Every message has `channel`, `timestamp`, `sequence_num` and `events`; `client_id` is in the
prose but not always on the wire, and `heartbeat_counter` is a number or a string, so neither is relied on. Past trades:
`Get Public Market Trades` of the REST reference; newest first, and as in the channel the side is the maker's.
"""

import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from tradewatch.collectors.exchanges.protocol import (
    ExchangeRefusal,
    Frame,
    FrameError,
    FrameReason,
    Hole,
    ItemReason,
    TradesPage,
    TradesRequest,
)
from tradewatch.collectors.exchanges.wire import (
    NO_SEQUENCE,
    Rejected,
    read_error,
    read_items,
    read_number,
    read_object,
    read_product,
    read_time,
    read_trade_id,
    refuse_crossed,
)
from tradewatch.common.events import MarketDataEvent, Side, Ticker, Trade, new_trace_id

MAX_SEQUENCE = 2**63 - 1
REST_PAGE_TRADES = 1000
_MAKER_TO_TAKER = {"BUY": Side.SELL, "SELL": Side.BUY}


class Coinbase:
    """The `ticker`, `market_trades` and `heartbeats` channels of Coinbase Advanced Trade."""

    name = "coinbase"
    websocket_url = "wss://advanced-trade-ws.coinbase.com"
    rest_url = "https://api.coinbase.com"
    # Ten public requests a second are allowed.
    rest_interval_seconds = 0.2
    event_channels: tuple[str, ...] = ("ticker", "market_trades")
    trade_channel = "market_trades"

    def __init__(self, products: tuple[str, ...]) -> None:
        self._products = products
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
        message = read_object(data)
        if message.get("type") == "error":
            return Frame("error", None, error=read_error(message.get("message")))
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
            envelope = _Envelope(read_time(message.get("timestamp")), received_time, sequence)
        except Rejected:
            raise FrameError(FrameReason.INVALID_FRAME, sequence) from None
        # Snapshots of trades come newest first; read_items puts them in the order of time.
        accepted, rejected = read_items(_items(events, items_name), lambda item: read(item, envelope))
        snapshot = any(isinstance(event, dict) and event.get("type") == "snapshot" for event in events)
        return Frame(channel, sequence, accepted, rejected, snapshot)

    def trades_request(self, hole: Hole, cursor: str | None) -> TradesRequest:
        """The newest trades up to a second, which is the cursor: pages go back in time."""
        return TradesRequest(
            f"/api/v3/brokerage/market/products/{hole.product_id}/ticker",
            {
                "limit": str(REST_PAGE_TRADES),
                "start": str(math.floor(hole.after_time.timestamp())),
                "end": cursor or str(_next_second(hole.before_time)),
            },
        )

    def parse_trades(self, data: bytes, hole: Hole, received_time: datetime) -> TradesPage:
        """Understand a page of trades. Raises FrameError or ExchangeRefusal, and nothing else whatever the bytes."""
        message = read_object(data)
        if "error" in message:
            raise ExchangeRefusal(read_error(message.get("message")), rate_limited=False)
        items = message.get("trades")
        if not isinstance(items, list):
            raise FrameError(FrameReason.INVALID_FRAME)
        envelope = _Envelope(received_time, received_time, NO_SEQUENCE)

        def read(item: dict[str, Any]) -> Trade:
            trade = self._trade(item, envelope)
            if trade.product_id != hole.product_id:
                raise Rejected(ItemReason.UNKNOWN_PRODUCT)
            return trade

        trades, rejected = read_items(items, read)
        reached = not trades or min(int(trade.trade_id) for trade in trades) <= hole.after_id + 1
        return TradesPage(trades, rejected, None if reached else str(_next_second(trades[0].exchange_time)))

    def _ticker(self, item: dict[str, Any], envelope: "_Envelope") -> Ticker:
        best_bid = _optional(item, "best_bid", ItemReason.BAD_PRICE)
        best_ask = _optional(item, "best_ask", ItemReason.BAD_PRICE)
        refuse_crossed(best_bid, best_ask)
        return Ticker(
            exchange=self.name,
            product_id=read_product(item.get("product_id"), self._known),
            price=read_number(item.get("price"), ItemReason.BAD_PRICE),
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
        product_id = read_product(item.get("product_id"), self._known)
        trade_id = read_trade_id(item.get("trade_id"))
        # The wire gives the maker's side; what moves a price is the taker's.
        side = item.get("side")
        taker_side = _MAKER_TO_TAKER.get(side) if isinstance(side, str) else None
        if taker_side is None:
            raise Rejected(ItemReason.INVALID_EVENT)
        return Trade(
            exchange=self.name,
            product_id=product_id,
            trade_id=trade_id,
            price=read_number(item.get("price"), ItemReason.BAD_PRICE),
            size=read_number(item.get("size"), ItemReason.BAD_SIZE),
            taker_side=taker_side,
            exchange_time=read_time(item.get("time")),
            received_time=envelope.received_time,
            sequence=envelope.sequence,
            trace_id=new_trace_id(),
        )


class _Envelope:
    """What the events of one message share."""

    __slots__ = ("received_time", "sequence", "time")

    def __init__(self, time: datetime, received_time: datetime, sequence: int) -> None:
        self.time = time
        self.received_time = received_time
        self.sequence = sequence


def _next_second(time: datetime) -> int:
    """The exchange takes whole seconds only, so a range ends with the second that follows."""
    return math.floor(time.timestamp()) + 1


def _items(events: list[Any], name: str) -> Iterator[Any]:
    """The tickers or trades of all events of a message; a malformed event yields one item that is none."""
    for event in events:
        items = event.get(name) if isinstance(event, dict) else None
        if isinstance(items, list):
            yield from items
        else:
            yield None


def _optional(item: dict[str, Any], name: str, reason: ItemReason, allow_zero: bool = False) -> Decimal | None:
    value = item.get(name)
    return None if value is None or value == "" else read_number(value, reason, allow_zero)
