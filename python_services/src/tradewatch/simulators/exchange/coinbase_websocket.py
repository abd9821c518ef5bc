"""Coinbase Advanced Trade's market data WebSocket, as a server.

Follows https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-overview: one channel a
subscribe message, a snapshot and then a `subscriptions` message in answer, `sequence_num` from 0 counted per
connection across channels, a heartbeat every second, market trades collected over 250 ms, disconnection when nothing
was subscribed to within 5 s. A channel that does not exist is answered, as the real one does, with
`authentication failure`; the wording of the other errors is our own.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tradewatch.common.http import ALL_INTERFACES
from tradewatch.common.logging import get_logger
from tradewatch.common.service import Liveness
from tradewatch.simulators.exchange.faults import BadPriceFault, Close, Fault, Freeze, Malformed, SequenceGap
from tradewatch.simulators.exchange.market import Market, ProductState
from tradewatch.simulators.exchange.metrics import SimulatorMetrics
from tradewatch.simulators.exchange.prices import Tick

_log = get_logger("coinbase_websocket")

PATHS = ("/", "/ws")
SUBSCRIBE_SECONDS = 5.0
TRADES_SECONDS = 0.25
HEARTBEAT_SECONDS = 1.0
MAX_WAITING_MESSAGES = 10_000
MAX_REQUEST_BYTES = 64 * 1024
HUGE_BYTES = 10 * 1024 * 1024
LIVENESS_LOOP = "websocket"
_EVENT_CHANNELS = ("ticker", "market_trades")
_BAD_PRICES: dict[str, str] = {
    "nan": '"NaN"',
    "negative": '"-1.00"',
    "zero": '"0"',
    "infinite": '"Infinity"',
    "text": '"free"',
    "number": "1.5",
}


class _Refused(Exception):
    """A request gets an error message in answer."""


class _Connection:
    """One client: its subscriptions, its sequence, its faults, and the messages on their way to it."""

    def __init__(self, socket: ServerConnection, metrics: SimulatorMetrics) -> None:
        self.socket = socket
        self.subscriptions: dict[str, set[str]] = {}
        self.subscribed = asyncio.Event()
        self.skip = 0
        self.malformed: deque[str] = deque()
        self.bad_prices: deque[str] = deque()
        self.frozen_until = 0.0
        self._metrics = metrics
        self._sequence = 0
        self._waiting: deque[str | bytes] = deque()
        self._wake = asyncio.Event()
        self.too_slow = False

    def send(self, channel: str, timestamp: str, events: str) -> None:
        """Number a message and put it on its way, or let a fault have it. `events` is the JSON array."""
        sequence = self._sequence
        self._sequence += 1
        if self.frozen:
            return
        if self.skip:
            self.skip -= 1
            return
        message: str | bytes = (
            f'{{"channel":"{channel}","client_id":"","timestamp":"{timestamp}",'
            f'"sequence_num":{sequence},"events":{events}}}'
        )
        if self.malformed:
            message = _break(str(message), self.malformed.popleft(), sequence)
        self._metrics.sent[channel].inc()
        self.put(message)

    def put(self, message: str | bytes) -> None:
        """Queue a whole message; a client that leaves too many unread is cut off, as exchanges do."""
        if len(self._waiting) >= MAX_WAITING_MESSAGES:
            self.too_slow = True
        else:
            self._waiting.append(message)
        self._wake.set()

    @property
    def frozen(self) -> bool:
        """Whether a freeze is under way."""
        return time.monotonic() < self.frozen_until

    async def write(self) -> None:
        """Send queued messages until the client is gone or too slow."""
        while True:
            while self._waiting:
                await self.socket.send(self._waiting.popleft())
                if self.too_slow:
                    self._metrics.slow_consumers.inc()
                    await self.socket.close(1008, "slow consumer")
                    return
            self._wake.clear()
            await self._wake.wait()

    def active_faults(self) -> dict[str, object]:
        """What `GET /faults` shows of this connection."""
        return {
            "sequence_gap": self.skip,
            "malformed": len(self.malformed),
            "bad_price": len(self.bad_prices),
            "frozen_seconds": round(max(0.0, self.frozen_until - time.monotonic()), 3),
        }

    def clear_faults(self) -> None:
        """Switch every fault off."""
        self.skip = 0
        self.malformed.clear()
        self.bad_prices.clear()
        self.frozen_until = 0.0


class CoinbaseWebSocket:
    """Serves the feed on a port of its own; paths `/` and `/ws` are the same."""

    def __init__(self, market: Market, metrics: SimulatorMetrics, liveness: Liveness, port: int) -> None:
        self.port = port
        self._market = market
        self._metrics = metrics
        self._liveness = liveness
        self._connections: set[_Connection] = set()
        self._trades: dict[str, list[str]] = {}
        self._heartbeats = 0
        self._server: Server | None = None
        self._closing: set[asyncio.Task[None]] = set()
        market.listeners.append(self._on_tick)

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._server = await serve(
            self._handle,
            ALL_INTERFACES,
            self.port,
            max_size=MAX_REQUEST_BYTES,
            compression=None,
            close_timeout=1.0,
            ping_interval=None,
            process_request=_refuse_other_paths,
        )
        self.port = int(next(iter(self._server.sockets)).getsockname()[1])

    async def stop(self) -> None:
        """Close every connection with 1001 and stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def listening(self) -> bool:
        """Whether clients can connect."""
        return self._server is not None and self._server.is_serving()

    async def run(self) -> None:
        """Send heartbeats and collected trades until cancelled."""
        heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
        while True:
            self._liveness.beat(LIVENESS_LOOP)
            await asyncio.sleep(TRADES_SECONDS)
            self._flush_trades()
            if time.monotonic() >= heartbeat_at:
                heartbeat_at += HEARTBEAT_SECONDS
                self._send_heartbeats()

    def apply(self, fault: Fault) -> int:
        """Switch a fault on for every open connection. Returns how many there are."""
        for connection in self._connections:
            match fault:
                case SequenceGap():
                    connection.skip = fault.count
                case Freeze():
                    connection.frozen_until = time.monotonic() + fault.seconds
                case Malformed():
                    connection.malformed = deque([fault.kind] * fault.count)
                case BadPriceFault():
                    connection.bad_prices = deque([fault.value] * fault.count)
                case Close():
                    self._close(connection, fault.code)
        return len(self._connections)

    def active_faults(self) -> list[dict[str, object]]:
        """The faults of each open connection."""
        return [connection.active_faults() for connection in self._connections]

    def clear_faults(self) -> None:
        """Switch every fault off."""
        for connection in self._connections:
            connection.clear_faults()

    def _close(self, connection: _Connection, code: int) -> None:
        if code == 1006:
            # Not a code that can be sent: it is what a client sees when the connection just ends.
            connection.socket.transport.abort()
            return
        task = asyncio.create_task(connection.socket.close(code, "fault"))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _handle(self, socket: ServerConnection) -> None:
        connection = _Connection(socket, self._metrics)
        self._connections.add(connection)
        self._metrics.connections.set(len(self._connections))
        tasks = [
            asyncio.create_task(connection.write()),
            asyncio.create_task(self._read(connection)),
            asyncio.create_task(_close_unless_subscribed(connection)),
        ]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(connection)
            self._metrics.connections.set(len(self._connections))
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, ConnectionClosed):
                    _log.error("connection failed", exc_info=result)

    async def _read(self, connection: _Connection) -> None:
        async for data in connection.socket:
            try:
                self._answer(connection, data)
            except _Refused as error:
                self._metrics.refused.inc()
                connection.put(json.dumps({"type": "error", "message": str(error)}))

    def _answer(self, connection: _Connection, data: str | bytes) -> None:
        kind, channel, products = self._understand(data)
        if kind == "subscribe":
            if channel in _EVENT_CHANNELS:
                self._send_snapshot(connection, channel, products)
            connection.subscriptions.setdefault(channel, set()).update(products)
            connection.subscribed.set()
        elif not products:
            connection.subscriptions.pop(channel, None)
        else:
            left = connection.subscriptions.get(channel, set()) - set(products)
            connection.subscriptions.pop(channel, None)
            if left:
                connection.subscriptions[channel] = left
        subscriptions = {
            name: sorted(products) or ["heartbeats"] for name, products in connection.subscriptions.items()
        }
        connection.send("subscriptions", _now(), json.dumps([{"subscriptions": subscriptions}]))

    def _understand(self, data: str | bytes) -> tuple[str, str, list[str]]:
        """The type, channel and products of a request. Raises _Refused."""
        try:
            request = json.loads(data)
        except (ValueError, RecursionError):
            raise _Refused("malformed JSON") from None
        if not isinstance(request, dict):
            raise _Refused("message must be an object")
        kind, channel, products = request.get("type"), request.get("channel"), request.get("product_ids", [])
        if kind not in ("subscribe", "unsubscribe"):
            raise _Refused("type must be subscribe or unsubscribe")
        if channel not in (*_EVENT_CHANNELS, "heartbeats"):
            raise _Refused("authentication failure")
        if not isinstance(products, list) or not all(isinstance(product, str) for product in products):
            raise _Refused("product_ids must be a list of strings")
        if channel == "heartbeats":
            return kind, channel, []
        if kind == "subscribe" and not products:
            raise _Refused("product_ids must name at least one product")
        unknown = [product for product in products if product not in self._market.states]
        if unknown:
            raise _Refused(f"{unknown[0][:40]} is not a valid product")
        return kind, channel, products

    def _send_snapshot(self, connection: _Connection, channel: str, products: Iterable[str]) -> None:
        states = [self._market.states[product] for product in dict.fromkeys(products)]
        if channel == "ticker":
            items = ",".join(_ticker(state.last, state) for state in states)
            connection.send(channel, _now(), f'[{{"type":"snapshot","tickers":[{items}]}}]')
            return
        # What is still being collected is in the snapshot: sent off first, it does not come to this client again.
        self._flush_trades()
        # Newest first, as the real snapshot is.
        items = ",".join(_trade(tick, at) for state in states for tick, at in reversed(state.trades))
        connection.send(channel, _now(), f'[{{"type":"snapshot","trades":[{items}]}}]')

    def _on_tick(self, tick: Tick, state: ProductState) -> None:
        if not self._connections:
            return
        product = tick.product_id
        self._trades.setdefault(product, []).append(_trade(tick, state.last_time))
        events = f'[{{"type":"update","tickers":[{_ticker(tick, state)}]}}]'
        timestamp = _format(state.last_time)
        for connection in self._connections:
            if product in connection.subscriptions.get("ticker", ()):
                if connection.bad_prices:
                    bad = _ticker(tick, state, _BAD_PRICES[connection.bad_prices.popleft()])
                    connection.send("ticker", timestamp, f'[{{"type":"update","tickers":[{bad}]}}]')
                else:
                    connection.send("ticker", timestamp, events)

    def _flush_trades(self) -> None:
        timestamp = _now()
        collected, self._trades = self._trades, {}
        for product, trades in collected.items():
            events = f'[{{"type":"update","trades":[{",".join(trades)}]}}]'
            for connection in self._connections:
                if product in connection.subscriptions.get("market_trades", ()):
                    connection.send("market_trades", timestamp, events)

    def _send_heartbeats(self) -> None:
        self._heartbeats += 1
        now = datetime.now(UTC)
        event: dict[str, Any] = {"current_time": str(now), "heartbeat_counter": self._heartbeats}
        events = json.dumps([event])
        for connection in self._connections:
            if "heartbeats" in connection.subscriptions:
                connection.send("heartbeats", _format(now), events)


async def _close_unless_subscribed(connection: _Connection) -> None:
    try:
        async with asyncio.timeout(SUBSCRIBE_SECONDS):
            await connection.subscribed.wait()
    except TimeoutError:
        await connection.socket.close(1008, "no subscription")


def _refuse_other_paths(socket: ServerConnection, request: Any) -> Any:
    if request.path.split("?", 1)[0] not in PATHS:
        return socket.respond(404, "the feed is at / and /ws\n")
    return None


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
        f'"size":"{tick.size:f}","side":"{side}","time":"{_format(at)}"}}'
    )


def _quote(price: object) -> str:
    return f'"{price:f}"'


def _break(message: str, kind: str, sequence: int) -> str | bytes:
    """The message as a fault makes it."""
    if kind == "truncated":
        return message[: len(message) // 2]
    if kind == "wrong_types":
        return json.dumps({"channel": 7, "timestamp": [], "sequence_num": sequence, "events": "none"})
    if kind == "unknown_channel":
        return json.dumps({"channel": "no_such_channel", "timestamp": _now(), "sequence_num": sequence, "events": []})
    if kind == "huge":
        return " " * HUGE_BYTES
    return b"\x00\xff this is not JSON"


def _now() -> str:
    return _format(datetime.now(UTC))


def _format(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
