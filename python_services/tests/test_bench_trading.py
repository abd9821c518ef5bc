"""How the measurement counts: what is slow or lost is in the figures, not left out of them."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from bench_trading import CAPACITY_STEPS, SIGNAL_SECONDS, Sent, Tick, capacity, keeps_up, percentile, ways
from tradewatch.trading.identity import client_order_id

AT = datetime(2026, 1, 1, tzinfo=UTC)


def _sent(count: int) -> list[Sent]:
    return [Sent(uuid.UUID(int=number), Tick(AT, AT)) for number in range(count)]


def test_a_signal_that_nobody_denied_and_that_has_no_order_is_the_slowest_there_is() -> None:
    sent = _sent(100)
    placed = {str(client_order_id(one.signal_id)): AT + timedelta(seconds=0.02) for one in sent}
    states = {one.signal_id: "filled" for one in sent}
    assert percentile(ways(sent, placed, states).seconds, 99) == 0.02
    for one, state in zip(sent[:3], ("expired", "executing", None), strict=True):
        del placed[str(client_order_id(one.signal_id))]
        states[one.signal_id] = state or ""
        if state is None:
            del states[one.signal_id]
    found = ways(sent, placed, states)
    assert (found.orders, found.denied) == (97, 0)
    assert found.without == {"expired": 1, "executing": 1, "not taken up": 1}
    assert percentile(found.seconds, 50) == 0.02
    assert percentile(found.seconds, 99) == SIGNAL_SECONDS


def test_a_denial_is_an_answer_and_a_lost_tick_is_no_fast_order() -> None:
    sent = [*_sent(2), Sent(uuid.UUID(int=9), None)]
    placed = {str(client_order_id(one.signal_id)): AT + timedelta(seconds=1) for one in sent[1:]}
    found = ways(sent, placed, {sent[0].signal_id: "denied_risk"})
    assert (found.seconds, found.orders, found.denied) == ([1.0, SIGNAL_SECONDS], 1, 1)
    assert found.without == {"untraced": 1}


def test_to_keep_up_is_to_bring_every_tick_and_never_to_be_far_behind() -> None:
    assert keeps_up(1_000, 1_990, 0.4, 0.9)
    assert not keeps_up(1_000, 1_500, 0.4, 0.9), "ticks that never came are no lag, and yet lost"
    assert not keeps_up(1_000, 1_990, 1.0, 0.1)
    assert not keeps_up(1_000, 1_990, 0.1, 1.0)


def test_the_capacity_is_looked_for_between_the_rates() -> None:
    def rate(ticks: int) -> dict[str, Any]:
        return {"ticks_per_second": ticks, "keeps_up": ticks <= 2_200, "cores": {"collector": 0.5, "aggregator": 0.99}}

    asked: list[int] = []

    def measure(ticks: int) -> dict[str, Any]:
        asked.append(ticks)
        return rate(ticks)

    found = capacity([rate(100), rate(1_000), rate(5_000)], measure)
    assert asked == [3_000, 2_000, 2_500]
    assert len(asked) == CAPACITY_STEPS
    assert found == {"keeps_up": 2_000, "fails_at": 2_500, "busiest": {"aggregator": 0.99}}
    assert capacity([rate(100), rate(1_000)], measure) == {"keeps_up": 1_000}
    assert len(asked) == CAPACITY_STEPS, "nothing to look for"
