"""Reading the bus without a consumer group, for services whose state is a fold over streams.

Such a service reads the history again when it starts, so nothing is acknowledged and no position is stored. Entries
of all streams are given in the order of the bus, so that a fold comes to the same state whether it saw them live or
read them again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry
from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.common.backoff import Backoff
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.metrics import Metric
from tradewatch.common.service import Liveness, end_if_cancelled

_log = get_logger("stream_reader")

LIVENESS_LOOP = "stream_reader"
BLOCK_SECONDS = 1.0
# Entries that come within this time are fetched together; a round trip for each would cost more than it gains.
GATHER_SECONDS = 0.01
HOLD_SECONDS = 0.05
BATCH_ENTRIES = 1000
FROM_THE_BEGINNING = "0-0"

_STREAM = {"stream": "a stream that the service follows"}
READER_ENTRIES = Metric("stream_reader_entries_total", "counter", "Entries read.", "entries", _STREAM)
READER_UNDECODABLE = Metric(
    "stream_reader_undecodable_total",
    "counter",
    "Entries that could not be understood and were skipped.",
    "entries",
    _STREAM,
)
READER_HOLES = Metric(
    "stream_reader_holes_total",
    "counter",
    "Times that a stream was cut off beyond what had been read: some entries were never seen.",
    "holes",
    _STREAM,
)
READER_LAG = Metric(
    "stream_reader_lag_seconds",
    "gauge",
    "How far the reader is behind the newest entry: 0 when everything has been read.",
    "seconds",
    _STREAM,
)
READER_FAILURES = Metric(
    "stream_reader_failures_total", "counter", "Reads that Valkey did not answer or refused; tried again.", "reads"
)
STREAM_READER_METRICS = (READER_ENTRIES, READER_UNDECODABLE, READER_HOLES, READER_LAG, READER_FAILURES)

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Entry(Generic[ItemT]):
    """One entry: its stream, its id as (milliseconds, sequence number), and what it says."""

    stream: str
    id: tuple[int, int]
    item: ItemT


@dataclass(frozen=True, slots=True)
class Batch(Generic[ItemT]):
    """Entries in the order of their ids.

    `horizon_ms` (Unix milliseconds, of Valkey's clock): every entry with an id below has been given, provided that
    Valkey made the ids. It is 0 before the first answer. `caught_up` is false while more is known to wait.
    """

    entries: list[Entry[ItemT]]
    horizon_ms: int
    caught_up: bool


class _Stream(Generic[ItemT]):
    """What is known of one stream: up to where it was read, and what was read but not yet given."""

    __slots__ = ("full", "held", "name", "newest_ms", "position", "verify")

    def __init__(self, name: str, position: str) -> None:
        self.name = name
        self.position = position
        self.held: deque[Entry[ItemT]] = deque()
        self.newest_ms = 0
        self.full = False
        # Whether the next read has to look if the stream was cut off in the meantime.
        self.verify = False


class StreamReader(Generic[ItemT]):
    """Follows streams from a given point on.

    `decode` makes an item of an entry's fields or raises EventDecodeError. While `hold` says so nothing is read, such
    as while what was made of earlier entries cannot be written.
    """

    def __init__(
        self,
        client: Valkey,
        registry: CollectorRegistry,
        liveness: Liveness,
        streams: Sequence[str],
        decode: Callable[[Mapping[bytes, bytes]], ItemT],
        *,
        hold: Callable[[], bool] | None = None,
        batch_entries: int = BATCH_ENTRIES,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._liveness = liveness
        self._decode = decode
        self._hold = hold
        self._most_entries = batch_entries
        self._batch_entries = batch_entries
        self._backoff = backoff or Backoff(0.1, 5.0)
        self._throttle = Throttle()
        self._streams = {name: _Stream[ItemT](name, FROM_THE_BEGINNING) for name in streams}
        self._horizon_ms = 0
        entries, undecodable = READER_ENTRIES.counter(registry), READER_UNDECODABLE.counter(registry)
        holes, lag = READER_HOLES.counter(registry), READER_LAG.gauge(registry)
        self._entries = {name: entries.labels(stream=name) for name in streams}
        self._undecodable = {name: undecodable.labels(stream=name) for name in streams}
        self._holes = {name: holes.labels(stream=name) for name in streams}
        self._lag = {name: lag.labels(stream=name) for name in streams}
        self._failures = READER_FAILURES.counter(registry)

    def start_from(self, milliseconds: int, streams: Sequence[str] | None = None) -> None:
        """Read (those) streams from the first entry on whose id is of that time (Unix milliseconds) or later."""
        for name in streams if streams is not None else self._streams:
            # The id just before: reading gives what is greater than it.
            position = f"{milliseconds - 1}-{2**64 - 1}" if milliseconds > 0 else FROM_THE_BEGINNING
            self._streams[name] = _Stream(name, position)

    async def read(self, block_seconds: float = BLOCK_SECONDS) -> Batch[ItemT]:
        """What has come; waits up to `block_seconds` for it.

        When Valkey does not answer it waits a back-off and gives an empty batch, so that the caller's loop goes on.
        The position is kept: nothing is skipped and nothing given twice.
        """
        self._liveness.beat(LIVENESS_LOOP)
        if self._hold is not None and self._hold():
            await asyncio.sleep(HOLD_SECONDS)
            return Batch([], self._horizon_ms, False)
        waiting = any(stream.held for stream in self._streams.values())
        if waiting:
            block_seconds = 0.0
        asked = [stream for stream in self._streams.values() if self._wants_more(stream)]
        verify = [stream for stream in asked if stream.verify]
        try:
            now_ms, firsts, read = await self._fetch(asked, verify, block_seconds)
        except (exceptions.ValkeyError, OSError, TimeoutError) as error:
            end_if_cancelled()
            if isinstance(error, TimeoutError | exceptions.TimeoutError):
                # A machine too slow to take so much within the time limit would never get on.
                self._batch_entries = max(1, self._batch_entries // 2)
            await self._failed(error)
            return Batch([], self._horizon_ms, False)
        end_if_cancelled()
        self._backoff.reset()
        for stream in self._streams.values():
            # One that has enough waiting to be given was not asked for more.
            stream.full = len(stream.held) >= self._batch_entries
        for stream, first in zip(verify, firsts, strict=True):
            self._look_for_hole(stream, first)
        for stream in asked:
            self._take(stream, read.get(stream.name, []))
        if not any(stream.full for stream in self._streams.values()):
            self._batch_entries = self._most_entries
        return await self._release(now_ms)

    def _wants_more(self, stream: _Stream[ItemT]) -> bool:
        """Whether to ask for more of a stream: it holds less than a batch, or only more of it moves the horizon on."""
        return len(stream.held) < self._batch_entries or stream.newest_ms <= self._horizon_ms

    async def _fetch(
        self, asked: Sequence[_Stream[ItemT]], verify: Sequence[_Stream[ItemT]], block_seconds: float
    ) -> tuple[int, list[Any], dict[str, list[Any]]]:
        """Valkey's time before the read (ms), the first entry of the streams to verify, and what came."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.time()
        for stream in verify:
            pipeline.xrange(stream.name, count=1)
        if asked:
            pipeline.xread(
                {stream.name: stream.position for stream in asked},
                count=self._batch_entries,
                block=max(1, round(block_seconds * 1000)),
            )
        (seconds, microseconds), *answers = await pipeline.execute()
        # Where every stream has enough waiting, the time alone lets some of it be given; XREAD wants a stream.
        read = answers.pop() if asked else []
        return seconds * 1000 + microseconds // 1000, answers, {name.decode(): entries for name, entries in read}

    def _take(self, stream: _Stream[ItemT], entries: list[tuple[bytes, Mapping[bytes, bytes]]]) -> None:
        stream.full = len(entries) >= self._batch_entries
        stream.verify = stream.full
        for raw_id, fields in entries:
            milliseconds, _, sequence = raw_id.decode().partition("-")
            entry_id = (int(milliseconds), int(sequence))
            stream.newest_ms = entry_id[0]
            try:
                item = self._decode(fields)
            except EventDecodeError as error:
                self._skip(stream.name, raw_id, error)
                continue
            stream.held.append(Entry(stream.name, entry_id, item))
        if entries:
            stream.position = entries[-1][0].decode()
            self._entries[stream.name].inc(len(entries))

    async def _release(self, now_ms: int) -> Batch[ItemT]:
        """Give what no entry still to come can precede."""
        behind = [stream for stream in self._streams.values() if stream.full]
        horizon = min([now_ms, *(stream.newest_ms for stream in behind)])
        self._horizon_ms = max(self._horizon_ms, horizon)
        given: list[Entry[ItemT]] = []
        for stream in self._streams.values():
            while stream.held and stream.held[0].id[0] < self._horizon_ms:
                given.append(stream.held.popleft())
            self._lag[stream.name].set(max(0.0, (now_ms - stream.newest_ms) / 1000) if stream.full else 0.0)
        given.sort(key=lambda entry: (entry.id, entry.stream))
        if not behind:
            await asyncio.sleep(GATHER_SECONDS)
        return Batch(given, self._horizon_ms, not behind)

    async def _failed(self, error: Exception) -> None:
        self._failures.inc()
        for stream in self._streams.values():
            stream.verify = True
        name = type(error).__name__
        held = self._throttle.admit(name)
        if held is not None:
            _log.warning("valkey does not give entries", error=name, lines_held_back=held)
        await asyncio.sleep(self._backoff.next_seconds())

    def _look_for_hole(self, stream: _Stream[ItemT], first: list[tuple[bytes, Any]]) -> None:
        """Note when the stream's oldest entry is newer than the position: what lay between is gone."""
        if not first or stream.newest_ms == 0:
            return
        first_ms = int(first[0][0].decode().partition("-")[0])
        if first_ms > stream.newest_ms:
            self._holes[stream.name].inc()
            held = self._throttle.admit(f"hole:{stream.name}")
            if held is not None:
                _log.error(
                    "entries were cut off before they were read",
                    stream=stream.name,
                    missing_seconds=(first_ms - stream.newest_ms) / 1000,
                    lines_held_back=held,
                )

    def _skip(self, stream: str, raw_id: bytes, error: EventDecodeError) -> None:
        self._undecodable[stream].inc()
        held = self._throttle.admit(f"undecodable:{stream}")
        if held is not None:
            _log.warning(
                "entry skipped", stream=stream, entry_id=raw_id.decode(), problem=str(error), lines_held_back=held
            )
