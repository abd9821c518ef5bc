"""Every Prometheus query of the dashboards, evaluated by promtool over series of every metric: no error, and an answer.

The series of our own metrics follow from their definitions, so a metric that loses a label which a query needs is
found here; the exporters' are written down below with the labels that queries rely on.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from tradewatch.common.metrics import Metric
from tradewatch.metrics_doc import AREAS
from tradewatch.monitoring.dashboards import queries
from tradewatch.monitoring.dashboards.queries import DashboardQuery

from lab.bundle.parts import prometheus_binary
from tests import rules
from tests.commands import REPOSITORY

# What is chosen where it is not everything: as Grafana writes one and several values.
CHOSEN = {
    "namespace": "(crypto-collectors|crypto-trading)",
    "service": "trade-executor",
    "exchange": "coinbase",
    "product": "(BTC-USD|ETH-USD)",
}
# Values of labels whose definition names none.
LABELS = {
    "asset": ("BTC", "ETH"),
    "exchange": ("coinbase", "kraken"),
    "feed": ("coinpost", "chainwire"),
    "group": ("trade-orchestrator",),
    "interval": ("60", "300"),
    "product_id": ("BTC-USD", "ETH-USD"),
    "stream": ("market_data:coinbase:BTC-USD", "signals"),
}
UP = 'up{{job="{job}",namespace="{namespace}",service="{service}",instance="{service}:1"}}'
RISING, ONE, ZERO = "0+7x40", "1x40", "0+0x40"
EXPORTED = {
    'ALERTS{alertname="A",alertstate="firing",severity="critical",team="data"}': ONE,
    'alertmanager_notifications_failed_total{integration="webhook"}': RISING,
    'apiserver_request_duration_seconds_bucket{job="apiserver",verb="GET",le="1"}': RISING,
    'apiserver_request_duration_seconds_bucket{job="apiserver",verb="GET",le="+Inf"}': RISING,
    'container_memory_working_set_bytes{job="cadvisor",namespace="crypto-trading",pod="p",node="n"}': ONE,
    'etcd_disk_wal_fsync_duration_seconds_bucket{job="etcd",le="1"}': RISING,
    'etcd_disk_wal_fsync_duration_seconds_bucket{job="etcd",le="+Inf"}': RISING,
    'kube_deployment_status_observed_generation{namespace="crypto-trading",deployment="d"}': RISING,
    'kube_node_info{node="n"}': ONE,
    'kube_node_status_condition{node="n",condition="Ready",status="true"}': ONE,
    'kube_pod_container_resource_limits{namespace="crypto-trading",pod="p",container="c",resource="memory"}': ONE,
    'kube_pod_container_status_restarts_total{namespace="crypto-trading",pod="p",container="c"}': RISING,
    'loki_distributor_lines_received_total{job="loki"}': RISING,
    'namespace_service:available:min{namespace="crypto-trading",service="trade-executor"}': ONE,
    'namespace_service:available:min{namespace="crypto-collectors",service="trade-executor"}': ZERO,
    'node_cpu_seconds_total{job="node-exporter",node="n",cpu="0",mode="idle"}': RISING,
    'node_filesystem_avail_bytes{job="node-exporter",node="n",mountpoint="/",fstype="ext4"}': ONE,
    'node_filesystem_size_bytes{job="node-exporter",node="n",mountpoint="/",fstype="ext4"}': ONE,
    'node_memory_MemAvailable_bytes{job="node-exporter",node="n"}': ONE,
    'node_memory_MemTotal_bytes{job="node-exporter",node="n"}': ONE,
    'node_network_receive_bytes_total{job="node-exporter",node="n",device="eth0"}': RISING,
    'node_network_transmit_bytes_total{job="node-exporter",node="n",device="eth0"}': RISING,
    'pg_settings_max_connections{job="kubernetes-pods-metrics",service="postgresql",server="s"}': ONE,
    'pg_stat_activity_count{job="kubernetes-pods-metrics",service="postgresql",datname="t",state="idle"}': ONE,
    'pg_stat_activity_count{job="kubernetes-pods-metrics",service="postgresql",datname="t",state="active"}': ONE,
    'prometheus_tsdb_head_samples_appended_total{job="prometheus",type="float"}': RISING,
    'promtail_custom_binary_lines_total{job="promtail",node="n",namespace="crypto-trading",pod="p"}': ONE,
    'promtail_dropped_entries_total{job="promtail",node="n",reason="rate_limited"}': ZERO,
    'redis_memory_max_bytes{job="kubernetes-pods-metrics",service="valkey"}': ONE,
    'redis_memory_used_bytes{job="kubernetes-pods-metrics",service="valkey"}': ONE,
    UP.format(job="kubernetes-services-metrics", namespace="crypto-trading", service="trade-executor"): ONE,
    UP.format(job="kubernetes-services-metrics", namespace="crypto-collectors", service="trade-executor"): ZERO,
    UP.format(job="kubernetes-pods-metrics", namespace="crypto-trading", service="trade-executor"): ONE,
    **{
        f'{metric}{{job="kubernetes-pods-metrics",namespace="crypto-trading",service="trade-executor"}}': ONE
        for metric in ("process_resident_memory_bytes", "process_start_time_seconds")
    },
}


def values_of_label(label: str, meaning: str) -> tuple[str, ...]:
    return LABELS.get(label) or tuple(re.findall(r"`([^`]+)`", meaning))[:40] or ("x",)


def series_of(metric: Metric, service: str) -> Iterator[tuple[str, str]]:
    """A metric's series as one replica of a service exports them, after the scrape's own labels are added."""
    namespace = "crypto-collectors" if service in ("market-data-collector", "health-monitor") else "crypto-trading"
    added = {"job": rules.OWN_JOB, "namespace": namespace, "service": service, "pod": f"{service}-1", "node": "n"}
    names = [label for label in metric.labels if label not in added]
    for combination in itertools.product(*(values_of_label(label, metric.labels[label]) for label in names)):
        labels = {**dict(zip(names, combination, strict=True)), **added}
        if metric.kind == "histogram":
            for le in ("0.5", "1", "+Inf"):
                yield written(f"{metric.name}_bucket", {**labels, "le": le}), RISING
            yield written(f"{metric.name}_sum", labels), RISING
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        yield written(name, labels), ONE if metric.kind == "gauge" else RISING


def written(name: str, labels: Mapping[str, str]) -> str:
    return f"{name}{{{','.join(f'{label}={json.dumps(value)}' for label, value in labels.items())}}}"


def all_series(used: set[str]) -> dict[str, str]:
    """Every series of the metrics whose names are used."""
    found = dict(EXPORTED)
    for area in AREAS:
        for metric in area.metrics:
            if used & {metric.name, *(f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))}:
                for service in area.services:
                    found |= series_of(metric, service)
    return found


def asked(chosen: Mapping[str, str]) -> list[DashboardQuery]:
    """All queries to Prometheus."""
    documents = queries.load(REPOSITORY / "files/dashboards").values()
    found = [query for document in documents for query in queries.queries(document, chosen)]
    return [query for query in found if query.datasource == "prometheus"]


def evaluated(folder: Path, wanted: list[DashboardQuery], series: Mapping[str, str]) -> tuple[str, set[str]]:
    """What promtool says when it evaluates the queries over the series, and the places of those without an answer."""
    named = {f"answers:{number}:count": query for number, query in enumerate(wanted)}
    recordings = [{"record": name, "expr": f"count({query.expr})"} for name, query in named.items()]
    groups = {"groups": [{"name": "dashboards", "interval": "1m", "rules": recordings}]}
    (folder / "queries.yml").write_text(yaml.safe_dump(groups))
    absent = [{"expr": f"absent({name})", "eval_time": "30m", "exp_samples": []} for name in named]
    given = [{"series": name, "values": values} for name, values in series.items()]
    cases = [{"interval": "1m", "input_series": given, "promql_expr_test": absent}]
    test = {"rule_files": ["queries.yml"], "evaluation_interval": "1m", "tests": cases}
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    program = prometheus_binary("promtool")
    command = [str(program), "test", "rules", "test.yml"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    text = said.stdout + said.stderr
    silent = {named[name].place for name in re.findall(r'expr: "absent\((answers:\d+:count)\)"', text)}
    return text, silent


def used_metrics(wanted: list[DashboardQuery]) -> set[str]:
    return {found.metric for query in wanted for found in rules.selectors(query.expr)}


@pytest.mark.parametrize("chosen", [{}, CHOSEN], ids=["everything", "chosen"])
def test_every_query_answers_where_its_metrics_exist(tmp_path: Path, chosen: dict[str, str]) -> None:
    wanted = asked(chosen)
    said, silent = evaluated(tmp_path, wanted, all_series(used_metrics(wanted)))
    assert not silent, sorted(silent)
    assert "SUCCESS" in said, said[-4000:]


def broken(expr: str) -> DashboardQuery:
    return DashboardQuery("a", "panel 1", 1, "prometheus", "range", expr)


def test_a_query_without_an_answer_is_found(tmp_path: Path) -> None:
    query = broken('market_data_fresh{exchange="nowhere"}')
    said, silent = evaluated(tmp_path, [query], all_series(used_metrics([query])))
    assert silent == {"panel 1"}
    assert "SUCCESS" not in said


def test_a_query_that_fails_is_found(tmp_path: Path) -> None:
    query = broken("market_data_fresh * on (exchange) market_data_fresh")
    said, _ = evaluated(tmp_path, [query], all_series(used_metrics([query])))
    assert "many-to-many" in said
    assert "SUCCESS" not in said
