"""health-monitor on a real Valkey, with a real simulator and collector, and dependencies on real sockets."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from aggregation_support import bus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from services_support import PASSWORD, ValkeyServer, collection, ends, eventually, free_port, simulation, value
from structlog.testing import capture_logs
from tradewatch.collectors.feed import FeedLimits
from tradewatch.collectors.health_monitor import service as health_service
from tradewatch.collectors.health_monitor.dependencies import MAX_BODY_BYTES, Reason, ask_service, new_client
from tradewatch.collectors.health_monitor.feeds import SETTLE_SECONDS, Completeness, Freshness, Rate
from tradewatch.collectors.health_monitor.service import HealthMonitor, HealthMonitorSettings
from tradewatch.common import bus
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.service import Liveness
from tradewatch.common.settings import SettingsError, load
from tradewatch.common.streams import (
    HEARTBEATS_STREAM,
    Heartbeat,
    Quote,
    Sentiment,
    candles_stream,
    encode,
    quotes_stream,
    sentiment_stream,
)

FEED = {"exchange": "coinbase", "product_id": "BTC-USD"}
FEED_COMPONENT = "market_data:coinbase:BTC-USD"
NOW = 1_700_000_000.0


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_service, "JUDGE_SECONDS", 0.1)


@dataclass
class Monitoring:
    """A running health-monitor."""

    registry: CollectorRegistry
    http: HttpServer
    liveness: Liveness
    logs: list[Any]

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def status(self, component: str) -> float | None:
        return self.value("health_status", component=component)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://127.0.0.1:{self.http.port}{path}", timeout=10)

    async def report(self) -> dict[str, Any]:
        body: dict[str, Any] = (await self.get("/v1/health")).json()
        return body

    def changes(self, component: str) -> list[str]:
        """The log lines about a component."""
        return [line["event"] for line in self.logs if line.get("watched") == component]


@asynccontextmanager
async def monitoring(valkey: ValkeyServer, **further: Any) -> AsyncIterator[Monitoring]:
    quick = {
        "exchanges": ("coinbase",),
        "products": ("BTC-USD",),
        "data_max_age_seconds": 1.0,
        "completeness_slot_seconds": 1.0,
        "completeness_slots": 5,
        "heartbeat_seconds": 0.1,
        "heartbeat_timeout_seconds": 2.0,
        "dependency_check_seconds": 0.1,
        "dependency_timeout_seconds": 2.0,
        "valkey_url": valkey.url,
        "valkey_password": SecretStr(PASSWORD),
    }
    settings = HealthMonitorSettings(**quick | further)
    registry, liveness, stop = CollectorRegistry(), Liveness(), asyncio.Event()
    client, reading = bus.connect_with(settings), bus.connect_with(settings)
    monitor = HealthMonitor(settings, client, reading, registry, liveness)
    with capture_logs() as logs:
        async with HttpServer(0, registry, liveness, [bus.check(client)], monitor.routes) as http:
            task = asyncio.create_task(monitor.run(stop))
            try:
                yield Monitoring(registry, http, liveness, logs)
                assert not task.done(), task
            finally:
                stop.set()
                await ends(task)
                await client.aclose()
                await reading.aclose()


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    """A server whose connections are `answer`'s."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def replying(status: int, body: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    return answer


async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_a_frozen_feed_is_seen_in_seconds_and_its_return_too(valkey: ValkeyServer) -> None:
    async with (
        simulation() as running,
        # After five seconds it connects anew, and is no longer frozen: the fault is only on what was open.
        collection(running.url, valkey, limits=FeedLimits(frame_seconds=5.0)) as collecting,
        monitoring(valkey, completeness_slots=4) as monitor,
    ):
        await collecting.more_events()
        await eventually(lambda: monitor.value("market_data_fresh", **FEED) == 1)
        await eventually(lambda: monitor.value("market_data_completeness_ratio", **FEED) == 1)
        await eventually(lambda: (monitor.value("market_data_events_per_second", **FEED) or 0) > 5)
        assert value(monitor.registry, "market_data_age_seconds", **FEED) < 1
        await running.fault(fault="freeze", seconds=600)
        frozen = time.monotonic()
        await eventually(lambda: monitor.value("market_data_fresh", **FEED) == 0)
        assert time.monotonic() - frozen < 4
        assert value(monitor.registry, "market_data_age_seconds", **FEED) > 1
        report = await monitor.report()
        assert report["status"] == "not_well"
        ill = {each["component"]: each for each in report["components"] if each["status"] == "not_well"}
        assert "limit 1 s" in ill[FEED_COMPONENT]["detail"]
        age = datetime.now(UTC) - datetime.fromisoformat(ill[FEED_COMPONENT]["since"])
        assert timedelta(0) <= age < timedelta(seconds=4)
        assert (await monitor.get("/readyz")).status_code == 200, "what it watches makes it unready"
        await eventually(lambda: monitor.value("market_data_fresh", **FEED) == 1)
        expected = ["component is well", "component is not well", "component is well"]
        assert monitor.changes(FEED_COMPONENT) == expected
        assert value(monitor.registry, "market_data_completeness_ratio", **FEED) <= 1


async def test_heartbeats_cross_the_bus_and_an_outage_shows(valkey: ValkeyServer) -> None:
    async with monitoring(valkey) as monitor:
        await eventually(lambda: (monitor.value("bus_heartbeat_duration_seconds_count") or 0) >= 5)
        assert monitor.status("bus") == monitor.status("valkey") == 1
        assert value(monitor.registry, "bus_heartbeats_missed_total", reason="not_written") == 0
        assert value(monitor.registry, "bus_heartbeats_missed_total", reason="not_read") == 0
        valkey.stop()
        await eventually(lambda: monitor.status("bus") == 0 and monitor.status("valkey") == 0)
        assert value(monitor.registry, "bus_heartbeats_missed_total", reason="not_written") > 0
        assert value(monitor.registry, "dependency_check_failures_total", dependency="valkey", reason="refused") > 0
        assert (await monitor.get("/readyz")).status_code == 503
        assert (await monitor.get("/v1/health")).status_code == 200
        before = value(monitor.registry, "bus_heartbeat_last_success_timestamp_seconds")
        valkey.start()
        await eventually(lambda: monitor.status("bus") == 1 and monitor.status("valkey") == 1)
        assert value(monitor.registry, "bus_heartbeat_last_success_timestamp_seconds") > before
        assert (await monitor.get("/readyz")).status_code == 200
        assert monitor.changes("bus") == ["component is well", "component is not well", "component is well"]
        assert monitor.liveness.stuck() == []


async def test_a_valkey_that_hangs_is_a_timeout_and_does_not_hold_up_the_end(valkey: ValkeyServer) -> None:
    async with monitoring(valkey) as monitor:
        await eventually(lambda: monitor.status("bus") == 1)
        valkey.signal(signal.SIGSTOP)
        try:
            await eventually(lambda: monitor.status("bus") == 0 and monitor.status("valkey") == 0)
            assert value(monitor.registry, "dependency_check_failures_total", dependency="valkey", reason="timeout") > 0
        finally:
            valkey.signal(signal.SIGCONT)


async def test_written_but_not_given_back_is_missed(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client, monitoring(valkey) as monitor:
        await eventually(lambda: monitor.status("bus") == 1)
        # The group is made to believe that it was given all that is to come.
        await client.xgroup_setid(HEARTBEATS_STREAM, "health-monitor", "99999999999999-0")
        await eventually(lambda: monitor.status("bus") == 0)
        await eventually(lambda: monitor.value("bus_heartbeats_missed_total", reason="not_read"))
        assert monitor.value("bus_heartbeats_missed_total", reason="not_written") == 0
        await client.delete(HEARTBEATS_STREAM)
        await eventually(lambda: monitor.status("bus") == 1)


async def test_anothers_heartbeats_count_as_the_bus_at_work_and_old_ones_do_not(valkey: ValkeyServer) -> None:
    old = Heartbeat("gone", datetime.now(UTC) - timedelta(minutes=5), "0" * 32)
    async with bus_client(valkey) as client:
        for _ in range(3):
            await client.xadd(HEARTBEATS_STREAM, dict(encode(old)))
        async with monitoring(valkey, heartbeat_seconds=5.0) as monitor:
            await eventually(lambda: (monitor.value("consumed_total", status="ok") or 0) >= 4)
            assert monitor.value("bus_heartbeat_duration_seconds_count") == 1
            before = value(monitor.registry, "bus_heartbeat_last_success_timestamp_seconds")
            await client.xadd(HEARTBEATS_STREAM, dict(encode(Heartbeat("other", datetime.now(UTC), "1" * 32))))
            await eventually(lambda: monitor.value("bus_heartbeat_last_success_timestamp_seconds") != before)
            assert monitor.value("bus_heartbeat_duration_seconds_count") == 1
            await client.xadd(HEARTBEATS_STREAM, {"kind": "nonsense"})
            await eventually(lambda: monitor.value("consumed_total", status="undecodable") == 1)


async def test_dependencies_are_told_apart_and_one_that_hangs_delays_no_other(valkey: ValkeyServer) -> None:
    well = True

    async def check() -> CheckResult:
        return CheckResult(well, "as the test wants")

    async with (
        HttpServer(0, CollectorRegistry(), Liveness(), [Check("feed", check)]) as http,
        listening(hanging) as url,
    ):
        dependencies = {
            "aggregator": f"http://127.0.0.1:{http.port}",
            "hangs": url,
            "gone": f"http://127.0.0.1:{free_port()}",
        }
        async with monitoring(valkey, dependencies=dependencies, dependency_timeout_seconds=5.0) as monitor:
            await eventually(lambda: monitor.status("hangs") == 0)
            assert monitor.status("aggregator") == 1
            assert monitor.status("gone") == 0
            well = False
            await eventually(lambda: monitor.value("dependency_ready", dependency="aggregator") == 0, 4)
            components = {each["component"]: each for each in (await monitor.report())["components"]}
            assert components["aggregator"]["detail"] == "not ready: feed"
            assert components["hangs"]["detail"] == "no answer within 5 s"
            assert components["gone"]["detail"] == "connection refused"
            for name, reason in (("aggregator", "not_ready"), ("hangs", "timeout"), ("gone", "refused")):
                failures = {
                    each: value(monitor.registry, "dependency_check_failures_total", dependency=name, reason=each)
                    for each in Reason
                }
                assert [each for each, count in failures.items() if count] == [reason]
            well = True
            await eventually(lambda: monitor.status("aggregator") == 1, 4)
            checks = "dependency_check_duration_seconds_count"
            await eventually(lambda: (monitor.value(checks, dependency="gone") or 0) >= 5)
            assert monitor.changes("gone") == ["component is not well"], "a line for each poll"
            assert (await monitor.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("status", "body", "reason", "detail"),
    [
        (200, b"anything", None, "ready"),
        (503, b'{"checks": {"a": {"ok": true}, "b": {"ok": false}}}', Reason.NOT_READY, "not ready: b"),
        (503, b'{"checks": {"b\\n<script>": {"ok": false}}}', Reason.NOT_READY, "not ready"),
        (503, b'{"checks": {"b": 1}}', Reason.NOT_READY, "not ready"),
        (503, b'{"checks": [1]}', Reason.NOT_READY, "not ready"),
        (503, b"\xff\xfe", Reason.NOT_READY, "not ready"),
        (503, b"[" * 20_000, Reason.NOT_READY, "not ready"),
        (503, b"x" * (MAX_BODY_BYTES + 1), Reason.ERROR, "answers 503 and too much"),
        (302, b"", Reason.ERROR, "answers 302"),
        (404, b"", Reason.ERROR, "answers 404"),
    ],
    ids=lambda each: each[:20].decode(errors="replace") if isinstance(each, bytes) else str(each),
)
async def test_whatever_a_dependency_answers_is_a_verdict(
    status: int, body: bytes, reason: Reason | None, detail: str
) -> None:
    async with listening(replying(status, body)) as url, new_client() as client:
        verdict = await ask_service(client, url + "/")
    assert (verdict.reason, verdict.detail) == (reason, detail)


async def test_no_such_host_and_no_http_are_errors() -> None:
    async def not_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()

    async with listening(not_http) as url, new_client() as client:
        assert (await ask_service(client, url)).reason == Reason.ERROR
        assert (await ask_service(client, "http://no-such-host.invalid")).reason == Reason.ERROR


def _quote(at: datetime, product: str = "BTC-USD") -> dict[Any, Any]:
    price = Decimal(100)
    return dict(encode(Quote(product, at, price, price, price, 0.0, 0.0, ("coinbase",), (), "0" * 32)))


async def test_derived_streams_have_ages_from_the_start_and_odd_entries_do_not_count(valkey: ValkeyServer) -> None:
    now = datetime.now(UTC)
    hour_ago, quotes = now - timedelta(hours=1), quotes_stream("BTC-USD")
    async with bus_client(valkey) as client:
        old = dict(encode(Sentiment("BTC", hour_ago, 0.5, 3, "0" * 32)))
        await client.xadd(sentiment_stream("BTC"), old, id=f"{int(hour_ago.timestamp() * 1000)}-0")
        await client.xadd(quotes, _quote(now))
        await client.set(candles_stream("BTC-USD"), "of another type")
        async with monitoring(valkey, quote_max_age_seconds=1.0) as monitor:
            await eventually(lambda: monitor.value("stream_fresh", stream="sentiment:BTC") == 0)
            assert 3599 < value(monitor.registry, "stream_newest_age_seconds", stream="sentiment:BTC") < 3660
            assert monitor.status("candles:BTC-USD") is None, "judged before it could have come"
            await eventually(lambda: monitor.value("stream_fresh", stream=quotes) == 0)
            for odd, said in (
                (_quote(datetime.now(UTC), "ETH-USD"), "an entry is not of its stream"),
                ({"kind": "quote"}, "the newest entry cannot be understood"),
            ):
                await client.xadd(quotes, odd)
                await eventually(lambda said=said: any(line["event"] == said for line in monitor.logs))
                assert monitor.value("stream_fresh", stream=quotes) == 0
            await client.xadd(quotes, _quote(datetime.now(UTC)))
            await eventually(lambda: monitor.value("stream_fresh", stream=quotes) == 1)
            await client.xadd(quotes, _quote(datetime.now(UTC) + timedelta(days=365)))
            await eventually(lambda: monitor.value("stream_fresh", stream=quotes) == 0)


async def test_a_feed_that_never_comes_is_missed_after_its_limit(valkey: ValkeyServer) -> None:
    async with monitoring(valkey, data_max_age_seconds=0.5) as monitor:
        await eventually(lambda: monitor.value("market_data_fresh", **FEED) == 0)
        components = {each["component"]: each for each in (await monitor.report())["components"]}
        assert components[FEED_COMPONENT]["detail"] == "nothing yet"
        assert monitor.value("market_data_age_seconds", **FEED) is None


def test_completeness_counts_slots_that_are_over() -> None:
    share = Completeness(5.0, 4, since=NOW)
    assert share.ratio(NOW + 5) is None
    share.see(NOW + 1, NOW + 1)
    share.see(NOW + 2, NOW + 2)
    assert share.ratio(NOW + 5 + SETTLE_SECONDS) == 1
    assert share.ratio(NOW + 10 + SETTLE_SECONDS) == 0.5
    share.see(NOW + 6, NOW + 12)
    assert share.ratio(NOW + 10 + SETTLE_SECONDS) == 1, "a late event is an event"
    assert share.ratio(NOW + 20 + SETTLE_SECONDS) == 0.5
    assert share.ratio(NOW + 60) == 0
    share.see(NOW + 1, NOW + 60)
    share.see(NOW + 600, NOW + 60)
    assert share.ratio(NOW + 60) == 0


@given(
    slots=st.integers(1, 20),
    gone=st.lists(st.floats(0, 100), max_size=60),
    asked=st.lists(st.floats(0, 200), min_size=1, max_size=10),
)
def test_completeness_is_a_share(slots: int, gone: list[float], asked: list[float]) -> None:
    share = Completeness(1.0, slots, since=NOW)
    for at in sorted(gone):
        share.see(NOW + at, NOW + at)
    for at in sorted(asked):
        ratio = share.ratio(NOW + at)
        assert ratio is None or 0 <= ratio <= 1


def test_freshness_is_of_the_newest_and_never_of_the_future() -> None:
    freshness = Freshness(10.0)
    assert freshness.age_seconds(NOW) is None
    assert not freshness.fresh(NOW)
    freshness.see(NOW, NOW)
    freshness.see(NOW - 100, NOW)
    assert freshness.age_seconds(NOW + 10) == 10
    assert freshness.fresh(NOW + 10)
    freshness.see(NOW + 3600, NOW + 10)
    assert not freshness.fresh(NOW + 20.1)


def test_rate_is_over_ten_seconds() -> None:
    rate = Rate()
    assert rate.per_second(0.0) == 0
    for second in range(1, 31):
        for _ in range(4):
            rate.see()
        assert rate.per_second(float(second)) == pytest.approx(4)
    assert rate.per_second(35.0) == pytest.approx(2)
    assert rate.per_second(46.0) == 0


@contextmanager
def _environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TRADEWATCH_PRODUCTS", "BTC-USD")
        for name, text in variables.items():
            patch.setenv(f"TRADEWATCH_{name}", text)
        yield


@pytest.mark.parametrize(
    ("variable", "bad", "says"),
    [
        ("DEPENDENCIES", "Aggregator=http://x", "is not a dependency's name"),
        ("DEPENDENCIES", "a=http://x,a=http://y", "named twice"),
        ("DEPENDENCIES", "valkey=http://x", "taken by the bus"),
        ("DEPENDENCIES", "a=ftp://x", "http:// or https://"),
        ("DEPENDENCIES", "a=http://u:hunter2@x", "credentials"),
        ("DEPENDENCIES", "a=http://x:port", "is not a URL"),
        ("EXCHANGES", "mtgox", "unknown exchange"),
        ("EXCHANGES", "", "at least one"),
        ("DATA_MAX_AGE_SECONDS", "nan", "finite"),
        ("HEARTBEAT_SECONDS", "0", "greater than or equal"),
    ],
)
def test_a_bad_setting_is_one_line(variable: str, bad: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _environment(monkeypatch, **{variable: bad}), pytest.raises(SettingsError) as error:
        load(HealthMonitorSettings)
    (line,) = error.value.lines
    assert line.startswith(f"TRADEWATCH_{variable}: ")
    assert says in line
    assert "hunter2" not in line


def test_dependencies_are_names_and_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    with _environment(monkeypatch):
        assert load(HealthMonitorSettings).dependencies is None
    with _environment(monkeypatch, DEPENDENCIES="a=http://x:8080, b=https://y/base"):
        assert load(HealthMonitorSettings).dependencies == {"a": "http://x:8080", "b": "https://y/base"}
