"""Telling of critical alerts that the store cannot take: one about the store itself must not wait for it.

What was told so is kept in memory until the store has it, and is stored as sent; what was not confirmed is stored with
the attempts there were. A process that ends before that tells it again.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

from tradewatch.common.logging import get_logger
from tradewatch.monitoring.alert_notifier import messages
from tradewatch.monitoring.alert_notifier.messages import Told
from tradewatch.monitoring.alert_notifier.metrics import NotifierMetrics
from tradewatch.monitoring.alert_notifier.routing import Routing
from tradewatch.monitoring.alert_notifier.sender import NotDelivered, Sender
from tradewatch.monitoring.alert_notifier.webhook import Alert, Key

URGENT = "critical"
# Alerts of a day on which everything fails; beyond that, the oldest are told again.
MAX_KNOWN = 10_000

_log = get_logger("direct")


class DirectTelling:
    """Who has been told of what while the store was away."""

    def __init__(self, routing: Routing, timeout_seconds: float, metrics: NotifierMetrics) -> None:
        self._routing = routing
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._told: dict[Key, set[str]] = {}
        self._attempts: dict[Key, dict[str, int]] = {}
        self._stored: dict[Key, None] = {}
        self._under_way: dict[tuple[Key, str], asyncio.Task[None]] = {}

    def begin(self, alerts: Iterable[Alert]) -> None:
        """Tell the receivers of those critical alerts of which neither they nor the store have heard here.

        An attempt that fails is repeated with the next call of this, which Alertmanager's own repeat brings.
        """
        for alert in alerts:
            key = alert.key
            if alert.severity != URGENT or key in self._stored:
                continue
            for name in self._routing.receivers(alert.team, alert.severity):
                if name not in self._told.get(key, ()) and (key, name) not in self._under_way:
                    task = asyncio.create_task(self._tell(alert, self._routing.senders[name]), name=f"direct {name}")
                    self._under_way[key, name] = task
                    task.add_done_callback(partial(self._ended, (key, name)))

    async def settle(self) -> None:
        """Wait until no attempt is under way: what is stored then is known to have been told, or not."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())

    def told(self, alert: Alert) -> list[str]:
        """The receivers that have confirmed it and are not in the store yet."""
        return sorted(self._told.get(alert.key, ()))

    def attempts(self, alert: Alert) -> dict[str, int]:
        """How often each receiver was tried that is not in the store yet, confirmed or not."""
        return dict(self._attempts.get(alert.key, {}))

    def stored(self, alerts: Iterable[Alert]) -> None:
        """The store has these now."""
        for alert in alerts:
            key = alert.key
            self._told.pop(key, None)
            self._attempts.pop(key, None)
            self._stored.pop(key, None)
            self._stored[key] = None
        _forget_oldest(self._stored)

    def _ended(self, attempt: tuple[Key, str], _: asyncio.Task[None]) -> None:
        del self._under_way[attempt]

    async def _tell(self, alert: Alert, sender: Sender) -> None:
        told = Told(
            alert.fingerprint,
            alert.name,
            alert.severity,
            alert.starts_at,
            alert.ended,
            alert.labels,
            alert.annotations,
        )
        attempts = self._attempts.setdefault(alert.key, {})
        _forget_oldest(self._attempts)
        attempt = attempts[sender.name] = attempts.get(sender.name, 0) + 1
        message = messages.compose(told, escalation=False, attempt=attempt, max_characters=sender.max_characters)
        shown = {"receiver": sender.name, "alert": alert.name, "status": alert.status, "attempt": attempt}
        try:
            await sender.send(told.fingerprint, message.title, message.body, message.kind, self._timeout_seconds)
        except NotDelivered as error:
            self._metrics.notifications[sender.name, "failed"].inc()
            _log.warning("not delivered while the store is away", **shown, reason=str(error))
            return
        self._told.setdefault(alert.key, set()).add(sender.name)
        _forget_oldest(self._told)
        self._metrics.notifications[sender.name, "sent"].inc()
        late = datetime.now(UTC) - (alert.ended or alert.starts_at)
        self._metrics.delay["alert"].observe(max(0.0, late.total_seconds()))
        _log.warning("delivered while the store is away", **shown)


def _forget_oldest(known: dict[Key, set[str]] | dict[Key, dict[str, int]] | dict[Key, None]) -> None:
    while len(known) > MAX_KNOWN:
        del known[next(iter(known))]
