"""The metrics of anomaly-detector."""

from enum import StrEnum

from tradewatch.common.metrics import Metric
from tradewatch.monitoring.anomaly_detector.prometheus import QueryError


class Unscored(StrEnum):
    """Why a series has no score."""

    MISSING = "missing"
    NOT_FINITE = "not_finite"
    TOO_LITTLE_HISTORY = "too_little_history"


_GROUP = "a group of the table of series"
_QUERY = "a query of the table of series"
_SERIES = "the query's name and the values of the series' labels, such as `data_rate:coinbase:BTC-USD`"
_ONE = {"group": _GROUP, "series": _SERIES}

SCORE = Metric(
    "anomaly_score",
    "gauge",
    "How far the series is from what is usual, in robust standard deviations, 0 to 1000; 0 also where it is off in a "
    "direction that does not count. Absent while the series has no score.",
    "standard deviations",
    {
        **_ONE,
        "check": "`level` (the value is unusual), `flat` (it has stood still for long; twice as long as ever is 6)",
        "baseline": "what it was compared with: `daily` (this time of day on past days), `recent` (the last hours)",
    },
)
VALUE = Metric("anomaly_value", "gauge", "The series' newest value.", "that of the series", _ONE)
EXPECTED = Metric(
    "anomaly_expected", "gauge", "The value that is usual for the series now.", "that of the series", _ONE
)
GROUP_SCORE = Metric(
    "anomaly_group_score",
    "gauge",
    "How unusual the group's series are together: the isolation forest's score above its past median, in robust "
    "standard deviations. Absent while too little is known.",
    "standard deviations",
    {"group": _GROUP},
)
CONTRIBUTION = Metric(
    "anomaly_contribution",
    "gauge",
    "The series' share in the squared deviations of its group: which inputs moved. A group's add up to 1.",
    "ratio",
    _ONE,
)
UNSCORED = Metric(
    "anomaly_series_unscored",
    "gauge",
    "1 for a series that has no score. A series is missing when it was there within the time that the detector looks "
    "back and is not now.",
    "none",
    {**_ONE, "reason": ", ".join(f"`{reason.value}`" for reason in Unscored)},
)
SERIES = Metric(
    "anomaly_detector_series",
    "gauge",
    "Series of the last run, by what became of them.",
    "series",
    {"state": ", ".join(["`scored`", *(f"`{reason.value}`" for reason in Unscored)])},
)
QUERY_SERIES = Metric(
    "anomaly_query_series",
    "gauge",
    "Series that the query gave in the last run. 0 from the start: the query names something that is not there.",
    "series",
    {"query": _QUERY},
)
TRUNCATED = Metric(
    "anomaly_query_truncated",
    "gauge",
    "1 while a query gives more series than are taken; those beyond are not looked at.",
    "none",
    {"query": _QUERY},
)
QUERY_FAILURES = Metric(
    "anomaly_query_failures_total",
    "counter",
    "Range queries that Prometheus did not answer.",
    "queries",
    {"query": _QUERY, "reason": ", ".join(f"`{reason.value}`" for reason in QueryError)},
)
LAST_RUN = Metric(
    "anomaly_detector_last_run_timestamp_seconds",
    "gauge",
    "When a run last ended in which Prometheus answered at least half of the queries. 0 before the first. Scores are "
    "taken back when a run fails, so they are never older than this.",
    "Unix seconds",
)
RUN_DURATION = Metric(
    "anomaly_detector_run_duration_seconds",
    "histogram",
    "Time of a run, its queries included.",
    "seconds",
    buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0),
)
RUN_FAILURES = Metric(
    "anomaly_detector_run_failures_total",
    "counter",
    "Runs that gave no scores, by reason.",
    "runs",
    {"reason": "`timeout`, `prometheus` (too few queries were answered), `failed` (a defect; see the log)"},
)
ANOMALY_METRICS = (
    SCORE,
    VALUE,
    EXPECTED,
    GROUP_SCORE,
    CONTRIBUTION,
    UNSCORED,
    SERIES,
    QUERY_SERIES,
    TRUNCATED,
    QUERY_FAILURES,
    LAST_RUN,
    RUN_DURATION,
    RUN_FAILURES,
)
