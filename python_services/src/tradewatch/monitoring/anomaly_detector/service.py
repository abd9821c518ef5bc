"""anomaly-detector: robust scores of the key series and of their groups, read from Prometheus once a minute."""

import asyncio
import ssl
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from tradewatch.common import service
from tradewatch.common.api import json_get
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import CommonSettings, api_url, duration
from tradewatch.monitoring.anomaly_detector import metrics
from tradewatch.monitoring.anomaly_detector.detector import SCORED, Past, Report, Score, judge
from tradewatch.monitoring.anomaly_detector.prometheus import (
    Answer,
    QueryError,
    QueryFailed,
    Window,
    new_client,
    query_range,
)
from tradewatch.monitoring.anomaly_detector.scores import DAY_SECONDS, HISTORY_STEP_SECONDS
from tradewatch.monitoring.anomaly_detector.series import DEFAULT_SERIES, SeriesQuery, load_table

NAME = "anomaly-detector"
BEAT_SECONDS = 5.0
# Prometheus is also there for people and alerts.
QUERIES_AT_ONCE = 4
# Contributors that the log and the report name.
NAMED = 3

_log = get_logger("anomaly_detector")


class _RunFailed(Exception):
    """A run that gives no scores; the text is the reason, as in the metric."""


def _table(value: object) -> object:
    return load_table(Path(value)) if isinstance(value, str) else value


def _readable_certificates(value: object) -> object:
    if isinstance(value, str):
        try:
            ssl.create_default_context(cafile=value)
        except ssl.SSLError:
            raise ValueError(f"{value} holds no certificate in PEM form") from None
        except OSError as error:
            raise ValueError(f"cannot read {value}: {error.strerror}") from None
    return value


class AnomalyDetectorSettings(CommonSettings):
    """Settings of anomaly-detector; durations in seconds."""

    prometheus_url: Annotated[str, BeforeValidator(api_url)] = Field(
        description="Prometheus, such as https://prometheus:9090"
    )
    prometheus_username: str = Field(default="tradewatch", min_length=1, max_length=200, description="its user")
    prometheus_password: SecretStr | None = Field(default=None, description="file that holds the user's password")
    prometheus_ca_file: Annotated[Path | None, BeforeValidator(_readable_certificates)] = Field(
        default=None, description="certificate authority of its certificate; without one, those of the system"
    )
    series_file: Annotated[tuple[SeriesQuery, ...] | None, NoDecode, BeforeValidator(_table)] = Field(
        default=None, description="TOML file with the table of series, in place of the built-in one"
    )
    run_seconds: int = Field(default=60, ge=5, le=3600, description="between two runs, and the bound of one")
    query_seconds: float = duration(10.0, 60, "bound of one query")
    step_seconds: int = Field(default=60, ge=5, le=600, description="between two points of the last hours")
    recent_seconds: int = Field(
        default=7200,
        ge=300,
        le=86_400,
        description="the last hours, which a series without enough days is compared with",
    )
    history_days: int = Field(default=7, ge=3, le=30, description="days that a time of day is compared with")
    history_refresh_seconds: int = Field(default=900, ge=60, le=86_400, description="between two looks at those days")
    missing_seconds: int = Field(
        default=86_400, ge=600, le=2_592_000, description="for how long a series that is gone is missed"
    )
    max_series_per_query: int = Field(default=50, ge=1, le=1000, description="series of one query that are looked at")
    alarm_score: float = Field(
        default=6.0, allow_inf_nan=False, gt=0, le=1000, description="score from which on a series is named in the log"
    )
    seed: int = Field(default=1, ge=0, le=2**32 - 1, description="seed of the isolation forests")


class AnomalyItem(BaseModel):
    """One score of the report."""

    group: str
    series: str
    check: str
    baseline: str
    score: float
    value: float
    expected: float | None


class GroupItem(BaseModel):
    """One group of the report, with the series that moved most."""

    group: str
    score: float
    moved_most: dict[str, float]


class AnomalyReport(BaseModel):
    """The last run: what is least usual first. `unscored` is series to reason."""

    last_run: float
    anomalies: list[AnomalyItem]
    groups: list[GroupItem]
    unscored: dict[str, str]


class AnomalyDetector:
    """Asks, judges and exports in a loop; scores are exported for as long as they are of the last run."""

    def __init__(
        self,
        settings: AnomalyDetectorSettings,
        client: httpx.AsyncClient,
        registry: CollectorRegistry,
        liveness: Liveness,
    ) -> None:
        self._settings = settings
        self._table = settings.series_file or DEFAULT_SERIES
        self._client = client
        self._liveness = liveness
        self._throttle = Throttle(60.0)
        self._gate = asyncio.Semaphore(QUERIES_AT_ONCE)
        self._past: dict[str, Past] = {}
        self._past_at: dict[str, float] = {}
        self._report = Report()
        self._alarms: set[tuple[str, str]] = set()
        self._last_run = 0.0
        self._score = metrics.SCORE.gauge(registry)
        self._value = metrics.VALUE.gauge(registry)
        self._expected = metrics.EXPECTED.gauge(registry)
        self._group_score = metrics.GROUP_SCORE.gauge(registry)
        self._contribution = metrics.CONTRIBUTION.gauge(registry)
        self._unscored = metrics.UNSCORED.gauge(registry)
        self._series = metrics.SERIES.gauge(registry)
        self._query_series = metrics.QUERY_SERIES.gauge(registry)
        self._truncated = metrics.TRUNCATED.gauge(registry)
        self._last_run_at = metrics.LAST_RUN.gauge(registry)
        self._duration = metrics.RUN_DURATION.histogram(registry)
        failures = metrics.QUERY_FAILURES.counter(registry)
        self._query_failures = {
            (query.name, reason): failures.labels(query=query.name, reason=reason.value)
            for query in self._table
            for reason in QueryError
        }
        run_failures = metrics.RUN_FAILURES.counter(registry)
        self._run_failures = {
            reason: run_failures.labels(reason=reason) for reason in ("timeout", "prometheus", "failed")
        }

    @property
    def routes(self) -> tuple[web.RouteDef, ...]:
        """The report, for people."""
        return (json_get("/v1/anomalies", self._answer),)

    async def run(self, stop: asyncio.Event) -> None:
        """Detect until `stop` is set."""
        await service.until_stopped(stop, self._work())

    async def _work(self) -> None:
        while True:
            started = time.monotonic()
            task = asyncio.ensure_future(self.run_once(int(time.time())))
            try:
                while not task.done():
                    self._liveness.beat("runs")
                    await asyncio.wait({task}, timeout=BEAT_SECONDS)
            finally:
                task.cancel()
            while (left := self._settings.run_seconds - (time.monotonic() - started)) > 0:
                self._liveness.beat("runs")
                await asyncio.sleep(min(left, BEAT_SECONDS))

    async def run_once(self, now: int) -> None:
        """Ask, judge and export as of `now` (Unix seconds). A run that fails takes the scores of the last one back."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.run_seconds):
                report = await self._detect(now)
        except TimeoutError:
            self._fail("timeout")
        except _RunFailed as failed:
            self._fail(str(failed))
        except Exception:
            _log.exception("run failed")
            self._fail("failed")
        else:
            self._last_run = time.time()
            self._last_run_at.set(self._last_run)
            self._export(report)
            self._name(report)
        finally:
            self._duration.observe(time.perf_counter() - started)

    async def check_prometheus(self) -> CheckResult:
        """Readiness: a run ended well within the last three intervals."""
        age = time.time() - self._last_run
        if not self._last_run:
            return CheckResult(False, "no run has ended well yet")
        return CheckResult(age <= 3 * self._settings.run_seconds, f"last run {age:.0f} s ago")

    async def _detect(self, now: int) -> Report:
        settings = self._settings
        recent = Window(now, settings.recent_seconds, settings.step_seconds)
        found = await asyncio.gather(*(self._ask(query, recent) for query in self._table))
        answers = {query.name: answer for query, answer in zip(self._table, found, strict=True) if answer is not None}
        if 2 * len(answers) < len(self._table):
            raise _RunFailed("prometheus")
        await asyncio.gather(*(self._refresh(query, now) for query in self._table if query.name in answers))
        return await asyncio.to_thread(
            judge,
            self._table,
            answers,
            dict(self._past),
            missing_since=now - settings.missing_seconds,
            seed=settings.seed,
        )

    async def _refresh(self, query: SeriesQuery, now: int) -> None:
        """Look at a query's past days again when that is due; what is known stays where Prometheus does not answer."""
        settings = self._settings
        if now - self._past_at.get(query.name, 0) < settings.history_refresh_seconds:
            return
        # On one grid for all queries, and before the last hours: those are judged, not learned from.
        end = (now - settings.recent_seconds) // HISTORY_STEP_SECONDS * HISTORY_STEP_SECONDS
        answer = await self._ask(query, Window(end, settings.history_days * DAY_SECONDS, HISTORY_STEP_SECONDS))
        if answer is not None:
            self._past[query.name] = await asyncio.to_thread(Past, query, answer)
            self._past_at[query.name] = now

    async def _ask(self, query: SeriesQuery, window: Window) -> Answer | None:
        settings = self._settings
        try:
            async with self._gate:
                return await query_range(
                    self._client,
                    query.query,
                    window,
                    max_series=settings.max_series_per_query,
                    timeout_seconds=settings.query_seconds,
                )
        except QueryFailed as failed:
            self._query_failures[query.name, failed.reason].inc()
            held = self._throttle.admit(f"{query.name}:{failed.reason}")
            if held is not None:
                _log.warning(
                    "query failed",
                    query=query.name,
                    reason=failed.reason.value,
                    detail=failed.detail,
                    lines_held_back=held,
                )
            return None

    def _fail(self, reason: str) -> None:
        self._run_failures[reason].inc()
        held = self._throttle.admit(f"run:{reason}")
        if held is not None:
            _log.error("no scores", reason=reason, lines_held_back=held)
        self._export(Report())

    def _export(self, report: Report) -> None:
        """Replace what is exported. Nothing awaits in between, so a scrape sees the one run or the other."""
        self._report = report
        for gauge in (self._score, self._value, self._expected, self._group_score, self._contribution, self._unscored):
            gauge.clear()
        for gauge in (self._query_series, self._truncated):
            gauge.clear()
        for score in report.scores:
            one = {"group": score.group, "series": score.series}
            self._score.labels(**one, check=score.check, baseline=score.baseline).set(score.score)
            self._value.labels(**one).set(score.value)
            if score.expected is not None:
                self._expected.labels(**one).set(score.expected)
        for group in report.groups:
            self._group_score.labels(group=group.group).set(group.score)
            for series, share in group.contributions.items():
                self._contribution.labels(group=group.group, series=series).set(share)
        for (name, series), reason in report.unscored.items():
            self._unscored.labels(group=name, series=series, reason=reason.value).set(1)
        states = report.states()
        for state in (SCORED, *metrics.Unscored):
            self._series.labels(state=str(state)).set(states[str(state)])
        for query, count in report.found.items():
            self._query_series.labels(query=query).set(count)
            self._truncated.labels(query=query).set(report.truncated[query])

    def _name(self, report: Report) -> None:
        """A log line for each series that begins or ends to be unusual."""
        now = {
            (score.series, score.check): score for score in report.scores if score.score >= self._settings.alarm_score
        }
        for key in sorted(now.keys() - self._alarms):
            _log.warning("unusual", **_fields(now[key]))
        for series, check in sorted(self._alarms - now.keys()):
            _log.info("no longer unusual", series=series, check=check)
        self._alarms = set(now)

    async def _answer(self, _: web.Request) -> AnomalyReport:
        report = self._report
        return AnomalyReport(
            last_run=self._last_run,
            anomalies=[
                AnomalyItem(**vars(score))
                for score in sorted(report.scores, key=lambda score: (-score.score, score.series))
            ],
            groups=[
                GroupItem(group=group.group, score=group.score, moved_most=_most(group.contributions))
                for group in sorted(report.groups, key=lambda group: (-group.score, group.group))
            ],
            unscored={series: reason.value for (_, series), reason in sorted(report.unscored.items())},
        )


def _fields(score: Score) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in vars(score).items()}


def _most(contributions: Any) -> dict[str, float]:
    return dict(sorted(contributions.items(), key=lambda item: (-item[1], item[0]))[:NAMED])


async def main(settings: AnomalyDetectorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    password = settings.prometheus_password
    async with new_client(
        settings.prometheus_url,
        settings.prometheus_username,
        password.get_secret_value() if password is not None else None,
        settings.prometheus_ca_file,
    ) as client:
        detector = AnomalyDetector(settings, client, registry, liveness)
        checks = [Check("prometheus", detector.check_prometheus)]
        server = HttpServer(settings.http_port, registry, liveness, checks, detector.routes)
        return await service.run(detector, server, settings.drain_seconds)
