"""anomaly-detector against a real Prometheus with a back-filled past, and against answers that are none."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anomaly_support as past
import pytest
from aiohttp import web
from anomaly_support import RunningPrometheus
from prometheus_client import CollectorRegistry
from services_support import ends, eventually, free_port, value
from tradewatch.common import settings as common_settings
from tradewatch.common.http import HttpServer
from tradewatch.common.service import Liveness
from tradewatch.common.settings import SettingsError
from tradewatch.monitoring.anomaly_detector.prometheus import new_client
from tradewatch.monitoring.anomaly_detector.series import DEFAULT_SERIES
from tradewatch.monitoring.anomaly_detector.service import AnomalyDetector, AnomalyDetectorSettings

THRESHOLD = 6.0
# Always the same time of day, so that the seeded past is the same on each.
END = int(time.time()) // past.DAY * past.DAY - 5 * 3600
LAST_RUN = "anomaly_detector_last_run_timestamp_seconds"

pytestmark = pytest.mark.servers


@dataclass
class Running:
    detector: AnomalyDetector
    registry: CollectorRegistry

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """A metric's samples by the values of their labels."""
        found = {}
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name == name:
                    found[tuple(sample.labels.values())] = sample.value
        return found

    def scores(self) -> dict[tuple[str, str], float]:
        """Scores by series and check."""
        return {(key[1], key[2]): score for key, score in self.samples("anomaly_score").items()}

    def alarms(self) -> set[tuple[str, str]]:
        return {key for key, score in self.scores().items() if score >= THRESHOLD}

    def groups(self) -> dict[str, float]:
        return {key[0]: score for key, score in self.samples("anomaly_group_score").items()}

    def moved_most(self, group: str) -> str:
        shares = {key[1]: share for key, share in self.samples("anomaly_contribution").items() if key[0] == group}
        return max(shares, key=lambda series: shares[series])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPrometheus]:
    if len(past.binaries()) < 2:
        pytest.skip("no prometheus and promtool here: `make lab` builds them, or install Debian's prometheus")
    with past.prometheus(tmp_path_factory.mktemp("prometheus"), past.week(1, END), END) as running:
        yield running


@asynccontextmanager
async def detector(
    url: str, *, password: str | None = None, ca_file: Path | None = None, **further: Any
) -> AsyncIterator[Running]:
    settings = AnomalyDetectorSettings(prometheus_url=url, http_port=0, **{"history_days": 4, **further})
    registry = CollectorRegistry()
    async with new_client(url, "tradewatch", password, ca_file) as client:
        yield Running(AnomalyDetector(settings, client, registry, Liveness()), registry)


async def test_the_faults_are_found_and_named_and_the_calm_before_is_calm(prometheus: RunningPrometheus) -> None:
    async with detector(
        prometheus.url, password=prometheus.password, ca_file=prometheus.ca_file, history_refresh_seconds=3600
    ) as running:
        for now in range(END - 5 * 3600, END - 4 * 3600, 600):
            await running.detector.run_once(now)
            assert not running.alarms()
            assert {"market_data", "bus"} <= running.groups().keys()
            assert max(running.groups().values()) < THRESHOLD
        assert {key[3] for key in running.samples("anomaly_score")} == {"daily"}
        assert not running.samples("anomaly_series_unscored")
        found = running.samples("anomaly_query_series")
        assert {query for (query,), series in found.items() if series > 0} == {query.name for query in DEFAULT_SERIES}

        await running.detector.run_once(END - past.TOGETHER + 500)
        assert running.groups()["market_data"] > THRESHOLD
        assert running.moved_most("market_data").startswith(("data_rate", "spread_ratio"))

        await running.detector.run_once(END - past.SPIKE + 400)
        assert running.alarms() == {("collector_errors_rate:kraken", "level")}
        assert running.moved_most("market_data") == "collector_errors_rate:kraken"

        shifted = ("stream_lag_messages:trade-orchestrator", "level")
        await running.detector.run_once(END - past.SHIFT + 600)
        assert running.alarms() == {shifted}
        assert running.moved_most("bus") == shifted[0]

        frozen = ("mid_price:ETH-USD", "flat")
        await running.detector.run_once(END - past.FROZEN + 1500)
        assert running.alarms() == {shifted, frozen}

        silent = ("data_rate:kraken:BTC-USD", "level")
        await running.detector.run_once(END - past.LOST + 900)
        assert running.alarms() == {shifted, frozen, silent}
        assert running.moved_most("market_data") == silent[0]
        assert running.samples("anomaly_series_unscored") == {
            ("market_data", "data_rate:kraken:ETH-USD", "missing"): 1.0
        }
        assert value(running.registry, "anomaly_detector_series", state="missing") == 1
        assert running.samples("anomaly_expected")["market_data", silent[0]] > 1
        assert running.samples("anomaly_value")["market_data", silent[0]] == 0


async def test_without_days_it_compares_with_the_last_hours_and_says_so(prometheus: RunningPrometheus) -> None:
    start = END - 5 * past.DAY
    async with detector(prometheus.url, password=prometheus.password, ca_file=prometheus.ca_file) as running:
        await running.detector.run_once(start + 600)
        assert not running.scores()
        assert {key[2] for key in running.samples("anomaly_series_unscored")} == {"too_little_history"}
        await running.detector.run_once(start + 3600)
        assert not running.alarms()
        assert {key[3] for key in running.samples("anomaly_score")} == {"recent"}


async def test_quantiles_of_few_events_are_calm_in_the_first_hours(tmp_path: Path) -> None:
    copies = 200
    (latencies,) = (query for query in DEFAULT_SERIES if query.name == "end_to_end_seconds")
    assert latencies.query.count("by (le)") == 1
    each = latencies.model_copy(update={"query": latencies.query.replace("by (le)", "by (le, copy)")})
    table = tmp_path / "series.toml"
    fields = each.model_dump(exclude={"checks"})
    table.write_text("[[series]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()))
    with past.prometheus(tmp_path, past.calm_latencies(1, END, copies, hours=3), END) as prometheus:
        async with detector(
            prometheus.url,
            password=prometheus.password,
            ca_file=prometheus.ca_file,
            series_file=str(table),
            max_series_per_query=copies,
        ) as running:
            for now in range(END - 2 * 3600, END + 1, 1200):
                await running.detector.run_once(now)
                assert len(running.scores()) > copies * 0.9
                assert not running.alarms()


async def test_two_runs_of_one_moment_say_the_same(prometheus: RunningPrometheus) -> None:
    told = []
    for _ in range(2):
        async with detector(prometheus.url, password=prometheus.password, ca_file=prometheus.ca_file) as running:
            await running.detector.run_once(END - 1800)
            told.append((running.scores(), running.groups()))
    assert told[0] == told[1]


@pytest.mark.parametrize(("password", "trusted", "reason"), [("wrong", True, "unauthorized"), (None, False, "connect")])
async def test_a_wrong_password_or_authority_is_counted(
    prometheus: RunningPrometheus, password: str | None, trusted: bool, reason: str
) -> None:
    ca_file = prometheus.ca_file if trusted else None
    async with detector(prometheus.url, password=password, ca_file=ca_file) as running:
        await running.detector.run_once(END)
        assert value(running.registry, "anomaly_query_failures_total", query="data_rate", reason=reason) == 1
        assert value(running.registry, LAST_RUN) == 0


def _table(tmp_path: Path, *queries: str) -> Path:
    path = tmp_path / "series.toml"
    path.write_text(
        "".join(
            f'[[series]]\nname = "q{index}"\ngroup = "g"\nquery = {json.dumps(query)}\nfloor = 1.0\n'
            for index, query in enumerate(queries)
        )
    )
    return path


async def test_a_wrong_query_costs_only_itself_and_many_series_are_cut(
    prometheus: RunningPrometheus, tmp_path: Path
) -> None:
    table = _table(tmp_path, "market_data_age_seconds", "rate(", "no_such_metric")
    async with detector(
        prometheus.url,
        password=prometheus.password,
        ca_file=prometheus.ca_file,
        series_file=str(table),
        max_series_per_query=2,
    ) as running:
        await running.detector.run_once(END)
        assert len(running.scores()) == 2
        assert value(running.registry, "anomaly_query_truncated", query="q0") == 1
        assert value(running.registry, "anomaly_query_series", query="q2") == 0
        assert value(running.registry, "anomaly_query_failures_total", query="q1", reason="rejected") == 1


def _answer(values: list[list[Any]]) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}}


@asynccontextmanager
async def standin(port: int, respond: Any) -> AsyncIterator[None]:
    application = web.Application()
    application.add_routes([web.post("/api/v1/query_range", respond)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_scores_are_taken_back_when_prometheus_goes_and_return_with_it(tmp_path: Path) -> None:
    port = free_port()

    async def respond(request: web.Request) -> web.Response:
        form = await request.post()
        times = range(int(str(form["start"])), int(str(form["end"])) + 1, int(str(form["step"])))
        return web.json_response(_answer([[at, "1"] for at in times]))

    async with detector(f"http://127.0.0.1:{port}", series_file=str(_table(tmp_path, "up"))) as running:
        async with standin(port, respond):
            await running.detector.run_once(END)
            assert running.scores() == {("q0", "level"): 0.0}
            ended = value(running.registry, LAST_RUN)
            assert ended > 0
        await running.detector.run_once(END + 60)
        assert not running.scores()
        assert value(running.registry, LAST_RUN) == ended
        assert value(running.registry, "anomaly_detector_run_failures_total", reason="prometheus") == 1
        async with standin(port, respond):
            await running.detector.run_once(END + 120)
            assert running.scores()


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("{", 200, "invalid_answer"),
        ("[" * 100_000, 200, "invalid_answer"),
        (json.dumps({"status": "success"}), 200, "invalid_answer"),
        (json.dumps(_answer([[END, "one"]])), 200, "invalid_answer"),
        (json.dumps(_answer([[END * 2, "1"]])), 200, "invalid_answer"),
        (json.dumps(_answer([["1e999", "1"]])), 200, "invalid_answer"),
        ("gone", 503, "unavailable"),
        (json.dumps({"status": "error", "error": "parse error"}), 400, "rejected"),
        (" " * (17 * 1024 * 1024), 200, "too_large"),
    ],
    ids=["cut", "nested", "empty", "word", "outside", "infinite", "down", "refused", "huge"],
)
async def test_an_answer_that_is_none_is_counted_by_reason(tmp_path: Path, body: str, status: int, reason: str) -> None:
    port = free_port()

    async def respond(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status)

    async with (
        standin(port, respond),
        detector(f"http://127.0.0.1:{port}", series_file=str(_table(tmp_path, "up"))) as running,
    ):
        await running.detector.run_once(END)
        assert value(running.registry, "anomaly_query_failures_total", query="q0", reason=reason) == 1
        assert not running.scores()


async def test_a_prometheus_that_hangs_costs_one_run_and_the_service_stays_alive(tmp_path: Path) -> None:
    port = free_port()

    async def respond(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        raise AssertionError

    async with (
        standin(port, respond),
        detector(f"http://127.0.0.1:{port}", series_file=str(_table(tmp_path, "up")), query_seconds=0.2) as running,
    ):
        stop, liveness = asyncio.Event(), Liveness()
        async with HttpServer(0, running.registry, liveness, [], running.detector.routes):
            task = asyncio.create_task(running.detector.run(stop))
            await eventually(
                lambda: value(running.registry, "anomaly_query_failures_total", query="q0", reason="timeout")
            )
            stop.set()
            await ends(task)
        assert not (await running.detector.check_prometheus()).ok


@pytest.mark.parametrize(
    ("variable", "given", "message"),
    [
        ("PROMETHEUS_URL", "prometheus:9090", "must be an http:// or https:// URL"),
        ("PROMETHEUS_URL", "https://me:secret@prometheus:9090", "must hold neither credentials"),
        ("PROMETHEUS_CA_FILE", "/nowhere/ca.crt", "cannot read /nowhere/ca.crt"),
        ("SERIES_FILE", "/nowhere/series.toml", "cannot read /nowhere/series.toml"),
        ("HISTORY_DAYS", "2", "greater than or equal to 3"),
    ],
)
def test_a_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch, variable: str, given: str, message: str) -> None:
    monkeypatch.setenv("TRADEWATCH_PROMETHEUS_URL", "https://prometheus:9090")
    monkeypatch.setenv(f"TRADEWATCH_{variable}", given)
    with pytest.raises(SettingsError) as refused:
        common_settings.load(AnomalyDetectorSettings)
    (line,) = refused.value.lines
    assert line.startswith(f"TRADEWATCH_{variable}: ")
    assert message in line
    assert "secret" not in line
