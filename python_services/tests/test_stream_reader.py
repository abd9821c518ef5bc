"""The reader without a group, on a real Valkey."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from aggregation_support import bus_client
from prometheus_client import CollectorRegistry
from services_support import PASSWORD, ValkeyServer, eventually, value
from tradewatch.common import bus
from tradewatch.common.backoff import Backoff
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.service import Liveness
from tradewatch.common.stream_reader import Batch, StreamReader


def _number(fields: Mapping[bytes, bytes]) -> int:
    try:
        return int(fields[b"n"])
    except (KeyError, ValueError):
        raise EventDecodeError("n: not a number") from None


def _reader(
    valkey: ValkeyServer, *streams: str, batch_entries: int = 1000, hold: Callable[[], bool] | None = None
) -> tuple[StreamReader[int], CollectorRegistry, Any]:
    registry = CollectorRegistry()
    client = bus.connect(valkey.url, PASSWORD)
    reader = StreamReader(
        client,
        registry,
        Liveness(),
        streams,
        _number,
        batch_entries=batch_entries,
        hold=hold,
        backoff=Backoff(0.02, 0.1),
    )
    return reader, registry, client


async def _read_all(reader: StreamReader[int], count: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []

    async def enough() -> bool:
        found.extend((entry.stream, entry.item) for entry in (await reader.read(0.05)).entries)
        return len(found) >= count

    await eventually(enough)
    return found


class _SlowMachine(StreamReader[int]):
    """Takes no more than so many entries of a stream within the time limit."""

    takes = 8

    async def _fetch(self, *arguments: Any) -> Any:
        if self._batch_entries > self.takes:
            raise TimeoutError
        return await super()._fetch(*arguments)


async def test_a_machine_too_slow_for_a_whole_batch_gets_on_in_smaller_ones(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client:
        for milliseconds in range(1, 41):
            await client.xadd("dense", {"n": milliseconds}, id=f"{milliseconds}-0")
            if milliseconds % 10 == 0:
                await client.xadd("sparse", {"n": milliseconds}, id=f"{milliseconds}-1")
        reader = _SlowMachine(
            client, CollectorRegistry(), Liveness(), ("dense", "sparse"), _number, backoff=Backoff(0.001, 0.002)
        )
        found = await _read_all(reader, 44)
    assert [number for _, number in found] == sorted([*range(1, 41), *range(10, 41, 10)])


@pytest.mark.parametrize("takes", [1, 3])
@pytest.mark.parametrize("streams", [("dense",), ("dense", "sparse")])
async def test_a_batch_of_fewer_entries_than_a_millisecond_has_stalls_nothing(
    valkey: ValkeyServer, takes: int, streams: tuple[str, ...]
) -> None:
    async with bus_client(valkey) as client:
        for milliseconds in range(1, 11):
            for sequence in range(6):
                await client.xadd("dense", {"n": milliseconds}, id=f"{milliseconds}-{sequence}")
            await client.xadd("sparse", {"n": milliseconds}, id=f"{milliseconds}-9")
        reader = _SlowMachine(client, CollectorRegistry(), Liveness(), streams, _number, backoff=Backoff(0.001, 0.002))
        reader.takes = takes
        found = await _read_all(reader, 60 if len(streams) == 1 else 70)
    numbers = [number for _, number in found]
    assert numbers == sorted(numbers)
    assert Counter(stream for stream, _ in found) == {name: 60 if name == "dense" else 10 for name in streams}


async def test_entries_newer_than_the_read_that_brought_them_are_given_after_timeouts(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client:
        reader = _SlowMachine(client, CollectorRegistry(), Liveness(), ("s",), _number, backoff=Backoff(0.001, 0.002))
        reader.takes = 1000
        waiting = asyncio.create_task(reader.read(5))
        await asyncio.sleep(0.2)
        await client.xadd("s", {"n": 1})
        assert (await waiting).entries == []
        reader.takes = 1
        assert await _read_all(reader, 1) == [("s", 1)]


async def test_entries_of_all_streams_come_in_the_order_of_the_bus_however_uneven_the_streams(
    valkey: ValkeyServer,
) -> None:
    async with bus_client(valkey) as client:
        for milliseconds in range(1, 101):
            await client.xadd("dense", {"n": milliseconds}, id=f"{milliseconds}-0")
            if milliseconds % 10 == 0:
                await client.xadd("sparse", {"n": milliseconds}, id=f"{milliseconds}-1")
    reader, registry, own = _reader(valkey, "sparse", "dense", batch_entries=3)
    found = await _read_all(reader, 110)
    assert [number for _, number in found] == sorted(number for _, number in found)
    assert len(found) == 110
    assert found[9:11] == [("dense", 10), ("sparse", 10)]
    assert (await reader.read(0)).caught_up
    assert value(registry, "stream_reader_lag_seconds", stream="dense") == 0
    await own.aclose()


async def test_reading_starts_at_a_time(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client:
        for milliseconds in (10, 20, 30):
            await client.xadd("s", {"n": milliseconds}, id=f"{milliseconds}-0")
    reader, _, own = _reader(valkey, "s")
    reader.start_from(20)
    assert await _read_all(reader, 2) == [("s", 20), ("s", 30)]
    await own.aclose()


async def test_what_cannot_be_decoded_is_counted_and_skipped(valkey: ValkeyServer) -> None:
    reader, registry, own = _reader(valkey, "s")
    async with bus_client(valkey) as client:
        for fields in ({"n": "1"}, {"n": "x"}, {"other": "1"}, {"n": "2"}):
            await client.xadd("s", fields)
    assert await _read_all(reader, 2) == [("s", 1), ("s", 2)]
    assert value(registry, "stream_reader_undecodable_total", stream="s") == 2
    assert value(registry, "stream_reader_entries_total", stream="s") == 4
    await own.aclose()


async def test_nothing_is_skipped_or_repeated_while_valkey_restarts(valkey: ValkeyServer) -> None:
    reader, registry, own = _reader(valkey, "s")
    async with bus_client(valkey) as client:
        await client.xadd("s", {"n": 1})
    assert await _read_all(reader, 1) == [("s", 1)]
    valkey.stop()
    assert (await reader.read(0)) == Batch([], (await reader.read(0)).horizon_ms, False)
    valkey.start()
    async with bus_client(valkey) as client:
        await client.xadd("s", {"n": 2})
    assert await _read_all(reader, 1) == [("s", 2)]
    assert value(registry, "stream_reader_failures_total") == 2
    assert value(registry, "stream_reader_holes_total", stream="s") == 0
    await own.aclose()


async def test_a_stream_cut_off_beyond_the_position_is_told(valkey: ValkeyServer) -> None:
    reader, registry, own = _reader(valkey, "s", batch_entries=5)
    async with bus_client(valkey) as client:
        for milliseconds in range(1, 41):
            await client.xadd("s", {"n": milliseconds}, id=f"{milliseconds}-0")
        await reader.read(0)
        await client.xtrim("s", minid="20-0", approximate=False)
    found = await _read_all(reader, 21)
    assert found[-1] == ("s", 40)
    assert value(registry, "stream_reader_holes_total", stream="s") == 1
    await own.aclose()


async def test_a_key_that_is_no_stream_stops_nothing_but_the_reading(valkey: ValkeyServer) -> None:
    reader, registry, own = _reader(valkey, "s")
    async with bus_client(valkey) as client:
        await client.set("s", "not a stream")
        assert (await reader.read(0)).entries == []
        assert value(registry, "stream_reader_failures_total") == 1
        await client.delete("s")
        await client.xadd("s", {"n": 1})
    assert await _read_all(reader, 1) == [("s", 1)]
    await own.aclose()


async def test_it_holds_while_it_is_told_to(valkey: ValkeyServer) -> None:
    full = True
    reader, _, own = _reader(valkey, "s", hold=lambda: full)
    async with bus_client(valkey) as client:
        await client.xadd("s", {"n": 1})
    assert await reader.read(0) == Batch([], 0, False)
    full = False
    assert await _read_all(reader, 1) == [("s", 1)]
    await own.aclose()


async def test_a_waiting_read_ends_when_it_is_cancelled(valkey: ValkeyServer) -> None:
    for _ in range(10):
        reader, _, own = _reader(valkey, "s")

        async def follow(reader: StreamReader[int] = reader) -> None:
            while True:
                await reader.read(0.02)

        task = asyncio.create_task(follow())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task}, timeout=2)
        assert task.cancelled()
        await own.aclose()
