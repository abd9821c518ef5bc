"""The metrics of alert-notifier."""

from collections.abc import Iterable
from typing import Literal

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric

# The codes of common/api.py, and what the webhook itself answers.
REFUSALS = ("unauthorized", "invalid_json", "invalid_request", "too_large", "unavailable", "internal")
OUTCOMES = ("stored", "repeated", *REFUSALS)
STATUSES = ("sent", "failed", "given_up")
SINCE = ("alert", "receipt")
Since = Literal["alert", "receipt"]
Status = Literal["sent", "failed", "given_up"]
_RECEIVER = "a receiver's name in the settings"

WEBHOOKS = Metric(
    "alert_webhook_requests_total",
    "counter",
    "Webhook calls, by how they were answered.",
    "requests",
    {
        "outcome": "`stored`; `repeated` (nothing in it was new); `unauthorized` (no or a wrong token);"
        " `invalid_json`, `invalid_request`, `too_large` (malformed); `unavailable` (the store is away);"
        " `internal` (an error of our own)"
    },
)
ALERTS = Metric(
    "alerts_received_total",
    "counter",
    "Alerts stored: each change of state once, however often it was told.",
    "alerts",
    {"status": "`firing`, `resolved`"},
)
TRUNCATED = Metric(
    "alert_webhook_truncated_total", "counter", "Alerts that Alertmanager left out of webhook calls.", "alerts"
)
NOTIFICATIONS = Metric(
    "alert_notifications_total",
    "counter",
    "Attempts to tell a receiver of an alert, by how they ended.",
    "attempts",
    {
        "receiver": _RECEIVER,
        "status": "`sent`; `failed` (will be tried again); `given_up` (was tried for too long)",
    },
)
DELAY = Metric(
    "alert_notification_delay_seconds",
    "histogram",
    "How late a receiver confirmed a notification; escalations, which are late on purpose, are left out.",
    "seconds",
    {
        "since": "`alert` (startsAt of what fires, endsAt of what is resolved: rules and grouping are part of it),"
        " `receipt` (the webhook call: this service's part)"
    },
    (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600),
)
PENDING = Metric(
    "alert_notifications_pending",
    "gauge",
    "Notifications that wait to be delivered.",
    "notifications",
    {"receiver": _RECEIVER},
)
OLDEST = Metric(
    "alert_notifications_oldest_pending_seconds",
    "gauge",
    "Age of the oldest notification that waits; 0 where none does.",
    "seconds",
    {"receiver": _RECEIVER},
)
LAST_SENT = Metric(
    "alert_notifications_last_sent_timestamp_seconds",
    "gauge",
    "When a receiver, whichever, last confirmed a notification; 0 where none ever did.",
    "seconds since 1970",
)
ESCALATIONS = Metric(
    "alert_escalations_total", "counter", "Critical alerts that nobody acknowledged in time.", "alerts"
)
UNACKNOWLEDGED = Metric(
    "alerts_unacknowledged",
    "gauge",
    "Critical alerts that fire, neither silenced nor inhibited, and that nobody has acknowledged.",
    "alerts",
)
LAST_REFRESH = Metric(
    "alert_notifier_last_refresh_timestamp_seconds",
    "gauge",
    "When the gauges were last read from the store: while it is away they stand still.",
    "seconds since 1970",
)
NOTIFIER_METRICS = (
    WEBHOOKS,
    ALERTS,
    TRUNCATED,
    NOTIFICATIONS,
    DELAY,
    PENDING,
    OLDEST,
    LAST_SENT,
    ESCALATIONS,
    UNACKNOWLEDGED,
    LAST_REFRESH,
)


class NotifierMetrics:
    """The notifier's metrics, every series present from the start."""

    def __init__(self, registry: CollectorRegistry, receivers: Iterable[str]) -> None:
        receivers = tuple(receivers)
        webhooks, alerts = WEBHOOKS.counter(registry), ALERTS.counter(registry)
        notifications, delay = NOTIFICATIONS.counter(registry), DELAY.histogram(registry)
        pending, oldest = PENDING.gauge(registry), OLDEST.gauge(registry)
        self.webhooks = {outcome: webhooks.labels(outcome=outcome) for outcome in OUTCOMES}
        self.alerts = {status: alerts.labels(status=status) for status in ("firing", "resolved")}
        self.truncated = TRUNCATED.counter(registry)
        self.notifications = {
            (receiver, status): notifications.labels(receiver=receiver, status=status)
            for receiver in receivers
            for status in STATUSES
        }
        self.delay = {since: delay.labels(since=since) for since in SINCE}
        self.pending = {receiver: pending.labels(receiver=receiver) for receiver in receivers}
        self.oldest = {receiver: oldest.labels(receiver=receiver) for receiver in receivers}
        self.last_sent = LAST_SENT.gauge(registry)
        self.escalations = ESCALATIONS.counter(registry)
        self.unacknowledged = UNACKNOWLEDGED.gauge(registry)
        self.last_refresh = LAST_REFRESH.gauge(registry)
