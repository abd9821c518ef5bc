"""dashboard-report: wires the dashboards' folder, the datasources and the page."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from tradewatch.common import service
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import CommonSettings, api_url, duration
from tradewatch.monitoring.dashboard_report.certificates import Address, CertificateWatch, parse_endpoints
from tradewatch.monitoring.dashboard_report.metrics import DashboardReportMetrics
from tradewatch.monitoring.dashboard_report.site import Site, TlsFiles
from tradewatch.monitoring.dashboard_report.sources import Access, Limits, Source
from tradewatch.monitoring.dashboard_report.viewer import Viewer

NAME = "dashboard-report"
MIN_PASSWORD_CHARACTERS = 8
LOOK_SECONDS = 2.0
_log = get_logger("dashboard_report")


def _long_enough(value: object) -> object:
    if isinstance(value, str) and len(value) < MIN_PASSWORD_CHARACTERS:
        raise ValueError(f"must have at least {MIN_PASSWORD_CHARACTERS} characters")
    return value


def _user(value: object) -> object:
    if isinstance(value, str) and (not value or ":" in value):
        raise ValueError("must be a name without a colon")
    return value


def _endpoints(value: object) -> object:
    return parse_endpoints(value) if isinstance(value, str) else value


Url = Annotated[str | None, BeforeValidator(api_url)]


class DashboardReportSettings(CommonSettings):
    """Settings of dashboard-report; durations in seconds."""

    dashboards_dir: Path = Field(description="folder with the dashboards' JSON files")
    runbooks_dir: Path | None = Field(default=None, description="folder with the alerts' runbooks, <Alert>.md")
    page_port: int = Field(default=8443, ge=0, le=65535, description="port of the page, HTTPS")
    page_username: Annotated[str, BeforeValidator(_user)] = Field(
        default="tradewatch", description="who may see the page"
    )
    page_password: Annotated[SecretStr, BeforeValidator(_long_enough)] = Field(
        description="file that holds the page's password"
    )
    tls_certificate_file: Path = Field(description="the page's certificate chain, PEM")
    tls_key_file: Path = Field(description="the certificate's key, PEM")
    prometheus_url: Url = Field(default="http://localhost:9090", description="Prometheus, or a path above its /api")
    prometheus_username: str | None = Field(default=None, description="user at Prometheus")
    prometheus_password: SecretStr | None = Field(default=None, description="file that holds that user's password")
    loki_url: Url = Field(default=None, description="Loki; without it log panels say that there is none")
    ca_file: Path | None = Field(default=None, description="certificates to trust instead of the system's, PEM")
    scrape_interval_seconds: float = duration(15.0, 3600, "Prometheus's own; rates look back four of it", least=1)
    query_timeout_seconds: float = duration(10.0, 60, "bound of one query", least=0.1)
    query_concurrency: int = Field(default=6, ge=1, le=50, description="queries under way to one datasource")
    cache_seconds: float = duration(30.0, 300, "how long an answer serves other viewers too", least=0)
    certificate_endpoints: Annotated[dict[str, Address] | None, NoDecode, BeforeValidator(_endpoints)] = Field(
        default=None,
        description="comma separated name=host:port of HTTPS endpoints whose certificates' end is exported",
    )


class DashboardReport:
    """Keeps the dashboards and the certificate as their files are; the page itself is served by `Site`."""

    def __init__(
        self,
        viewer: Viewer,
        tls: TlsFiles,
        metrics: DashboardReportMetrics,
        liveness: Liveness,
        certificates: CertificateWatch,
    ) -> None:
        self._certificates = certificates
        self._viewer = viewer
        self._tls = tls
        self._metrics = metrics
        self._liveness = liveness

    def look(self) -> None:
        """Read what has changed."""
        if self._viewer.refresh():
            library = self._viewer.library
            self._metrics.dashboards.set(len(library.dashboards))
            self._metrics.problems.set(len(library.problems))
            for problem in library.problems:
                _log.error("a dashboard cannot be read", problem=problem)
            _log.info("dashboards read", dashboards=list(library.dashboards))
        self._tls.refresh()

    async def run(self, stop: asyncio.Event) -> None:
        """Look every few seconds, and at the endpoints' certificates, until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.until_stopped(stop, self._certificates.run()), name="certificates")
            tasks.create_task(self._follow_files(stop), name="files")

    async def _follow_files(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._liveness.beat("files")
            self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await stop.wait()

    async def ready(self) -> CheckResult:
        """There is something to show. A datasource that is down is shown on the page, which therefore stays ready."""
        count, problems = len(self._viewer.library.dashboards), len(self._viewer.library.problems)
        return CheckResult(count > 0, f"{count} dashboards, {problems} problems")


@asynccontextmanager
async def open_sources(
    prometheus: Access, loki: Access, limits: Limits, metrics: DashboardReportMetrics
) -> AsyncIterator[dict[str, Source]]:
    """Both datasources by name. Raises OSError where a CA file cannot be read."""
    async with (
        Source("prometheus", prometheus, limits, metrics) as one,
        Source("loki", loki, limits, metrics) as other,
    ):
        yield {one.name: one, other.name: other}


async def main(settings: DashboardReportSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    endpoints = settings.certificate_endpoints or {}
    metrics, liveness = DashboardReportMetrics(registry, endpoints), Liveness()
    try:
        tls = TlsFiles(settings.tls_certificate_file, settings.tls_key_file)
    except OSError as error:  # ssl.SSLError is one
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        _log.critical("the certificate and its key cannot be used", file=str(error.filename or ""), error=reason)
        return service.EXIT_FAILED
    access = Access(
        settings.prometheus_url, settings.prometheus_username, settings.prometheus_password, settings.ca_file
    )
    limits = Limits(settings.query_timeout_seconds, settings.query_concurrency, settings.cache_seconds)
    async with open_sources(access, Access(settings.loki_url, ca_file=settings.ca_file), limits, metrics) as sources:
        viewer = Viewer(settings.dashboards_dir, sources, settings.scrape_interval_seconds)
        report = DashboardReport(viewer, tls, metrics, liveness, CertificateWatch(endpoints, metrics))
        report.look()
        server = HttpServer(settings.http_port, registry, liveness, [Check("dashboards", report.ready)])
        page = Site(
            settings.page_port,
            viewer,
            metrics,
            settings.page_username,
            settings.page_password,
            tls.context,
            settings.runbooks_dir,
        )
        async with page:
            return await service.run(report, server, settings.drain_seconds)
