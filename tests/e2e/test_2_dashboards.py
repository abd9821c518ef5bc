"""Every query of every panel and variable, run against the live Prometheus and Loki: no error, and an answer.

Panels that are rightly empty in calm weather say so; the storm of conftest.py fills them.
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

from tests.commands import REPOSITORY
from tests.e2e.conftest import Storm
from tests.e2e.faults import away, send_signal, story
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

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


def test_the_end_of_every_endpoints_certificate_is_known(lab: LabUnderTest) -> None:
    ends = 'endpoint_certificate_expiry_timestamp_seconds{job="kubernetes-pods-metrics"} - time()'
    endpoints = {"alertmanager", "dashboard-report", "loki", "node-exporter", "prometheus"}

    def known() -> bool:
        found = lab.query(f"{ends} > 300 * 86400")
        return {series["metric"]["endpoint"] for series in found} >= endpoints

    wait(known, f"certificates of {', '.join(sorted(endpoints))} for most of a year", 360)
