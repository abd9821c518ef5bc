"""The bus's consumer against a real Valkey, its restarts and its loss of data; consumers are killed as processes."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from services_support import PASSWORD, ValkeyServer, ends, eventually, value
from tradewatch.common import bus
from tradewatch.common.consumer import DEAD_LETTERS_STREAM, ConsumerLimits, Message, StreamConsumer
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.service import Liveness

TRACE = "a" * 32


class Outage(Exception):
    pass


@dataclass
class Handler:
    """Remembers what it handled; `fails` is raised for an entry for as long as it is there."""

    handled: list[tuple[str, int]] = field(default_factory=list)
    fails: dict[int, Exception] = field(default_factory=dict)
    attempts: list[int] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    seconds: float = 0.0

    async def __call__(self, message: Message) -> None:
        number = int(message.fields[b"n"])
        self.attempts.append(number)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            if number in self.fails:
                raise self.fails[number]
        finally:
            self.at_once -= 1
        self.handled.append((message.stream, number))

    def numbers(self) -> list[int]:
        return [number for _, number in self.handled]


@dataclass
class Consumption:
    consumer: StreamConsumer
    registry: CollectorRegistry
    liveness: Liveness
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    def consumed(self, status: str) -> float:
        return value(self.registry, "consumed_total", status=status)


@asynccontextmanager
async def consuming(
    valkey: ValkeyServer, handler: Any, *, name: str = "pod-1", streams: tuple[str, ...] = ("s",), **limits: Any
) -> AsyncIterator[Consumption]:
    registry, liveness, stop = CollectorRegistry(), Liveness(), asyncio.Event()
    client = bus.connect(valkey.url, PASSWORD)
    quick = {"backoff_base_seconds": 0.02, "backoff_max_seconds": 0.1, "metrics_seconds": 0.05}
    consumer = StreamConsumer(
        client,
        registry,
        liveness,
        group="g",
        consumer=name,
        streams=streams,
        handler=handler,
        outages=(Outage,),
        limits=ConsumerLimits(**quick | limits),
    )
    task = asyncio.create_task(consumer.run(stop))
    try:
        yield Consumption(consumer, registry, liveness, stop, task)
    finally:
        stop.set()
        await ends(task)
        await client.aclose()


@pytest.fixture
async def client(valkey: ValkeyServer) -> AsyncIterator[Any]:
    made = bus.connect(valkey.url, PASSWORD)
    yield made
    await made.aclose()


async def add(client: Any, *numbers: int, stream: str = "s") -> list[bytes]:
    return [await client.xadd(stream, {"n": str(number), "trace_id": TRACE}) for number in numbers]


async def pending(client: Any, stream: str = "s") -> int:
    return int((await client.xpending(stream, "g"))["pending"])


async def dead_letters(client: Any) -> list[dict[str, str]]:
    found = await client.xrange(DEAD_LETTERS_STREAM)
    return [{name.decode(): text.decode() for name, text in fields.items()} for _, fields in found]


async def test_what_was_there_before_the_group_and_what_comes_after_is_handled_in_order(
    valkey: ValkeyServer, client: Any
) -> None:
    await add(client, *range(50))
    handler = Handler()
    async with consuming(valkey, handler) as run:
        await eventually(lambda: len(handler.handled) == 50)
        await add(client, *range(50, 60))
        await eventually(lambda: run.consumed("ok") == 60)
        assert handler.numbers() == list(range(60))
        assert await pending(client) == 0
        assert run.liveness.ages_seconds()["consumer:s"] < 2


async def test_an_outage_keeps_the_entry_and_the_order_and_buries_nothing(valkey: ValkeyServer, client: Any) -> None:
    await add(client, 1, 2, 3)
    handler = Handler(fails={2: Outage()})
    async with consuming(valkey, handler, max_deliveries=3) as run:
        await eventually(lambda: run.consumed("retried") >= 8)
        assert handler.numbers() == [1]
        assert await pending(client) == 2
        (held,) = await client.xpending_range("s", "g", "-", "+", 1)
        assert held["times_delivered"] <= 1
        handler.fails.clear()
        await eventually(lambda: handler.numbers() == [1, 2, 3])
        await eventually(lambda: run.consumed("ok") == 3)
    assert await dead_letters(client) == []


async def test_a_stream_that_waits_does_not_hold_up_another_and_handlers_are_bounded(
    valkey: ValkeyServer, client: Any
) -> None:
    streams = tuple(f"s{number}" for number in range(6))
    for stream in streams:
        await add(client, *range(20), stream=stream)
    await add(client, 99, stream="blocked")
    handler = Handler(fails={99: Outage()}, seconds=0.001)
    async with consuming(valkey, handler, streams=(*streams, "blocked"), max_concurrent=3):
        await eventually(lambda: len(handler.handled) == 120)
        assert handler.most_at_once == 3
        for stream in streams:
            assert [number for where, number in handler.handled if where == stream] == list(range(20))


async def test_what_cannot_be_decoded_goes_to_the_dead_letters_at_once(valkey: ValkeyServer, client: Any) -> None:
    (entry_id, _) = await add(client, 1, 2)
    await client.xadd("s", {"n": "3", "raw": b"\xff\x00"})
    handler = Handler(fails={1: EventDecodeError("price: not a number"), 3: EventDecodeError("entry: not UTF-8")})
    async with consuming(valkey, handler) as run:
        await eventually(lambda: run.consumed("ok") + run.consumed("undecodable") == 3)
        assert handler.attempts == [1, 2, 3]
        assert await pending(client) == 0
    first, second = await dead_letters(client)
    assert first | {"fields": ""} == {
        "schema": "1", "kind": "dead_letter", "stream": "s", "group": "g", "entry_id": entry_id.decode(), "fields": "",
        "reason": "undecodable", "detail": "price: not a number", "trace_id": TRACE,
    }  # fmt: skip
    assert json.loads(first["fields"]) == {"n": "1", "trace_id": TRACE}
    assert json.loads(second["fields"])["raw"] == "\\xff\x00"


async def test_poison_is_given_up_after_its_deliveries_and_the_rest_goes_on(valkey: ValkeyServer, client: Any) -> None:
    await add(client, 1, 2, 3)
    handler = Handler(fails={2: RuntimeError("bug")})
    async with consuming(valkey, handler, max_deliveries=4) as run:
        await eventually(lambda: handler.numbers() == [1, 3])
        assert handler.attempts.count(2) == 4
        assert run.consumed("poison") == 1
        assert await pending(client) == 0
    (letter,) = await dead_letters(client)
    assert (letter["reason"], letter["detail"]) == ("poison", "given 4 times without an end")


async def test_a_restarted_consumer_begins_with_what_it_had_in_hand(valkey: ValkeyServer, client: Any) -> None:
    await add(client, *range(10))
    handler = Handler(fails={4: Outage()})
    async with consuming(valkey, handler) as run:
        await eventually(lambda: run.consumed("retried") >= 1)
    assert await pending(client) == 6
    handler.fails.clear()
    async with consuming(valkey, handler) as run:
        await eventually(lambda: run.consumed("ok") == 6)
    assert handler.numbers() == list(range(10))


async def test_what_a_dead_consumer_left_is_taken_over_after_the_idle_limit(valkey: ValkeyServer, client: Any) -> None:
    await add(client, *range(5))
    await client.xgroup_create("s", "g", id="0")
    await client.xreadgroup("g", "dead-pod", {"s": ">"})
    handler = Handler()
    async with consuming(valkey, handler, claim_idle_seconds=30.0):
        await add(client, 9)
        await eventually(lambda: handler.numbers() == [9])
    async with consuming(valkey, handler, name="pod-2", claim_idle_seconds=0.2):
        await eventually(lambda: handler.numbers() == [9, 0, 1, 2, 3, 4])
    assert await pending(client) == 0


async def test_what_a_living_consumer_waits_with_is_not_taken_over(valkey: ValkeyServer, client: Any) -> None:
    await add(client, 1, 2)
    waiting, other = Handler(fails={1: Outage()}), Handler()
    async with consuming(valkey, waiting) as run:
        await eventually(lambda: run.consumed("retried") >= 1)
        async with consuming(valkey, other, name="pod-2", claim_idle_seconds=0.5):
            await eventually(lambda: run.consumed("retried") >= 20)
            assert other.attempts == []


async def test_entries_that_the_stream_lost_before_they_were_handled_are_told(
    valkey: ValkeyServer, client: Any
) -> None:
    ids = await add(client, 1, 2, 3)
    await client.xgroup_create("s", "g", id="0")
    await client.xreadgroup("g", "pod-1", {"s": ">"}, count=1)
    await client.xreadgroup("g", "dead-pod", {"s": ">"}, count=1)
    await client.xdel("s", *ids[:2])
    handler = Handler()
    async with consuming(valkey, handler, claim_idle_seconds=0.1) as run:
        await eventually(lambda: run.consumed("trimmed") == 2)
        await eventually(lambda: handler.numbers() == [3])
        assert await pending(client) == 0
    assert {letter["reason"] for letter in await dead_letters(client)} == {"trimmed"}


async def test_lag_and_age_are_those_of_the_group(valkey: ValkeyServer, client: Any) -> None:
    handler = Handler(fails={0: Outage()})
    async with consuming(valkey, handler, batch_entries=4) as run:
        labels = {"stream": "s", "group": "g"}
        await eventually(lambda: value(run.registry, "stream_lag_messages", **labels) == 0)
        await add(client, 0)
        await eventually(lambda: run.consumed("retried") >= 1)
        await add(client, *range(1, 20))
        await eventually(lambda: value(run.registry, "stream_lag_messages", **labels) == 19)
        await eventually(lambda: value(run.registry, "stream_oldest_pending_seconds", **labels) > 0.2)
        handler.fails.clear()
        await eventually(lambda: value(run.registry, "stream_lag_messages", **labels) == 0)
        await eventually(lambda: value(run.registry, "stream_oldest_pending_seconds", **labels) == 0)


async def test_killed_and_restarted_valkeys_lose_no_entry_and_keep_the_order(valkey: ValkeyServer) -> None:
    handler = Handler(seconds=0.001)
    async with consuming(valkey, handler) as run:
        added = 0
        for _ in range(3):
            client = bus.connect(valkey.url, PASSWORD)
            await add(client, *range(added, added + 100))
            added += 100
            await client.aclose()
            await eventually(lambda low=added - 80: len(handler.handled) > low)
            valkey.signal(signal.SIGKILL)
            valkey.stop()
            await asyncio.sleep(0.05)
            valkey.start()
        await eventually(lambda: set(handler.numbers()) == set(range(300)))
        client = bus.connect(valkey.url, PASSWORD)

        async def all_acknowledged() -> bool:
            return await pending(client) == 0

        await eventually(all_acknowledged)
        await client.aclose()
        assert run.consumed("ok") >= 300 - 3
    first_seen = list(dict.fromkeys(handler.numbers()))
    assert first_seen == sorted(first_seen)


async def test_a_valkey_that_lost_its_data_gets_the_group_again(valkey: ValkeyServer, client: Any) -> None:
    handler = Handler()
    async with consuming(valkey, handler) as run:
        await add(client, 1)
        await eventually(lambda: run.consumed("ok") == 1)
        await client.flushall()
        await add(client, 2)
        await eventually(lambda: handler.numbers() == [1, 2])


_CHILD = """
import asyncio, sys
from prometheus_client import CollectorRegistry
from tradewatch.common import bus
from tradewatch.common.consumer import ConsumerLimits, StreamConsumer
from tradewatch.common.service import Liveness

url, password, journal = sys.argv[1:]

async def handler(message):
    await asyncio.sleep(0.002)
    with open(journal, "ab", buffering=0) as file:
        file.write(message.fields[b"n"] + b"\\n")
    await asyncio.sleep(0.002)

async def main():
    consumer = StreamConsumer(bus.connect(url, password), CollectorRegistry(), Liveness(), group="g", consumer="pod-1",
                              streams=("s",), handler=handler)
    await consumer.run(asyncio.Event())

asyncio.run(main())
"""


async def test_a_killed_consumer_loses_nothing(valkey: ValkeyServer, client: Any, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    await add(client, *range(300))

    def handled() -> list[int]:
        return [int(line) for line in journal.read_text().split()]

    kills = 0
    while len(set(handled())) < 300:
        process = subprocess.Popen([sys.executable, "-c", _CHILD, valkey.url, PASSWORD, str(journal)])
        try:
            goal = min(300, len(set(handled())) + 97)
            await eventually(lambda goal=goal: len(set(handled())) >= goal)
        finally:
            process.kill()
            process.wait(10)
        kills += 1
    assert kills >= 3
    assert set(handled()) == set(range(300))
    # One entry at most is in hand when a consumer dies.
    assert len(handled()) <= 300 + kills
    first_seen = list(dict.fromkeys(handled()))
    assert first_seen == sorted(first_seen)
