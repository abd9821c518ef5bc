"""The WebSocket server that the exchanges' feeds share: connections, faults, and who listens where.

A feed speaks one exchange's protocol on paths of its own; what is the same whatever the protocol is here.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tradewatch.common.http import ALL_INTERFACES
from tradewatch.common.logging import get_logger
from tradewatch.common.service import Liveness
from tradewatch.simulators.exchange.faults import BadPriceFault, Close, FeedFault, Freeze, Malformed, SequenceGap
from tradewatch.simulators.exchange.market import Market, ProductState
from tradewatch.simulators.exchange.metrics import SimulatorMetrics
from tradewatch.simulators.exchange.prices import Tick

_log = get_logger("feed_server")

ROUND_SECONDS = 0.25
MAX_WAITING_MESSAGES = 10_000
MAX_REQUEST_BYTES = 64 * 1024
HUGE_BYTES = 10 * 1024 * 1024
LIVENESS_LOOP = "websocket"


class RequestRefused(Exception):
    """A request gets an error message in answer: `answer` is that message."""

    def __init__(self, answer: dict[str, object]) -> None:
        super().__init__(answer)
        self.answer = answer


class Connection:
    """One client: its subscriptions, its faults, and the messages on their way to it.

    `numbered` counts the messages that were made for it, `sent_at` is when one last went on its way (monotonic).
    """

    def __init__(self, socket: ServerConnection, exchange: str, metrics: SimulatorMetrics) -> None:
        self.socket = socket
        self.exchange = exchange
        self.subscriptions: dict[str, set[str]] = {}
        self.subscribed = asyncio.Event()
        self.numbered = 0
        self.sent_at = 0.0
        self.skip = 0
        self.malformed: deque[str] = deque()
        self.bad_prices: deque[str] = deque()
        self.frozen_until = 0.0
        self._metrics = metrics
        self._waiting: deque[str | bytes] = deque()
        self._wake = asyncio.Event()
        self.too_slow = False

    def send(self, channel: str, message: str, impostors: Callable[[], dict[str, object]], skippable: bool) -> None:
        """Put a message on its way, or let a fault have it.

        `impostors` gives, for the malformed kinds that only a protocol can make, what is sent instead; `skippable`
        says whether the client can see that the message is missing, which is what a sequence gap is.
        """
        if self.frozen:
            return
        if self.skip and skippable:
            self.skip -= 1
            return
        self.sent_at = time.monotonic()
        self._metrics.sent[self.exchange, channel].inc()
        self.put(_break(message, self.malformed.popleft(), impostors()) if self.malformed else message)

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

    def subscribe(self, channel: str, products: Sequence[str]) -> None:
        """Add products to a channel's subscription."""
        self.subscriptions.setdefault(channel, set()).update(products)
        self.subscribed.set()

    def unsubscribe(self, channel: str, products: Sequence[str]) -> None:
        """Take products out of a channel's subscription; without any left there is none."""
        left = self.subscriptions.pop(channel, set()) - set(products)
        if left:
            self.subscriptions[channel] = left

    def active_faults(self) -> dict[str, object]:
        """What `GET /faults` shows of this connection."""
        return {
            "exchange": self.exchange,
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


class Feed(Protocol):
    """One exchange's protocol, to the connections on its paths. `connections` is kept by the server."""

    exchange: str
    paths: tuple[str, ...]
    subscribe_seconds: float
    connections: set[Connection]

    def greet(self, connection: Connection) -> None:
        """A client has connected."""

    def answer(self, connection: Connection, request: dict[str, Any]) -> None:
        """A client has sent a JSON object. Raises RequestRefused."""

    def refusal(self, text: str) -> dict[str, object]:
        """The error message for what is no JSON object."""

    def on_tick(self, tick: Tick, state: ProductState) -> None:
        """The market has ticked; only called while there are connections."""

    def on_round(self) -> None:
        """ROUND_SECONDS have passed: heartbeats and what is collected."""


class FeedServer:
    """Serves the feeds on one port, each on its paths."""

    def __init__(
        self, feeds: Sequence[Feed], market: Market, metrics: SimulatorMetrics, liveness: Liveness, port: int
    ) -> None:
        self.port = port
        self._feeds = feeds
        self._by_path = {path: feed for feed in feeds for path in feed.paths}
        self._metrics = metrics
        self._liveness = liveness
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
            process_request=self._refuse_other_paths,
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
        """Let the feeds send what is due by time, until cancelled."""
        while True:
            self._liveness.beat(LIVENESS_LOOP)
            await asyncio.sleep(ROUND_SECONDS)
            for feed in self._feeds:
                feed.on_round()

    def apply(self, fault: FeedFault) -> int:
        """Switch a fault on for the open connections that it is for. Returns how many there are."""
        affected = [c for c in self._connections() if fault.exchange in (None, c.exchange)]
        for connection in affected:
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
        return len(affected)

    def active_faults(self) -> list[dict[str, object]]:
        """The faults of each open connection."""
        return [connection.active_faults() for connection in self._connections()]

    def clear_faults(self) -> None:
        """Switch every fault off."""
        for connection in self._connections():
            connection.clear_faults()

    def _connections(self) -> list[Connection]:
        return [connection for feed in self._feeds for connection in feed.connections]

    def _on_tick(self, tick: Tick, state: ProductState) -> None:
        for feed in self._feeds:
            if feed.connections:
                feed.on_tick(tick, state)

    def _close(self, connection: Connection, code: int) -> None:
        if code == 1006:
            # Not a code that can be sent: it is what a client sees when the connection just ends.
            connection.socket.transport.abort()
            return
        task = asyncio.create_task(connection.socket.close(code, "fault"))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _refuse_other_paths(self, socket: ServerConnection, request: Any) -> Any:
        if _path(request) not in self._by_path:
            return socket.respond(404, f"feeds are at {', '.join(self._by_path)}\n")
        return None

    async def _handle(self, socket: ServerConnection) -> None:
        feed = self._by_path[_path(socket.request)]
        connection = Connection(socket, feed.exchange, self._metrics)
        feed.connections.add(connection)
        self._metrics.connections.set(len(self._connections()))
        feed.greet(connection)
        tasks = [
            asyncio.create_task(connection.write()),
            asyncio.create_task(self._read(feed, connection)),
            asyncio.create_task(_close_unless_subscribed(connection, feed.subscribe_seconds)),
        ]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            feed.connections.discard(connection)
            self._metrics.connections.set(len(self._connections()))
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, ConnectionClosed):
                    _log.error("connection failed", exc_info=result)

    async def _read(self, feed: Feed, connection: Connection) -> None:
        async for data in connection.socket:
            try:
                feed.answer(connection, _read_object(feed, data))
            except RequestRefused as error:
                self._metrics.refused.inc()
                connection.put(json.dumps(error.answer))


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds and `Z`."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def now_text() -> str:
    """The present time, as `format_time` writes it."""
    return format_time(datetime.now(UTC))


def _path(request: Any) -> str:
    return str(request.path.split("?", 1)[0])


def _read_object(feed: Feed, data: str | bytes) -> dict[str, Any]:
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        raise RequestRefused(feed.refusal("malformed JSON")) from None
    if not isinstance(request, dict):
        raise RequestRefused(feed.refusal("message must be an object"))
    return request


async def _close_unless_subscribed(connection: Connection, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await connection.subscribed.wait()
    except TimeoutError:
        await connection.socket.close(1008, "no subscription")


def _break(message: str, kind: str, impostors: dict[str, object]) -> str | bytes:
    """The message as a fault makes it."""
    if kind == "truncated":
        return message[: len(message) // 2]
    if kind in impostors:
        return json.dumps(impostors[kind])
    if kind == "huge":
        return " " * HUGE_BYTES
    return b"\x00\xff this is not JSON"
