"""What dashboard-report is shown: a Prometheus with a past, a Loki that answers as recorded, a panel of every kind."""

import contextlib
import json
import math
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from services_support import free_port

HOSTILE = "</script><script>document.title='stolen'</script><img src=x onerror=alert(1)>"
QUOTED = 'say "hello" to {a|b} \\ and $x'
SERVICES = ("signal-generator", "risk-manager", "trade-executor")
TRACE = "ab" * 16
HISTORY_SECONDS = 7200
SAMPLE_SECONDS = 30
USER, PASSWORD = "tradewatch", "a-long-enough-password"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _samples(now: int) -> Iterator[str]:
    """OpenMetrics text, a family at a time, each series' samples in the order of time."""
    stamps = range(now - HISTORY_SECONDS, now + 1, SAMPLE_SECONDS)
    yield "# TYPE up gauge"
    for number, service in enumerate(SERVICES):
        for at in stamps:
            down = number == 1 and 0.4 < (at - stamps[0]) / HISTORY_SECONDS < 0.5
            yield f'up{{job="services",namespace="crypto-trading",service="{service}"}} {int(not down)} {at}'
    yield "# TYPE requests counter"
    for number, service in enumerate(SERVICES):
        total = 0.0
        for at in stamps:
            total += (20 + 10 * math.sin(at / 900 + number)) * (number + 1)
            yield f'requests_total{{job="pods",namespace="crypto-trading",service="{service}"}} {total:.3f} {at}'
    yield "# TYPE temperature gauge"
    for name in (HOSTILE, QUOTED, "calm"):
        for at in stamps:
            yield f'temperature{{place="{_escaped(name)}"}} {20 + 5 * math.sin(at / 700 + len(name)):.3f} {at}'
    yield "# TYPE latency_seconds histogram"
    for share, bound in ((0.5, "0.01"), (0.8, "0.1"), (0.97, "1"), (1.0, "+Inf")):
        for index, at in enumerate(stamps):
            yield f'latency_seconds_bucket{{le="{bound}"}} {int(share * index * 40)} {at}'
    yield "# EOF"


def _program(name: str) -> Path:
    """Prometheus's program of that name: on PATH, or the one that the lab has built."""
    found = shutil.which(name)
    built = sorted((Path.home() / ".cache/tradewatch/bundle/go").glob(f"{name}-*/{name}"))
    if not (found or built):
        pytest.skip(f"no {name}: neither on PATH nor built by the lab")
    return Path(found) if found else built[-1]


@contextmanager
def prometheus(directory: Path) -> Iterator[str]:
    """The URL of a Prometheus that holds the samples above, up to this minute."""
    promtool, server = _program("promtool"), _program("prometheus")
    text, data = directory / "samples.txt", directory / "data"
    text.write_text("\n".join(_samples(int(time.time()) // SAMPLE_SECONDS * SAMPLE_SECONDS)) + "\n")
    convert = [promtool, "tsdb", "create-blocks-from", "openmetrics", text, data]
    subprocess.run(convert, check=True, capture_output=True)
    (directory / "prometheus.yml").write_text("global: {}\n")
    port = free_port()
    arguments = [
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = subprocess.Popen([server, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/-/ready").is_success:
                    yield url
                    return
            time.sleep(0.05)
        raise AssertionError("Prometheus did not start within 30 s")
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(data)


@asynccontextmanager
async def with_exemplars(prometheus: str, series: list[dict[str, Any]]) -> AsyncIterator[str]:
    """The URL of that Prometheus with these exemplars, in the form of its API: the samples above have none."""

    async def exemplars(_: web.Request) -> web.Response:
        return web.json_response({"status": "success", "data": series})

    async def passed_on(request: web.Request) -> web.Response:
        async with httpx.AsyncClient(base_url=prometheus) as client:
            answer = await client.get(request.path_qs)
        return web.Response(body=answer.content, status=answer.status_code, content_type="application/json")

    async with serving([web.get("/api/v1/query_exemplars", exemplars), web.get("/{path:.*}", passed_on)]) as url:
        yield url


@dataclass
class Loki:
    """Answers as Loki 3.5 does; keeps what it was asked."""

    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)

    async def query_range(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        now = time.time_ns()
        levels = ("info", "warning", "error", "debug")
        streams = []
        for number, level in enumerate(levels):
            stream = {"service": SERVICES[number % 3], "level": level, "namespace": "crypto-trading"}
            lines = [
                json.dumps({"event": f"{level} number {index}", "product_id": "BTC-USD", "trace_id": TRACE})
                for index in range(6)
            ]
            if level == "error":
                lines.append(HOSTILE)
            values = [[str(now - (number + 4 * index) * 10**9), line] for index, line in enumerate(lines)]
            streams.append({"stream": stream, "values": values})
        return web.json_response({"status": "success", "data": {"resultType": "streams", "result": streams}})


@asynccontextmanager
async def serving(routes: list[web.RouteDef]) -> AsyncIterator[str]:
    """The URL of a server with these routes."""
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def loki() -> AsyncIterator[Loki]:
    answering = Loki()
    async with serving([web.get("/loki/api/v1/query_range", answering.query_range)]) as url:
        answering.url = url
        yield answering


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of its own for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "tls.crt", directory / "tls.key"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return certificate_file, key_file


PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
LOKI = {"type": "loki", "uid": "loki"}
THRESHOLDS = {"mode": "absolute", "steps": [{"value": None, "color": "red"}, {"value": 1, "color": "green"}]}
UP_OR_DOWN = [
    {"type": "value", "options": {"0": {"text": "down", "color": "red"}, "1": {"text": "up", "color": "green"}}}
]


def _panel(number: int, kind: str, expr: str, *, y: int, width: int = 8, **more: Any) -> dict[str, Any]:
    target = {"refId": "A", "expr": expr, "range": True, **more.pop("target", {})}
    defaults = more.pop("defaults", {})
    return {
        "id": number,
        "type": kind,
        "title": f"{kind} {number}",
        "description": f"What the {kind} says.",
        "datasource": more.pop("datasource", PROMETHEUS),
        "gridPos": {"x": (number % 3) * 8 if width == 8 else 0, "y": y, "w": width, "h": 8},
        "targets": [target],
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        **more,
    }


RATE = 'sum by (service) (rate(requests_total{job="pods",service=~"$service"}[$__rate_interval]))'
INSTANT = {"instant": True, "range": False}
RUNBOOK = {"title": "Runbook", "url": "${runbooks_url}/${__data.fields.place}.md"}
TRACED = {
    "matcher": {"id": "byName", "options": "trace_id"},
    "properties": [
        {
            "id": "links",
            "value": [
                {
                    "title": "This trace",
                    "url": "/d/kinds?var-search=${__data.fields.trace_id}&viewPanel=14&${__url_time_range}",
                }
            ],
        }
    ],
}
LINKS = [
    {"title": "Runbooks", "type": "link", "url": "${runbooks_url}/README.md"},
    {"title": "Words", "type": "link", "url": "/d/kinds?viewPanel=13", "keepTime": True, "includeVars": True},
    {"title": "As its tab", "type": "link", "url": "/d/other", "keepTime": True, "includeVars": True},
]
SHOW_SERVICE = {"title": "This service", "url": "/d/kinds?var-service=${__field.labels.service}&${__url_time_range}"}


def dashboard() -> dict[str, Any]:
    """A panel of every kind that is drawn."""
    up = 'up{service=~"$service"}'
    panels = [
        {"id": 1, "type": "row", "title": "Values", "gridPos": {"x": 0, "y": 0, "w": 24, "h": 1}, "panels": []},
        _panel(
            3,
            "timeseries",
            RATE,
            y=1,
            target={"legendFormat": "{{service}}", "exemplar": True},
            defaults={"unit": "reqps", "links": [SHOW_SERVICE], "custom": {"fillOpacity": 5}},
            overrides=[TRACED],
        ),
        _panel(
            4,
            "timeseries",
            RATE,
            y=1,
            target={"legendFormat": "{{service}}"},
            defaults={"unit": "reqps", "custom": {"fillOpacity": 30, "stacking": {"mode": "normal"}}},
        ),
        _panel(5, "timeseries", "temperature", y=1, target={"legendFormat": "{{place}}"}, defaults={"unit": "celsius"}),
        _panel(
            6,
            "stat",
            up,
            y=9,
            target={**INSTANT, "legendFormat": "{{service}}"},
            defaults={"mappings": UP_OR_DOWN, "thresholds": THRESHOLDS, "links": [SHOW_SERVICE]},
            options={"colorMode": "background", "graphMode": "none"},
        ),
        _panel(
            7,
            "gauge",
            "avg(temperature)",
            y=9,
            defaults={"unit": "celsius", "min": 0, "max": 40, "thresholds": THRESHOLDS},
        ),
        _panel(
            8,
            "bargauge",
            RATE,
            y=9,
            target={"legendFormat": "{{service}}"},
            defaults={"unit": "reqps", "thresholds": THRESHOLDS},
        ),
        _panel(
            9,
            "heatmap",
            "sum by (le) (increase(latency_seconds_bucket[$__rate_interval]))",
            y=17,
            target={"format": "heatmap"},
            options={"yAxis": {"unit": "s"}},
        ),
        _panel(
            10, "state-timeline", up, y=17, target={"legendFormat": "{{service}}"}, defaults={"mappings": UP_OR_DOWN}
        ),
        _panel(
            11,
            "table",
            "temperature",
            y=17,
            target={**INSTANT, "format": "table"},
            transformations=[
                {
                    "id": "organize",
                    "options": {
                        "includeByName": {"place": True, "Value": True},
                        "renameByName": {"place": "Place", "Value": "Degrees"},
                    },
                }
            ],
            overrides=[
                {
                    "matcher": {"id": "byName", "options": "Place"},
                    "properties": [{"id": "links", "value": [RUNBOOK]}],
                },
                {
                    "matcher": {"id": "byName", "options": "Degrees"},
                    "properties": [{"id": "unit", "value": "celsius"}, {"id": "decimals", "value": 1}],
                },
            ],
        ),
        {"id": 12, "type": "row", "title": "Words", "gridPos": {"x": 0, "y": 25, "w": 24, "h": 1}, "panels": []},
        {
            "id": 13,
            "type": "text",
            "title": "Read me",
            "gridPos": {"x": 0, "y": 26, "w": 24, "h": 4},
            "options": {
                "mode": "markdown",
                "content": f"## Of $service\n- **bold** and `code`\n- {HOSTILE}\n- "
                "[bad](javascript:alert(1)) [good](https://example.org/)",
            },
        },
        _panel(
            14, "logs", '{namespace="crypto-trading"} |= "$search"', y=30, width=24, datasource=LOKI, overrides=[TRACED]
        ),
    ]
    service = {
        "name": "service",
        "label": "Service",
        "type": "query",
        "datasource": PROMETHEUS,
        "multi": True,
        "includeAll": True,
        "allValue": "",
        "sort": 1,
        "query": "label_values(up, service)",
        "current": {"text": "All", "value": "$__all"},
    }
    search = {"name": "search", "label": "Search", "type": "textbox", "query": ""}
    runbooks = {"name": "runbooks_url", "type": "constant", "query": "https://example.org/runbooks"}
    down = {
        "name": "Down",
        "enable": True,
        "iconColor": "red",
        "datasource": PROMETHEUS,
        "target": {"expr": "1 - up"},
        "titleFormat": "{{service}} is down",
    }
    return {
        "uid": "kinds", "title": "Every kind of panel", "time": {"from": "now-1h", "to": "now"}, "panels": panels,
        "templating": {"list": [service, search, runbooks]}, "annotations": {"list": [down]}, "links": LINKS,
    }  # fmt: skip


def folder(directory: Path) -> Path:
    """A folder with the dashboard of every kind, and a second one."""
    found = directory / "dashboards"
    found.mkdir()
    (found / "kinds.json").write_text(json.dumps(dashboard()))
    other = {"uid": "other", "title": "The other one", "panels": [_panel(1, "stat", "count(up)", y=0)]}
    (found / "other.json").write_text(json.dumps(other))
    return found
