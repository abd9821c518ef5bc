"""One WebSocket connection to an exchange, from handshake to the reason that it ended."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from tradewatch.collectors.exchanges.protocol import Exchange, Frame, FrameError, FrameReason
from tradewatch.collectors.metrics import CollectionMetrics, Endpoint, FeedReason, ReconnectReason, status_label
from tradewatch.common.events import MarketDataEvent
from tradewatch.common.logging import Throttle, get_logger

_log = get_logger("feed")

CLOSE_GOING_AWAY = 1001
CLOSE_MESSAGE_TOO_BIG = 1009


@dataclass(frozen=True)
class FeedLimits:
    """Bounds of one connection, in seconds and bytes.

    `frame_seconds` is how long nothing at all may arrive: the exchange sends a heartbeat every second.
    `event_seconds` is how long no event may be accepted although frames arrive.
    """

    connect_seconds: float = 10.0
    frame_seconds: float = 5.0
    event_seconds: float = 60.0
    max_frame_bytes: int = 4 * 1024 * 1024


class _Ended(Exception):
    """The connection is to be given up."""

    def __init__(self, reason: ReconnectReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Feed:
    """Connects, subscribes, checks sequence numbers and hands events on, until the connection has to be given up.

    `accept` takes each event with its frame and says whether it was of use; `advanced` is called for every frame.
    """

    def __init__(
        self,
        exchange: Exchange,
        url: str,
        metrics: CollectionMetrics,
        accept: Callable[[Frame, MarketDataEvent], bool],
        advanced: Callable[[], None],
        limits: FeedLimits,
    ) -> None:
        self._exchange = exchange
        self._url = url
        self._metrics = metrics
        self._accept = accept
        self._advanced = advanced
        self._limits = limits
        self._throttle = Throttle()
        self.last_frame_at: float | None = None

    async def run(self, trace_id: str) -> ReconnectReason:
        """Stay connected for as long as the connection is good. Returns why it ended."""
        self.last_frame_at = None
        try:
            connection = await self._connect(trace_id)
        except (OSError, TimeoutError, WebSocketException, ValueError) as error:
            _log.warning("connect failed", error=type(error).__name__, detail=str(error)[:200])
            return ReconnectReason.CONNECT_FAILED
        try:
            for message in self._exchange.subscribe_messages():
                await connection.send(message)
            _log.info("subscribed", exchange=self._exchange.name)
            await self._receive(connection)
        except _Ended as ended:
            return ended.reason
        except ConnectionClosed as closed:
            return self._closed(closed)
        finally:
            self.last_frame_at = None
            # A frozen peer answers no closing handshake, and waiting for one would delay the next connection.
            connection.transport.abort()
            await connection.wait_closed()
        raise AssertionError("receiving ends only by an exception")

    async def _connect(self, trace_id: str) -> ClientConnection:
        started = time.perf_counter()
        status = "error"
        try:
            connection = await connect(
                self._url,
                open_timeout=self._limits.connect_seconds,
                close_timeout=1.0,
                max_size=self._limits.max_frame_bytes,
                # No environment proxy in the data path; no decompression to spend time on or to be bombed with.
                proxy=None,
                compression=None,
            )
            status = "101"
            return connection
        except InvalidStatus as error:
            status = status_label(error.response.status_code)
            raise
        except InvalidHandshake:
            raise
        except TimeoutError:
            status = "timeout"
            raise
        finally:
            self._metrics.observe_request(Endpoint.WEBSOCKET, time.perf_counter() - started, status, trace_id)

    async def _receive(self, connection: ClientConnection) -> None:
        """Take frames until something is wrong, which is raised."""
        expected: int | None = None
        newest_trades: dict[str, int] = {}
        event_at = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(self._limits.frame_seconds):
                    data = await connection.recv()
            except TimeoutError:
                raise _Ended(ReconnectReason.FROZEN) from None
            self._advanced()
            now = time.monotonic()
            self.last_frame_at = now
            if now - event_at > self._limits.event_seconds:
                raise _Ended(ReconnectReason.NO_DATA)
            try:
                frame = self._exchange.parse(data, datetime.now(UTC))
            except FrameError as error:
                self._count(error.reason, len(data))
                if error.sequence is not None:
                    expected = self._check_sequence(expected, error.sequence) or expected
                continue
            if frame.error is not None:
                self._metrics.errors[FeedReason.EXCHANGE_ERROR].inc()
                _log.error("the exchange complains", message=frame.error)
                raise _Ended(ReconnectReason.EXCHANGE_ERROR)
            if frame.sequence is not None:
                following = self._check_sequence(expected, frame.sequence)
                if following is None:
                    continue
                expected = following
            self._check_trade_ids(newest_trades, frame)
            for reason in frame.rejected:
                self._count(reason, len(data))
            for event in frame.events:
                if self._accept(frame, event):
                    event_at = now

    def _check_sequence(self, expected: int | None, sequence: int) -> int | None:
        """The number that must follow, or None for a message to leave out because it comes late or again.

        Raises _Ended on a gap. The frame that revealed it is not used: what it and the lost ones said comes again,
        in order, with the next connection's snapshot.
        """
        if expected is None or sequence == expected:
            return sequence + 1
        if sequence < expected:
            self._count(FeedReason.OUT_OF_ORDER, 0)
            return None
        raise self._gap(expected, sequence)

    def _check_trade_ids(self, newest: dict[str, int], frame: Frame) -> None:
        """Raise _Ended where a product's trade ids leave one out; `newest` has the connection's last id of each.

        A snapshot is where the counting starts. Ids that do not rise are left to the event filter, which knows the
        trades of earlier connections too.
        """
        for product_id, trade_id in frame.trade_ids:
            known = newest.get(product_id)
            if known is not None and trade_id > known + 1 and not frame.snapshot:
                raise self._gap(known + 1, trade_id, product_id)
            newest[product_id] = trade_id if known is None else max(known, trade_id)

    def _gap(self, expected: int, received: int, product_id: str | None = None) -> _Ended:
        self._metrics.gaps.inc()
        _log.warning(
            "sequence gap", expected=expected, received=received, missing=received - expected, product_id=product_id
        )
        return _Ended(ReconnectReason.SEQUENCE_GAP)

    def _closed(self, closed: ConnectionClosed) -> ReconnectReason:
        code = closed.rcvd.code if closed.rcvd else closed.sent.code if closed.sent else None
        if closed.sent is not None and closed.sent.code == CLOSE_MESSAGE_TOO_BIG and not closed.rcvd_then_sent:
            self._count(FrameReason.FRAME_TOO_LARGE, self._limits.max_frame_bytes)
            return ReconnectReason.FRAME_TOO_LARGE
        _log.warning("connection closed", code=code)
        return ReconnectReason.GOING_AWAY if code == CLOSE_GOING_AWAY else ReconnectReason.CLOSED

    def _count(self, reason: StrEnum, size: int) -> None:
        self._metrics.errors[reason].inc()
        held = self._throttle.admit(reason.value)
        if held is not None:
            _log.warning("not forwarded", reason=reason.value, frame_length=size, lines_held_back=held)
