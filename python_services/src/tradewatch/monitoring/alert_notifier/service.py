"""alert-notifier: wires the webhook, the store and the dispatcher."""

from collections.abc import Callable

from aiohttp import web
from pydantic import BaseModel, Field, SecretStr, field_validator

from tradewatch.common import service
from tradewatch.common.api import json_route
from tradewatch.common.http import HttpServer
from tradewatch.common.logging import get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import duration
from tradewatch.monitoring.alert_notifier import store
from tradewatch.monitoring.alert_notifier.direct import DirectTelling
from tradewatch.monitoring.alert_notifier.dispatcher import Dispatcher, Patience
from tradewatch.monitoring.alert_notifier.metrics import NotifierMetrics
from tradewatch.monitoring.alert_notifier.routing import Routing, parse_routing
from tradewatch.monitoring.alert_notifier.webhook import Webhook
from tradewatch.store.database import STORE_ERRORS, DatabaseSettings, Pool

NAME = "alert-notifier"
# Some hundreds of alerts in one group: of a whole cluster in trouble.
MAX_BODY_BYTES = 1024 * 1024

_log = get_logger("webhook")


class AlertNotifierSettings(DatabaseSettings):
    """Settings of alert-notifier; durations in seconds."""

    alert_webhook_token: SecretStr = Field(
        min_length=16, description="file that holds the token of Alertmanager's calls"
    )
    alert_receivers: SecretStr = Field(description="file that holds receivers and routes, in JSON")
    escalate_after_seconds: float = duration(
        900, 86_400, "a critical alert may wait so long to be acknowledged", least=1
    )
    unseen_after_seconds: float = duration(
        720, 7 * 86_400, "an alert that is not told again for so long counts as silenced, inhibited or over", least=1
    )
    send_timeout_seconds: float = duration(20, 40, "an attempt may take so long")
    loan_margin_seconds: float = duration(
        10, 600, "nobody else takes a notification up for an attempt's bound and so long", least=1
    )
    retry_base_seconds: float = duration(1, 60, "a receiver's rest after a first failure, at most")
    retry_max_seconds: float = duration(60, 3600, "its longest rest, at most")
    give_up_seconds: float = duration(86_400, 7 * 86_400, "a notification is tried for so long")

    @field_validator("alert_receivers")
    @classmethod
    def _usable(cls, value: SecretStr) -> SecretStr:
        parse_routing(value.get_secret_value())
        return value

    def patience(self) -> Patience:
        """The durations."""
        return Patience(
            self.send_timeout_seconds,
            self.loan_margin_seconds,
            self.retry_base_seconds,
            self.retry_max_seconds,
            self.give_up_seconds,
            self.escalate_after_seconds,
            self.unseen_after_seconds,
        )


class Accepted(BaseModel):
    """The answer to a webhook call: alerts that were new, and those that were known."""

    stored: int
    repeated: int


class WebhookReceiver:
    """Answers with 200 only when what was told is stored; what is urgent is told to people even if it cannot be."""

    def __init__(
        self, pool: Pool, routing: Routing, metrics: NotifierMetrics, direct: DirectTelling, wake: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._routing = routing
        self._metrics = metrics
        self._direct = direct
        self._wake = wake

    async def accept(self, webhook: Webhook) -> Accepted:
        """Store what is new. Raises STORE_ERRORS where that cannot be."""
        await self._direct.settle()
        try:
            new = await store.store(self._pool, webhook.alerts, self._routing, self._direct.told, self._direct.attempts)
        except STORE_ERRORS:
            self._direct.begin(webhook.alerts)
            raise
        self._direct.stored(webhook.alerts)
        for alert in new:
            self._metrics.alerts[alert.status].inc()
            _log.info("alert", alert=alert.name, status=alert.status, severity=alert.severity, team=alert.team)
        if webhook.truncated_alerts:
            self._metrics.truncated.inc(webhook.truncated_alerts)
            _log.error("Alertmanager left alerts out", alerts=webhook.truncated_alerts)
        self._metrics.webhooks["stored" if new else "repeated"].inc()
        if new:
            self._wake()
        return Accepted(stored=len(new), repeated=len(webhook.alerts) - len(new))

    def refused(self, code: str) -> None:
        """Count a call that was answered with an error."""
        self._metrics.webhooks[code].inc()

    def route(self, token: SecretStr) -> web.RouteDef:
        """`POST /v1/alerts`."""
        return json_route(
            "/v1/alerts",
            Webhook,
            self.accept,
            token=token,
            outages=STORE_ERRORS,
            invalid_status=400,
            refused=self.refused,
        )


async def main(settings: AlertNotifierSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry, liveness = new_registry(NAME), Liveness()
    routing = parse_routing(settings.alert_receivers.get_secret_value())
    metrics = NotifierMetrics(registry, routing.senders)
    async with settings.connect(NAME) as pool:
        dispatcher = Dispatcher(pool, routing, settings.patience(), metrics, liveness)
        direct = DirectTelling(routing, settings.send_timeout_seconds, metrics)
        receiver = WebhookReceiver(pool, routing, metrics, direct, dispatcher.wake)
        # Without the store it is not ready for everything, but has to be called: it tells of the store's own alerts.
        server = HttpServer(
            settings.http_port,
            registry,
            liveness,
            [],
            [receiver.route(settings.alert_webhook_token)],
            max_body_bytes=MAX_BODY_BYTES,
        )
        return await service.run(dispatcher, server, settings.drain_seconds)
