"""A chat, an alert-notifier and Alertmanager's calls for the tests of notifications, on real sockets."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from postgres_support import ROLE_PASSWORD, Database
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from services_support import WAIT_SECONDS, ends, eventually, free_port
from structlog.testing import capture_logs
from tradewatch.common.http import HttpServer
from tradewatch.common.service import Liveness
from tradewatch.monitoring.alert_notifier.direct import DirectTelling
from tradewatch.monitoring.alert_notifier.dispatcher import Dispatcher, Patience
from tradewatch.monitoring.alert_notifier.metrics import NotifierMetrics
from tradewatch.monitoring.alert_notifier.routing import parse_routing
from tradewatch.monitoring.alert_notifier.service import MAX_BODY_BYTES, WebhookReceiver
from tradewatch.simulators.chat.channels import ChatServer
from tradewatch.simulators.chat.metrics import ChatSimulatorMetrics

TOKEN = "token-of-the-webhook-in-tests"
# In the path, as with the chats whose URLs are their secrets.
SECRET = "hook-path-nobody-may-see"
SECRETS = (TOKEN, SECRET, ROLE_PASSWORD)
STARTED = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=90)


def _client(**options: Any) -> httpx.AsyncClient:
    """Without certificates, whose loading takes longer than most requests."""
    return httpx.AsyncClient(verify=False, trust_env=False, **options)


@dataclass
class Chat:
    """A running chat simulator."""

    port: int

    def url(self, channel: str) -> str:
        """For Apprise, with a secret that nothing may show."""
        return f"json://user:{SECRET}@127.0.0.1:{self.port}/channels/{channel}?-token={SECRET}"

    async def messages(self, channel: str | None = None) -> list[dict[str, Any]]:
        async with _client(base_url=f"http://127.0.0.1:{self.port}") as client:
            answer = await client.get("/messages", params={"channel": channel} if channel else {})
        return list(answer.json()["messages"])

    async def has(self, count: int, channel: str | None = None) -> list[dict[str, Any]]:
        """The messages, once there are so many; fails when there are more."""

        async def enough() -> list[dict[str, Any]] | None:
            found = await self.messages(channel)
            return found if len(found) >= count else None

        found: list[dict[str, Any]] = await eventually(enough)
        assert len(found) == count, [message["title"] for message in found]
        return found

    async def fault(self, **fault: object) -> None:
        async with _client(base_url=f"http://127.0.0.1:{self.port}") as client:
            answer = await client.post("/faults", json=fault)
        assert answer.status_code == 202, answer.text

    async def heal(self) -> None:
        async with _client(base_url=f"http://127.0.0.1:{self.port}") as client:
            await client.delete("/faults")


@asynccontextmanager
async def chat() -> AsyncIterator[Chat]:
    registry = CollectorRegistry()
    routes = ChatServer(ChatSimulatorMetrics(registry)).routes()
    async with HttpServer(0, registry, Liveness(), [], routes) as server:
        yield Chat(server.port)


def alert(
    name: str = "DiskFull",
    number: int = 1,
    *,
    began_after: float = 0.0,
    resolved_after: float | None = None,
    **labels: str,
) -> dict[str, Any]:
    """As Alertmanager sends it; times in seconds after `STARTED`."""
    end = "0001-01-01T00:00:00Z" if resolved_after is None else _stamp(STARTED + timedelta(seconds=resolved_after))
    return {
        "status": "firing" if resolved_after is None else "resolved",
        "labels": {"alertname": name, "severity": "warning", "team": "devops", "node": "analytics-1", **labels},
        "annotations": {
            "summary": "A volume is nearly full",
            "description": "94 % of /data on analytics-1 is used.",
            "runbook_url": f"https://docs.example/runbooks/{name}.md",
            "dashboard_url": "https://grafana.example/d/unified",
        },
        "startsAt": _stamp(STARTED + timedelta(seconds=began_after)),
        "endsAt": end,
        "generatorURL": "https://prometheus:9090/graph",
        "fingerprint": f"{number:016x}",
    }


def _stamp(time: datetime) -> str:
    return time.isoformat().replace("+00:00", ".123456789Z")


def webhook(*alerts: dict[str, Any], **changes: object) -> dict[str, Any]:
    """The body of a call (Alertmanager 0.28, notify/webhook/webhook.go)."""
    return {
        "receiver": "alert-notifier",
        "status": "firing",
        "alerts": list(alerts),
        "groupLabels": {"alertname": "DiskFull"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "https://alertmanager:9093",
        "version": "4",
        "groupKey": '{}:{alertname="DiskFull"}',
        "truncatedAlerts": 0,
        **changes,
    }


class Server:
    """A service's HTTP side."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    async def post(self, path: str, body: object, token: str | None = TOKEN) -> httpx.Response:
        headers = {b"Authorization": f"Bearer {token}".encode()} if token is not None else {}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with _client(timeout=WAIT_SECONDS) as client:
            return await client.post(f"{self.url}{path}", content=content, headers=headers)

    async def metric(self, sample: str) -> float:
        """The value of a sample of /metrics, its labels as they are printed there."""
        async with _client() as client:
            lines = (await client.get(f"{self.url}/metrics")).text.splitlines()
        found = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"{sample} ")]
        assert found, f"{sample} is not exported"
        return float(found[0])

    async def reaches(self, sample: str, value: float) -> None:
        """Wait until the sample is so high."""

        async def high_enough() -> bool:
            return await self.metric(sample) >= value

        await eventually(high_enough)


@asynccontextmanager
async def repeating(service: Server, *alerts: dict[str, Any]) -> AsyncIterator[None]:
    """Alertmanager meanwhile, which tells over and over of what fires."""

    async def repeat() -> None:
        while True:
            await service.post("/v1/alerts", webhook(*alerts))
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(repeat())
        yield
        task.cancel()


class Process(Server):
    """alert-notifier as it runs in production, a process of its own."""

    def __init__(self, directory: Path, database: Database, document: dict[str, Any], **variables: str) -> None:
        port = free_port()
        super().__init__(port)
        self._log = directory / "log"
        for name, content in (("token", TOKEN), ("password", ROLE_PASSWORD), ("receivers", json.dumps(document))):
            (directory / name).write_text(content)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRADEWATCH_")},
            "TRADEWATCH_HTTP_PORT": str(port),
            "TRADEWATCH_ALERT_WEBHOOK_TOKEN_FILE": str(directory / "token"),
            "TRADEWATCH_ALERT_RECEIVERS_FILE": str(directory / "receivers"),
            "TRADEWATCH_DATABASE_URL": database.url,
            "TRADEWATCH_DATABASE_PASSWORD_FILE": str(directory / "password"),
            "TRADEWATCH_LOG_LEVEL": "debug",
            "TRADEWATCH_RETRY_MAX_SECONDS": "1",
            **variables,
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "tradewatch", "run", "alert-notifier"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

        async def up() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            with contextlib.suppress(httpx.HTTPError):
                async with _client() as client:
                    return bool((await client.get(f"{self.url}/healthz")).is_success)
            return False

        await eventually(up, 2 * WAIT_SECONDS)

    def kill(self) -> None:
        """SIGKILL, where it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_SECONDS)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, WAIT_SECONDS)

    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def notifier(
    database: Database,
    document: dict[str, Any],
    *,
    escalate_after: float = 60,
    unseen_after: float = 3600,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Server]:
    """The same in the test's own process, which starts at once."""
    registry, liveness, stop = CollectorRegistry(), Liveness(), asyncio.Event()
    routing = parse_routing(json.dumps(document))
    metrics = NotifierMetrics(registry, routing.senders)
    async with database.connect() as pool:
        patience = Patience(WAIT_SECONDS, 10, 0.2, 1.0, 3600, escalate_after, unseen_after)
        dispatcher = Dispatcher(pool, routing, patience, metrics, liveness, clock=clock)
        direct = DirectTelling(routing, WAIT_SECONDS, metrics)
        routes = [WebhookReceiver(pool, routing, metrics, direct, dispatcher.wake).route(SecretStr(TOKEN))]
        async with HttpServer(0, registry, liveness, [], routes, max_body_bytes=MAX_BODY_BYTES) as server:
            task = asyncio.create_task(dispatcher.run(stop))
            try:
                with capture_logs() as lines:
                    yield Server(server.port)
            finally:
                stop.set()
                await ends(task)
    for secret in SECRETS:
        assert secret not in repr(lines)


def receivers(chat: Chat) -> dict[str, Any]:
    """A document with routes to channels of their own."""
    names = ("devops-chat", "trading-chat", "pager", "managers")
    return {
        "receivers": [{"name": name, "url": chat.url(name)} for name in names],
        "routes": [
            {"team": "trading", "severity": "critical", "receivers": ["pager", "trading-chat"]},
            {"team": "trading", "receivers": ["trading-chat"]},
        ],
        "default": ["devops-chat"],
        "escalation": ["managers"],
    }
