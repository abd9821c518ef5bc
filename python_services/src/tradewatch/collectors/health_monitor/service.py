"""health-monitor: whether the data is fresh and complete, the bus carries, and every dependency is ready."""

import asyncio
import re
import socket
import time
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode
from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.collectors.exchanges import EXCHANGES
from tradewatch.collectors.health_monitor import metrics
from tradewatch.collectors.health_monitor.components import Components, HealthReport
from tradewatch.collectors.health_monitor.dependencies import (
    VALKEY,
    Dependencies,
    Verdict,
    ask_service,
    ask_valkey,
    new_client,
)
from tradewatch.collectors.health_monitor.feeds import Completeness, Freshness, Rate, sighting
from tradewatch.collectors.health_monitor.heartbeat import COMPONENT as BUS_COMPONENT
from tradewatch.collectors.health_monitor.heartbeat import BusHeartbeat
from tradewatch.common import bus, events, service, streams
from tradewatch.common.api import json_get
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.http import HttpServer
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import HTTP, ProductIds, ValkeySettings, duration, require_url
from tradewatch.common.stream_reader import StreamReader

NAME = "health-monitor"
MAX_DEPENDENCIES = 50
JUDGE_SECONDS = 1.0
LOOK_SECONDS = 2.0
# Small, because heartbeats and checks are timed on the loop that a batch holds up.
BATCH_ENTRIES = 200

_DEPENDENCY_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_log = get_logger("health_monitor")


def _known_exchanges(value: object) -> object:
    if not isinstance(value, str):
        return value
    exchanges = tuple(part.strip() for part in value.split(",") if part.strip())
    for exchange in exchanges:
        if exchange not in EXCHANGES:
            raise ValueError(f"unknown exchange {exchange[:40]!r}; known: {', '.join(sorted(EXCHANGES))}")
    if not exchanges or len(set(exchanges)) != len(exchanges):
        raise ValueError("name at least one exchange, each once")
    return exchanges


def _parse_dependencies(value: object) -> object:
    """Turn `name=url,name=url` into a mapping."""
    if not isinstance(value, str):
        return value
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, _, url = part.partition("=")
        if not _DEPENDENCY_NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is not a dependency's name: lowercase letters, digits and -, then =URL")
        if name in found or name in (VALKEY, BUS_COMPONENT):
            raise ValueError(f"the name {name} is {'named twice' if name in found else 'taken by the bus itself'}")
        try:
            require_url(url, HTTP)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        found[name] = url
    if len(found) > MAX_DEPENDENCIES:
        raise ValueError(f"at most {MAX_DEPENDENCIES} dependencies, got {len(found)}")
    return found


def _limit(default: float, what: str) -> float:
    return duration(default, 86_400, f"age above which {what} not fresh")


class HealthMonitorSettings(ValkeySettings):
    """Settings of health-monitor; durations in seconds."""

    exchanges: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_known_exchanges)] = Field(
        default=tuple(sorted(EXCHANGES)), description="comma separated exchanges whose market data is watched"
    )
    products: ProductIds = Field(description="comma separated product ids, such as BTC-USD,ETH-USD")
    dependencies: Annotated[dict[str, str] | None, NoDecode, BeforeValidator(_parse_dependencies)] = Field(
        default=None,
        description="comma separated name=url of services, which are asked at url/readyz; the names are labels",
    )
    data_max_age_seconds: float = _limit(15.0, "a product's market data is")
    quote_max_age_seconds: float = _limit(15.0, "quotes are")
    candle_max_age_seconds: float = _limit(60.0, "candles are")
    indicators_max_age_seconds: float = _limit(150.0, "indicators are")
    sentiment_max_age_seconds: float = _limit(180.0, "sentiment is")
    completeness_slot_seconds: float = duration(5.0, 3600, "length of a slot that should have an event", least=1)
    completeness_slots: int = Field(default=60, ge=1, le=3600, description="how many of the last slots are looked at")
    heartbeat_seconds: float = duration(1.0, 10, "between two heartbeats", least=0.1)
    heartbeat_timeout_seconds: float = duration(3.0, 20, "after which a heartbeat is missed", least=0.1)
    dependency_check_seconds: float = duration(5.0, 30, "between two checks of a dependency", least=0.1)
    dependency_timeout_seconds: float = duration(3.0, 20, "bound of one check", least=0.1)


class _Feed:
    """One exchange's product."""

    def __init__(self, settings: HealthMonitorSettings, since: float) -> None:
        self.freshness = Freshness(settings.data_max_age_seconds)
        self.completeness = Completeness(settings.completeness_slot_seconds, settings.completeness_slots, since)
        self.rate = Rate()


class HealthMonitor:
    """Follows the streams, beats through the bus and asks the dependencies; nothing of it makes itself unready."""

    def __init__(
        self,
        settings: HealthMonitorSettings,
        client: Valkey,
        reading: Valkey,
        registry: CollectorRegistry,
        liveness: Liveness,
    ) -> None:
        self._client = client
        self._liveness = liveness
        self._throttle = Throttle()
        self._started = time.time()
        self._looked = False
        self._taken: dict[str, bytes] = {}
        self._read_until = 0.0
        self._window_seconds = settings.completeness_slot_seconds * settings.completeness_slots
        self._feeds = {
            events.stream_name(exchange, product): ((exchange, product), _Feed(settings, self._started))
            for exchange in settings.exchanges
            for product in settings.products
        }
        self._streams = _derived_streams(settings)
        self._freshness = {name: feed.freshness for name, (_, feed) in self._feeds.items()} | self._streams
        dependencies = {VALKEY: partial(ask_valkey, client)} | {
            name: partial(self._ask_service, url) for name, url in (settings.dependencies or {}).items()
        }
        self.components = Components(registry, (BUS_COMPONENT, *dependencies, *self._freshness))
        self._heartbeat = BusHeartbeat(
            client,
            reading,
            registry,
            liveness,
            self.components,
            origin=socket.gethostname(),
            interval_seconds=settings.heartbeat_seconds,
            timeout_seconds=settings.heartbeat_timeout_seconds,
        )
        self._dependencies = Dependencies(
            dependencies,
            registry,
            liveness,
            self.components,
            interval_seconds=settings.dependency_check_seconds,
            timeout_seconds=settings.dependency_timeout_seconds,
        )
        self._http = new_client()
        self._reader = StreamReader(
            reading, registry, liveness, tuple(self._feeds), sighting, batch_entries=BATCH_ENTRIES
        )
        self._age = metrics.DATA_AGE.gauge(registry)
        self._fresh = metrics.DATA_FRESH.gauge(registry)
        self._complete = metrics.DATA_COMPLETENESS.gauge(registry)
        self._rate = metrics.DATA_RATE.gauge(registry)
        self._stream_age = metrics.STREAM_AGE.gauge(registry)
        self._stream_fresh = metrics.STREAM_FRESH.gauge(registry)

    @property
    def routes(self) -> tuple[web.RouteDef, ...]:
        """The report, for people and dashboards."""
        return (json_get("/v1/health", self._report),)

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set."""
        async with self._http, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeat.run(stop), name="heartbeats")
            tasks.create_task(service.until_stopped(stop, self._dependencies.poll(stop)), name="dependencies")
            tasks.create_task(service.until_stopped(stop, self._follow()), name="streams")
            tasks.create_task(service.until_stopped(stop, self._judge_until(stop)), name="verdicts")

    async def _report(self, _: web.Request) -> HealthReport:
        return self.components.report()

    async def _follow(self) -> None:
        """Note each event, from those of the window before the start on, for completeness and rate."""
        self._reader.start_from(round((self._started - self._window_seconds) * 1000))
        while True:
            batch = await self._reader.read()
            now = time.time()
            for entry in batch.entries:
                if entry.item.stream != entry.stream:
                    self._warn("an entry is not of its stream", entry.stream)
                    continue
                _, feed = self._feeds[entry.stream]
                feed.completeness.see(entry.item.at, now)
                if entry.id[0] >= self._started * 1000:
                    feed.rate.see()
            self._read_until = now if batch.caught_up else batch.horizon_ms / 1000

    async def _judge_until(self, stop: asyncio.Event) -> None:
        # Cancelled as well when it stops; but valkey-py can swallow that.
        while not stop.is_set():
            self._liveness.beat("verdicts")
            await self._look()
            self._judge(time.time(), time.monotonic())
            await asyncio.sleep(JUDGE_SECONDS)

    async def _look(self) -> None:
        """Take each stream's newest entry. Ages come from these, so that they hold also while the reader is behind."""
        pipeline = self._client.pipeline(transaction=False)
        for stream in self._freshness:
            pipeline.xrevrange(stream, count=1)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await pipeline.execute(raise_on_error=False)
        except (exceptions.ValkeyError, OSError, TimeoutError) as error:
            self._warn(f"cannot look at the streams: {type(error).__name__}", "all")
            return
        now = time.time()
        for stream, newest in zip(self._freshness, found, strict=True):
            if newest:
                self._take(stream, newest, now)
        self._looked = True

    def _take(self, stream: str, newest: Any, now: float) -> None:
        """Take a stream's newest entry, as Valkey answered, once."""
        if isinstance(newest, Exception):
            self._warn(f"cannot look at a stream: {type(newest).__name__}", stream)
            return
        ((entry_id, fields),) = newest
        if self._taken.get(stream) == entry_id:
            return
        self._taken[stream] = entry_id
        try:
            seen = sighting(fields)
        except EventDecodeError:
            self._warn("the newest entry cannot be understood", stream)
            return
        if seen.stream == stream:
            self._freshness[stream].see(seen.at, now)
        else:
            self._warn("an entry is not of its stream", stream)

    def _judge(self, now: float, monotonic: float) -> None:
        for name, ((exchange, product), feed) in self._feeds.items():
            labels = {"exchange": exchange, "product_id": product}
            age = feed.freshness.age_seconds(now)
            # Of what is not read yet nobody can say what it lacks.
            ratio = feed.completeness.ratio(min(now, self._read_until)) if self._read_until else None
            if age is not None:
                self._age.labels(**labels).set(age)
            if ratio is not None:
                self._complete.labels(**labels).set(ratio)
            self._rate.labels(**labels).set(feed.rate.per_second(monotonic))
            if self._known(feed.freshness, now):
                self._fresh.labels(**labels).set(self._judge_one(name, feed.freshness, now))
        for name, freshness in self._streams.items():
            age = freshness.age_seconds(now)
            if age is not None:
                self._stream_age.labels(stream=name).set(age)
            if self._known(freshness, now):
                self._stream_fresh.labels(stream=name).set(self._judge_one(name, freshness, now))

    def _judge_one(self, name: str, freshness: Freshness, now: float) -> bool:
        fresh = freshness.fresh(now)
        self.components.judge(name, fresh, freshness.detail(now))
        return fresh

    def _known(self, freshness: Freshness, now: float) -> bool:
        """Whether there can be a verdict: what was never seen may take its limit to come before it is missed."""
        return (self._looked and freshness.seen) or now - self._started > freshness.limit_seconds

    async def _ask_service(self, url: str) -> Verdict:
        return await ask_service(self._http, url)

    def _warn(self, message: str, stream: str) -> None:
        held = self._throttle.admit(f"{message}:{stream}")
        if held is not None:
            _log.warning(message, stream=stream, lines_held_back=held)


def _derived_streams(settings: HealthMonitorSettings) -> dict[str, Freshness]:
    """What is made of market data and news, with each kind's limit."""
    assets = dict.fromkeys(product.partition("-")[0] for product in settings.products)
    limits = [
        (streams.quotes_stream, settings.products, settings.quote_max_age_seconds),
        (streams.candles_stream, settings.products, settings.candle_max_age_seconds),
        (streams.indicators_stream, settings.products, settings.indicators_max_age_seconds),
        (streams.sentiment_stream, tuple(assets), settings.sentiment_max_age_seconds),
    ]
    return {name(of): Freshness(limit) for name, each, limit in limits for of in each}


async def main(settings: HealthMonitorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    # A read blocks its connection; heartbeats and checks have one of their own.
    client, reading = bus.connect_with(settings), bus.connect_with(settings)
    try:
        monitor = HealthMonitor(settings, client, reading, registry, liveness)
        server = HttpServer(settings.http_port, registry, liveness, [bus.check(client)], monitor.routes)
        return await service.run(monitor, server, settings.drain_seconds)
    finally:
        await client.aclose()
        await reading.aclose()
