"""`tradewatch replay`: put recorded market data onto the bus, as a collector would.

Each line is one JSON object with the fields of an entry of `market_data:*` (docs/trading.md), as text. Times are moved,
so that the first event is of now and the others come as far behind it as they were recorded, over the speed: services
that look at the clock take them for live.
"""

import asyncio
import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.cli.reading import EXIT_BAD_CONFIGURATION, EXIT_FAILED, EXIT_OK, fail, load
from tradewatch.common import bus, events
from tradewatch.common.events import MarketDataEvent
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.settings import StreamSettings

COMMAND = "replay"
# A stream whose newest entry is younger is being written by a collector.
LIVE_SECONDS = 60.0
MAX_LINE_CHARACTERS = 16_384


class _LiveStreamError(Exception):
    """A stream that the recording goes to is in use."""


def run(options: Namespace) -> int:
    """Replay a file. Returns the exit code: 1 also where lines were left out."""
    settings = load(COMMAND, StreamSettings)
    if settings is None:
        return EXIT_BAD_CONFIGURATION
    try:
        with _opened(options.file) as lines:
            return asyncio.run(_replay(settings, lines, options.speed, options.force))
    except UnicodeDecodeError:
        return fail(COMMAND, f"{options.file}: is not UTF-8 text")
    except (exceptions.ValkeyError, TimeoutError, ConnectionError) as error:
        # The type only: messages of the client hold the address and the user.
        return fail(COMMAND, f"the bus does not take entries: {type(error).__name__}")
    except OSError as error:
        return fail(COMMAND, f"cannot read {options.file}: {error.strerror}", EXIT_BAD_CONFIGURATION)
    except _LiveStreamError as error:
        return fail(COMMAND, f"{error} is being written now; its services would trade on the mixture (--force)")


def _opened(file: str) -> AbstractContextManager[IO[str]]:
    return nullcontext(sys.stdin) if file == "-" else Path(file).open(encoding="utf-8")


async def _replay(settings: StreamSettings, lines: IO[str], speed: float, force: bool) -> int:
    client = bus.connect_with(settings)
    player = _Player(client, settings.stream_max_length, speed, force)
    try:
        bad = await player.play(lines)
    finally:
        await client.aclose()
    print(f"{player.written} events written, {bad} lines left out")
    return EXIT_FAILED if bad else EXIT_OK


class _Player:
    def __init__(self, client: Valkey, max_length: int, speed: float, force: bool) -> None:
        self._client = client
        self._max_length = max_length
        self._speed = speed
        self._force = force
        self._seen: set[str] = set()
        self._first: datetime | None = None
        self._began = datetime.now(UTC)
        self._began_monotonic = time.monotonic()
        self.written = 0

    async def play(self, lines: Iterable[str]) -> int:
        """Write every line's event at its time. Returns the number of lines that hold none, each told on stderr."""
        bad = 0
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                event = _event(line)
            except ValueError as error:
                bad += 1
                fail(COMMAND, f"line {number}: {error}")
                continue
            await self._write(event)
        return bad

    async def _write(self, event: MarketDataEvent) -> None:
        if self._first is None:
            self._first = event.received_time
            self._began, self._began_monotonic = datetime.now(UTC), time.monotonic()
        stream = events.stream_name(event.exchange, event.product_id)
        if stream not in self._seen:
            await self._refuse_live(stream)
            self._seen.add(stream)
        behind = (event.received_time - self._first) / self._speed
        await asyncio.sleep(max(0.0, self._began_monotonic + behind.total_seconds() - time.monotonic()))
        received = self._began + behind
        moved = replace(
            event, received_time=received, exchange_time=received - (event.received_time - event.exchange_time)
        )
        await self._client.xadd(stream, dict(events.encode(moved)), maxlen=self._max_length, approximate=True)
        self.written += 1

    async def _refuse_live(self, stream: str) -> None:
        newest = await self._client.xrevrange(stream, count=1)
        if self._force or not newest:
            return
        written = datetime.fromtimestamp(int(newest[0][0].partition(b"-")[0]) / 1000, UTC)
        if datetime.now(UTC) - written < timedelta(seconds=LIVE_SECONDS):
            raise _LiveStreamError(stream)


def _event(line: str) -> MarketDataEvent:
    """The event of a line. Raises ValueError, which says what is wrong in one line."""
    if len(line) > MAX_LINE_CHARACTERS:
        raise ValueError(f"longer than {MAX_LINE_CHARACTERS} characters")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("is not a JSON object")
    for name, value in fields.items():
        if not isinstance(value, str):
            raise ValueError(f"{name[:40]}: is not text")
    try:
        return events.decode(fields)
    except EventDecodeError as error:
        raise ValueError(str(error)) from None
