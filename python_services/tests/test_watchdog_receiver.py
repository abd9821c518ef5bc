"""watchdog-receiver and the chat simulator, on real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from alert_support import TOKEN, Chat, Server, alert, chat, webhook
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from services_support import ends, eventually
from tradewatch.common.http import HttpServer
from tradewatch.common.service import Liveness
from tradewatch.monitoring.alert_notifier.routing import parse_receivers
from tradewatch.monitoring.watchdog_receiver.metrics import WatchdogMetrics
from tradewatch.monitoring.watchdog_receiver.service import WatchdogReceiver, route

BEAT = webhook(alert("Watchdog", 9, severity="none"))


@pytest.fixture
async def room() -> AsyncIterator[Chat]:
    async with chat() as running:
        yield running


@asynccontextmanager
async def watchdog(room: Chat, state: Path) -> AsyncIterator[Server]:
    document = {"receivers": [{"name": name, "url": room.url(name)} for name in ("one", "two")]}
    registry, liveness, stop = CollectorRegistry(), Liveness(), asyncio.Event()
    senders = parse_receivers(json.dumps(document))
    metrics = WatchdogMetrics(registry, senders)
    receiver = WatchdogReceiver(senders, metrics, liveness, cluster="lab", silent_after_seconds=2, state_file=state)
    async with HttpServer(0, registry, liveness, [], [route(receiver, metrics, SecretStr(TOKEN))]) as server:
        task = asyncio.create_task(receiver.run(stop))
        try:
            yield Server(server.port)
        finally:
            stop.set()
            await ends(task)


async def test_silence_is_told_once_and_its_end_once(tmp_path: Path, room: Chat) -> None:
    state = tmp_path / "state.json"
    async with watchdog(room, state) as service:
        assert (await service.post("/v1/watchdog", BEAT)).status_code == 200
        assert (await service.post("/v1/watchdog", BEAT, token="wrong")).status_code == 401
        assert (await service.post("/v1/watchdog", webhook(alert("Other")))).status_code == 400
        assert (await service.post("/v1/watchdog", b"{")).status_code == 400
        await room.fault(fault="error", channel="two", seconds=60)
        (message,) = await room.has(1, "one")
        assert message["title"] == "[FIRING] critical: lab is silent"
        assert message["type"] == "failure"
        await service.reaches('watchdog_notifications_total{receiver="two",status="failed"}', 1)
        await room.heal()
        await room.has(1, "two")
    # A restart within the silence tells nothing twice, and still tells the end.
    async with watchdog(room, state) as service:
        await service.reaches("watchdog_silent", 1)
        for _ in range(2):
            assert (await service.post("/v1/watchdog", BEAT)).status_code == 200
        assert await service.metric("watchdog_silent") == 0
        for channel in ("one", "two"):
            told = (await room.has(2, channel))[1]
            assert (told["title"], told["type"]) == ("[RESOLVED] critical: lab is silent", "success")

        async def kept() -> bool:
            return bool(json.loads(state.read_text()) == {"told_of_silence": []})

        await eventually(kept)


async def test_the_chat_takes_both_forms_and_breaks_on_request(room: Chat) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{room.port}") as client:
        slack = {"text": "hello", "attachments": [{"title": "T", "text": "more", "color": "#fff"}]}
        assert (await client.post("/channels/a", json=slack)).text == "ok"
        assert (await client.post("/channels/b", json={"title": "t", "message": "m", "type": "info"})).text == "ok"
        for body in (b"", b"{}", b"\xff", b'{"text": 7}'):
            answer = await client.post("/channels/a", content=body)
            assert (answer.status_code, answer.text.count("\n")) == (400, 1)
        first, second = await room.messages()
        assert (first["channel"], first["title"], first["text"]) == ("a", "T", "hello\nmore")
        assert (second["channel"], second["title"], second["text"], second["number"]) == ("b", "t", "m", 2)
        await room.fault(fault="error", status=429, channel="a")
        assert (await client.post("/channels/a", json=slack)).status_code == 429
        assert (await client.post("/channels/b", json=slack)).status_code == 200
        await room.heal()
        await room.fault(fault="slow", delay_seconds=0.2)
        assert (await client.post("/channels/a", json=slack)).elapsed.total_seconds() >= 0.2
        assert (await client.delete("/messages")).json() == {"taken": 4, "messages": []}
