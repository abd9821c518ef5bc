"""Every query of every panel and variable, run against the live Prometheus and Loki: no error, and an answer.

Panels that are rightly empty in calm weather say so; faults are injected here that fill them.
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

from tests.commands import REPOSITORY, run
from tests.e2e.test_2_trading import GOOD_NEWS, in_pod, send_signal, story
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

QUERIES = [
    query for document in queries.load(REPOSITORY / "files/dashboards").values() for query in queries.queries(document)
]
# Long enough to reach back over all faults.
SPAN_SECONDS = 1800
STEP_SECONDS = 30
SIMULATORS = {
    "exchange-simulator": "crypto-collectors",
    "llm-simulator": "crypto-trading",
    "news-simulator": "crypto-collectors",
}
# In a simulator's pod: the fault that its argument describes.
FAULT = """
import sys, urllib.request
headers = {"Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8080/faults", sys.argv[1].encode(), headers)
print(urllib.request.urlopen(request, timeout=10).status)
"""
NO_FAULTS = """
import urllib.request
request = urllib.request.Request("http://127.0.0.1:8080/faults", method="DELETE")
print(urllib.request.urlopen(request, timeout=10).status)
"""
# What the faults below do not fill, by dashboard and panel, and why.
STAYS_EMPTY = {
    ("crypto-trading-engine", 205): "the default price process cannot be foreseen, so no model is accepted",
    ("crypto-trading-engine", 207): "the default price process cannot be foreseen, so no model is accepted",
    ("crypto-trading-engine", 602): "an outage is a warning, not an error",
    ("unified-system", 503): "a score needs an hour of history",
    ("unified-system", 602): "an outage is a warning, not an error",
}


def fault(lab: LabUnderTest, simulator: str, **fields: Any) -> None:
    in_pod(lab, simulator, "python3", "-c", FAULT, json.dumps(fields), namespace=SIMULATORS[simulator])


def scaled(lab: LabUnderTest, deployment: str, replicas: int) -> None:
    lab.kubectl("scale", "--namespace", "crypto-trading", f"deployment/{deployment}", f"--replicas={replicas}")


def order(lab: LabUnderTest) -> None:
    """A signal that good news speaks for, until one is traded: the price may run away from an order."""
    in_pod(lab, "news-simulator", "python3", "-c", GOOD_NEWS, "BTC", namespace="crypto-collectors")
    wait(lambda: lab.query('sentiment_score{asset="BTC"} > 0'), "good news", 180)
    for _ in range(5):
        story(lab, send_signal(lab)["decision_id"])
        if lab.query('sum(trade_executions_total{job="kubernetes-pods-metrics",status="filled"}) > 0'):
            return


def denials(lab: LabUnderTest) -> None:
    """A signal that the language model cannot judge, and one while the kill switch is engaged."""
    fault(lab, "llm-simulator", fault="error", status=503, seconds=60)
    story(lab, send_signal(lab)["decision_id"])
    command = str(lab.directory / "bin/tradewatch")
    run(command, "kill-switch", "engage", "--reason", "drill", "--actor", "e2e", env=lab.env)
    try:
        story(lab, send_signal(lab)["decision_id"])
        wait(lambda: lab.query("max(kill_switch_engaged) == 1"), "the engaged switch in Prometheus", 60)
    finally:
        run(command, "kill-switch", "release", "--reason", "drill over", "--actor", "e2e", env=lab.env)


def kill_a_container(lab: LabUnderTest, service: str) -> None:
    """Ends the first process of a pod of crypto-collectors; the kubelet starts it again."""
    before = lab.get("pods", "-n", "crypto-collectors", "-l", f"app.kubernetes.io/name={service}")["items"]
    restarts = before[0]["status"]["containerStatuses"][0]["restartCount"]
    code = "import os, signal; os.kill(1, signal.SIGTERM)"
    in_pod(lab, service, "python3", "-c", code, namespace="crypto-collectors")

    def restarted() -> bool:
        after = lab.get("pods", "-n", "crypto-collectors", "-l", f"app.kubernetes.io/name={service}")["items"]
        return any(status["restartCount"] > restarts for pod in after for status in pod["status"]["containerStatuses"])

    wait(restarted, f"{service} started again", 60)


@pytest.fixture(scope="module")
def stormy(lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """The lab after faults of every kind that a panel waits for; an alert fires, for llm-validator is away."""
    order(lab)
    denials(lab)
    fault(lab, "exchange-simulator", fault="malformed", count=50)
    fault(lab, "exchange-simulator", fault="sequence_gap", count=3)
    fault(lab, "exchange-simulator", fault="status", status=503, path="/api/v3/brokerage/accounts", seconds=120)
    kill_a_container(lab, "technical-indicators")
    scaled(lab, "llm-validator", 0)
    try:
        send_signal(lab)
        firing = 'sum(ALERTS{alertstate="firing",alertname!="Watchdog"}) > 0'
        wait(lambda: lab.query(firing), "a firing alert", 600)
        wait(lambda: lab.query("sum(alert_notification_delay_seconds_count) > 0"), "a notification", 300)
        yield lab
    finally:
        scaled(lab, "llm-validator", 1)
        for simulator, namespace in SIMULATORS.items():
            in_pod(lab, simulator, "python3", "-c", NO_FAULTS, namespace=namespace)
        lab.kubectl("rollout", "status", "-n", "crypto-trading", "deployment/llm-validator", "--timeout=120s")


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
STORMY = [query for query in QUERIES if query.calm and (query.dashboard, query.panel_id) not in STAYS_EMPTY]


@pytest.mark.parametrize("query", CALM, ids=lambda query: f"{query.dashboard}: {query.place}")
def test_every_query_answers_in_calm_weather(lab: LabUnderTest, query: DashboardQuery) -> None:
    wait(lambda: answer(lab, query), f"an answer to {query.expr}", 120)


@pytest.mark.parametrize("query", STORMY, ids=lambda query: f"{query.dashboard}: {query.place}")
def test_what_is_empty_in_calm_weather_fills_in_a_storm(stormy: LabUnderTest, query: DashboardQuery) -> None:
    wait(lambda: answer(stormy, query), f"an answer to {query.expr}", 120)


def test_what_stays_empty_is_no_error(lab: LabUnderTest) -> None:
    named = {(query.dashboard, query.panel_id) for query in QUERIES if query.calm}
    assert set(STAYS_EMPTY) <= named
    for query in QUERIES:
        if (query.dashboard, query.panel_id) in STAYS_EMPTY:
            answer(lab, query)


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


def test_the_end_of_every_endpoints_certificate_is_known(lab: LabUnderTest) -> None:
    ends = 'endpoint_certificate_expiry_timestamp_seconds{job="kubernetes-pods-metrics"} - time()'
    endpoints = {"alertmanager", "dashboard-report", "loki", "node-exporter", "prometheus"}

    def known() -> bool:
        found = lab.query(f"{ends} > 300 * 86400")
        return {series["metric"]["endpoint"] for series in found} >= endpoints

    wait(known, f"certificates of {', '.join(sorted(endpoints))} for most of a year", 360)
