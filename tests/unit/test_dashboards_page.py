"""The committed dashboards in a real browser, as dashboard-report draws them over series of every metric.

What is done with them is what tests/e2e does on a lab.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.bundle.parts import prometheus_binary
from tests import tour
from tests.commands import REPOSITORY, VENV_BIN, run
from tests.machines import wait
from tests.unit import test_dashboards_data as data
from tests.unit import test_dashboards_loki as lines
from tests.walk import RANGE, Album, album

pytestmark = pytest.mark.servers
SAMPLE_SECONDS, SAMPLES = 15, 81
# In the order in which the panel has them.
ALERTS = (
    ("ReconcileStale", "firing", "critical"),
    ("MarketDataStale", "firing", "warning"),
    ("AlertsUnrouted", "firing", "info"),
    ("AgentDown", "pending", "critical"),
    ("BackupStale", "pending", "warning"),
)
# One that logs lines with a trace.
SERVICE = "trade-orchestrator"
# "End-to-end duration" of the trading engine's dashboard.
ENDED_PANEL = 502


def samples() -> Iterator[str]:
    """OpenMetrics text: a past of every series that the dashboards ask for, and alerts of every kind."""
    series = data.all_series(data.used_metrics(data.asked({})))
    series = {name: values for name, values in series.items() if not name.startswith("ALERTS")}
    for name, state, severity in reversed(ALERTS):
        series[f'ALERTS{{alertname="{name}",alertstate="{state}",severity="{severity}",team="data"}}'] = data.ONE
    service = {"namespace": "crypto-trading", "service": SERVICE}
    series[data.written("namespace_service:available:min", service)] = data.ONE
    series[data.UP.format(job="kubernetes-services-metrics", **service)] = data.ONE
    newest = int(time.time()) // SAMPLE_SECONDS * SAMPLE_SECONDS
    for name, values in sorted(series.items()):
        first, rises = (7, 7) if values == data.RISING else (int(values[0]), 0)
        for number in range(SAMPLES):
            yield f"{name} {first + rises * number} {newest - (SAMPLES - 1 - number) * SAMPLE_SECONDS}"
    yield "# EOF"


def exemplar() -> bytes:
    """An order's duration that carries a trace, in OpenTelemetry's form: text files hold no exemplars."""
    now = time.time_ns()
    point = {
        "timeUnixNano": str(now),
        "count": "1",
        "sum": 0.4,
        "bucketCounts": ["1", "0"],
        "explicitBounds": [1.0],
        "exemplars": [{"timeUnixNano": str(now - 120 * 10**9), "asDouble": 0.4, "traceId": lines.TRACE}],
    }
    histogram = {"aggregationTemporality": 2, "dataPoints": [point]}
    metric = {"name": "pipeline_end_to_end_duration", "unit": "s", "histogram": histogram}
    job = {"key": "service.name", "value": {"stringValue": "kubernetes-pods-metrics"}}
    resource = {"resource": {"attributes": [job]}, "scopeMetrics": [{"metrics": [metric]}]}
    return json.dumps({"resourceMetrics": [resource]}).encode()


@contextmanager
def process(ready: str, *command: str | Path, **environment: str) -> Iterator[None]:
    """A program that runs meanwhile, from when an address answers."""
    running = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        wait(lambda: running.poll() is not None or lines.ready(ready), f"an answer of {ready}", 60)
        assert running.poll() is None, f"{command[0]} has ended"
        yield
    finally:
        running.terminate()
        running.wait(30)


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """The address of a Prometheus with the samples and the exemplar."""
    server, tool = prometheus_binary("prometheus"), prometheus_binary("promtool")
    (folder / "prometheus.yml").write_text("global: {}\n")
    (folder / "samples.txt").write_text("\n".join(samples()) + "\n")
    run(tool, "tsdb", "create-blocks-from", "openmetrics", folder / "samples.txt", folder / "data")
    port = lines.free_port()
    url = f"http://127.0.0.1:{port}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    options += ["--web.enable-otlp-receiver", "--enable-feature=exemplar-storage", "--log.level=error"]
    with process(f"{url}/-/ready", server, *options, f"--web.listen-address=127.0.0.1:{port}"):
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/api/v1/otlp/v1/metrics", exemplar(), head)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        yield url


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Album]:
    """A browser on the page of a dashboard-report, which is given the dashboards as its role gives them."""
    folder = tmp_path_factory.mktemp("page")
    port, health = lines.free_port(), lines.free_port()
    url = f"https://localhost:{port}"
    (folder / "dashboards").mkdir()
    for path in (REPOSITORY / "files/dashboards").glob("*.json"):
        text = path.read_text().replace('"query": "docs/runbooks"', f'"query": "{url}/runbooks"')
        (folder / "dashboards" / path.name).write_text(text)
    (folder / "password").write_text("a-long-enough-password")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "key")
    run("openssl", "req", "-x509", *key, "-subj", "/CN=localhost", "-days", "1", "-out", folder / "certificate")
    (folder / "prometheus").mkdir()
    (folder / "loki").mkdir()
    with prometheus(folder / "prometheus") as source, lines.standing(folder / "loki") as loki:
        settings: dict[str, Any] = {
            "HTTP_PORT": health,
            "LOG_LEVEL": "error",
            "DASHBOARDS_DIR": folder / "dashboards",
            "RUNBOOKS_DIR": REPOSITORY / "docs/runbooks",
            "PAGE_PORT": port,
            "PAGE_PASSWORD_FILE": folder / "password",
            "TLS_CERTIFICATE_FILE": folder / "certificate",
            "TLS_KEY_FILE": folder / "key",
            "PROMETHEUS_URL": source,
            "LOKI_URL": loki,
            "SCRAPE_INTERVAL_SECONDS": SAMPLE_SECONDS,
            "CACHE_SECONDS": 1,
        }
        environment = {f"TRADEWATCH_{name}": str(value) for name, value in settings.items()}
        command = (VENV_BIN / "tradewatch", "run", "dashboard-report")
        endpoint = {"url": url, "username": "tradewatch", "password_file": str(folder / "password")}
        with (
            process(f"http://127.0.0.1:{health}/readyz", *command, **environment),
            album(endpoint, folder / "pictures") as found,
        ):
            yield found


@pytest.mark.parametrize("uid", tour.UIDS)
def test_no_panel_is_wrong(pictures: Album, uid: str) -> None:
    tour.no_panel_is_wrong(pictures, uid)
    if folder := os.environ.get("TRADEWATCH_SCREENSHOTS"):
        pictures.page.screenshot(path=Path(folder) / f"{uid}.png", full_page=True)


def test_a_panel_that_is_wrong_is_named(pictures: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.walk.WAIT_SECONDS", 5)
    refused = {"errors": ["Prometheus: parse error"], "notices": [], "series": []}
    with pictures.page.context.new_page() as page:
        page.route("**/panels/107?*", lambda route: route.fulfill(json=refused))
        other = Album(page, pictures.url, Path())
        with pytest.raises(AssertionError) as failed:
            tour.no_panel_is_wrong(other, "unified-system")
    assert failed.value.__notes__ == ["{'Service availability': 'Prometheus: parse error'}"]


def test_a_service_leads_to_its_logs_and_they_to_a_trace(pictures: Album) -> None:
    tour.from_a_service_to_a_trace(pictures, SERVICE)


def test_an_exemplar_leads_to_its_trace(pictures: Album) -> None:
    tour.from_an_exemplar_to_its_trace(pictures, "crypto-trading-engine", ENDED_PANEL)


def test_an_alert_leads_to_its_runbook(pictures: Album) -> None:
    tour.from_an_alert_to_its_runbook(pictures, "ReconcileStale")


def test_what_is_chosen_stays_across_dashboards(pictures: Album) -> None:
    tour.across_dashboards(pictures, "BTC-USD")


def test_alerts_are_ranked_and_coloured(pictures: Album) -> None:
    pictures.open(f"/d/unified-system?{RANGE}")
    rows = pictures.panel(tour.ALERTS).locator("tbody tr")
    pictures.until(lambda: rows.count() == len(ALERTS), "the alerts")
    cells = [row.locator("td").all() for row in rows.all()]
    assert [(row[0].inner_text(), row[3].inner_text(), row[1].inner_text()) for row in cells] == list(ALERTS)
    colour = "cell => getComputedStyle(cell.firstChild).color"
    tones = {cell.inner_text(): cell.evaluate(colour) for row in cells for cell in (row[1], row[3], row[2])}
    # Of the severities each its own; red for what is urgent, and none for the team.
    assert len({tones[name] for name in ("critical", "warning", "info", "data")}) == 4
    assert tones["firing"] == tones["critical"] != tones["pending"] == tones["warning"]
