"""Driving one decision from where it stands to its end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from tradewatch.common.backoff import Backoff
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.store.database import OUTAGE_ERRORS
from tradewatch.trading.contracts import AssessmentRequest, OrderAnswer, OrderRequest, Stage, ValidationRequest
from tradewatch.trading.identity import client_order_id
from tradewatch.trading.orchestrator.decisions import Conflict, Decision, DecisionStore
from tradewatch.trading.orchestrator.machine import (
    FINAL,
    Approved,
    Begun,
    Denied,
    Event,
    Expired,
    Failed,
    OrderEnded,
    State,
    advance,
)
from tradewatch.trading.orchestrator.metrics import Failure, OrchestratorMetrics, Peer
from tradewatch.trading.orchestrator.peers import CallFailed, Outage, Peers, Refused

_log = get_logger("pipeline")

T = TypeVar("T")
# The reason of a decision whose order did not come into being before its deadline.
NOT_PLACED = "order_not_placed_in_time"


class Stopped(Exception):
    """The service is to end; what is stored is enough to go on from."""


@dataclass(frozen=True, kw_only=True)
class PipelineLimits:
    """Durations in seconds.

    `decision_seconds`: no order comes into being so long after the decision was received, however late its signal
    expires. `settle_seconds`: so long after that, trade-executor's word that there is no order is final; it covers
    the difference of the two hosts' clocks and the storing of an order that was accepted at the last moment.
    """

    decision_seconds: float = 120.0
    settle_seconds: float = 5.0
    backoff_base_seconds: float = 0.1
    backoff_max_seconds: float = 2.0
    poll_base_seconds: float = 0.02
    poll_max_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class _Step:
    """What came of a stage: the event, and what is stored with it."""

    event: Event
    quote_size: Decimal | None = None
    limit_price: Decimal | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Pipeline:
    """Asks whoever a decision's state says is to be asked, stores what follows, and goes on until it is final."""

    def __init__(
        self,
        store: DecisionStore,
        peers: Peers,
        metrics: OrchestratorMetrics,
        limits: PipelineLimits,
        stop: asyncio.Event,
    ) -> None:
        self._store = store
        self._peers = peers
        self._metrics = metrics
        self._limits = limits
        self._stop = stop
        self._throttle = Throttle()

    def deadline(self, decision: Decision) -> datetime:
        """From then on no order of this decision may come into being."""
        return min(decision.signal.expires, decision.received + timedelta(seconds=self._limits.decision_seconds))

    async def drive(self, decision: Decision) -> Decision:
        """Bring a decision to its final state.

        Raises:
            Stopped: the service is to end before that.
        """
        unsent = False
        while decision.state not in FINAL:
            if self._stop.is_set():
                raise Stopped
            step = await self._step(decision, unsent)
            decision, unsent = await self._move(decision, step)
        return decision

    async def _step(self, decision: Decision, unsent: bool) -> _Step:
        if decision.state is State.EXECUTING:
            return await self._execute(decision, unsent)
        if self._remaining_seconds(decision) <= 0:
            return _Step(Expired("signal_expired"))
        match decision.state:
            case State.RISK_BEFORE:
                return await self._assess(decision, Stage.BEFORE_LLM)
            case State.LLM:
                return await self._validate(decision)
            case State.RISK_AFTER:
                return await self._assess(decision, Stage.BEFORE_EXECUTION)
            case _:
                return _Step(Begun())

    async def _assess(self, decision: Decision, stage: Stage) -> _Step:
        signal = decision.signal
        request = AssessmentRequest(decision_id=signal.signal_id, trace_id=signal.trace_id, signal=signal, stage=stage)
        answer = await self._until_deadline(decision, Peer.RISK_MANAGER, lambda: self._peers.assess(request))
        if isinstance(answer, Expired | Failed):
            return _Step(answer)
        if answer.decision == "deny":
            return _Step(Denied(answer.reason))
        size, price = answer.approved_quote_size, answer.limit_price
        details = {"approved_quote_size": size, "limit_price": price}
        if stage is Stage.BEFORE_LLM:
            return _Step(Approved(), details=details)
        return _Step(Approved(), size, price, details)

    async def _validate(self, decision: Decision) -> _Step:
        signal = decision.signal
        request = ValidationRequest(decision_id=signal.signal_id, trace_id=signal.trace_id, signal=signal)
        answer = await self._until_deadline(decision, Peer.LLM_VALIDATOR, lambda: self._peers.validate(request))
        if isinstance(answer, Expired | Failed):
            return _Step(answer)
        return _Step(Approved() if answer.decision == "approve" else Denied(answer.reason))

    async def _until_deadline(
        self, decision: Decision, peer: Peer, call: Callable[[], Awaitable[T]]
    ) -> T | Expired | Failed:
        """The answer, however often it takes to ask; Expired when it did not come in time."""
        backoff = self._backoff()
        reason = ""
        while (remaining := self._remaining_seconds(decision)) > 0:
            try:
                async with asyncio.timeout(remaining):
                    return await call()
            except Refused as refused:
                return Failed(refused.reason)
            except Outage as outage:
                reason = outage.reason
                self._warn(outage)
            except TimeoutError:
                reason = reason or Outage(peer, Failure.TIMEOUT).reason
            await self._pause(min(backoff.next_seconds(), max(0.0, self._remaining_seconds(decision))))
        return Expired(reason or "signal_expired")

    async def _execute(self, decision: Decision, unsent: bool) -> _Step:
        """Have the order placed and follow it to its end.

        Only where it is certain that the order was not sent yet (`unsent`) is it sent without asking first. An
        unclear answer is asked about for as long as it takes: an order may be at the exchange.
        """
        identifier = client_order_id(decision.decision_id)
        trace_id = decision.signal.trace_id
        backoff, poll = self._backoff(), Backoff(self._limits.poll_base_seconds, self._limits.poll_max_seconds)
        refused: Refused | None = None
        send = unsent
        # Whether an order may be under way that trade-executor has not stored yet.
        unclear = not unsent
        while True:
            sending = send and self._remaining_seconds(decision) > 0
            send = False
            try:
                if sending:
                    order: OrderAnswer | None = await self._peers.order(self._order_request(decision))
                else:
                    order = await self._peers.order_status(identifier, trace_id)
            except CallFailed as error:
                if isinstance(error, Refused):
                    refused = error
                else:
                    unclear |= sending
                self._warn(error)
                await self._pause(backoff.next_seconds())
                continue
            backoff.reset()
            if order is not None:
                if order.final:
                    return _ended(order)
            elif refused is not None and not unclear:
                return _Step(_refusal(refused))
            elif (remaining := self._remaining_seconds(decision)) < -self._limits.settle_seconds:
                return _Step(_refusal(refused) if refused else Expired(NOT_PLACED))
            elif remaining > 0 and refused is None:
                send = True
                continue
            await self._pause(poll.next_seconds())

    def _order_request(self, decision: Decision) -> OrderRequest:
        if decision.quote_size is None or decision.limit_price is None:
            raise ValueError("a decision without an approved size and price must not be executed")
        return OrderRequest(
            decision_id=decision.decision_id,
            trace_id=decision.signal.trace_id,
            product_id=decision.signal.product_id,
            side=decision.signal.side,
            quote_size=decision.quote_size,
            limit_price=decision.limit_price,
            expires=self.deadline(decision),
        )

    async def _move(self, decision: Decision, step: _Step) -> tuple[Decision, bool]:
        """Store what follows. Also returns whether the order is certainly unsent: only after one's own move."""
        state, reason = advance(decision.state, step.event)
        backoff = self._backoff()
        while True:
            try:
                moved = await self._store.move(
                    decision,
                    state,
                    reason,
                    quote_size=step.quote_size,
                    limit_price=step.limit_price,
                    details=step.details,
                )
                break
            except Conflict:
                return await self._load(decision, backoff), False
            except OUTAGE_ERRORS as error:
                self._warn(error)
                await self._pause(backoff.next_seconds())
        self._measure(decision, moved)
        return moved, moved.state is State.EXECUTING

    async def _load(self, decision: Decision, backoff: Backoff) -> Decision:
        while True:
            try:
                return await self._store.load(decision.decision_id)
            except OUTAGE_ERRORS as error:
                self._warn(error)
                await self._pause(backoff.next_seconds())

    def _measure(self, before: Decision, after: Decision) -> None:
        exemplar = {"trace_id": after.signal.trace_id}
        self._metrics.stages[before.state].observe((after.updated - before.updated).total_seconds(), exemplar)
        since_signal = max(0.0, (after.updated - after.signal.created).total_seconds())
        if after.state is State.EXECUTING:
            self._metrics.signal_to_order.observe(since_signal, exemplar)
        if after.state in FINAL:
            self._metrics.end_to_end.observe(since_signal, exemplar)
            self._metrics.decisions[after.state].inc(1, exemplar)

    def _remaining_seconds(self, decision: Decision) -> float:
        return (self.deadline(decision) - datetime.now(UTC)).total_seconds()

    def _backoff(self) -> Backoff:
        return Backoff(self._limits.backoff_base_seconds, self._limits.backoff_max_seconds)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return
        raise Stopped

    def _warn(self, error: BaseException) -> None:
        held = self._throttle.admit(type(error).__name__)
        if held is not None:
            reason = error.reason if isinstance(error, CallFailed) else type(error).__name__
            _log.warning("a dependency gives no answer", reason=reason, lines_held_back=held)


def _refusal(refused: Refused) -> Expired | Failed:
    """What a refused order that does not exist makes of its decision; trade-executor's clock may be ahead of ours."""
    return Expired(NOT_PLACED) if refused.code == "expired" else Failed(refused.reason)


def _ended(order: OrderAnswer) -> _Step:
    details = {
        "client_order_id": order.client_order_id,
        "status": order.status,
        "filled_size": order.filled_size,
        "average_price": order.average_price,
        "fees": order.fees,
    }
    return _Step(OrderEnded(order), details=details)
