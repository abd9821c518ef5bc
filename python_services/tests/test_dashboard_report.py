"""dashboard-report over HTTPS: what it asks, what it answers, and what it does when a datasource fails."""

import asyncio
import json
import math
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dashboard_support as support
import httpx
import pytest
from aiohttp import web
from cryptography import x509
from dashboard_support import HOSTILE, PASSWORD, QUOTED, USER
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from services_support import eventually, free_port, value
from tradewatch.cli import main as cli
from tradewatch.common.settings import SettingsError, load
from tradewatch.monitoring.dashboard_report import dashboards, page, panels, tables
from tradewatch.monitoring.dashboard_report.certificates import CertificateWatch, parse_endpoints
from tradewatch.monitoring.dashboard_report.dashboards import DashboardError, Variable
from tradewatch.monitoring.dashboard_report.metrics import DashboardReportMetrics
from tradewatch.monitoring.dashboard_report.service import DashboardReportSettings, open_sources
from tradewatch.monitoring.dashboard_report.site import Site, TlsFiles
from tradewatch.monitoring.dashboard_report.sources import Access, Limits, QueryError, Source
from tradewatch.monitoring.dashboard_report.variables import ALL, Choice, Scope, choose
from tradewatch.monitoring.dashboard_report.viewer import SpanError, Viewer, moment

SPAN = {"from": "now-1h", "to": "now"}
KINDS = "/api/dashboards/kinds"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with support.prometheus(tmp_path_factory.mktemp("prometheus")) as url:
        yield url


@asynccontextmanager
async def site(
    directory: Path,
    prometheus: str | None,
    loki: str | None = None,
    limits: Limits | None = None,
    runbooks: Path | None = None,
) -> AsyncIterator[tuple[httpx.AsyncClient, CollectorRegistry]]:
    """The page with the dashboard of every kind, and a client that is logged in."""
    registry = CollectorRegistry()
    metrics = DashboardReportMetrics(registry)
    certificate, key = support.certificate(directory)
    tls = TlsFiles(certificate, key)
    async with open_sources(Access(prometheus), Access(loki), limits or Limits(timeout_seconds=5), metrics) as sources:
        viewer = Viewer(support.folder(directory), sources, support.SAMPLE_SECONDS)
        viewer.refresh()
        async with (
            Site(0, viewer, metrics, USER, SecretStr(PASSWORD), tls.context, runbooks) as served,
            httpx.AsyncClient(
                base_url=f"https://localhost:{served.port}", auth=(USER, PASSWORD), verify=_trust(certificate)
            ) as client,
        ):
            yield client, registry


def _trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


async def _panel(client: httpx.AsyncClient, number: int, **query: Any) -> dict[str, Any]:
    answer = await client.get(f"{KINDS}/panels/{number}", params={**SPAN, **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.servers
async def test_every_panel_has_its_data(tmp_path: Path, prometheus: str) -> None:
    async with support.loki() as loki, site(tmp_path, prometheus, loki.url) as (client, _):
        for panel in support.dashboard()["panels"]:
            if panel["type"] == "row":
                continue
            found = await _panel(client, panel["id"])
            assert found["errors"] == [], panel["title"]
            if panel["type"] == "table":
                assert found["table"]["columns"] == ["Place", "Degrees"]
                assert {row[0] for row in found["table"]["rows"]} == {HOSTILE, QUOTED, "calm"}
            elif panel["type"] == "logs":
                assert len(found["lines"]) == 25
                times = [int(line["time"]) for line in found["lines"]]
                assert times == sorted(times, reverse=True)
                assert HOSTILE in {line["line"] for line in found["lines"]}
            elif panel["type"] != "text":
                assert found["series"], panel["title"]
                assert any(number is not None for series in found["series"] for number in series["values"])
        heat = await _panel(client, 9)
        assert [series["name"] for series in heat["series"]] == ["0.01", "0.1", "1.0", "+Inf"]
        newest = [series["values"][-3] for series in heat["series"]]
        # The shares of the histogram: half below 10 ms, 3 % above a second.
        assert newest[0] == pytest.approx(0.5 * sum(newest), rel=0.1)
        assert newest[3] == pytest.approx(0.03 * sum(newest), rel=0.5)


@pytest.mark.servers
async def test_a_choice_narrows_the_queries(tmp_path: Path, prometheus: str) -> None:
    async with site(tmp_path, prometheus) as (client, _):
        frame = (await client.get(f"{KINDS}/frame", params=SPAN)).json()
        service = frame["variables"][0]
        assert [value for value, _ in service["options"]] == sorted(support.SERVICES)
        assert service["values"] == [ALL]
        both = ["risk-manager", "trade-executor"]
        names = {series["name"] for series in (await _panel(client, 3, **{"var-service": both}))["series"]}
        assert names == set(both)
        injected = await _panel(client, 3, **{"var-service": '"} or vector(1) #'})
        assert {series["name"] for series in injected["series"]} == set(support.SERVICES)


@pytest.mark.servers
async def test_marks_are_the_spans_where_the_annotation_holds(tmp_path: Path, prometheus: str) -> None:
    async with site(tmp_path, prometheus) as (client, _):
        marks = (await client.get(f"{KINDS}/frame", params={"from": "now-2h", "to": "now"})).json()["marks"]
        assert [mark["title"] for mark in marks] == ["risk-manager is down"]
        assert marks[0]["end"] - marks[0]["start"] == pytest.approx(0.1 * support.HISTORY_SECONDS, abs=120)


async def test_a_datasource_that_fails_is_one_line_in_its_panel(tmp_path: Path) -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async def nonsense(_: web.Request) -> web.Response:
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": [{"x": [1]}]}})

    async def html(_: web.Request) -> web.Response:
        return web.Response(text="<h1>It works</h1>")

    async def refused(_: web.Request) -> web.Response:
        return web.json_response({"status": "error", "errorType": "bad_data", "error": "parse\nerror"}, status=400)

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * (9 * 1024 * 1024))

    async def denied(_: web.Request) -> web.Response:
        return web.Response(status=401)

    cases = {
        slow: "Prometheus: no answer within 1 s",
        nonsense: "the answer cannot be drawn: KeyError",
        html: "Prometheus: the answer is not of the expected shape",
        refused: "Prometheus: parse error",
        large: "Prometheus: the answer is larger than 8 MiB",
        denied: "Prometheus: refused the login (401)",
    }
    for number, (handler, line) in enumerate(cases.items()):
        directory = tmp_path / str(number)
        directory.mkdir()
        async with (
            support.loki() as loki,
            support.serving([web.get("/api/v1/query_range", handler)]) as url,
            site(directory, url, loki.url, Limits(timeout_seconds=1.0 if handler is slow else 10.0)) as (client, _),
        ):
            broken, logs = await asyncio.gather(_panel(client, 5), _panel(client, 14))
            assert broken["errors"] == [line]
            assert logs["errors"] == []
            assert logs["lines"]
    (tmp_path / "down").mkdir()
    async with site(tmp_path / "down", f"http://127.0.0.1:{free_port()}") as (client, registry):
        assert (await _panel(client, 5))["errors"] == ["Prometheus: does not answer (ConnectError)"]
        assert (await _panel(client, 14))["errors"] == ["Loki is not configured"]
        assert value(registry, "dashboard_report_queries_total", source="prometheus", outcome="unreachable") >= 1
        frame = (await client.get(f"{KINDS}/frame", params=SPAN)).json()
        assert frame["variables"][0]["error"] == "Prometheus: does not answer (ConnectError)"


async def test_another_data_source_is_named_and_not_drawn_from_ours() -> None:
    """A second Prometheus is of the type of ours; what it holds is another's."""
    other = {"type": "prometheus", "uid": "other-site"}
    panel = {"id": 1, "type": "stat", "datasource": other, "targets": [{"refId": "A", "expr": "up"}]}
    query = {"name": "site", "type": "query", "datasource": other, "query": "label_values(up, site)"}
    chosen = {"name": "own", "type": "query", "datasource": {"type": "prometheus", "uid": "${source}"}, "query": "x"}
    document = {"uid": "x", "title": "X", "panels": [panel], "templating": {"list": [query, chosen]}}
    dashboard = dashboards.parse(document)
    assert [variable.source for variable in dashboard.variables] == ["other-site", "prometheus"]
    scope = Scope(0.0, 3600.0, 60.0, 15.0)
    found = await panels.evaluate(dashboard.panels[0], scope, {})
    assert found["errors"] == ["query A is of the data source other-site, which is not drawn here"]
    choices = await choose(dashboard, {}, {}, scope)
    assert choices["site"].error == "the variable site is of the data source other-site, which is not drawn here"


async def test_ten_viewers_cost_as_much_as_one_and_few_queries_run_at_once(tmp_path: Path) -> None:
    asked: list[str] = []
    running = most = 0

    async def query_range(request: web.Request) -> web.Response:
        nonlocal running, most
        asked.append(request.query["query"])
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": []}})

    async def values(_: web.Request) -> web.Response:
        return web.json_response({"status": "success", "data": ["one"]})

    routes = [web.get("/api/v1/query_range", query_range), web.get("/api/v1/label/service/values", values)]
    async with (
        support.serving(routes) as url,
        site(tmp_path, url, limits=Limits(concurrency=2)) as (client, registry),
    ):
        span = {"from": "1700000000000", "to": "1700003600000"}
        await asyncio.gather(*(_panel(client, number, **span) for number in (3, 5, 7, 9, 10) for _ in range(10)))
        assert len(asked) == len(set(asked)) == 5
        assert most == 2
        assert value(registry, "dashboard_report_queries_total", source="prometheus", outcome="ok") == 6


async def test_an_answer_is_kept_until_the_next_refresh_and_a_failure_only_for_a_moment() -> None:
    asked: list[str] = []

    async def query(request: web.Request) -> web.Response:
        asked.append(request.query["query"])
        return web.json_response(
            {"status": "success", "data": 1}, status=503 if request.query["query"] == "bad" else 200
        )

    now = 0.0
    metrics = DashboardReportMetrics(CollectorRegistry())
    async with (
        support.serving([web.get("/api/v1/query", query)]) as url,
        Source("prometheus", Access(url), Limits(), metrics, lambda: now) as source,
    ):

        async def twice() -> None:
            await source.get("api/v1/query", {"query": "good"})
            with pytest.raises(QueryError):
                await source.get("api/v1/query", {"query": "bad"})

        for now, sum_asked in ((0.0, 2), (4.9, 2), (5.1, 3), (29.9, 4), (30.1, 5)):
            await twice()
            assert len(asked) == sum_asked, now


async def test_variables_that_use_none_of_each_other_are_asked_for_at_once() -> None:
    together = asyncio.Barrier(2)

    async def values(request: web.Request) -> web.Response:
        if "service" not in request.path:
            await together.wait()
        return web.json_response({"status": "success", "data": [request.query["match[]"]]})

    def variable(name: str, selector: str) -> Variable:
        return replace(_variable(multi=False), name=name, query=f"label_values({selector}, {name})")

    named = [variable("namespace", "up"), variable("service", 'up{a="$namespace"}'), variable("exchange", "trades")]
    document = {"uid": "a", "title": "a", "panels": []}
    dashboard = replace(dashboards.parse(document), variables=tuple(named))
    metrics = DashboardReportMetrics(CollectorRegistry())
    async with (
        support.serving([web.get("/api/v1/label/{name}/values", values)]) as url,
        Source("prometheus", Access(url), Limits(timeout_seconds=5), metrics) as source,
    ):
        found = await choose(dashboard, {}, {"prometheus": source}, Scope(0, 3600, 15, 15))
    assert [(name, choice.values, choice.error) for name, choice in found.items()] == [
        ("namespace", ("up",), ""),
        ("service", ('up{a="up"}',), ""),
        ("exchange", ("trades",), ""),
    ]


async def test_too_many_series_are_cut_and_said(tmp_path: Path) -> None:
    async def query_range(request: web.Request) -> web.Response:
        assert int(request.query["limit"]) == panels.MAX_SERIES + 1
        span = float(request.query["end"]) - float(request.query["start"])
        assert span / float(request.query["step"]) <= panels.MAX_POINTS
        series = [
            {"metric": {"place": str(number)}, "values": [[float(request.query["end"]), "1"]]}
            for number in range(panels.MAX_SERIES + 1)
        ]
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": series}})

    async with (
        support.serving([web.get("/api/v1/query_range", query_range)]) as url,
        site(tmp_path, url) as (client, _),
    ):
        found = await _panel(client, 5, **{"from": "now-90d"})
        assert len(found["series"]) == panels.MAX_SERIES
        assert found["notices"] == [f"only the first {panels.MAX_SERIES} series are drawn"]


async def test_nothing_is_seen_without_the_password(tmp_path: Path) -> None:
    async with site(tmp_path, None) as (client, registry):
        logins = [None, (USER, "wrong"), ("other", PASSWORD), (USER, "")]
        paths = [
            "/",
            "/d/kinds",
            "/static/viewer.js",
            "/api/dashboards",
            f"{KINDS}/panels/3",
            "/none",
            "/runbooks/Down.md",
        ]
        anonymous = httpx.AsyncClient(base_url=client.base_url, verify=_trust(tmp_path / "tls.crt"))
        async with anonymous:
            requests = [anonymous.get(path, auth=login) for path in paths for login in logins]
            answers = await asyncio.gather(*requests)
        for answer in answers:
            assert answer.status_code == 401
            assert "Tradewatch" in answer.headers["WWW-Authenticate"]
            assert PASSWORD not in answer.text
        # Who gives no login does not guess.
        assert value(registry, "dashboard_report_logins_refused_total") == len(answers) * 3 / 4
        assert (await client.get("/", auth=(USER, PASSWORD))).status_code == 200


async def test_runbooks_are_text(tmp_path: Path) -> None:
    folder = tmp_path / "runbooks"
    folder.mkdir()
    (folder / "ServiceDown.md").write_text(f"# ServiceDown\n{HOSTILE}\n")
    (tmp_path / "Secret.md").write_text("not a runbook")
    async with site(tmp_path, None, runbooks=folder) as (client, _):
        found = await client.get("/runbooks/ServiceDown.md")
        assert found.text == f"# ServiceDown\n{HOSTILE}\n"
        assert found.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        for missing in ("None.md", "..%2fSecret.md", "%2e%2e/Secret.md", "ServiceDown", "ServiceDown.md%00"):
            assert (await client.get(f"/runbooks/{missing}")).status_code == 404, missing


async def test_without_a_folder_there_are_no_runbooks(tmp_path: Path) -> None:
    async with site(tmp_path, None) as (client, _):
        assert (await client.get("/runbooks/ServiceDown.md")).json() == {"error": "no folder of runbooks is set"}


async def test_the_page_allows_nothing_but_its_own_files(tmp_path: Path) -> None:
    async with site(tmp_path, None) as (client, _):
        found = await client.get("/")
        policy = found.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "require-trusted-types-for 'script'" in policy
        # Plotly's style attributes; nothing else that is unsafe.
        assert policy.count("unsafe") == policy.count("style-src 'self' 'unsafe-inline';") == 1
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert "style=" not in found.text
        assert "<style" not in found.text
        assert not re.search(r"<script(?![^>]* src=)", found.text)
        files = re.findall(r'(?:src|href)="([^"]+)"', found.text)
        assert len(files) == 6
        for file in files:
            assert file.startswith("/static/")
            packed, plain = [await client.get(file, headers={"Accept-Encoding": kind}) for kind in ("gzip", "identity")]
            assert packed.status_code == plain.status_code == 200
            assert packed.content == plain.content
            assert int(packed.headers["Content-Length"]) < len(packed.content)
        for missing in ("/static/service.py", "/static/..%2fservice.py", "/api/dashboards/none", f"{KINDS}/panels/99"):
            assert (await client.get(missing, params=SPAN)).status_code == 404
        for bad in ({"from": "yesterday"}, {"from": "now", "to": "now-1h"}, {"from": "0"}):
            answer = await client.get(f"{KINDS}/frame", params=bad)
            assert answer.status_code == 400
            assert "\n" not in answer.json()["error"]


def test_a_moment_is_read() -> None:
    assert moment("now-6h", 100_000.0) == 100_000 - 6 * 3600
    assert moment("1700000000000", 0) == 1_700_000_000
    assert moment("2026-01-01T00:00:00+00:00", 0) == 1_767_225_600
    with pytest.raises(SpanError, match="'now-1y' is no time"):
        moment("now-1y", 0)


def _variable(kind: str = "query", *, multi: bool = True, all_value: str = "") -> Variable:
    return Variable("v", "V", kind, "prometheus", "", "", multi, multi, all_value, (), False, 0)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_no_value_gets_out_of_its_string(values: list[str]) -> None:
    options = tuple((value, value) for value in values)
    for variable in (_variable(), _variable(multi=False)):
        scope = Scope(0, 3600, 15, 15, {"v": Choice(variable, options, tuple(values))})
        text = scope.fill('up{x=~"$v"}')
        inside = text.removeprefix('up{x=~"').removesuffix('"}')
        assert not re.search(r'(?<!\\)(\\\\)*"', inside)
        assert "\n" not in inside
        if variable.multi:
            # As PromQL reads the string, then as a regular expression: exactly the values.
            pattern = re.sub(r'\\([\\"n])', lambda match: "\n" if match[1] == "n" else match[1], inside)
            assert all(re.fullmatch(pattern, value) for value in values)
            assert not re.fullmatch(pattern, "".join(values) + "x")


def test_macros_are_durations() -> None:
    scope = Scope(1000, 4600, 60, 15, {})
    filled = scope.fill("rate(x[$__rate_interval]) $__interval ${__range} $__range_s $unknown")
    assert filled == "rate(x[75s]) 60s 3600s 3600 $unknown"
    assert Scope(0, 60, 15, 15, {}).fill("$__rate_interval") == "60s"


def test_rows_of_several_queries_are_brought_together() -> None:
    frames = [
        ("A", [({"service": "x", "pod": "x-1"}, 1.0, 2.0), ({"service": "y", "pod": "y-1"}, 1.0, 3.0)]),
        ("B", [({"service": "y"}, 1.0, 4.0)]),
    ]
    order = {"service": 0, "Value #B": 1, "Value #A": 2}
    organize = {
        "includeByName": dict.fromkeys(order, True),
        "indexByName": order,
        "renameByName": {"service": "Service", "Value #A": "Rate"},
    }
    made, unknown = tables.make(frames, [{"id": "organize", "options": organize}, {"id": "reduce"}])
    assert made["columns"] == ["Service", "Value #B", "Rate"]
    assert made["rows"] == [["x", None, 2.0], ["y", 4.0, 3.0]]
    assert made["labels"][1] == {"service": "y", "pod": "y-1"}
    assert unknown == ["reduce"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "an object with panels"),
        ({"panels": [], "uid": "a/b", "title": "x"}, "the uid must be"),
        ({"panels": [], "uid": "a"}, "has no title"),
        ({"panels": [{"id": 1}], "uid": "a", "title": "x"}, "not Grafana's shape"),
        ({"panels": [3], "uid": "a", "title": "x"}, "not Grafana's shape"),
        ({"panels": [{"id": 1, "type": "stat"}] * 2, "uid": "a", "title": "x"}, "two panels have the id 1"),
    ],
)
def test_what_is_no_dashboard_is_named(document: Any, said: str) -> None:
    with pytest.raises(DashboardError, match=re.escape(said)):
        dashboards.parse(document)


def test_a_broken_file_does_not_hide_the_others(tmp_path: Path) -> None:
    folder = support.folder(tmp_path)
    (folder / "broken.json").write_text("{")
    library = dashboards.load(folder)
    assert set(library.dashboards) == {"kinds", "other"}
    assert library.problems == ("broken.json: not JSON",)
    assert "holds no dashboard" in dashboards.load(tmp_path / "none").problems[0]


def test_the_projects_own_dashboards_are_read_whole() -> None:
    folder = Path(__file__).resolve().parents[2] / "files/dashboards"
    library = dashboards.load(folder)
    assert library.problems == ()
    assert len(library.dashboards) == len(list(folder.glob("*.json")))
    drawn = {"timeseries", "stat", "gauge", "bargauge", "table", "logs", "state-timeline", "heatmap", "text", "row"}
    for dashboard in library.dashboards.values():
        assert {panel.type for panel in dashboard.panels} <= drawn
        for panel in dashboard.panels:
            assert {change["id"] for change in panel.transformations} <= tables.KNOWN


def test_a_bad_setting_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("short\n")
    for name, text in {
        "DASHBOARDS_DIR": str(tmp_path),
        "PAGE_PASSWORD_FILE": str(tmp_path / "password"),
        "TLS_CERTIFICATE_FILE": "/x",
        "TLS_KEY_FILE": "/x",
        "PROMETHEUS_URL": "https://user:secret@prometheus",
    }.items():
        monkeypatch.setenv(f"TRADEWATCH_{name}", text)
    with pytest.raises(SettingsError) as raised:
        load(DashboardReportSettings)
    assert raised.value.lines == [
        "TRADEWATCH_PAGE_PASSWORD_FILE: must have at least 8 characters",
        "TRADEWATCH_PROMETHEUS_URL: must hold neither credentials nor a query",
    ]


@pytest.mark.servers
async def test_the_service_runs_follows_its_files_and_stops(tmp_path: Path) -> None:
    folder = support.folder(tmp_path)
    certificate, key = support.certificate(tmp_path)
    (tmp_path / "password").write_text(PASSWORD)
    ports = {"HTTP_PORT": str(free_port()), "PAGE_PORT": str(free_port())}
    variables = {
        "DASHBOARDS_DIR": folder,
        "PAGE_PASSWORD_FILE": tmp_path / "password",
        "TLS_CERTIFICATE_FILE": certificate,
        "TLS_KEY_FILE": key,
        **ports,
    }
    environment = {**os.environ, **{f"TRADEWATCH_{name}": str(text) for name, text in variables.items()}}
    command = [sys.executable, "-m", "tradewatch", "run", "dashboard-report"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        async with httpx.AsyncClient(verify=_trust(certificate), auth=(USER, PASSWORD)) as client:
            plain, page = f"http://127.0.0.1:{ports['HTTP_PORT']}", f"https://localhost:{ports['PAGE_PORT']}"

            async def titles() -> list[str]:
                try:
                    answer = await client.get(f"{page}/api/dashboards")
                except httpx.TransportError:
                    return []
                return [item["uid"] for item in answer.json()["dashboards"]]

            assert await eventually(titles) == ["kinds", "other"]
            assert (await client.get(f"{plain}/readyz", auth=None)).status_code == 200
            assert "dashboard_report_dashboards 2.0" in (await client.get(f"{plain}/metrics", auth=None)).text
            (folder / "other.json").unlink()

            async def gone() -> bool:
                return await titles() == ["kinds"]

            assert await eventually(gone)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    assert PASSWORD not in output


@pytest.mark.servers
async def test_a_report_is_one_file_with_everything(
    tmp_path: Path, prometheus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.html"
    folder = support.folder(tmp_path)
    async with support.loki() as loki:
        endpoints = tmp_path / "endpoints.json"
        endpoints.write_text(
            json.dumps({"prometheus": {"url": prometheus}, "loki": {"url": loki.url}, "grafana": None})
        )
        arguments = ["report", "--output", str(output), "--dashboards", str(folder), "--from", "1h"]
        started = time.monotonic()
        code = await asyncio.to_thread(cli, [*arguments, "--endpoints", str(endpoints)])
        assert time.monotonic() - started < 10
        assert code == 0, capsys.readouterr().err
        written = output.read_text()
        plotly = page.asset(page.PLOTLY).decode()
        assert written.count(plotly) == 1
        # The texts of Plotly's maps name addresses; that it asks for none is seen in a browser.
        text = written.replace(plotly, "")
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
        embedded = re.search(r'<script type="application/json" id="report">(.*?)</script>', text, re.DOTALL)
        assert embedded is not None
        document = json.loads(embedded[1])
        assert {part["view"]["uid"] for part in document["dashboards"]} == {"kinds", "other"}
        kinds = document["dashboards"][0]["panels"]
        assert HOSTILE in {row[0] for row in kinds["11"]["table"]["rows"]}
        assert len(text) < 1_000_000
        assert "2 dashboards" in capsys.readouterr().out
        assert await asyncio.to_thread(cli, [*arguments, "--prometheus", prometheus, "--dashboard", "none"]) == 3
        assert capsys.readouterr().err == "tradewatch report: no dashboard has the uid 'none'; there are kinds, other\n"
        assert await asyncio.to_thread(cli, arguments) == 2
        assert "where is Prometheus?" in capsys.readouterr().err
        nowhere = f"http://127.0.0.1:{free_port()}"
        assert await asyncio.to_thread(cli, [*arguments, "--prometheus", nowhere]) == 1
        assert "Prometheus: does not answer (ConnectError)" in capsys.readouterr().err
        assert not list(tmp_path.glob(".report*"))


@pytest.mark.servers
async def test_the_end_of_an_endpoints_certificate_is_exported_whoever_signed_it(tmp_path: Path) -> None:
    certificate, key = support.certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc.timestamp()
    registry = CollectorRegistry()
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        addresses = {"shown": server.sockets[0].getsockname(), "gone": ("127.0.0.1", free_port())}
        watch = CertificateWatch(addresses, DashboardReportMetrics(registry, addresses), 0.05)
        running = asyncio.create_task(watch.run())

        async def seen(endpoint: str = "shown") -> float:
            labels = {"endpoint": endpoint}
            return registry.get_sample_value("endpoint_certificate_checked_timestamp_seconds", labels) or 0.0

        assert await eventually(seen) == pytest.approx(time.time(), abs=5)
        running.cancel()
    name = "endpoint_certificate_expiry_timestamp_seconds"
    assert registry.get_sample_value(name, {"endpoint": "shown"}) == ends
    assert math.isnan(value(registry, name, endpoint="gone"))
    assert await seen("gone") == 0


@pytest.mark.servers
async def test_an_endpoint_that_comes_later_is_asked_again_soon(tmp_path: Path) -> None:
    certificate, key = support.certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    registry = CollectorRegistry()
    addresses = {"late": ("127.0.0.1", free_port())}
    watch = CertificateWatch(addresses, DashboardReportMetrics(registry, addresses), 300, retry_seconds=0.05)
    running = asyncio.create_task(watch.run())

    async def seen() -> float:
        labels = {"endpoint": "late"}
        return registry.get_sample_value("endpoint_certificate_checked_timestamp_seconds", labels) or 0.0

    await asyncio.sleep(0.2)
    assert await seen() == 0
    async with await asyncio.start_server(lambda _, writer: writer.close(), *addresses["late"], ssl=context):
        first = await eventually(seen)
        await asyncio.sleep(0.2)
        assert await seen() == first
        running.cancel()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("loki=loki.svc", "'loki=loki.svc' is not NAME=HOST:PORT"),
        ("loki=loki.svc:0", "'loki=loki.svc:0' is not NAME=HOST:PORT"),
        ("a=b:1,a=c:2", "the name a is there twice"),
    ],
)
def test_a_wrong_endpoint_is_named(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(wrong)}$"):
        parse_endpoints(text)


def test_endpoints_may_be_written_over_several_lines() -> None:
    assert parse_endpoints("a=b.svc:1,\n c=10.0.0.1:9100, ") == {"a": ("b.svc", 1), "c": ("10.0.0.1", 9100)}
