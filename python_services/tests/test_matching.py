"""The matching engine: each kind of order, and what must hold whatever is asked of it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from exchange_support import engine, tick
from hypothesis import given, settings
from hypothesis import strategies as st
from tradewatch.simulators.exchange import matching
from tradewatch.simulators.exchange.matching import MatchingEngine
from tradewatch.simulators.exchange.orders import (
    EditRejected,
    Instruction,
    Liquidity,
    Order,
    OrderRejected,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)

RICH = {"USD": Decimal(1_000_000), "BTC": Decimal(1_000)}
NOW = datetime.now(UTC)


def limit(
    side: str, size: str, price: str, time_in_force: TimeInForce = TimeInForce.GTC, post_only: bool = False
) -> Instruction:
    return Instruction(
        "BTC-USD",
        Side(side),
        OrderType.LIMIT,
        time_in_force,
        base_size=Decimal(size),
        limit_price=Decimal(price),
        post_only=post_only,
        end_time=NOW + timedelta(seconds=1) if time_in_force == TimeInForce.GTD else None,
    )


def market(side: str, base: str | None = None, quote: str | None = None) -> Instruction:
    sizes = {"base_size": Decimal(base) if base else None, "quote_size": Decimal(quote) if quote else None}
    return Instruction("BTC-USD", Side(side), OrderType.MARKET, TimeInForce.IOC, **sizes)


def test_a_market_order_walks_the_book_and_pays_the_takers_fee() -> None:
    exchange = engine(RICH)
    order = exchange.place("a", market("BUY", base="20"))
    assert [(fill.price, fill.size) for fill in order.fills] == [(Decimal("100.01"), 10), (Decimal("100.03"), 10)]
    assert order.status == OrderStatus.FILLED
    assert order.filled_value == Decimal("2000.40")
    assert order.fees == Decimal("2000.40") * Decimal("0.006")
    assert exchange.accounts.of("BTC").total == 1020
    assert exchange.accounts.of("USD").total == Decimal(1_000_000) - Decimal("2000.40") * Decimal("1.006")


def test_a_market_buy_by_quote_size_spends_it_fees_included_and_never_more() -> None:
    exchange = engine(RICH)
    order = exchange.place("a", market("BUY", quote="1500"))
    assert order.status == OrderStatus.FILLED
    spent = order.filled_value + order.fees
    assert Decimal(1500) - Decimal("0.00001") < spent <= Decimal(1500)


def test_what_the_book_cannot_fill_is_cancelled() -> None:
    order = engine(RICH).place("a", market("SELL", base="900"))
    assert order.status == OrderStatus.CANCELLED
    assert order.filled_size == sum(10 * (1 + Decimal("0.5") * level) for level in range(10))


def test_taken_levels_are_gone_until_the_next_tick() -> None:
    exchange = engine(RICH)
    exchange.place("a", market("BUY", base="10"))
    assert exchange.place("b", market("BUY", base="1")).fills[0].price == Decimal("100.03")
    exchange.on_tick(tick("100.01"), NOW)
    assert exchange.place("c", market("BUY", base="1")).fills[0].price == Decimal("100.01")


def test_a_limit_order_takes_what_it_may_and_rests_with_a_hold() -> None:
    exchange = engine(RICH)
    order = exchange.place("a", limit("BUY", "12", "100.01"))
    assert (order.status, order.filled_size) == (OrderStatus.OPEN, Decimal(10))
    assert order.hold == exchange.accounts.of("USD").hold == Decimal(2) * Decimal("100.01") * Decimal("1.006")
    exchange.on_tick(tick("100.01", size="0.5"), NOW)
    assert (order.filled_size, order.fills[-1].liquidity) == (Decimal("10.5"), Liquidity.MAKER)
    assert order.fills[-1].commission == Decimal("0.5") * Decimal("100.01") * Decimal("0.004")
    exchange.on_tick(tick("99.99", size="9"), NOW)
    assert order.status == OrderStatus.FILLED
    assert exchange.accounts.of("USD").hold == 0


def test_a_trade_fills_by_price_then_time_no_more_than_its_size() -> None:
    exchange = engine(RICH)
    later_better = [exchange.place(name, limit("SELL", "1", price)) for name, price in (("a", "101"), ("b", "100.5"))]
    same = exchange.place("c", limit("SELL", "1", "100.5"))
    exchange.on_tick(tick("102", size="1.5", bid="101.99", ask="102"), NOW)
    assert [order.filled_size for order in (*later_better, same)] == [Decimal(0), Decimal(1), Decimal("0.5")]
    assert same.fills[0].price == Decimal("100.5")


@pytest.mark.parametrize(
    ("instruction", "status", "filled"),
    [
        (limit("BUY", "12", "100.01", TimeInForce.IOC), OrderStatus.CANCELLED, 10),
        (limit("BUY", "1", "99", TimeInForce.IOC), OrderStatus.CANCELLED, 0),
        (limit("BUY", "12", "100.01", TimeInForce.FOK), OrderStatus.CANCELLED, 0),
        (limit("BUY", "12", "100.03", TimeInForce.FOK), OrderStatus.FILLED, 12),
        (limit("SELL", "1", "101", post_only=True), OrderStatus.OPEN, 0),
    ],
)
def test_time_in_force(instruction: Instruction, status: OrderStatus, filled: int) -> None:
    order = engine(RICH).place("a", instruction)
    assert (order.status, order.filled_size) == (status, filled)


def test_a_good_till_date_order_expires() -> None:
    exchange = engine(RICH)
    order = exchange.place("a", limit("BUY", "1", "90", TimeInForce.GTD))
    exchange.on_tick(tick("100.01"), NOW + timedelta(seconds=2))
    assert (order.status, exchange.accounts.of("USD").hold) == (OrderStatus.EXPIRED, 0)


@pytest.mark.parametrize(
    ("instruction", "code"),
    [
        (limit("BUY", "9999", "100"), "INSUFFICIENT_FUND"),
        (limit("SELL", "1001", "101"), "INSUFFICIENT_FUND"),
        (market("SELL", base="1001"), "INSUFFICIENT_FUND"),
        (market("BUY", quote="1000001"), "INSUFFICIENT_FUND"),
        (limit("BUY", "1", "100.01", post_only=True), "INVALID_LIMIT_PRICE_POST_ONLY"),
    ],
)
def test_a_refused_order_leaves_nothing_behind(instruction: Instruction, code: str) -> None:
    exchange = engine(RICH)
    with pytest.raises(OrderRejected) as refused:
        exchange.place("a", instruction)
    assert refused.value.error == code
    assert not exchange.orders
    # The id is free again, as nothing has been made of it.
    assert exchange.place("a", limit("BUY", "1", "99")).status == OrderStatus.OPEN


def test_the_same_client_order_id_gives_the_first_order() -> None:
    exchange = engine(RICH)
    first = exchange.place("a", limit("BUY", "1", "99"))
    assert exchange.place("a", market("SELL", base="5")) is first
    assert len(exchange.orders) == 1
    exchange.cancel(first.order_id)
    assert exchange.place("a", limit("BUY", "1", "99")).status == OrderStatus.CANCELLED


def test_an_edit_moves_the_hold_and_may_take() -> None:
    exchange = engine(RICH)
    order = exchange.place("a", limit("BUY", "1", "99"))
    exchange.edit(order.order_id, None, Decimal(2))
    assert order.hold == Decimal(2) * 99 * Decimal("1.006")
    exchange.edit(order.order_id, Decimal("100.01"), None)
    assert (order.status, order.filled_size, exchange.accounts.of("USD").hold) == (OrderStatus.FILLED, 2, 0)
    with pytest.raises(EditRejected, match="ONLY_OPEN_ORDERS_CAN_BE_EDITED"):
        exchange.edit(order.order_id, Decimal(99), None)


@pytest.mark.parametrize(
    ("price", "size", "reason"),
    [
        ("99.999", None, "INVALID_EDITED_PRICE"),
        (None, "0.000000001", "INVALID_EDITED_SIZE"),
        (None, "10", "CANNOT_EDIT_TO_BELOW_FILLED_SIZE"),
        ("100", "99999", "INVALID_EDITED_SIZE"),
        ("100", "9999", "INSUFFICIENT_FUNDS"),
    ],
)
def test_a_refused_edit_changes_nothing(price: str | None, size: str | None, reason: str) -> None:
    exchange = engine({"USD": Decimal(2000)})
    order = exchange.place("a", limit("BUY", "12", "100.01"))
    before = (order.base_size, order.limit_price, order.hold)
    with pytest.raises(EditRejected, match=reason):
        exchange.edit(order.order_id, Decimal(price) if price else None, Decimal(size) if size else None)
    assert (order.base_size, order.limit_price, order.hold) == before


def test_cancelling_twice_or_what_is_not_there() -> None:
    exchange = engine(RICH)
    order = exchange.place("a", limit("SELL", "1", "101"))
    assert exchange.cancel(order.order_id) is None
    assert exchange.accounts.of("BTC").hold == 0
    assert exchange.cancel(order.order_id) == "DUPLICATE_CANCEL_REQUEST"
    assert exchange.cancel("nobody") == "UNKNOWN_CANCEL_ORDER"


def test_the_oldest_final_orders_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MAX_ORDERS", 3)
    exchange = engine(RICH)
    resting = exchange.place("resting", limit("BUY", "1", "90"))
    for index in range(5):
        exchange.place(str(index), market("BUY", base="0.1"))
    assert [order.client_order_id for order in exchange.orders.values()] == ["resting", "3", "4"]
    assert exchange.by_client_id("resting") is resting


SIZES = st.decimals("0.00000001", "40", places=8)
PRICES = st.decimals("95", "105", places=2)
SIDES = st.sampled_from(Side)
STEPS = st.one_of(
    st.tuples(st.just("limit"), SIDES, SIZES, PRICES, st.sampled_from(TimeInForce), st.booleans()),
    st.tuples(st.just("market"), SIDES, SIZES),
    st.tuples(st.just("quote"), st.decimals("1", "5000", places=2)),
    st.tuples(st.just("partial"), SIDES, SIZES, PRICES, st.sampled_from(["0.1", "0.5", "0.999"])),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("edit"), st.integers(0, 30), PRICES, SIZES),
    st.tuples(st.just("tick"), PRICES, SIZES, st.booleans()),
)


def _step(exchange: MatchingEngine, number: int, step: tuple[object, ...]) -> None:
    kind, *of = step
    name = str(number)
    orders: list[Order] = list(exchange.orders.values())
    try:
        if kind == "limit":
            side, size, price, time_in_force, post_only = of
            exchange.place(name, limit(side, str(size), str(price), time_in_force, post_only))  # type: ignore[arg-type]
        elif kind == "market":
            exchange.place(name, market(str(of[0]), base=str(of[1])))
        elif kind == "quote":
            exchange.place(name, market("BUY", quote=str(of[0])))
        elif kind == "partial":
            exchange.place(name, limit(str(of[0]), str(of[1]), str(of[2])), Decimal(str(of[3])))
        elif kind == "tick":
            middle, size, by_buyer = of
            assert isinstance(middle, Decimal)
            bid, ask = middle - Decimal("0.01"), middle + Decimal("0.01")
            exchange.on_tick(tick(str(ask if by_buyer else bid), str(size), str(bid), str(ask)), NOW)
        elif orders and kind == "cancel":
            exchange.cancel(orders[int(str(of[0])) % len(orders)].order_id)
        elif orders and kind == "edit":
            order = orders[int(str(of[0])) % len(orders)]
            exchange.edit(order.order_id, Decimal(str(of[1])), Decimal(str(of[2])))
    except (OrderRejected, EditRejected):
        pass


def _check(exchange: MatchingEngine, start: dict[str, Decimal]) -> None:
    orders = list(exchange.orders.values())
    accounts = {account.currency: account for account in exchange.accounts.all()}
    for currency, side in (("USD", Side.BUY), ("BTC", Side.SELL)):
        account = accounts[currency]
        assert account.total >= 0
        assert account.available >= 0
        assert account.hold == sum(order.hold for order in orders if order.side == side)
    for order in orders:
        assert sum(fill.size for fill in order.fills) == order.filled_size
        assert sum(fill.price * fill.size for fill in order.fills) == order.filled_value
        assert sum(fill.commission for fill in order.fills) == order.fees
        assert order.status != OrderStatus.PENDING
        assert (order.hold > 0) == (order.status == OrderStatus.OPEN)
        if order.base_size is not None:
            assert 0 <= order.filled_size <= order.base_size
            assert (order.status == OrderStatus.FILLED) == (order.filled_size == order.base_size)
        for fill in order.fills:
            rate = exchange.fees.maker if fill.liquidity == Liquidity.MAKER else exchange.fees.taker
            assert fill.commission == fill.price * fill.size * rate
    bought = {side: [order for order in orders if order.side == side] for side in Side}
    base = sum((o.filled_size for o in bought[Side.BUY]), Decimal(0)) - sum(o.filled_size for o in bought[Side.SELL])
    spent = sum((o.filled_value for o in bought[Side.BUY]), Decimal(0)) - sum(o.filled_value for o in bought[Side.SELL])
    assert accounts["BTC"].total == start["BTC"] + base
    assert accounts["USD"].total == start["USD"] - spent - sum(order.fees for order in orders)
    sequences = [fill.sequence for fill in exchange.fills]
    assert all(earlier < later for earlier, later in pairwise(sequences))
    assert len({fill.trade_id for fill in exchange.fills}) == len(sequences)


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=80)
def test_nothing_is_made_or_lost_whatever_is_asked(steps: list[tuple[object, ...]]) -> None:
    start = {"USD": Decimal(3000), "BTC": Decimal(25)}
    exchange = engine(start)
    for number, step in enumerate(steps):
        _step(exchange, number, step)
        _check(exchange, start)
