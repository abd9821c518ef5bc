"""Whatever happens to a decision, it ends once, and it is executed only after all three approvals."""

from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tradewatch.trading.contracts import OrderAnswer, OrderStatus
from tradewatch.trading.orchestrator.machine import (
    FINAL,
    STAGES,
    Approved,
    Begun,
    Denied,
    Event,
    Expired,
    Failed,
    ImpossibleTransition,
    OrderEnded,
    State,
    advance,
)

REASONS = st.sampled_from(["max_exposure", "timeout", "signal_expired"])
ENDED = (OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED, OrderStatus.EXPIRED)


def order(status: OrderStatus, filled: str = "0", final: bool = True) -> OrderAnswer:
    return OrderAnswer(
        client_order_id=UUID(int=1),
        status=status,
        filled_size=Decimal(filled),
        average_price=None,
        fees=Decimal(0),
        final=final,
    )


ORDERS = st.builds(order, st.sampled_from(OrderStatus), st.sampled_from(["0", "0.5"]), st.booleans()).filter(
    lambda answer: not answer.final or answer.status in ENDED
)
EVENTS = st.one_of(
    st.just(Begun()),
    st.just(Approved()),
    st.builds(Denied, REASONS),
    st.builds(Expired, REASONS),
    st.builds(Failed, REASONS),
    st.builds(OrderEnded, ORDERS),
)


class Decisions(RuleBasedStateMachine):
    """Any events in any order: the impossible ones are refused and change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.RECEIVED
        self.path = [State.RECEIVED]
        self.approvals: list[State] = []
        self.order_ended = False

    @rule(event=EVENTS)
    def happen(self, event: Event) -> None:
        before = self.state
        try:
            self.state, reason = advance(before, event)
        except ImpossibleTransition:
            return
        assert before not in FINAL, "a final state was left"
        self.path.append(self.state)
        if isinstance(event, Approved):
            self.approvals.append(before)
        if isinstance(event, OrderEnded):
            self.order_ended = True
            assert before is State.EXECUTING
            assert event.order.final
        if self.state in FINAL - {State.FILLED}:
            assert reason, "an end without a reason"

    @precondition(lambda self: self.state not in FINAL)
    @rule(reason=REASONS)
    def time_runs_out(self, reason: str) -> None:
        """From every stage there is a way to the end."""
        assert advance(self.state, Expired(reason)) == (State.EXPIRED, reason)

    @invariant()
    def executed_only_when_all_said_yes(self) -> None:
        if State.EXECUTING in self.path:
            assert self.approvals == [State.RISK_BEFORE, State.LLM, State.RISK_AFTER]

    @invariant()
    def ends_once(self) -> None:
        assert sum(state in FINAL for state in self.path) <= 1
        assert len(set(self.path)) == len(self.path)

    @invariant()
    def traded_only_by_an_order(self) -> None:
        if self.state in (State.FILLED, State.PARTIALLY_FILLED, State.CANCELLED, State.REJECTED):
            assert self.order_ended


TestDecisions = Decisions.TestCase
TestDecisions.settings = settings(max_examples=200, stateful_step_count=12)


def test_the_way_to_a_fill() -> None:
    state, path = State.RECEIVED, []
    for event in (Begun(), Approved(), Approved(), Approved(), OrderEnded(order(OrderStatus.FILLED, "1"))):
        state, _ = advance(state, event)
        path.append(state)
    assert path == [State.RISK_BEFORE, State.LLM, State.RISK_AFTER, State.EXECUTING, State.FILLED]


@pytest.mark.parametrize(
    ("status", "filled", "state"),
    [
        (OrderStatus.FILLED, "1", State.FILLED),
        (OrderStatus.CANCELLED, "0", State.CANCELLED),
        (OrderStatus.CANCELLED, "0.4", State.PARTIALLY_FILLED),
        (OrderStatus.EXPIRED, "0", State.CANCELLED),
        (OrderStatus.EXPIRED, "0.4", State.PARTIALLY_FILLED),
        (OrderStatus.REJECTED, "0", State.REJECTED),
    ],
)
def test_the_end_of_an_order_is_that_of_its_decision(status: OrderStatus, filled: str, state: State) -> None:
    assert advance(State.EXECUTING, OrderEnded(order(status, filled)))[0] is state


@pytest.mark.parametrize("status", [status for status in OrderStatus if status not in ENDED])
def test_an_order_that_lives_ends_nothing(status: OrderStatus) -> None:
    with pytest.raises(ImpossibleTransition):
        advance(State.EXECUTING, OrderEnded(order(status, final=False)))
    with pytest.raises(ValueError, match="not final"):
        advance(State.EXECUTING, OrderEnded(order(status, final=True)))


@pytest.mark.parametrize("state", STAGES)
def test_every_stage_can_fail(state: State) -> None:
    assert advance(state, Failed("refused")) == (State.FAILED, "refused")
