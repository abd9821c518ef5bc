"""The metrics of dashboard-report."""

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric

SOURCES = ("prometheus", "loki")
OUTCOMES = ("ok", "refused", "unreachable", "nonsense", "cached")

QUERIES = Metric(
    "dashboard_report_queries_total",
    "counter",
    "Queries for panels, by how they ended.",
    "queries",
    {
        "source": ", ".join(f"`{source}`" for source in SOURCES),
        "outcome": "`ok`, `refused` (the query is wrong or too large), `unreachable` (down or too slow),"
        " `nonsense` (the answer cannot be read), `cached` (not asked again)",
    },
)
QUERY_DURATION = Metric(
    "dashboard_report_query_duration_seconds",
    "histogram",
    "From sending a query to its whole answer, without the wait for a free slot.",
    "seconds",
    {"source": QUERIES.labels["source"]},
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LOGINS_REFUSED = Metric(
    "dashboard_report_logins_refused_total", "counter", "Requests with a wrong user or password.", "requests"
)
DASHBOARDS = Metric("dashboard_report_dashboards", "gauge", "Dashboards that are shown.", "dashboards")
PROBLEMS = Metric(
    "dashboard_report_dashboard_problems", "gauge", "Files of the folder that could not be read.", "files"
)
CERTIFICATE_ENDS = Metric(
    "endpoint_certificate_expiry_timestamp_seconds",
    "gauge",
    "When the certificate that the endpoint shows ends. NaN until it was seen.",
    "Unix seconds",
    {"endpoint": "a configured endpoint"},
)
CERTIFICATE_CHECKED = Metric(
    "endpoint_certificate_checked_timestamp_seconds",
    "gauge",
    "When the endpoint's certificate was last seen. 0 before the first time.",
    "Unix seconds",
    {"endpoint": "a configured endpoint"},
)
DASHBOARD_REPORT_METRICS = (
    QUERIES,
    QUERY_DURATION,
    LOGINS_REFUSED,
    DASHBOARDS,
    PROBLEMS,
    CERTIFICATE_ENDS,
    CERTIFICATE_CHECKED,
)


class DashboardReportMetrics:
    """The service's metrics, every series present from the start."""

    def __init__(self, registry: CollectorRegistry, endpoints: Iterable[str] = ()) -> None:
        queries, duration = QUERIES.counter(registry), QUERY_DURATION.histogram(registry)
        self.queries = {
            (source, outcome): queries.labels(source=source, outcome=outcome)
            for source in SOURCES
            for outcome in OUTCOMES
        }
        self.duration = {source: duration.labels(source=source) for source in SOURCES}
        self.logins_refused = LOGINS_REFUSED.counter(registry)
        self.dashboards = DASHBOARDS.gauge(registry)
        self.problems = PROBLEMS.gauge(registry)
        ends, checked = CERTIFICATE_ENDS.gauge(registry), CERTIFICATE_CHECKED.gauge(registry)
        self.certificate_ends = {name: ends.labels(endpoint=name) for name in endpoints}
        self.certificate_checked = {name: checked.labels(endpoint=name) for name in self.certificate_ends}
        for series in self.certificate_ends.values():
            series.set(math.nan)
