"""Writing to the bus, Valkey Streams: batched, buffered while Valkey is away, bounded.

Delivery is at least once: when the connection dies with a batch under way it is not known what was stored, and the
whole batch is sent again. Consumers drop duplicates by trade id or trace id; an entry published with an id of its own
is written exactly once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Self, cast

from prometheus_client import CollectorRegistry
from valkey import exceptions
from valkey.asyncio import Valkey
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff

from tradewatch.common.backoff import Backoff
from tradewatch.common.http import Check, CheckResult
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.metrics import Metric
from tradewatch.common.service import Liveness, end_if_cancelled
from tradewatch.common.settings import StreamWriterSettings, ValkeySettings

_log = get_logger("bus")

SOCKET_SECONDS = 5.0
PING_SECONDS = 1.0
IDLE_SECONDS = 1.0
LIVENESS_LOOP = "bus"

# Error replies that pass when the server recovers or an operator mends it; the entry is kept and sent again.
_PASSING_REPLIES = ("LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "OOM", "TRYAGAIN", "CLUSTERDOWN")
_PASSING_ERRORS = (
    exceptions.AuthenticationError,
    exceptions.BusyLoadingError,
    exceptions.NoPermissionError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
)


class DropReason(StrEnum):
    """Why an entry was given up."""

    BUFFER_FULL = "buffer_full"
    REJECTED = "rejected"
    SHUTDOWN = "shutdown"


class WriteStatus(StrEnum):
    """How one attempt to write an entry ended."""

    OK = "ok"
    RETRIED = "retried"
    REPEATED = "repeated"
    REJECTED = "rejected"


STREAM_WRITES = Metric(
    "stream_writes_total",
    "counter",
    "Attempts to append an entry to a stream, by how they ended.",
    "entries",
    {
        "status": "`ok`, `retried` (Valkey away or not able to take it; kept and sent again), "
        "`repeated` (an entry with an id of its own that is there already), `rejected`"
    },
)
STREAM_DROPPED = Metric(
    "stream_dropped_total",
    "counter",
    "Entries given up. Any increase is lost data.",
    "entries",
    {"reason": "`buffer_full` (the oldest give way), `rejected` (Valkey refused it), `shutdown` (not drained in time)"},
)
STREAM_BUFFER = Metric(
    "stream_buffer_entries", "gauge", "Entries that wait in memory to be written, those under way included.", "entries"
)
STREAM_WRITE_DURATION = Metric(
    "stream_write_duration_seconds",
    "histogram",
    "Time to write one batch to Valkey. The exemplar is the trace id of the batch's first entry.",
    "seconds",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
BUS_METRICS = (STREAM_WRITES, STREAM_DROPPED, STREAM_BUFFER, STREAM_WRITE_DURATION)

# Stream, fields, and the id to write it with; "*" lets Valkey make one.
Entry = tuple[str, Mapping[str, str], str]
_ALREADY_THERE = "The ID specified in XADD is equal or smaller"


def connect(url: str, password: str | None) -> Valkey:
    """A client for `url`; nothing is sent before the first command. Retrying is left to the callers."""
    return cast(
        Valkey,
        Valkey.from_url(
            url,
            password=password,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            client_name="tradewatch",
        ),
    )


def connect_with(settings: ValkeySettings) -> Valkey:
    """A client for the bus that the settings name, with the password of their file."""
    password = settings.valkey_password.get_secret_value() if settings.valkey_password else None
    return connect(settings.valkey_url, password)


async def ping(client: Valkey) -> CheckResult:
    """The readiness check of the bus: Valkey answers PING in time and accepts the password."""
    try:
        async with asyncio.timeout(PING_SECONDS):
            await client.ping()
    except (exceptions.ValkeyError, OSError, TimeoutError) as error:
        # The type only: messages of the client hold the address and the user.
        return CheckResult(False, f"no answer to PING: {type(error).__name__}")
    return CheckResult(True, "answers PING")


def check(client: Valkey) -> Check:
    """The readiness check `valkey`: `ping`."""

    async def run() -> CheckResult:
        return await ping(client)

    return Check("valkey", run)


class StreamWriter:
    """Appends entries to streams in the background.

    `publish` never waits and never fails. Entries are written in the order they came, many in one round trip. While
    Valkey is away they are kept, up to `buffer_entries`; then the oldest are given up and counted, because the
    newest market data is worth most.
    """

    def __init__(
        self,
        client: Valkey,
        registry: CollectorRegistry,
        liveness: Liveness,
        *,
        max_length: int,
        buffer_entries: int,
        batch_entries: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._liveness = liveness
        self._max_length = max_length
        self._buffer_entries = buffer_entries
        self._batch_entries = batch_entries
        self._backoff = backoff or Backoff(0.1, 5.0)
        self._buffer: deque[Entry] = deque()
        self._in_flight = 0
        self._arrived = asyncio.Event()
        self._throttle = Throttle()
        writes = STREAM_WRITES.counter(registry)
        dropped = STREAM_DROPPED.counter(registry)
        self._writes = {status: writes.labels(status=status.value) for status in WriteStatus}
        self._dropped = {reason: dropped.labels(reason=reason.value) for reason in DropReason}
        self._duration = STREAM_WRITE_DURATION.histogram(registry)
        STREAM_BUFFER.gauge(registry).set_function(lambda: self.pending)

    @classmethod
    def of(
        cls, settings: StreamWriterSettings, client: Valkey, registry: CollectorRegistry, liveness: Liveness
    ) -> Self:
        """One with the bounds of `settings`."""
        return cls(
            client,
            registry,
            liveness,
            max_length=settings.stream_max_length,
            buffer_entries=settings.buffer_max_entries,
        )

    @property
    def pending(self) -> int:
        """Entries not yet known to be stored."""
        return len(self._buffer) + self._in_flight

    def crowded(self) -> bool:
        """Whether the buffer is more than half full: who can wait before making more entries should."""
        return self.pending > self._buffer_entries // 2

    def publish(self, stream: str, fields: Mapping[str, str], entry_id: str = "*") -> None:
        """Take an entry to be written; gives up the oldest waiting one when the buffer is full.

        With an `entry_id` of its own (rising in its stream) it is written once, however often it is sent: Valkey
        refuses an id that is not above the stream's newest.
        """
        if len(self._buffer) >= self._buffer_entries:
            self._buffer.popleft()
            self._drop(DropReason.BUFFER_FULL, 1)
        self._buffer.append((stream, fields, entry_id))
        self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop` is set and the buffer is empty.

        After `stop` it keeps trying for as long as it is let; whoever bounds the drain cancels it, and what is left
        then is counted as dropped.
        """
        stopping = asyncio.create_task(self._wake_on(stop))
        try:
            while self._buffer or not stop.is_set():
                end_if_cancelled()
                self._liveness.beat(LIVENESS_LOOP)
                if not self._buffer:
                    await self._wait_for_entries()
                elif not await self._write_batch():
                    await asyncio.sleep(self._backoff.next_seconds())
        finally:
            stopping.cancel()
            if self.pending:
                self._drop(DropReason.SHUTDOWN, self.pending)

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._arrived.set()

    async def _wait_for_entries(self) -> None:
        self._arrived.clear()
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await self._arrived.wait()
        except TimeoutError:
            return

    async def _write_batch(self) -> bool:
        """Write the oldest entries. Returns False when Valkey could not take all of them now."""
        batch = [self._buffer.popleft() for _ in range(min(self._batch_entries, len(self._buffer)))]
        self._in_flight = len(batch)
        keep = batch
        try:
            started = time.perf_counter()
            replies = await self._send(batch)
            self._duration.observe(time.perf_counter() - started, self._exemplar(batch[0]))
            keep = self._unstored(batch, replies)
        except (exceptions.ValkeyError, OSError, TimeoutError) as error:
            self._warn("valkey does not take entries", error)
        finally:
            # Also when cancelled: what is not known to be stored goes back, in order, to be counted or sent again.
            self._buffer.extendleft(reversed(keep))
            self._in_flight = 0
        if keep:
            self._writes[WriteStatus.RETRIED].inc(len(keep))
            self._trim()
            return False
        self._backoff.reset()
        return True

    async def _send(self, batch: list[Entry]) -> list[object]:
        pipeline = self._client.pipeline(transaction=False)
        for stream, fields, entry_id in batch:
            pipeline.xadd(stream, dict(fields), id=entry_id, maxlen=self._max_length, approximate=True)
        replies: list[object] = await pipeline.execute(raise_on_error=False)
        return replies

    def _unstored(self, batch: list[Entry], replies: list[object]) -> list[Entry]:
        """The entries to send again; those refused for good are counted and left out."""
        keep = []
        stored = 0
        for entry, reply in zip(batch, replies, strict=True):
            if not isinstance(reply, Exception):
                stored += 1
            elif isinstance(reply, _PASSING_ERRORS) or str(reply).startswith(_PASSING_REPLIES):
                keep.append(entry)
                self._warn("valkey does not take entries", reply)
            elif entry[2] != "*" and str(reply).startswith(_ALREADY_THERE):
                self._writes[WriteStatus.REPEATED].inc()
            else:
                self._writes[WriteStatus.REJECTED].inc()
                self._drop(DropReason.REJECTED, 1)
                self._warn("valkey refused an entry", reply)
        if stored:
            self._writes[WriteStatus.OK].inc(stored)
        return keep

    def _trim(self) -> None:
        excess = len(self._buffer) - self._buffer_entries
        if excess > 0:
            for _ in range(excess):
                self._buffer.popleft()
            self._drop(DropReason.BUFFER_FULL, excess)

    def _drop(self, reason: DropReason, count: int) -> None:
        self._dropped[reason].inc(count)
        held = self._throttle.admit(reason.value)
        if held is not None:
            _log.error("stream entries dropped", reason=reason.value, count=count, lines_held_back=held)

    def _warn(self, message: str, error: Exception) -> None:
        name = type(error).__name__
        held = self._throttle.admit(f"{message}:{name}")
        if held is not None:
            _log.warning(message, error=name, pending=self.pending, lines_held_back=held)

    @staticmethod
    def _exemplar(entry: Entry) -> dict[str, str] | None:
        trace_id = entry[1].get("trace_id")
        return {"trace_id": trace_id} if trace_id else None
