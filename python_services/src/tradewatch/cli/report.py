"""`tradewatch report`: the dashboards of a span of time as one HTML file that needs no network and no login."""

import asyncio
import json
import os
import tempfile
import time
from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from tradewatch.cli.reading import EXIT_BAD_CONFIGURATION, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, fail
from tradewatch.common.settings import api_url
from tradewatch.monitoring.dashboard_report import page
from tradewatch.monitoring.dashboard_report.metrics import DashboardReportMetrics
from tradewatch.monitoring.dashboard_report.service import open_sources
from tradewatch.monitoring.dashboard_report.sources import Access, Limits, Source
from tradewatch.monitoring.dashboard_report.viewer import SpanError, Viewer

TIMEOUT_SECONDS = 20.0
SCRAPE_SECONDS = 15.0
MAX_FILE_BYTES = 1024 * 1024


class _UsageError(ValueError):
    """What is wrong with the options or the files that they name, in one line."""


@dataclass(frozen=True)
class _Reach:
    prometheus: Access
    loki: Access


def run(options: Namespace) -> int:
    """The command. Returns the exit code: 1 also where a panel has no data for a reason that is an error."""
    try:
        reach = _reach(options)
        return asyncio.run(_report(options, reach))
    except (_UsageError, SpanError) as error:
        return fail("report", str(error), EXIT_BAD_CONFIGURATION)


def _reach(options: Namespace) -> _Reach:
    """Where the datasources are: by the endpoints' file, and by what the options say instead."""
    named = _endpoints(options.endpoints) if options.endpoints else {}
    prometheus, loki = named.get("prometheus") or {}, named.get("loki") or {}
    for which, url in (("prometheus", options.prometheus), ("loki", options.loki)):
        try:
            api_url(url)
        except ValueError as error:
            raise _UsageError(f"--{which}: {error}") from None
    username = options.username or prometheus.get("username")
    password_file = options.password_file or prometheus.get("password_file")
    ca_file = options.ca_file or prometheus.get("ca_file")
    loki_ca = options.ca_file or loki.get("ca_file") or ca_file
    for file in {ca_file, loki_ca} - {None}:
        _read(Path(str(file)))
    password = SecretStr(_read(Path(password_file)).rstrip("\r\n")) if password_file else None
    address = options.prometheus or prometheus.get("url")
    if not address:
        raise _UsageError("where is Prometheus? Give --prometheus URL or --endpoints FILE")
    return _Reach(
        Access(address, username, password, Path(ca_file) if ca_file else None),
        Access(options.loki or loki.get("url"), ca_file=Path(loki_ca) if loki_ca else None),
    )


def _endpoints(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(_read(path))
    except ValueError as error:
        if isinstance(error, _UsageError):
            raise
        raise _UsageError(f"{path}: not JSON") from None
    if not isinstance(document, dict) or not all(
        value is None or isinstance(value, dict) for value in document.values()
    ):
        raise _UsageError(f"{path}: names no endpoints")
    return document


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode()
    except OSError as error:
        raise _UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _UsageError(f"cannot read {path}: not UTF-8 text") from None


async def _report(options: Namespace, reach: _Reach) -> int:
    metrics = DashboardReportMetrics(CollectorRegistry())
    limits = Limits(timeout_seconds=TIMEOUT_SECONDS, concurrency=4, cache_seconds=300)
    try:
        async with open_sources(reach.prometheus, reach.loki, limits, metrics) as sources:
            return await _collect(options, sources)
    except OSError as error:
        return fail("report", f"cannot use the CA file: {error.strerror or type(error).__name__}")


async def _collect(options: Namespace, sources: dict[str, Source]) -> int:
    now = time.time()
    viewer = Viewer(options.dashboards, sources, SCRAPE_SECONDS, lambda: now)
    viewer.refresh()
    known = viewer.library.dashboards
    if not known:
        return fail("report", viewer.library.problems[0], EXIT_NOT_FOUND)
    missing = [uid for uid in options.dashboard if uid not in known]
    if missing:
        return fail("report", f"no dashboard has the uid {missing[0]!r}; there are {', '.join(known)}", EXIT_NOT_FOUND)
    start = options.start
    scope = viewer.scope(start, "now")
    parts, errors = [], dict.fromkeys(viewer.library.problems)
    for uid in options.dashboard or known:
        dashboard = known[uid]
        # At most as many at once as the sources let through; the rest wait there.
        found = await asyncio.gather(*(viewer.panel(uid, panel.id, start, "now", {}) for panel in dashboard.panels))
        frame = await viewer.frame(uid, start, "now", {})
        errors |= dict.fromkeys(line for part in (*found, frame) for line in part["errors"])
        panels = {str(panel.id): data for panel, data in zip(dashboard.panels, found, strict=True)}
        parts.append({"view": dashboard.view(), "frame": frame, "panels": panels})
    document = {
        "start": scope.start,
        "end": scope.end,
        "dashboards": parts,
        "problems": list(viewer.library.problems),
    }
    at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    try:
        size = _write(options.output, page.report(f"Tradewatch, {at}", document))
    except OSError as error:
        return fail("report", f"cannot write {options.output}: {error.strerror}")
    for line in errors:
        fail("report", line)
    count = sum(len(part["panels"]) for part in parts)
    print(f"{options.output}: {len(parts)} dashboards, {count} panels, {size / 1e6:.1f} MB")
    return EXIT_FAILED if errors else EXIT_OK


def _write(output: Path, text: str) -> int:
    """Whole or not at all: the file takes its name when it is complete. Returns its size in bytes."""
    content = text.encode()
    descriptor, partial = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(partial, output)
    except OSError:
        with suppress(OSError):
            os.unlink(partial)
        raise
    return len(content)
