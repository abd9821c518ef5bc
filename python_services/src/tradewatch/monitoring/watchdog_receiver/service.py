"""watchdog-receiver: a dead man's switch for the whole cluster. Runs on a machine that does not fall with it."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field, SecretStr, field_validator

from tradewatch.common import service
from tradewatch.common.api import ApiError, json_route
from tradewatch.common.backoff import Backoff
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import CommonSettings, duration
from tradewatch.monitoring.alert_notifier.messages import lasted
from tradewatch.monitoring.alert_notifier.routing import parse_receivers
from tradewatch.monitoring.alert_notifier.sender import NotDelivered, Sender
from tradewatch.monitoring.alert_notifier.webhook import Webhook
from tradewatch.monitoring.watchdog_receiver.metrics import WatchdogMetrics

NAME = "watchdog-receiver"
ALERT_NAME = "Watchdog"
POLL_SECONDS = 0.5
SEND_SECONDS = 20.0
RETRY_BASE_SECONDS, RETRY_MAX_SECONDS = 1.0, 30.0

_log = get_logger("watchdog")


class WatchdogReceiverSettings(CommonSettings):
    """Settings of watchdog-receiver; durations in seconds."""

    alert_webhook_token: SecretStr = Field(
        min_length=16, description="file that holds the token of Alertmanager's calls"
    )
    watchdog_receivers: SecretStr = Field(description="file that holds the receivers, in JSON")
    watchdog_cluster: str = Field(
        default="tradewatch", min_length=1, max_length=100, description="what notifications call the cluster"
    )
    silent_after_seconds: float = duration(300, 86_400, "without a Watchdog for so long it is silent", least=1)
    state_file: Path | None = Field(default=None, description="where it is kept over restarts who was told what")

    @field_validator("watchdog_receivers")
    @classmethod
    def _usable(cls, value: SecretStr) -> SecretStr:
        parse_receivers(value.get_secret_value())
        return value


class Seen(BaseModel):
    """The answer to a webhook call."""

    seen: bool = True


class WatchdogReceiver:
    """Compares what each receiver was told last, silence or not, with what is; a difference is told until confirmed.

    A start counts as a sign of life, for what was missed while this service was down is not known.
    """

    def __init__(
        self,
        senders: dict[str, Sender],
        metrics: WatchdogMetrics,
        liveness: Liveness,
        *,
        cluster: str,
        silent_after_seconds: float,
        state_file: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._senders = senders
        self._metrics = metrics
        self._liveness = liveness
        self._cluster = cluster
        self._silent_after_seconds = silent_after_seconds
        self._state_file = state_file
        self._clock = clock
        self._last = clock()
        known = _read(state_file)
        self._told_silence = {name: name in known for name in senders}
        # After a restart in a silence it is not over before the Watchdog has come again.
        self._silent = any(self._told_silence.values())
        self._lasted = timedelta()

    async def accept(self, webhook: Webhook) -> Seen:
        """Note a sign of life. Raises ApiError, 400, where no Watchdog fires in it."""
        if not any(alert.name == ALERT_NAME and alert.status == "firing" for alert in webhook.alerts):
            raise ApiError(400, "invalid_request", f"alerts: none of them is a firing {ALERT_NAME}")
        now = self._clock()
        if self._silent:
            self._lasted = timedelta(seconds=now - self._last)
            _log.warning("the Watchdog is back", silent_seconds=round(now - self._last, 1))
        self._silent = False
        self._last = now
        self._metrics.webhooks["seen"].inc()
        self._metrics.last_seen.set(time.time())
        self._metrics.silent.set(0)
        return Seen()

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.until_stopped(stop, self._watch()))
            for sender in self._senders.values():
                tasks.create_task(service.until_stopped(stop, self._tell(sender)))
        for sender in self._senders.values():
            sender.close()

    async def check(self) -> CheckResult:
        """Readiness: the Watchdog is not overdue."""
        since = self._clock() - self._last
        return CheckResult(not self._silent, f"{since:.0f} s since the last sign of life")

    async def _watch(self) -> None:
        while True:
            self._liveness.beat("watch")
            if not self._silent and self._clock() - self._last > self._silent_after_seconds:
                self._silent = True
                _log.error("the Watchdog is overdue", silent_after_seconds=self._silent_after_seconds)
            self._metrics.silent.set(self._silent)
            await asyncio.sleep(POLL_SECONDS)

    async def _tell(self, sender: Sender) -> None:
        backoff = Backoff(RETRY_BASE_SECONDS, RETRY_MAX_SECONDS)
        while True:
            self._liveness.beat(sender.name)
            silent = self._silent
            if silent == self._told_silence[sender.name]:
                await asyncio.sleep(POLL_SECONDS)
                continue
            title, body = self._text(silent)
            try:
                await sender.send(f"watchdog {self._cluster}", title, body, _kind(silent), SEND_SECONDS)
            except NotDelivered as error:
                self._metrics.notifications[sender.name, "failed"].inc()
                _log.warning("not delivered", receiver=sender.name, reason=str(error))
                await asyncio.sleep(backoff.next_seconds())
                continue
            backoff.reset()
            self._told_silence[sender.name] = silent
            self._write()
            self._metrics.notifications[sender.name, "sent"].inc()
            _log.info("delivered", receiver=sender.name, silent=silent)

    def _text(self, silent: bool) -> tuple[str, str]:
        if silent:
            since = lasted(timedelta(seconds=self._clock() - self._last))
            return (
                f"[FIRING] critical: {self._cluster} is silent",
                f"No {ALERT_NAME} alert from {self._cluster} for {since}. The cluster, its Prometheus, its"
                " Alertmanager, its alert-notifier or the network to here does not work: other alerts may not reach you"
                " until it does.",
            )
        return (
            f"[RESOLVED] critical: {self._cluster} is silent",
            f"The {ALERT_NAME} alert of {self._cluster} is back after {lasted(self._lasted)}.",
        )

    def _write(self) -> None:
        if self._state_file is None:
            return
        told = sorted(name for name, silent in self._told_silence.items() if silent)
        partial = self._state_file.with_name(f"{self._state_file.name}.partial")
        try:
            partial.write_text(json.dumps({"told_of_silence": told}))
            partial.replace(self._state_file)
        except OSError as error:
            _log.error("cannot keep the state", file=str(self._state_file), error=error.strerror)


def _kind(silent: bool) -> Literal["critical", "resolved"]:
    return "critical" if silent else "resolved"


def _read(file: Path | None) -> set[str]:
    """Who was told of a silence that has not ended; nobody, where the file does not say."""
    if file is None or not file.exists():
        return set()
    try:
        return {str(name) for name in json.loads(file.read_text())["told_of_silence"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.error("cannot read the state", file=str(file), error=type(error).__name__)
        return set()


def route(receiver: WatchdogReceiver, metrics: WatchdogMetrics, token: SecretStr) -> web.RouteDef:
    """`POST /v1/watchdog`."""

    def refused(code: str) -> None:
        metrics.webhooks[code].inc()

    return json_route("/v1/watchdog", Webhook, receiver.accept, token=token, invalid_status=400, refused=refused)


async def main(settings: WatchdogReceiverSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry, liveness = new_registry(NAME), Liveness()
    senders = parse_receivers(settings.watchdog_receivers.get_secret_value())
    metrics = WatchdogMetrics(registry, senders)
    receiver = WatchdogReceiver(
        senders,
        metrics,
        liveness,
        cluster=settings.watchdog_cluster,
        silent_after_seconds=settings.silent_after_seconds,
        state_file=settings.state_file,
    )
    routes = [route(receiver, metrics, settings.alert_webhook_token)]
    server = HttpServer(settings.http_port, registry, liveness, [Check("watchdog", receiver.check)], routes)
    return await service.run(receiver, server, settings.drain_seconds)
