"""The bus's writer against a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from services_support import PASSWORD, ValkeyServer, eventually, value
from tradewatch.common import bus, service
from tradewatch.common.backoff import Backoff
from tradewatch.common.service import Liveness, cancel_and_wait
from valkey.asyncio.client import Pipeline


@asynccontextmanager
async def _writing(
    valkey: ValkeyServer, password: str = PASSWORD, max_length: int = 100_000
) -> AsyncIterator[tuple[bus.StreamWriter, CollectorRegistry, asyncio.Event]]:
    registry = CollectorRegistry()
    client = bus.connect(valkey.url, password)
    writer = bus.StreamWriter(
        client, registry, Liveness(), max_length=max_length, buffer_entries=1000, backoff=Backoff(0.02, 0.1)
    )
    stop = asyncio.Event()
    task = asyncio.create_task(writer.run(stop))
    try:
        yield writer, registry, stop
    finally:
        await cancel_and_wait(task)
        await client.aclose()


async def test_an_entry_that_valkey_refuses_is_dropped_and_the_others_are_not(valkey: ValkeyServer) -> None:
    client = bus.connect(valkey.url, PASSWORD)
    await client.set("not-a-stream", "x")
    async with _writing(valkey) as (writer, registry, _):
        writer.publish("s", {"n": "1"})
        writer.publish("not-a-stream", {"n": "2"})
        writer.publish("s", {"n": "3"})
        await eventually(lambda: writer.pending == 0)
        assert value(registry, "stream_dropped_total", reason="rejected") == 1
        assert value(registry, "stream_writes_total", status="ok") == 2
    assert [fields for _, fields in await client.xrange("s")] == [{b"n": b"1"}, {b"n": b"3"}]
    await client.aclose()


async def test_out_of_memory_is_waited_for_not_dropped(valkey: ValkeyServer) -> None:
    client = bus.connect(valkey.url, PASSWORD)
    await client.config_set("maxmemory", "1")
    async with _writing(valkey) as (writer, registry, _):
        for number in range(10):
            writer.publish("s", {"n": str(number)})
        await eventually(lambda: value(registry, "stream_writes_total", status="retried") >= 20)
        assert writer.pending == 10
        await client.config_set("maxmemory", "0")
        await eventually(lambda: writer.pending == 0)
    assert [fields[b"n"] for _, fields in await client.xrange("s")] == [str(n).encode() for n in range(10)]
    await client.aclose()


async def test_a_wrong_password_keeps_the_data_and_is_unready(valkey: ValkeyServer) -> None:
    async with _writing(valkey, password="wrong") as (writer, registry, _):
        writer.publish("s", {"n": "1"})
        await eventually(lambda: value(registry, "stream_writes_total", status="retried") >= 2)
        assert writer.pending == 1
    client = bus.connect(valkey.url, "wrong")
    answer = await bus.ping(client)
    assert not answer.ok
    assert "wrong" not in answer.detail
    await client.aclose()


async def test_a_cancellation_that_the_client_swallows_ends_it(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = asyncio.Event()

    async def swallows_the_first(*_: Any, **__: Any) -> None:
        first = not sending.is_set()
        sending.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if first:
                raise ConnectionResetError from None
            raise

    monkeypatch.setattr(Pipeline, "execute", swallows_the_first)
    monkeypatch.setattr(service, "CANCEL_AGAIN_SECONDS", 3600)
    async with asyncio.timeout(10), _writing(valkey) as (writer, registry, _):
        writer.publish("s", {"n": "1"})
        await sending.wait()
    assert value(registry, "stream_dropped_total", reason="shutdown") == 1


async def test_streams_are_capped(valkey: ValkeyServer) -> None:
    async with _writing(valkey, max_length=200) as (writer, _, __):
        for number in range(5000):
            writer.publish("s", {"n": str(number)})
            if number % 500 == 0:
                await asyncio.sleep(0)
                await eventually(lambda: writer.pending == 0)
        await eventually(lambda: writer.pending == 0)
    client = bus.connect(valkey.url, PASSWORD)
    assert 200 <= await client.xlen("s") < 500
    await client.aclose()


async def test_what_a_cut_off_drain_leaves_is_counted(valkey: ValkeyServer) -> None:
    valkey.stop()
    async with _writing(valkey) as (writer, registry, stop):
        for number in range(7):
            writer.publish("s", {"n": str(number)})
        stop.set()
        await eventually(lambda: value(registry, "stream_writes_total", status="retried") >= 7)
    assert value(registry, "stream_dropped_total", reason="shutdown") == 7
