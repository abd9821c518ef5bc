"""The metrics of watchdog-receiver."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric
from tradewatch.monitoring.alert_notifier.metrics import REFUSALS

WEBHOOKS = Metric(
    "watchdog_webhook_requests_total",
    "counter",
    "Webhook calls, by how they were answered.",
    "requests",
    {
        "outcome": "`seen`; `unauthorized`; `invalid_json`, `invalid_request` (also: without a firing Watchdog),"
        " `too_large` (malformed); `unavailable`, `internal` (an error of our own)"
    },
)
LAST_SEEN = Metric(
    "watchdog_last_seen_timestamp_seconds",
    "gauge",
    "When the Watchdog came last; 0 before the first since the start.",
    "seconds since 1970",
)
SILENT = Metric("watchdog_silent", "gauge", "1 while the Watchdog is overdue.", "boolean")
NOTIFICATIONS = Metric(
    "watchdog_notifications_total",
    "counter",
    "Attempts to tell a receiver of the silence or of its end, by how they ended.",
    "attempts",
    {"receiver": "a receiver's name in the settings", "status": "`sent`, `failed` (will be tried again)"},
)
WATCHDOG_METRICS = (WEBHOOKS, LAST_SEEN, SILENT, NOTIFICATIONS)


class WatchdogMetrics:
    """The receiver's metrics, every series present from the start."""

    def __init__(self, registry: CollectorRegistry, receivers: Iterable[str]) -> None:
        webhooks, notifications = WEBHOOKS.counter(registry), NOTIFICATIONS.counter(registry)
        self.webhooks = {outcome: webhooks.labels(outcome=outcome) for outcome in ("seen", *REFUSALS)}
        self.notifications = {
            (receiver, status): notifications.labels(receiver=receiver, status=status)
            for receiver in receivers
            for status in ("sent", "failed")
        }
        self.last_seen = LAST_SEEN.gauge(registry)
        self.silent = SILENT.gauge(registry)
