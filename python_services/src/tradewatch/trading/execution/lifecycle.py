"""Carrying each order to its end: one task an order, and every step of it survives a crash.

The row says how far an order is. What may be at the exchange is looked up there by its `client_order_id` and never sent
again; what was not sent when the process ended is not sent by the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from tradewatch.common.backoff import Backoff
from tradewatch.common.events import Side
from tradewatch.common.logging import get_logger, trace
from tradewatch.store.database import OUTAGE_ERRORS, STORE_ERRORS
from tradewatch.trading.contracts import OrderStatus
from tradewatch.trading.execution.coinbase import (
    Ambiguous,
    Coinbase,
    ExchangeError,
    ExchangeOrder,
    NotTaken,
    Refused,
    Throttled,
)
from tradewatch.trading.execution.leadership import Leadership, NotActive
from tradewatch.trading.execution.metrics import ExecutionMetrics
from tradewatch.trading.execution.orders import (
    Accepted,
    Event,
    InvalidTransition,
    NoAnswer,
    NotAccepted,
    Reason,
    Rejected,
)
from tradewatch.trading.execution.store import Change, OrderStore, StoredOrder

_log = get_logger("orders")

LIMIT_IOC = "limit_ioc"
# The exchange's clock and the database's may differ by this much when an order is looked for by time.
CLOCK_SLACK = timedelta(minutes=10)
_FUNDS = ("INSUFFICIENT_FUND", "INSUFFICIENT_FUNDS", "PREVIEW_INSUFFICIENT_FUND")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Patience:
    """How long an order may take, in seconds.

    `send` bounds the attempts to send it, counted from its row; `rest` how long it may lie in the book; `lookup` how
    long an order that was sent is looked for before it is known never to have arrived: longer than a token lives, for
    a request that was held back for so long is refused.
    """

    send: float = 5.0
    rest: float = 30.0
    lookup: float = 60.0


class Lifecycle:
    """The tasks of the orders in progress."""

    def __init__(
        self,
        exchange: Coinbase,
        store: OrderStore,
        leadership: Leadership,
        metrics: ExecutionMetrics,
        patience: Patience,
    ) -> None:
        self._exchange = exchange
        self._store = store
        self._leadership = leadership
        self._metrics = metrics
        self._patience = patience
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._unknown: set[UUID] = set()
        self._cancelling: dict[UUID, Reason] = {}
        self._accepting: set[UUID] = set()

    @property
    def running(self) -> frozenset[UUID]:
        """The orders in progress here, those whose row is just being made included."""
        return frozenset(self._tasks) | self._accepting

    @contextmanager
    def accepting(self, order_id: UUID) -> Iterator[None]:
        """Claim an order before its row exists, so that nobody takes the row for one left behind."""
        self._accepting.add(order_id)
        try:
            yield
        finally:
            self._accepting.discard(order_id)

    def begin(self, order_id: UUID) -> "asyncio.Task[None]":
        """Carry an order to its end, unless that is under way."""
        task = self._tasks.get(order_id)
        if task is None:
            task = asyncio.create_task(self._carry(order_id), name=f"order {order_id}")
            self._tasks[order_id] = task
            task.add_done_callback(lambda _: self._done(order_id))
            self._metrics.open.set(len(self._tasks))
        return task

    def cancel(self, order_id: UUID, reason: Reason) -> "asyncio.Task[None]":
        """Carry an order to its end by cancelling what is left of it."""
        self._cancelling.setdefault(order_id, reason)
        return self.begin(order_id)

    async def stop(self, seconds: float) -> None:
        """Let the orders in progress come to their end; those that do not are taken up at the next start."""
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def never_sent(self, order: StoredOrder) -> None:
        """End an order that an earlier process stored and did not send."""
        with trace(order.trace_id):
            self.note(await self._store.apply(order.client_order_id, Rejected(Reason.NEVER_SENT)))

    def note(self, change: Change) -> None:
        """Count what a change brought, once it is stored."""
        order = change.order
        self._note_unknown(order)
        exemplar = {"trace_id": order.trace_id}
        for fill in change.fills:
            self._metrics.fees.labels(product_id=fill.product_id).inc(max(float(fill.fee), 0.0))
        if not change.ended:
            return
        status, reason = order.state.status.value, (order.state.reason or Reason.EXCHANGE_FAILED).value
        self._metrics.executions.labels(status=status, reason=reason).inc(1, exemplar)
        if order.finished:
            self._metrics.duration.observe((order.finished - order.created).total_seconds(), exemplar)
        if order.average_price:
            better = (order.limit_price - order.average_price) * (1 if order.side is Side.BUY else -1)
            series = self._metrics.improvement.labels(product_id=order.product_id)
            series.observe(float(better / order.limit_price), exemplar)
        _log.info(
            "order ended",
            client_order_id=str(order.client_order_id),
            decision_id=str(order.decision_id),
            product_id=order.product_id,
            side=order.side,
            status=status,
            reason=reason,
            filled_size=str(order.state.filled_size),
            average_price=str(order.average_price),
        )

    def _note_unknown(self, order: StoredOrder) -> None:
        if order.state.status is OrderStatus.UNKNOWN:
            self._unknown.add(order.client_order_id)
        else:
            self._unknown.discard(order.client_order_id)
        self._metrics.unknown.set(len(self._unknown))

    def _done(self, order_id: UUID) -> None:
        task = self._tasks.pop(order_id)
        self._cancelling.pop(order_id, None)
        self._metrics.open.set(len(self._tasks))
        if not task.cancelled() and task.exception() is not None:
            _log.error("order task failed", client_order_id=str(order_id), exc_info=task.exception())

    async def _carry(self, order_id: UUID) -> None:
        order = await self._stored(lambda: self._store.order(order_id))
        if order is None:
            return
        with trace(order.trace_id):
            self._note_unknown(order)
            backoff = Backoff(0.05, 1.0)
            not_taken = Reason.NEVER_SENT
            while not order.state.final:
                status, wait = order.state.status, backoff.next_seconds()
                try:
                    if status is OrderStatus.PENDING:
                        not_taken = await self._send(order, not_taken)
                    elif order.state.exchange_order_id is None:
                        await self._look_up(order)
                    else:
                        await self._follow(order, order.state.exchange_order_id)
                except Throttled as error:
                    not_taken, wait = Reason.THROTTLED, error.retry_after_seconds
                except NotTaken:
                    not_taken = Reason.UNREACHABLE
                except (ExchangeError, NotActive, InvalidTransition, *STORE_ERRORS) as error:
                    _log.warning("order waits", client_order_id=str(order_id), error=type(error).__name__)
                order = await self._reread(order)
                if order.state.status is not status:
                    backoff.reset()
                    continue
                if status is OrderStatus.PENDING:
                    # Never beyond the time for sending, however long the exchange asks to wait.
                    wait = min(wait, max(0.05, self._patience.send - order.age_seconds + 0.05))
                await asyncio.sleep(wait)
                # Its age and what others did to it meanwhile count.
                order = await self._reread(order)

    async def _reread(self, order: StoredOrder) -> StoredOrder:
        return await self._stored(lambda: self._store.order(order.client_order_id)) or order

    async def _send(self, order: StoredOrder, not_taken: Reason) -> Reason:
        order_id = order.client_order_id
        if order.age_seconds > self._patience.send or order_id in self._cancelling:
            reason = self._cancelling.get(order_id, not_taken)
            await self._apply(order_id, Rejected(reason))
            return reason
        async with self._leadership.transaction() as connection:
            change = await self._store.begin_sending(connection, order_id)
        self.note(change)
        if change.order.state.status is not OrderStatus.SUBMITTED or order.base_size is None:
            return not_taken
        try:
            exchange_id = await self._exchange.create_limit_order(
                order_id,
                order.product_id,
                order.side,
                order.base_size,
                order.limit_price,
                immediate=order.order_type == LIMIT_IOC,
                trace_id=order.trace_id,
            )
        except Refused as error:
            _log.warning("order refused", client_order_id=str(order_id), code=error.code, status=error.status)
            await self._apply(order_id, Rejected(_refusal_reason(error)))
        except NotTaken:
            await self._apply(order_id, NotAccepted())
            raise
        except Ambiguous as error:
            _log.warning("order of unknown outcome", client_order_id=str(order_id), detail=str(error))
            await self._apply(order_id, NoAnswer())
        else:
            await self._apply(order_id, Accepted(exchange_id))
        return not_taken

    async def _look_up(self, order: StoredOrder) -> None:
        order_id = order.client_order_id
        since = (order.submitted or order.created) - CLOCK_SLACK
        found = await self._exchange.find_order(order_id, order.product_id, since, order.trace_id)
        if found is not None:
            await self._observe(order, found)
        elif order.sent_seconds > self._patience.lookup:
            await self._apply(order_id, Rejected(Reason.NEVER_REACHED))
        elif order.state.status is OrderStatus.SUBMITTED:
            await self._apply(order_id, NoAnswer())

    async def _follow(self, order: StoredOrder, exchange_id: str) -> None:
        found = await self._exchange.order(exchange_id, order.trace_id)
        change = await self._observe(order, found)
        if change.order.state.final or found.status is not OrderStatus.OPEN:
            return
        late = order.sent_seconds > self._patience.rest
        reason = self._cancelling.get(order.client_order_id) or (Reason.TIME_LIMIT if late else None)
        if reason is not None:
            await self._store.mark_cancelling(order.client_order_id, reason)
            await self._exchange.cancel_orders([exchange_id])

    async def _observe(self, order: StoredOrder, found: ExchangeOrder) -> Change:
        wanted = found.filled_size > order.state.filled_size
        fills = await self._exchange.fills(order_id=found.order_id, trace_id=order.trace_id) if wanted else []
        change = await self._store.observe(order.client_order_id, found, fills)
        self.note(change)
        return change

    async def _apply(self, order_id: UUID, event: Event) -> None:
        self.note(await self._stored(lambda: self._store.apply(order_id, event)))

    async def _stored(self, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Do what the exchange's answer must not be lost for, again and again while the store is away.

        A commit without an answer may stand: repeating the same event then meets its own result, and the machine
        refuses it; the caller reads the row anew.
        """
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                return await work()
            except OUTAGE_ERRORS as error:
                _log.warning("the store is away", error=type(error).__name__)
                await asyncio.sleep(backoff.next_seconds())


def _refusal_reason(error: Refused) -> Reason:
    if error.code in _FUNDS:
        return Reason.INSUFFICIENT_FUNDS
    if error.code.endswith("TOO_SMALL"):
        return Reason.TOO_SMALL
    if error.code.endswith("TOO_LARGE"):
        return Reason.TOO_LARGE
    if error.status in (401, 403):
        return Reason.UNAUTHORIZED
    return Reason.EXCHANGE_REFUSED
