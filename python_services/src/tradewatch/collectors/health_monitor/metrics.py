"""The metrics of health-monitor."""

from tradewatch.common.metrics import Metric

_FEED = {"exchange": "a configured exchange", "product_id": "a configured product"}
_STREAM = {
    "stream": "`candles`, `quotes` or `indicators` of a configured product, `sentiment` of their base currencies"
}
_DEPENDENCY = {"dependency": "`valkey` or a configured name"}

DATA_AGE = Metric(
    "market_data_age_seconds",
    "gauge",
    "Age of the newest event on the bus, by the exchange's time. Absent until the first.",
    "seconds",
    _FEED,
)
DATA_FRESH = Metric(
    "market_data_fresh",
    "gauge",
    "1 while the newest event is younger than the limit, else 0. Absent until known.",
    "none",
    _FEED,
)
DATA_COMPLETENESS = Metric(
    "market_data_completeness_ratio",
    "gauge",
    "Share of the last slots of time (as configured) that have an event, up to where the streams have been read. "
    "Absent until one slot is over.",
    "ratio",
    _FEED,
)
DATA_RATE = Metric(
    "market_data_events_per_second", "gauge", "Events that came over the last ten seconds.", "events per second", _FEED
)
STREAM_AGE = Metric(
    "stream_newest_age_seconds",
    "gauge",
    "Age of what a stream's newest entry says: a candle's or indicators' end, a quote's or score's time. Absent until "
    "the first.",
    "seconds",
    _STREAM,
)
STREAM_FRESH = Metric(
    "stream_fresh",
    "gauge",
    "1 while the newest entry is younger than its kind's limit, else 0. Absent until known.",
    "none",
    _STREAM,
)
HEARTBEAT_DURATION = Metric(
    "bus_heartbeat_duration_seconds",
    "histogram",
    "Time from before a heartbeat is written to its being given back by the consumer group. The exemplar is its trace "
    "id.",
    "seconds",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
HEARTBEAT_LAST_SUCCESS = Metric(
    "bus_heartbeat_last_success_timestamp_seconds",
    "gauge",
    "When a heartbeat last came back. 0 until the first.",
    "Unix seconds",
)
HEARTBEATS_MISSED = Metric(
    "bus_heartbeats_missed_total",
    "counter",
    "Heartbeats that did not come back in time.",
    "heartbeats",
    {"reason": "`not_written` (Valkey did not take it), `not_read` (written, but not given back)"},
)
DEPENDENCY_READY = Metric(
    "dependency_ready", "gauge", "1 when the last check found it ready, else 0.", "none", _DEPENDENCY
)
DEPENDENCY_DURATION = Metric(
    "dependency_check_duration_seconds",
    "histogram",
    "Time that a check took, however it ended.",
    "seconds",
    _DEPENDENCY,
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
DEPENDENCY_FAILURES = Metric(
    "dependency_check_failures_total",
    "counter",
    "Checks that did not find it ready, by reason.",
    "checks",
    _DEPENDENCY
    | {
        "reason": "`timeout`, `refused` (no connection: not running, or behind a Service without a ready replica), "
        "`not_ready` (it says so), `error` (another answer, or no such host)"
    },
)
HEALTH_STATUS = Metric(
    "health_status",
    "gauge",
    "1 while a component is well, else 0. Absent until it is known.",
    "none",
    {
        "component": "`bus` (the heartbeat), a dependency's name, `market_data:<exchange>:<product_id>`, or a stream "
        "as in `stream_fresh`"
    },
)
HEALTH_SINCE = Metric(
    "health_status_since_timestamp_seconds",
    "gauge",
    "Since when a component has been as `health_status` says.",
    "Unix seconds",
    {"component": "as in `health_status`"},
)
HEALTH_METRICS = (
    DATA_AGE,
    DATA_FRESH,
    DATA_COMPLETENESS,
    DATA_RATE,
    STREAM_AGE,
    STREAM_FRESH,
    HEARTBEAT_DURATION,
    HEARTBEAT_LAST_SUCCESS,
    HEARTBEATS_MISSED,
    DEPENDENCY_READY,
    DEPENDENCY_DURATION,
    DEPENDENCY_FAILURES,
    HEALTH_STATUS,
    HEALTH_SINCE,
)
