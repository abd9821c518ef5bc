"""Coinbase Advanced Trade's market data WebSocket, as a server.

Follows https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-overview: one channel a
subscribe message, a snapshot and then a `subscriptions` message in answer, `sequence_num` from 0 counted per
connection across channels, a heartbeat every second, market trades collected over 250 ms, disconnection when nothing
was subscribed to within 5 s. A channel that does not exist is answered, as the real one does, with
`authentication failure`; the wording of the other errors is our own.
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tradewatch.simulators.exchange.feed_server import Connection, RequestRefused, format_time, now_text
from tradewatch.simulators.exchange.market import Market, ProductState
from tradewatch.simulators.exchange.prices import Tick

HEARTBEAT_SECONDS = 1.0
_EVENT_CHANNELS = ("ticker", "market_trades")
# What takes the place of a ticker's price; the exchange writes numbers as text.
_BAD_PRICES: dict[str, str] = {
    "nan": '"NaN"',
    "negative": '"-1.00"',
    "zero": '"0"',
    "infinite": '"Infinity"',
    "text": '"free"',
    "number": "1.5",
}


class CoinbaseFeed:
    """Coinbase's feed; its paths are the same."""

    exchange = "coinbase"
    paths: tuple[str, ...] = ("/", "/ws")
    subscribe_seconds = 5.0

    def __init__(self, market: Market) -> None:
        self.connections: set[Connection] = set()
        self._market = market
        self._trades: dict[str, list[str]] = {}
        self._heartbeats = 0
        self._heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS

    def greet(self, connection: Connection) -> None:
        """Say nothing: the client speaks first."""

    def refusal(self, text: str) -> dict[str, object]:
        """An error message."""
        return {"type": "error", "message": text}

    def answer(self, connection: Connection, request: dict[str, Any]) -> None:
        """Subscribe or unsubscribe one channel."""
        kind, channel, products = self._understand(request)
        if kind == "subscribe":
            if channel in _EVENT_CHANNELS:
                self._send_snapshot(connection, channel, products)
            connection.subscribe(channel, products)
        else:
            connection.unsubscribe(channel, products or tuple(connection.subscriptions.get(channel, ())))
        subscriptions = {
            name: sorted(products) or ["heartbeats"] for name, products in connection.subscriptions.items()
        }
        _send(connection, "subscriptions", now_text(), json.dumps([{"subscriptions": subscriptions}]))

    def on_tick(self, tick: Tick, state: ProductState) -> None:
        """Send tickers at once and collect the trade."""
        product = tick.product_id
        self._trades.setdefault(product, []).append(_trade(tick, state.last_time))
        events = f'[{{"type":"update","tickers":[{_ticker(tick, state)}]}}]'
        timestamp = format_time(state.last_time)
        for connection in self.connections:
            if product in connection.subscriptions.get("ticker", ()):
                if connection.bad_prices:
                    bad = _ticker(tick, state, _BAD_PRICES[connection.bad_prices.popleft()])
                    _send(connection, "ticker", timestamp, f'[{{"type":"update","tickers":[{bad}]}}]')
                else:
                    _send(connection, "ticker", timestamp, events)

    def on_round(self) -> None:
        """Send the collected trades and, each second, heartbeats."""
        self._flush_trades()
        if time.monotonic() >= self._heartbeat_at:
            self._heartbeat_at += HEARTBEAT_SECONDS
            self._send_heartbeats()

    def _understand(self, request: dict[str, Any]) -> tuple[str, str, list[str]]:
        """The type, channel and products of a request. Raises RequestRefused."""
        kind, channel, products = request.get("type"), request.get("channel"), request.get("product_ids", [])
        if kind not in ("subscribe", "unsubscribe"):
            raise self._refused("type must be subscribe or unsubscribe")
        if channel not in (*_EVENT_CHANNELS, "heartbeats"):
            raise self._refused("authentication failure")
        if not isinstance(products, list) or not all(isinstance(product, str) for product in products):
            raise self._refused("product_ids must be a list of strings")
        if channel == "heartbeats":
            return kind, channel, []
        if kind == "subscribe" and not products:
            raise self._refused("product_ids must name at least one product")
        unknown = [product for product in products if product not in self._market.states]
        if unknown:
            raise self._refused(f"{unknown[0][:40]} is not a valid product")
        return kind, channel, products

    def _refused(self, text: str) -> RequestRefused:
        return RequestRefused(self.refusal(text))

    def _send_snapshot(self, connection: Connection, channel: str, products: Sequence[str]) -> None:
        states = [self._market.states[product] for product in dict.fromkeys(products)]
        if channel == "ticker":
            items = ",".join(_ticker(state.last, state) for state in states)
            _send(connection, channel, now_text(), f'[{{"type":"snapshot","tickers":[{items}]}}]')
            return
        # What is still being collected is in the snapshot: sent off first, it does not come to this client again.
        self._flush_trades()
        # Newest first, as the real snapshot is.
        items = ",".join(_trade(tick, at) for state in states for tick, at in reversed(state.trades))
        _send(connection, channel, now_text(), f'[{{"type":"snapshot","trades":[{items}]}}]')

    def _flush_trades(self) -> None:
        timestamp = now_text()
        collected, self._trades = self._trades, {}
        for product, trades in collected.items():
            events = f'[{{"type":"update","trades":[{",".join(trades)}]}}]'
            for connection in self.connections:
                if product in connection.subscriptions.get("market_trades", ()):
                    _send(connection, "market_trades", timestamp, events)

    def _send_heartbeats(self) -> None:
        self._heartbeats += 1
        now = datetime.now(UTC)
        event: dict[str, Any] = {"current_time": str(now), "heartbeat_counter": self._heartbeats}
        events = json.dumps([event])
        for connection in self.connections:
            if "heartbeats" in connection.subscriptions:
                _send(connection, "heartbeats", format_time(now), events)


def _send(connection: Connection, channel: str, timestamp: str, events: str) -> None:
    """Number a message and send it. `events` is the JSON array."""
    sequence = connection.numbered
    connection.numbered += 1

    def impostors() -> dict[str, object]:
        unknown = {"channel": "no_such_channel", "timestamp": now_text(), "sequence_num": sequence, "events": []}
        wrong = {"channel": 7, "timestamp": [], "sequence_num": sequence, "events": "none"}
        return {"unknown_channel": unknown, "wrong_types": wrong}

    message = (
        f'{{"channel":"{channel}","client_id":"","timestamp":"{timestamp}",'
        f'"sequence_num":{sequence},"events":{events}}}'
    )
    connection.send(channel, message, impostors, skippable=True)


def _ticker(tick: Tick, state: ProductState, price: str | None = None) -> str:
    """A ticker's JSON; `price` replaces the price's JSON for a fault."""
    change = (tick.price / state.open - 1) * 100
    return (
        f'{{"type":"ticker","product_id":"{tick.product_id}","price":{price or _quote(tick.price)},'
        f'"volume_24_h":"{state.volume:f}","low_24_h":"{state.low:f}","high_24_h":"{state.high:f}",'
        f'"low_52_w":"{state.low:f}","high_52_w":"{state.high:f}","price_percent_chg_24_h":"{change:.8f}",'
        f'"best_bid":"{tick.best_bid:f}","best_bid_quantity":"{tick.best_bid_size:f}",'
        f'"best_ask":"{tick.best_ask:f}","best_ask_quantity":"{tick.best_ask_size:f}"}}'
    )


def _trade(tick: Tick, at: datetime) -> str:
    side = "BUY" if tick.buyer_is_maker else "SELL"
    return (
        f'{{"trade_id":"{tick.trade_id}","product_id":"{tick.product_id}","price":"{tick.price:f}",'
        f'"size":"{tick.size:f}","side":"{side}","time":"{format_time(at)}"}}'
    )


def _quote(price: object) -> str:
    return f'"{price:f}"'
