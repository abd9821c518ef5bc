"""Tells the receivers what waits for them, each in its own time, and escalates what nobody acknowledges."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from tradewatch.common import service
from tradewatch.common.backoff import Backoff
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.service import Liveness
from tradewatch.monitoring.alert_notifier import messages, store
from tradewatch.monitoring.alert_notifier.metrics import NotifierMetrics
from tradewatch.monitoring.alert_notifier.routing import Routing
from tradewatch.monitoring.alert_notifier.sender import NotDelivered, Sender
from tradewatch.monitoring.alert_notifier.store import Claimed
from tradewatch.store.database import STORE_ERRORS, Pool

# What another replica, or the one before this one, stored is found by looking.
POLL_SECONDS = 1.0
GAUGES_SECONDS = 5.0

_log = get_logger("dispatcher")
_ResultT = TypeVar("_ResultT")


@dataclass(frozen=True)
class Patience:
    """Durations in seconds.

    Of an attempt, a loan beyond it, a receiver's back-off and all attempts; until escalation, and until an alert that
    is not told again counts as unseen.
    """

    send_timeout_seconds: float
    loan_margin_seconds: float
    retry_base_seconds: float
    retry_max_seconds: float
    give_up_seconds: float
    escalate_after_seconds: float
    unseen_after_seconds: float

    @property
    def loan(self) -> timedelta:
        """How long a notification is lent: longer than an attempt, so that nobody else takes it up meanwhile."""
        return timedelta(seconds=self.send_timeout_seconds + self.loan_margin_seconds)


class Dispatcher:
    """A worker for each receiver, and one that escalates and measures."""

    def __init__(
        self,
        pool: Pool,
        routing: Routing,
        patience: Patience,
        metrics: NotifierMetrics,
        liveness: Liveness,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._routing = routing
        self._patience = patience
        self._metrics = metrics
        self._liveness = liveness
        self._throttle = Throttle()
        self._news = {name: asyncio.Event() for name in routing.senders}
        self._clock = clock
        self._listening_since = clock()

    def wake(self) -> None:
        """There may be something to send."""
        for event in self._news.values():
            event.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; an attempt under way is ended and marked."""
        async with asyncio.TaskGroup() as tasks:
            for sender in self._routing.senders.values():
                tasks.create_task(self._deliver(sender, stop), name=f"receiver {sender.name}")
            tasks.create_task(service.until_stopped(stop, self._keep()), name="escalation")
        for sender in self._routing.senders.values():
            sender.close()

    async def _deliver(self, sender: Sender, stop: asyncio.Event) -> None:
        backoff = Backoff(self._patience.retry_base_seconds, self._patience.retry_max_seconds)
        while not stop.is_set():
            self._liveness.beat(sender.name)
            self._news[sender.name].clear()
            claimed = await self._asked(
                f"claim {sender.name}", store.claim(self._pool, sender.name, self._patience.loan)
            )
            if claimed is None:
                await self._rest(sender.name, POLL_SECONDS, stop)
            elif await self._attempt(sender, claimed, stop):
                backoff.reset()
            else:
                await self._failed(sender, claimed, backoff, stop)

    async def _attempt(self, sender: Sender, claimed: Claimed, stop: asyncio.Event) -> bool:
        message = messages.compose(
            claimed.told,
            escalation=claimed.reason == "escalation",
            attempt=claimed.attempt,
            max_characters=sender.max_characters,
        )
        shown = {"receiver": sender.name, "notification_id": claimed.notification_id, "alert": claimed.told.name}
        try:
            timeout = self._patience.send_timeout_seconds
            await sender.send(claimed.told.fingerprint, message.title, message.body, message.kind, timeout)
        except NotDelivered as error:
            _log.warning("not delivered", **shown, attempt=claimed.attempt, reason=str(error))
            return False
        confirmed = datetime.now(UTC)
        await self._mark_sent(sender, claimed, stop)
        self._metrics.notifications[sender.name, "sent"].inc()
        if claimed.reason == "route":
            happened = claimed.told.ends_at or claimed.told.starts_at
            self._metrics.delay["alert"].observe(max(0.0, (confirmed - happened).total_seconds()))
            self._metrics.delay["receipt"].observe(max(0.0, (confirmed - claimed.received).total_seconds()))
        _log.info("delivered", **shown, reason=claimed.reason, attempt=claimed.attempt)
        return True

    async def _mark_sent(self, sender: Sender, claimed: Claimed, stop: asyncio.Event) -> None:
        """Not to be given up while the process lives: what is not marked is sent again."""
        while True:
            self._liveness.beat(sender.name)
            try:
                await store.finish(self._pool, claimed.notification_id, "sent")
                return
            except STORE_ERRORS as error:
                self._complain("mark", error)
                if stop.is_set():
                    return
                await self._rest(sender.name, POLL_SECONDS, stop)

    async def _failed(self, sender: Sender, claimed: Claimed, backoff: Backoff, stop: asyncio.Event) -> None:
        """Later again, or never where it has been tried for too long; the receiver itself gets a rest."""
        self._metrics.notifications[sender.name, "failed"].inc()
        age = datetime.now(UTC) - claimed.created
        pause = backoff.next_seconds()
        if age > timedelta(seconds=self._patience.give_up_seconds):
            await self._asked("give up", store.finish(self._pool, claimed.notification_id, "given_up"))
            self._metrics.notifications[sender.name, "given_up"].inc()
            _log.error("given up", receiver=sender.name, alert=claimed.told.name, attempts=claimed.attempt)
        else:
            later = timedelta(seconds=pause)
            await self._asked("give back", store.retry(self._pool, claimed.notification_id, later))
        deadline = time.monotonic() + pause
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            self._liveness.beat(sender.name)
            await _sleep(stop, min(left, POLL_SECONDS))

    async def _rest(self, name: str, seconds: float, stop: asyncio.Event) -> None:
        """Until there is news, and no longer than `seconds`."""
        news, stopped = asyncio.create_task(self._news[name].wait()), asyncio.create_task(stop.wait())
        await asyncio.wait({news, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        stopped.cancel()

    async def _keep(self) -> None:
        known = sorted(self._routing.senders)
        dropped: list[str] | None = None
        measured = 0.0
        while True:
            self._liveness.beat("escalation")
            if dropped is None:
                dropped = await self._asked("drop", store.drop_other_receivers(self._pool, known))
                if dropped:
                    _log.error("given up: the settings know these receivers no more", receivers=sorted(set(dropped)))
            await self._escalate()
            if time.monotonic() - measured >= GAUGES_SECONDS:
                await self._mark_unseen()
                await self._asked("measure", self._measure())
                measured = time.monotonic()
            await asyncio.sleep(POLL_SECONDS)

    async def _escalate(self) -> None:
        if not self._routing.escalation:
            return
        after = timedelta(seconds=self._patience.escalate_after_seconds)
        names = await self._asked("escalate", store.escalate(self._pool, after, self._routing.escalation))
        if names:
            self._metrics.escalations.inc(len(names))
            _log.warning("escalated: nobody acknowledged in time", alerts=names)
            self.wake()

    async def _mark_unseen(self) -> None:
        """Only what could have been heard in all that time is missing: the service was up, and the store took it."""
        after = self._patience.unseen_after_seconds
        if self._clock() - self._listening_since >= after:
            await self._asked("mark unseen", store.mark_unseen(self._pool, timedelta(seconds=after)))

    async def _measure(self) -> None:
        waiting = await store.waiting(self._pool)
        for name in self._routing.senders:
            found = waiting.get(name, store.Waiting(0, 0.0))
            self._metrics.pending[name].set(found.pending)
            self._metrics.oldest[name].set(found.oldest_seconds)
        self._metrics.last_sent.set(await store.last_sent(self._pool))
        self._metrics.unacknowledged.set(await store.unacknowledged(self._pool))
        self._metrics.last_refresh.set(time.time())

    async def _asked(self, what: str, work: Awaitable[_ResultT]) -> _ResultT | None:
        """The store's answer, or None after a line in the log when it does not answer."""
        try:
            return await work
        except STORE_ERRORS as error:
            self._complain(what, error)
            return None

    def _complain(self, what: str, error: BaseException) -> None:
        self._listening_since = self._clock()
        # The type only: messages of the driver hold the address and the user.
        held = self._throttle.admit(what)
        if held is not None:
            _log.error("the store does not answer", wanted=what, error=type(error).__name__, lines_held_back=held)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    """`seconds`, or until `stop` is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
