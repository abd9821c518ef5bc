"""Kraken's public market data over WebSocket v2, and its past trades over REST.

Source: https://docs.kraken.com/api/docs/websocket-v2/ticker and the pages `trade`, `heartbeat` and `status` beside it.
A channel's message has `channel`, `type` (`snapshot` or `update`) and `data`; an answer to a request has `method` and
`success`. Prices and sizes are JSON numbers, read from their digits so that none is lost to a binary float. Messages
are not numbered: a trade's `trade_id` is "a sequence number, unique per book", so a hole in those is the gap that can
be seen. A lost ticker cannot be, and does no harm: the next one replaces it.

Past trades: https://docs.kraken.com/api/docs/rest-api/get-recent-trades. A trade is a row of price, volume, time in
seconds, side, order type, a remark and its id; errors come with status 200 in the list `error`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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

# Times are compared in nanoseconds there and known in microseconds here; what this fetches again is dropped by its id.
REST_OVERLAP = timedelta(seconds=1)
MAX_CURSOR_DIGITS = 20
_ROW = ("price", "qty", "time", "side", "order_type", "misc", "trade_id")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_REST_SIDES = {"b": Side.BUY, "s": Side.SELL}
_PLAIN_CHANNELS = ("heartbeat", "status")


@dataclass(frozen=True, slots=True)
class _Number:
    """A JSON number as it was written. A type of its own, so that no text passes for a number."""

    text: str


class Kraken:
    """The `ticker` and `trade` channels of Kraken's spot market; heartbeats come by themselves."""

    name = "kraken"
    websocket_url = "wss://ws.kraken.com/v2"
    rest_url = "https://api.kraken.com"
    # One public request a second is allowed.
    rest_interval_seconds = 1.0
    event_channels: tuple[str, ...] = ("ticker", "trade")
    trade_channel = "trade"

    def __init__(self, products: tuple[str, ...]) -> None:
        # BTC-USD here is BTC/USD there; v2 has no XBT any more.
        self._known = {product.replace("-", "/"): product for product in products}
        self._readers: dict[str, Callable[[dict[str, Any], datetime], MarketDataEvent]] = {
            "ticker": self._ticker,
            "trade": self._trade,
        }

    def subscribe_messages(self) -> list[str]:
        """One message a channel. The snapshot is asked for: its default differs by channel."""
        symbols = list(self._known)
        return [
            json.dumps({"method": "subscribe", "params": {"channel": channel, "symbol": symbols, "snapshot": True}})
            for channel in self.event_channels
        ]

    def parse(self, data: str | bytes, received_time: datetime) -> Frame:
        """Understand one message. Raises FrameError, and nothing else whatever the bytes."""
        message = read_object(data, number=_Number)
        if message.get("success") is False:
            return Frame("error", None, error=read_error(message.get("error")))
        method = message.get("method")
        if isinstance(method, str):
            return Frame(method, None)
        channel = message.get("channel")
        if not isinstance(channel, str):
            raise FrameError(FrameReason.INVALID_FRAME)
        if channel in _PLAIN_CHANNELS:
            return Frame(channel, None)
        read = self._readers.get(channel)
        if read is None:
            raise FrameError(FrameReason.UNKNOWN_CHANNEL)
        kind, items = message.get("type"), message.get("data")
        if kind not in ("snapshot", "update") or not isinstance(items, list):
            raise FrameError(FrameReason.INVALID_FRAME)
        accepted, rejected = read_items(items, lambda item: read(item, received_time))
        trade_ids = self._trade_ids(items) if channel == self.trade_channel else ()
        return Frame(channel, None, accepted, rejected, kind == "snapshot", trade_ids=trade_ids)

    def trades_request(self, hole: Hole, cursor: str | None) -> TradesRequest:
        """The oldest trades after a time in nanoseconds, which is the cursor: pages go on in time."""
        since = cursor or str(int((hole.after_time - REST_OVERLAP).timestamp()) * 1_000_000_000)
        return TradesRequest("/0/public/Trades", {"pair": hole.product_id.replace("-", ""), "since": since})

    def parse_trades(self, data: bytes, hole: Hole, received_time: datetime) -> TradesPage:
        """Understand a page of trades. Raises FrameError or ExchangeRefusal, and nothing else whatever the bytes."""
        message = read_object(data, number=_Number)
        errors = message.get("error")
        if isinstance(errors, list) and errors:
            text = read_error(errors[0])
            raise ExchangeRefusal(text, "Too many requests" in text or "Rate limit" in text)
        rows, last = _rows_and_last(message.get("result"))
        trades, rejected = read_items(
            (dict(zip(_ROW, row, strict=False)) if isinstance(row, list) else None for row in rows),
            lambda item: self._past_trade(item, hole.product_id, received_time),
        )
        reached = not rows or any(int(trade.trade_id) >= hole.before_id - 1 for trade in trades)
        # One less: of trades with the very same time some may be on the next page.
        return TradesPage(trades, rejected, None if reached else str(max(0, last - 1)))

    def _past_trade(self, item: dict[str, Any], product_id: str, received_time: datetime) -> Trade:
        side = item.get("side")
        taker_side = _REST_SIDES.get(side) if isinstance(side, str) else None
        if taker_side is None:
            raise Rejected(ItemReason.INVALID_EVENT)
        return Trade(
            exchange=self.name,
            product_id=product_id,
            trade_id=_trade_id(item),
            price=read_number(item.get("price"), ItemReason.BAD_PRICE),
            size=read_number(item.get("qty"), ItemReason.BAD_SIZE),
            taker_side=taker_side,
            exchange_time=_time(item.get("time")),
            received_time=received_time,
            sequence=NO_SEQUENCE,
            trace_id=new_trace_id(),
        )

    def _trade_ids(self, items: list[Any]) -> tuple[tuple[str, int], ...]:
        """The ids of all trades that have a readable one: a trade with a bad price came, so it is no gap."""
        found = []
        for item in items:
            try:
                if isinstance(item, dict):
                    found.append((self._product(item), int(_trade_id(item))))
            except Rejected:
                continue
        return tuple(sorted(found))

    def _ticker(self, item: dict[str, Any], received_time: datetime) -> Ticker:
        best_bid = _optional(item, "bid", ItemReason.BAD_PRICE)
        best_ask = _optional(item, "ask", ItemReason.BAD_PRICE)
        refuse_crossed(best_bid, best_ask)
        return Ticker(
            exchange=self.name,
            product_id=self._product(item),
            price=_number(item.get("last"), ItemReason.BAD_PRICE),
            best_bid=best_bid,
            best_bid_size=_optional(item, "bid_qty", ItemReason.BAD_SIZE, allow_zero=True),
            best_ask=best_ask,
            best_ask_size=_optional(item, "ask_qty", ItemReason.BAD_SIZE, allow_zero=True),
            volume_24h=_optional(item, "volume", ItemReason.BAD_SIZE, allow_zero=True),
            exchange_time=read_time(item.get("timestamp")),
            received_time=received_time,
            sequence=NO_SEQUENCE,
            trace_id=new_trace_id(),
        )

    def _trade(self, item: dict[str, Any], received_time: datetime) -> Trade:
        # Kraken gives the taker's side, unlike Coinbase.
        side = item.get("side")
        taker_side = _SIDES.get(side) if isinstance(side, str) else None
        if taker_side is None:
            raise Rejected(ItemReason.INVALID_EVENT)
        return Trade(
            exchange=self.name,
            product_id=self._product(item),
            trade_id=_trade_id(item),
            price=_number(item.get("price"), ItemReason.BAD_PRICE),
            size=_number(item.get("qty"), ItemReason.BAD_SIZE),
            taker_side=taker_side,
            exchange_time=read_time(item.get("timestamp")),
            received_time=received_time,
            sequence=NO_SEQUENCE,
            trace_id=new_trace_id(),
        )

    def _product(self, item: dict[str, Any]) -> str:
        return read_product(item.get("symbol"), self._known)


def _rows_and_last(result: object) -> tuple[list[Any], int]:
    """The rows, whose name is the exchange's own for the pair, such as XXBTZUSD, and the time that they reach up to."""
    if not isinstance(result, dict) or len(result) != 2:
        raise FrameError(FrameReason.INVALID_FRAME)
    last = result.get("last")
    rows = next((value for name, value in result.items() if name != "last"), None)
    if not isinstance(rows, list) or not isinstance(last, str) or len(last) > MAX_CURSOR_DIGITS:
        raise FrameError(FrameReason.INVALID_FRAME)
    if not (last.isascii() and last.isdigit()):
        raise FrameError(FrameReason.INVALID_FRAME)
    return rows, int(last)


def _trade_id(item: dict[str, Any]) -> str:
    value = item.get("trade_id")
    return read_trade_id(value.text if isinstance(value, _Number) else None)


def _number(value: object, reason: ItemReason, allow_zero: bool = False) -> Decimal:
    """A JSON number, the only form the exchange uses."""
    return read_number(value.text if isinstance(value, _Number) else None, reason, allow_zero)


def _time(value: object) -> datetime:
    """Seconds since 1970 as a JSON number; digits beyond microseconds are cut off."""
    seconds = _number(value, ItemReason.BAD_TIMESTAMP)
    try:
        return _EPOCH + timedelta(microseconds=int(seconds * 1_000_000))
    except OverflowError:
        raise Rejected(ItemReason.BAD_TIMESTAMP) from None


def _optional(item: dict[str, Any], name: str, reason: ItemReason, allow_zero: bool = False) -> Decimal | None:
    value = item.get(name)
    return None if value is None else _number(value, reason, allow_zero)
