"""Kraken's public WebSocket v2, as a feed of the server.

Follows https://docs.kraken.com/api/docs/websocket-v2/ticker and the pages `trade`, `heartbeat`, `status` and `ping`
beside it: a status message on connecting, an answer for each symbol of a request and then that symbol's snapshot (of
trades the last 50, oldest first), a trade's update at once, a heartbeat after a second without any other message. A
client that subscribes to nothing is disconnected after a minute. Highs, lows, volume and vwap are since the start, not
of 24 hours. The wording of errors other than that of an unknown pair is our own.
"""

import itertools
import json
import time
from datetime import datetime
from typing import Any

from tradewatch.simulators.exchange.feed_server import Connection, RequestRefused, format_time, now_text
from tradewatch.simulators.exchange.market import Market, ProductState
from tradewatch.simulators.exchange.prices import Tick

HEARTBEAT_SECONDS = 1.0
SNAPSHOT_TRADES = 50
_CHANNELS = ("ticker", "trade")
# What the `snapshot` parameter is when a request leaves it out.
_SNAPSHOT_DEFAULTS = {"ticker": True, "trade": False}
# What takes the place of a ticker's price; the exchange writes JSON numbers, so text is as wrong as a huge exponent.
_BAD_PRICES: dict[str, str] = {
    "nan": '"NaN"',
    "negative": "-1.00",
    "zero": "0",
    "infinite": "1e999999",
    "text": '"free"',
    "number": '"1.5"',
}


class KrakenFeed:
    """Kraken's feed, at the path that it has at the real exchange."""

    exchange = "kraken"
    paths: tuple[str, ...] = ("/v2",)
    subscribe_seconds = 60.0

    def __init__(self, market: Market) -> None:
        self.connections: set[Connection] = set()
        self._market = market
        self._products = {_symbol(product): product for product in market.products}
        self._connection_ids = itertools.count(1)

    def greet(self, connection: Connection) -> None:
        """Tell the exchange's status."""
        status = {"api_version": "v2", "connection_id": next(self._connection_ids), "system": "online"}
        _send(connection, "status", {"channel": "status", "type": "update", "data": [{**status, "version": "2.0.0"}]})

    def refusal(self, text: str) -> dict[str, object]:
        """An answer that says that a request failed."""
        now = now_text()
        return {"error": text, "success": False, "time_in": now, "time_out": now}

    def answer(self, connection: Connection, request: dict[str, Any]) -> None:
        """Subscribe or unsubscribe symbols of one channel, or answer a ping."""
        method, extra = request.get("method"), {}
        if type(request.get("req_id")) is int:
            extra = {"req_id": request["req_id"]}
        if method == "ping":
            now = now_text()
            connection.put(json.dumps({"method": "pong", **extra, "time_in": now, "time_out": now}))
            return
        if method not in ("subscribe", "unsubscribe"):
            raise RequestRefused({**self.refusal("method must be subscribe, unsubscribe or ping"), **extra})
        extra["method"] = method
        try:
            channel, symbols, snapshot = self._understand(request.get("params"))
        except ValueError as error:
            raise RequestRefused({**self.refusal(str(error)), **extra}) from None
        for symbol in dict.fromkeys(symbols):
            if symbol not in self._products:
                error_answer = self.refusal(f"Currency pair not supported {symbol[:40]}")
                raise RequestRefused({**error_answer, **extra, "symbol": symbol[:40]})
            self._subscribe(connection, channel, symbol, snapshot, extra)

    def _subscribe(
        self, connection: Connection, channel: str, symbol: str, snapshot: bool, answer: dict[str, object]
    ) -> None:
        product = self._products[symbol]
        now = now_text()
        result: dict[str, object] = {"channel": channel, "symbol": symbol}
        if answer["method"] == "unsubscribe":
            connection.unsubscribe(channel, [product])
        else:
            connection.subscribe(channel, [product])
            result["snapshot"] = snapshot
        connection.put(json.dumps({**answer, "result": result, "success": True, "time_in": now, "time_out": now}))
        if not result.get("snapshot"):
            return
        state = self._market.states[product]
        if channel == "ticker":
            items = [_ticker(state.last, state)]
        else:
            items = [_trade(tick, at) for tick, at in list(state.trades)[-SNAPSHOT_TRADES:]]
        _send_data(connection, channel, "snapshot", ",".join(items))

    def on_tick(self, tick: Tick, state: ProductState) -> None:
        """Send the trade and the ticker that it causes (`event_trigger` is `trades`)."""
        trade = _trade(tick, state.last_time)
        ticker = _ticker(tick, state)
        for connection in self.connections:
            if tick.product_id in connection.subscriptions.get("trade", ()):
                _send_data(connection, "trade", "update", trade)
            if tick.product_id in connection.subscriptions.get("ticker", ()):
                bad = _BAD_PRICES[connection.bad_prices.popleft()] if connection.bad_prices else None
                _send_data(connection, "ticker", "update", _ticker(tick, state, bad) if bad else ticker)

    def on_round(self) -> None:
        """Send a heartbeat to whom nothing else was sent."""
        due = time.monotonic() - HEARTBEAT_SECONDS
        for connection in self.connections:
            if connection.subscriptions and connection.sent_at <= due:
                _send(connection, "heartbeat", {"channel": "heartbeat"})

    def _understand(self, params: object) -> tuple[str, list[str], bool]:
        """The channel, symbols and snapshot wish of a request. Raises ValueError."""
        if not isinstance(params, dict):
            raise ValueError("params must be an object")
        channel, symbols = params.get("channel"), params.get("symbol")
        if channel not in _CHANNELS:
            raise ValueError(f"channel must be one of {', '.join(_CHANNELS)}")
        if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
            raise ValueError("symbol must be a list of strings")
        snapshot = params.get("snapshot", _SNAPSHOT_DEFAULTS[channel])
        if not isinstance(snapshot, bool):
            raise ValueError("snapshot must be true or false")
        return channel, symbols, snapshot


def _send(connection: Connection, channel: str, message: dict[str, object]) -> None:
    connection.send(channel, json.dumps(message), _impostors, skippable=False)


def _send_data(connection: Connection, channel: str, kind: str, items: str) -> None:
    """Send a channel's message. `items` is what stands in its JSON array."""
    message = f'{{"channel":"{channel}","type":"{kind}","data":[{items}]}}'
    # Only trades are numbered: no client can tell that a ticker or a heartbeat is missing.
    connection.send(channel, message, _impostors, skippable=channel == "trade" and kind == "update")


def _impostors() -> dict[str, object]:
    return {
        "wrong_types": {"channel": "trade", "type": 7, "data": "none"},
        "unknown_channel": {"channel": "no_such_channel", "type": "update", "data": []},
    }


def _symbol(product: str) -> str:
    return product.replace("-", "/")


def _ticker(tick: Tick, state: ProductState, price: str | None = None) -> str:
    """A ticker's JSON; `price` replaces the last price's JSON for a fault."""
    change = tick.price - state.open
    vwap = (state.turnover / state.volume).quantize(tick.price)
    return (
        f'{{"symbol":"{_symbol(tick.product_id)}","bid":{tick.best_bid:f},"bid_qty":{tick.best_bid_size:f},'
        f'"ask":{tick.best_ask:f},"ask_qty":{tick.best_ask_size:f},"last":{price or format(tick.price, "f")},'
        f'"volume":{state.volume:f},"vwap":{vwap:f},"low":{state.low:f},"high":{state.high:f},'
        f'"change":{change:f},"change_pct":{change / state.open * 100:.2f},'
        f'"timestamp":"{format_time(state.last_time)}"}}'
    )


def _trade(tick: Tick, at: datetime) -> str:
    """A trade's JSON, with the taker's side."""
    side = "sell" if tick.buyer_is_maker else "buy"
    return (
        f'{{"symbol":"{_symbol(tick.product_id)}","side":"{side}","price":{tick.price:f},"qty":{tick.size:f},'
        f'"ord_type":"market","trade_id":{tick.trade_id},"timestamp":"{format_time(at)}"}}'
    )
