"""Coinbase Advanced Trade's market data WebSocket, as a server.

Follows https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-overview: one channel a
subscribe message, a snapshot and then a `subscriptions` message in answer, `sequence_num` from 0 counted per
connection across channels, a heartbeat every second, market trades collected over 250 ms, disconnection when nothing
was subscribed to within 5 s. `level2` sends the levels that a tick has changed; `user` takes a token and sends open
orders and then every change of an order. A channel that does not exist, or a token that proves nothing, is answered,
as the real one does, with `authentication failure`; the wording of the other errors is our own.
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tradewatch.simulators.exchange.accounts import USER_ID
from tradewatch.simulators.exchange.api_keys import ApiKeys, Unauthorized
from tradewatch.simulators.exchange.coinbase_levels import NO_LEVELS, Sides, changed_levels, level_events, levels_of
from tradewatch.simulators.exchange.feed_server import Connection, RequestRefused, format_time, now_text
from tradewatch.simulators.exchange.market import Market, ProductState
from tradewatch.simulators.exchange.matching import MatchingEngine
from tradewatch.simulators.exchange.orders import Order
from tradewatch.simulators.exchange.prices import Tick
from tradewatch.simulators.exchange.rest.render import user_order_json

HEARTBEAT_SECONDS = 1.0
_EVENT_CHANNELS = ("ticker", "market_trades", "level2")
_ORDERS_A_MESSAGE = 50
_NO_POSITIONS: dict[str, list[object]] = {"perpetual_futures_positions": [], "expiring_futures_positions": []}
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

    def __init__(self, market: Market, engine: MatchingEngine, keys: ApiKeys) -> None:
        self.connections: set[Connection] = set()
        self._market = market
        self._engine = engine
        self._keys = keys
        self._levels: dict[str, Sides] = {}
        engine.listeners.append(self._on_order)
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
            if channel == "user":
                self._send_orders(connection, products)
            elif channel == "level2":
                self._send_levels(connection, products)
            elif channel in _EVENT_CHANNELS:
                self._send_snapshot(connection, channel, products)
            connection.subscribe(channel, products)
        else:
            connection.unsubscribe(channel, products or tuple(connection.subscriptions.get(channel, ())))
        fixed = {"heartbeats": ["heartbeats"], "user": [USER_ID]}
        subscriptions = {name: fixed.get(name) or sorted(of) for name, of in connection.subscriptions.items()}
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
        if any(product in connection.subscriptions.get("level2", ()) for connection in self.connections):
            self._send_level_changes(product, timestamp)

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
        if channel not in (*_EVENT_CHANNELS, "heartbeats", "user"):
            raise self._refused("authentication failure")
        if channel == "user" and kind == "subscribe":
            try:
                self._keys.verify(str(request.get("jwt", "")), None)
            except Unauthorized:
                raise self._refused("authentication failure") from None
        if not isinstance(products, list) or not all(isinstance(product, str) for product in products):
            raise self._refused("product_ids must be a list of strings")
        if channel == "heartbeats":
            return kind, channel, []
        if channel == "user" and not products:
            return kind, channel, list(self._market.products)
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

    def _send_orders(self, connection: Connection, products: Sequence[str]) -> None:
        orders = [o for o in self._engine.orders.values() if not o.final and o.product_id in products]
        for start in range(0, max(1, len(orders)), _ORDERS_A_MESSAGE):
            part = [user_order_json(order) for order in orders[start : start + _ORDERS_A_MESSAGE]]
            event = {"type": "snapshot", "orders": part, "positions": _NO_POSITIONS}
            _send(connection, "user", now_text(), json.dumps([event]))

    def _on_order(self, order: Order) -> None:
        listening = [c for c in self.connections if order.product_id in c.subscriptions.get("user", ())]
        if not listening:
            return
        events = json.dumps([{"type": "update", "orders": [user_order_json(order)], "positions": _NO_POSITIONS}])
        for connection in listening:
            _send(connection, "user", now_text(), events)

    def _send_levels(self, connection: Connection, products: Sequence[str]) -> None:
        for product in dict.fromkeys(products):
            # Others get what has changed first, so that all of them go on from the same levels.
            self._send_level_changes(product, now_text())
            _send(connection, "l2_data", now_text(), level_events("snapshot", product, self._levels[product]))

    def _send_level_changes(self, product: str, timestamp: str) -> None:
        before = self._levels.get(product, NO_LEVELS)
        now = self._levels[product] = levels_of(self._engine.books[product])
        changes = changed_levels(before, now)
        if not any(changes):
            return
        events = level_events("update", product, changes)
        for connection in self.connections:
            if product in connection.subscriptions.get("level2", ()):
                _send(connection, "l2_data", timestamp, events)

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
