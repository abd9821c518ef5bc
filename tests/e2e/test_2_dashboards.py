"""Every query of every panel and variable, run against the live Prometheus and Loki: no error, and an answer.

Panels that are rightly empty in calm weather say so; the storm of conftest.py fills them. Then a browser opens both
dashboards and goes the ways that people go: tests/tour.py, which tests/unit goes too.
"""

from __future__ import annotations

import json
import math
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tradewatch.monitoring.dashboards import queries
from tradewatch.monitoring.dashboards.queries import DashboardQuery

from tests import tour
from tests.commands import REPOSITORY
from tests.e2e.conftest import Storm
from tests.e2e.faults import away, in_pod, kill_switch_engaged, send_signal, story
from tests.lab_under_test import LabUnderTest
from tests.machines import wait
from tests.walk import Album, album

QUERIES = [
    query for document in queries.load(REPOSITORY / "files/dashboards").values() for query in queries.queries(document)
]
# Long enough to reach back over all faults.
SPAN_SECONDS = 1800
STEP_SECONDS = 30
# "Error lines per second by service", in both dashboards.
ERRORS_PANEL = 602
# What the trading engine's dashboard says of the active model. The lab's prices can be learnt from five minutes of
# candles, and what is refused is tried again two minutes later (inventory/lab): once in sixty or so, as measured, is
# refused, and faults come between.
MODEL_PANELS = {205, 207}
MODEL_SECONDS = 480
# In a service's pod, as that service: a line with bytes that are no text.
BINARY = r"open('/proc/1/fd/1', 'wb').write(b'binary \x00\x01\xff\xfe end\n')"
# "End-to-end duration" of the trading engine's dashboard.
ENDED_PANEL = 502


def errors_of_an_outage(lab: LabUnderTest) -> None:
    """Have the services log errors: their store is away for as long as it takes."""
    with away(lab, "postgresql", "statefulset"):
        for query in QUERIES:
            if query.panel_id == ERRORS_PANEL:
                wait(lambda: answer(lab, query), f"an answer to {query.expr}", 60)  # noqa: B023
    for service in ("risk-manager", "trade-executor", "trade-orchestrator"):
        lab.kubectl("rollout", "status", "-n", "crypto-trading", f"deployment/{service}", "--timeout=110s")


def active_model(lab: LabUnderTest) -> None:
    """Wait for one; a failure says what came of the trainings."""
    active = 'max(model_available{job="kubernetes-pods-metrics"}) == 1'
    try:
        wait(lambda: lab.query(active), "an active model", MODEL_SECONDS)
    except AssertionError as error:
        trained = lab.query('sum by (outcome) (model_trainings_total{job="kubernetes-pods-metrics"}) > 0')
        error.add_note(f"trainings: { {each['metric']['outcome']: each['value'][1] for each in trained} }")
        raise


@pytest.fixture(scope="module")
def stormy(lab: LabUnderTest, storm: Storm) -> Iterator[LabUnderTest]:
    """The lab after faults of every kind that a panel waits for, and without llm-validator, which a signal asks."""
    in_pod(lab, "trade-orchestrator", "python3", "-c", BINARY)
    errors_of_an_outage(lab)
    with away(lab, "llm-validator"):
        send_signal(lab)
        yield lab


def loki(lab: LabUnderTest, path: str, **parameters: str) -> Any:
    """The `data` of an answer of Loki's API, asked from outside over TLS."""
    endpoint = lab.endpoints()["loki"]
    context = ssl.create_default_context(cafile=endpoint["ca_file"])
    url = f"{endpoint['url'].rstrip('/')}/loki/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30, context=context) as answer:
        return json.load(answer)["data"]


def answer(lab: LabUnderTest, query: DashboardQuery) -> list[Any]:
    """What the datasource gives: label values, log lines, or samples that are numbers."""
    now = time.time()
    start, end = str(now - SPAN_SECONDS), str(now)
    if query.kind == "label_values":
        values: list[Any] = lab.prometheus(f"label/{query.label}/values", **{"match[]": query.expr})
        return values
    if query.datasource == "loki":
        nanoseconds = {"start": str(int((now - SPAN_SECONDS) * 1e9)), "end": str(int(now * 1e9))}
        step = {"step": f"{STEP_SECONDS}s", "limit": "100"}
        found = loki(lab, "query_range", query=query.expr, **nanoseconds, **step)
        return [line for stream in found["result"] for line in stream["values"]]
    if query.kind == "instant":
        samples = [item["value"] for item in lab.prometheus("query", query=query.expr)["result"]]
    else:
        window = {"start": start, "end": end, "step": str(STEP_SECONDS)}
        result = lab.prometheus("query_range", query=query.expr, **window)["result"]
        samples = [value for item in result for value in item["values"]]
    return [sample for sample in samples if not math.isnan(float(sample[1]))]


CALM = [query for query in QUERIES if not query.calm]
STORMY = [query for query in QUERIES if query.calm]


@pytest.mark.parametrize("query", CALM, ids=lambda query: f"{query.dashboard}: {query.place}")
def test_every_query_answers_in_calm_weather(lab: LabUnderTest, query: DashboardQuery) -> None:
    wait(lambda: answer(lab, query), f"an answer to {query.expr}", 120)


# Before `stormy`, which takes llm-validator away: a signal would wait for it until it expires, for a minute.
def test_one_traces_lines_are_found_across_services(lab: LabUnderTest) -> None:
    sent = send_signal(lab)
    story(lab, sent["decision_id"])
    document = json.loads((REPOSITORY / "files/dashboards/unified-system.json").read_text())
    [query] = [each for each in queries.queries(document, {"trace_id": sent["trace_id"]}) if each.panel_id == 604]

    def services() -> set[str]:
        now = time.time()
        found = loki(lab, "query_range", query=query.expr, start=str(int((now - 600) * 1e9)), limit="500")
        return {stream["stream"]["service"] for stream in found["result"]}

    wait(lambda: {"trade-orchestrator", "risk-manager"} <= services(), "lines of the trace in two services", 60)


@pytest.mark.parametrize("query", STORMY, ids=lambda query: f"{query.dashboard}: {query.place}")
def test_what_is_empty_in_calm_weather_fills_in_a_storm(stormy: LabUnderTest, query: DashboardQuery) -> None:
    if query.dashboard == "crypto-trading-engine" and query.panel_id in MODEL_PANELS:
        active_model(stormy)
    wait(lambda: answer(stormy, query), f"an answer to {query.expr}", 120)


@pytest.fixture(scope="module")
def pictures(lab: LabUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Album]:
    """A browser on dashboard-report's page."""
    with album(lab.endpoints()["dashboards"], tmp_path_factory.mktemp("pictures")) as found:
        yield found


@pytest.mark.parametrize("uid", tour.UIDS)
def test_no_panel_is_wrong_in_a_browser(stormy: LabUnderTest, pictures: Album, uid: str) -> None:
    tour.no_panel_is_wrong(pictures, uid)


def test_a_service_leads_to_its_logs_and_they_to_a_trace(stormy: LabUnderTest, pictures: Album) -> None:
    tour.from_a_service_to_a_trace(pictures, "trade-orchestrator")


def test_an_exemplar_leads_to_its_trace(stormy: LabUnderTest, pictures: Album) -> None:
    tour.from_an_exemplar_to_its_trace(pictures, "crypto-trading-engine", ENDED_PANEL)


def test_an_alert_leads_to_its_runbook(stormy: LabUnderTest, pictures: Album) -> None:
    with kill_switch_engaged(stormy):
        tour.from_an_alert_to_its_runbook(pictures, "KillSwitchEngaged")


def test_what_is_chosen_stays_across_dashboards(stormy: LabUnderTest, pictures: Album) -> None:
    tour.across_dashboards(pictures, "BTC-USD")


def test_the_end_of_every_endpoints_certificate_is_known(lab: LabUnderTest) -> None:
    ends = 'endpoint_certificate_expiry_timestamp_seconds{job="kubernetes-pods-metrics"} - time()'
    endpoints = {"alertmanager", "dashboard-report", "loki", "node-exporter", "prometheus"}

    def known() -> bool:
        found = lab.query(f"{ends} > 300 * 86400")
        return {series["metric"]["endpoint"] for series in found} >= endpoints

    wait(known, f"certificates of {', '.join(sorted(endpoints))} for most of a year", 360)
