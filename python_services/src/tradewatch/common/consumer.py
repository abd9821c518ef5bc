"""Reading the bus, Valkey Streams, as one of a consumer group: every entry at least once, in its stream's order.

An entry is acknowledged after the handler stored its effect, so a crash at any point repeats an entry and loses none;
handlers know what they have already stored. What cannot be handled goes to `dead_letters` with the reason.
(https://valkey.io/topics/streams-intro/)
"""

import asyncio
import json
import math
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry
from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.common.backoff import Backoff
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.logging import Throttle, get_logger, trace
from tradewatch.common.metrics import Metric
from tradewatch.common.service import Liveness, end_if_cancelled

_log = get_logger("consumer")

DEAD_LETTERS_STREAM = "dead_letters"
DEAD_LETTERS_MAX_LENGTH = 100_000
# Below the client's socket time limit, and how long a stop waits for an idle stream.
BLOCK_SECONDS = 1.0
# Where the server cannot tell the lag, entries are counted up to here.
LAG_COUNT_LIMIT = 1000
_BUS_ERRORS = (exceptions.ValkeyError, OSError, TimeoutError)


class ConsumeStatus(StrEnum):
    """How one delivery of an entry to the handler ended."""

    OK = "ok"
    RETRIED = "retried"
    UNDECODABLE = "undecodable"
    POISON = "poison"
    TRIMMED = "trimmed"


CONSUMED = Metric(
    "consumed_total",
    "counter",
    "Entries of streams given to the service, by how that ended. The exemplar is the entry's trace id.",
    "entries",
    {
        "status": "`ok` (effect stored, acknowledged), `retried` (an outage or a failure: it is given again), "
        "`undecodable` (no entry of its kind), `poison` (failed too often), `trimmed` (Valkey dropped it before it "
        "was handled: lost); the last three go to the stream `dead_letters`"
    },
)
STREAM_LAG = Metric(
    "stream_lag_messages",
    "gauge",
    "Entries of a stream that its group has not been given yet; -1 before Valkey first answered.",
    "entries",
    {"stream": "the stream's key", "group": "the service's `run` name"},
)
STREAM_OLDEST_PENDING = Metric(
    "stream_oldest_pending_seconds",
    "gauge",
    "Age of the oldest entry that the group was given and has not acknowledged; 0 where there is none.",
    "seconds",
    {"stream": "the stream's key", "group": "the service's `run` name"},
)
CONSUMER_METRICS = (CONSUMED, STREAM_LAG, STREAM_OLDEST_PENDING)


@dataclass(frozen=True, slots=True)
class Message:
    """An entry of a stream as it came."""

    stream: str
    entry_id: str
    fields: Mapping[bytes, bytes]

    @property
    def trace_id(self) -> str | None:
        """Its trace id, if it is one; a stranger's text is none."""
        text = self.fields.get(b"trace_id", b"").decode(errors="replace")
        return text if len(text) == 32 and text.isascii() and text.isalnum() else None


Handler = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class ConsumerLimits:
    """Bounds of a consumer, durations in seconds.

    `max_deliveries`: an entry that was given to the handler so often, each time without an end (it raised, or the
    process died), is poison. Outages do not count. `claim_idle_seconds`: so long after its last sign of life an
    entry that another consumer holds is taken over; it must be longer than the handler may take.
    """

    batch_entries: int = 32
    max_concurrent: int = 8
    max_deliveries: int = 10
    claim_idle_seconds: float = 60.0
    metrics_seconds: float = 5.0
    backoff_base_seconds: float = 0.1
    backoff_max_seconds: float = 5.0


class StreamConsumer:
    """Gives every entry of `streams` to `handler`, one at a time and in order within a stream.

    The handler returns when the effect is stored. It raises EventDecodeError for an entry that is none of its kind,
    and one of `outages` where something that it needs does not work: then the stream waits and the entry is given
    again. Anything else that it raises counts against the entry.
    """

    def __init__(
        self,
        client: Valkey,
        registry: CollectorRegistry,
        liveness: Liveness,
        *,
        group: str,
        streams: Sequence[str],
        handler: Handler,
        outages: tuple[type[BaseException], ...] = (),
        limits: ConsumerLimits | None = None,
        consumer: str | None = None,
    ) -> None:
        self._client = client
        self._group = group
        self._limits = limits or ConsumerLimits()
        self._liveness = liveness
        consumed = CONSUMED.counter(registry)
        outcomes = {status: consumed.labels(status=status.value) for status in ConsumeStatus}
        slots = asyncio.Semaphore(self._limits.max_concurrent)
        self._readers = [
            _GroupReader(
                client, liveness, group, consumer or socket.gethostname(), stream, handler, outages, self._limits,
                outcomes, slots,
            )
            for stream in streams
        ]  # fmt: skip
        lag, oldest = STREAM_LAG.gauge(registry), STREAM_OLDEST_PENDING.gauge(registry)
        self._lag = {stream: lag.labels(stream=stream, group=group) for stream in streams}
        self._oldest = {stream: oldest.labels(stream=stream, group=group) for stream in streams}
        for gauge in self._lag.values():
            gauge.set(-1)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set; the entries in hand are finished, those not begun stay for the next start."""
        measuring = asyncio.create_task(self._measure_for_ever())
        try:
            async with asyncio.TaskGroup() as tasks:
                for reader in self._readers:
                    tasks.create_task(reader.run(stop), name=f"consumer:{reader.stream}")
        finally:
            measuring.cancel()

    async def measure(self) -> None:
        """Refresh the gauges of lag and age. Raises what the client raises."""
        for stream in self._lag:
            groups = await self._client.xinfo_groups(stream)
            info = next((group for group in groups if group["name"].decode() == self._group), None)
            if info is None:
                continue
            lag = info.get("lag")
            if lag is None:
                lag = len(await self._client.xrange(stream, b"(" + info["last-delivered-id"], count=LAG_COUNT_LIMIT))
            self._lag[stream].set(lag)
            pending = await self._client.xpending(stream, self._group)
            self._oldest[stream].set(_age_seconds(pending["min"]) if pending["pending"] else 0)

    async def _measure_for_ever(self) -> None:
        while True:
            end_if_cancelled()
            try:
                await self.measure()
            except _BUS_ERRORS as error:
                # The readers meet the same and say so; the gauges keep what was last known.
                _log.debug("cannot measure the lag", error=type(error).__name__)
            await asyncio.sleep(self._limits.metrics_seconds)


def _age_seconds(entry_id: bytes) -> float:
    """An entry's id begins with the milliseconds of the server's clock at which it was added."""
    return max(0.0, time.time() - int(entry_id.split(b"-")[0]) / 1000)


class _GroupReader:
    """One stream: what this consumer was given before, what others left, then what is new."""

    def __init__(
        self,
        client: Valkey,
        liveness: Liveness,
        group: str,
        consumer: str,
        stream: str,
        handler: Handler,
        outages: tuple[type[BaseException], ...],
        limits: ConsumerLimits,
        outcomes: Mapping[ConsumeStatus, Any],
        slots: asyncio.Semaphore,
    ) -> None:
        self.stream = stream
        self._client = client
        self._liveness = liveness
        self._group = group
        self._consumer = consumer
        self._handler = handler
        self._outages = outages
        self._limits = limits
        self._outcomes = outcomes
        self._slots = slots
        self._backoff = Backoff(limits.backoff_base_seconds, limits.backoff_max_seconds)
        self._throttle = Throttle()
        self._has_group = False
        self._recovered = False
        self._claim_at = -math.inf
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        self._stop = stop
        while not stop.is_set():
            end_if_cancelled()
            self._beat()
            try:
                await self._advance()
            except _BUS_ERRORS as error:
                # Whatever was in hand is still this consumer's: it is read again from the start of what is pending.
                self._recovered = False
                if str(error).startswith("NOGROUP"):
                    self._has_group = False
                self._warn("the bus does not work", error)
                await self._pause()

    async def _advance(self) -> None:
        if not self._has_group:
            await self._create_group()
        elif not self._recovered:
            self._recovered = not await self._read_again()
        elif time.monotonic() >= self._claim_at:
            await self._claim()
            self._claim_at = time.monotonic() + self._limits.claim_idle_seconds / 2
        else:
            await self._read_new()

    async def _create_group(self) -> None:
        try:
            await self._client.xgroup_create(self.stream, self._group, id="0", mkstream=True)
            _log.info("group created", stream=self.stream, group=self._group)
        except exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._has_group = True

    async def _read_again(self) -> bool:
        """Handle the oldest entry that this consumer holds; one only, because each reading counts as a delivery."""
        entries = await self._read("0", count=1)
        for entry_id, fields in entries:
            if fields:
                await self._handle(Message(self.stream, entry_id.decode(), fields), await self._deliveries(entry_id))
            else:
                await self._bury_trimmed(entry_id)
        return bool(entries)

    async def _claim(self) -> None:
        """Take over, and handle, what no consumer has touched for the idle limit."""
        cursor: Any = "0-0"
        while not self._stop.is_set():
            self._beat()
            cursor, entries, gone = await self._client.xautoclaim(
                self.stream,
                self._group,
                self._consumer,
                min_idle_time=int(self._limits.claim_idle_seconds * 1000),
                start_id=cursor,
                count=1,
            )
            for entry_id in gone:
                await self._bury_trimmed(entry_id)
            for entry_id, fields in entries:
                _log.warning("entry taken over", stream=self.stream, entry_id=entry_id.decode())
                await self._handle(Message(self.stream, entry_id.decode(), fields), await self._deliveries(entry_id))
            if cursor == b"0-0":
                return

    async def _read_new(self) -> None:
        entries = await self._read(">", count=self._limits.batch_entries, block=int(BLOCK_SECONDS * 1000))
        for number, (entry_id, fields) in enumerate(entries):
            if self._stop.is_set():
                return
            following = [entry_id for entry_id, _ in entries[number + 1 :]]
            await self._handle(Message(self.stream, entry_id.decode(), fields), 1, following)
        if entries:
            self._backoff.reset()

    async def _read(self, start: str, count: int, block: int | None = None) -> list[tuple[bytes, dict[bytes, bytes]]]:
        reply = await self._client.xreadgroup(
            self._group, self._consumer, {self.stream: start}, count=count, block=block
        )
        return list(reply[0][1]) if reply else []

    async def _deliveries(self, entry_id: bytes) -> int:
        found = await self._client.xpending_range(self.stream, self._group, entry_id, entry_id, 1)
        return int(found[0]["times_delivered"]) if found else 1

    async def _handle(self, message: Message, deliveries: int, following: Sequence[bytes] = ()) -> None:
        """Bring one entry to its end, or give up on `stop`; `following` are further ones that this consumer holds."""
        trace_id = message.trace_id
        with trace(trace_id) if trace_id else nullcontext():
            while True:
                self._beat()
                if deliveries > self._limits.max_deliveries:
                    detail = f"given {deliveries - 1} times without an end"
                    await self._bury(message.entry_id, message.fields, ConsumeStatus.POISON, detail)
                    return
                try:
                    async with self._slots:
                        await self._handler(message)
                except EventDecodeError as error:
                    await self._bury(message.entry_id, message.fields, ConsumeStatus.UNDECODABLE, str(error))
                    return
                except self._outages as error:
                    self._count(ConsumeStatus.RETRIED, message)
                    self._warn("cannot handle entries now", error)
                except Exception as error:
                    deliveries += 1
                    self._count(ConsumeStatus.RETRIED, message)
                    _log.exception(
                        "entry failed", stream=self.stream, entry_id=message.entry_id, error=type(error).__name__
                    )
                else:
                    await self._client.xack(self.stream, self._group, message.entry_id)
                    self._count(ConsumeStatus.OK, message)
                    return
                await self._hold([message.entry_id, *following], deliveries)
                await self._pause()
                if self._stop.is_set():
                    return

    async def _hold(self, entry_ids: Sequence[Any], deliveries: int) -> None:
        """Say that these are still in hand, so that nobody takes them over, and how often the first was given."""
        first, *others = entry_ids
        claim = self._client.xclaim
        await claim(self.stream, self._group, self._consumer, 0, (first,), retrycount=deliveries - 1, justid=True)
        if others:
            await claim(self.stream, self._group, self._consumer, 0, tuple(others), justid=True)

    async def _bury_trimmed(self, entry_id: bytes) -> None:
        detail = "the stream was cut to its length before this entry was handled"
        await self._bury(entry_id.decode(), {}, ConsumeStatus.TRIMMED, detail)

    async def _bury(self, entry_id: str, fields: Mapping[bytes, bytes], reason: ConsumeStatus, detail: str) -> None:
        """Move an entry to the dead letters: both or neither."""
        message = Message(self.stream, entry_id, fields)
        letter = {
            "schema": "1",
            "kind": "dead_letter",
            "stream": self.stream,
            "group": self._group,
            "entry_id": entry_id,
            "reason": reason.value,
            "detail": detail,
            "fields": json.dumps({_readable(name): _readable(text) for name, text in fields.items()}),
            "trace_id": message.trace_id or "",
        }
        pipeline = self._client.pipeline(transaction=True)
        pipeline.xadd(DEAD_LETTERS_STREAM, letter, maxlen=DEAD_LETTERS_MAX_LENGTH, approximate=True)
        pipeline.xack(self.stream, self._group, entry_id)
        await pipeline.execute()
        self._count(reason, message)
        held = self._throttle.admit(reason.value)
        if held is not None:
            _log.error(
                "entry to the dead letters", stream=self.stream, entry_id=entry_id, reason=reason.value, detail=detail,
                lines_held_back=held,
            )  # fmt: skip

    def _count(self, status: ConsumeStatus, message: Message) -> None:
        self._outcomes[status].inc(1, {"trace_id": message.trace_id} if message.trace_id else None)

    async def _pause(self) -> None:
        """Wait for the back-off, less when stopping."""
        try:
            async with asyncio.timeout(self._backoff.next_seconds()):
                await self._stop.wait()
        except TimeoutError:
            return

    def _beat(self) -> None:
        self._liveness.beat(f"consumer:{self.stream}")

    def _warn(self, what: str, error: BaseException) -> None:
        name = type(error).__name__
        held = self._throttle.admit(f"{what}:{name}")
        if held is not None:
            _log.warning(what, stream=self.stream, error=name, lines_held_back=held)


def _readable(value: bytes) -> str:
    return value.decode(errors="backslashreplace")
