"""The states of a decision and the only ways between them (docs/trading.md). No input, no output, no clock."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from tradewatch.trading.contracts import OrderAnswer, OrderStatus


class State(StrEnum):
    """Where a decision stands: the first five name what is being asked, the others are ends."""

    RECEIVED = "received"
    RISK_BEFORE = "risk_before"
    LLM = "llm"
    RISK_AFTER = "risk_after"
    EXECUTING = "executing"
    FILLED = "filled"
    PARTIALLY_FILLED = "partially_filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    DENIED_RISK = "denied_risk"
    DENIED_LLM = "denied_llm"
    EXPIRED = "expired"
    FAILED = "failed"


_NEXT = {
    State.RECEIVED: State.RISK_BEFORE,
    State.RISK_BEFORE: State.LLM,
    State.LLM: State.RISK_AFTER,
    State.RISK_AFTER: State.EXECUTING,
}
_DENIED = {State.RISK_BEFORE: State.DENIED_RISK, State.LLM: State.DENIED_LLM, State.RISK_AFTER: State.DENIED_RISK}
STAGES = (*_NEXT, State.EXECUTING)
FINAL = frozenset(State) - frozenset(STAGES)


@dataclass(frozen=True, slots=True)
class Begun:
    """Its turn came while the signal was still good."""


@dataclass(frozen=True, slots=True)
class Approved:
    """Who was asked said yes."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Who was asked said no; `reason` is its code."""

    reason: str


@dataclass(frozen=True, slots=True)
class Expired:
    """Time ran out before an order came into being; `reason` is what kept it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A peer refused the call itself: trying again would not help, and there is no order."""

    reason: str


@dataclass(frozen=True, slots=True)
class OrderEnded:
    """trade-executor's final answer about the order."""

    order: OrderAnswer


Event = Begun | Approved | Denied | Expired | Failed | OrderEnded


class ImpossibleTransition(Exception):
    """An event that cannot happen in that state: a programming error, never a reason to trade."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{type(event).__name__} cannot happen in {state}")


def advance(state: State, event: Event) -> tuple[State, str]:
    """The state that follows, and the reason to store with it (empty where there is nothing to say).

    Raises:
        ImpossibleTransition: `state` is final, or the event does not belong to it.
    """
    match event:
        case Begun() if state is State.RECEIVED:
            return State.RISK_BEFORE, ""
        case Approved() if state in _DENIED:
            return _NEXT[state], ""
        case Denied(reason) if state in _DENIED:
            return _DENIED[state], reason
        case Expired(reason) if state not in FINAL:
            return State.EXPIRED, reason
        case Failed(reason) if state not in FINAL:
            return State.FAILED, reason
        case OrderEnded(order) if state is State.EXECUTING and order.final:
            return _outcome(order)
        case _:
            raise ImpossibleTransition(state, event)


def _outcome(order: OrderAnswer) -> tuple[State, str]:
    match order.status:
        case OrderStatus.FILLED:
            return State.FILLED, ""
        case OrderStatus.REJECTED:
            return State.REJECTED, "order_rejected"
        case OrderStatus.CANCELLED | OrderStatus.EXPIRED:
            reason = f"order_{order.status}"
            return (State.PARTIALLY_FILLED if order.filled_size > 0 else State.CANCELLED), reason
        case (
            OrderStatus.PENDING
            | OrderStatus.SUBMITTED
            | OrderStatus.OPEN
            | OrderStatus.PARTIALLY_FILLED
            | OrderStatus.UNKNOWN
        ):
            raise ValueError(f"an order that is {order.status} is not final")
        case _:
            assert_never(order.status)
