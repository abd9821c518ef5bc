"""The risk decision as a function: each limit denies with its code, and no mix of inputs gets past one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tradewatch.common.events import Side
from tradewatch.common.streams import Quote, Signal
from tradewatch.trading.contracts import TradingState
from tradewatch.trading.risk.decision import (
    Assessment,
    Equity,
    Holding,
    PendingOrder,
    Portfolio,
    Snapshot,
    assess,
    breach,
    exposure,
    total_exposure,
)
from tradewatch.trading.risk.limits import Limits, Reason

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
BTC, ETH = "BTC-USD", "ETH-USD"
D = Decimal


PRICE, HALF_SPREAD = D(100), D("0.05")


def quote(product: str = BTC, mid: Decimal = PRICE, half_spread: Decimal = HALF_SPREAD, age: float = 1) -> Quote:
    bid, ask = mid - half_spread, mid + half_spread
    return Quote(
        product, NOW - timedelta(seconds=age), bid, ask, mid, float((ask - bid) / mid), 0.0, ("coinbase",), (), "1" * 32
    )


def signal(side: Side = Side.BUY, **changes: object) -> Signal:
    made = Signal(
        UUID(int=1),
        BTC,
        side,
        0.8,
        D(100),
        "v1",
        NOW - timedelta(seconds=1),
        NOW + timedelta(seconds=30),
        "x",
        "1" * 32,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


LIMITS = Limits(
    products=frozenset((BTC, ETH)),
    min_order=D(10),
    max_order=D(1000),
    product_exposure=D(5000),
    total_exposure=D(8000),
    concentration_ratio=D("0.5"),
    price_collar_ratio=D("0.02"),
    limit_offset_ratio=D("0.001"),
    spread_ratio=D("0.005"),
    quote_age=timedelta(seconds=5),
    equity_age=timedelta(seconds=60),
    daily_loss=D(500),
    drawdown_ratio=D("0.1"),
    orders_per_minute=10,
    open_orders=5,
    loss_cooldown=timedelta(seconds=300),
)
EQUITY = Equity(NOW, cash=D(10_000), total=D(12_000), day_start=D(12_000), peak=D(12_000))
PORTFOLIO = Portfolio({}, (), 0, 0, EQUITY)
SNAPSHOT = Snapshot(NOW, TradingState.ACTIVE, {BTC: quote(), ETH: quote(ETH, D(10), D("0.005"))}, PORTFOLIO)


def holding(quantity: str, product: str = BTC, **changes: object) -> Portfolio:
    return replace(PORTFOLIO, holdings={product: Holding(D(quantity))}, **changes)  # type: ignore[arg-type]


def equity(**changes: object) -> Portfolio:
    return replace(PORTFOLIO, equity=replace(EQUITY, **changes))  # type: ignore[arg-type]


def judged(given_signal: Signal | None = None, limits: Limits = LIMITS, **changes: object) -> Assessment:
    return assess(given_signal or signal(), replace(SNAPSHOT, **changes), limits)  # type: ignore[arg-type]


def test_a_good_signal_is_approved_at_a_size_scaled_by_confidence() -> None:
    found = judged()
    assert (found.reason, found.size) == (Reason.WITHIN_LIMITS, D("800.00"))
    assert found.limit_price == D("100.05") * D("1.001")
    # Of the limits, the quote's age and the product's exposure are used most: 1 of 5 s, and 800 of 5,000.
    assert found.risk_score == pytest.approx(0.2)


def test_a_sale_is_of_what_is_held() -> None:
    found = judged(signal(Side.SELL), portfolio=holding("3.337"))
    assert found.limit_price == D("99.95") * D("0.999")
    assert found.size == D("333.19")
    assert found.size / found.limit_price <= D("3.337")


@pytest.mark.parametrize(
    ("reason", "changes", "says"),
    [
        (Reason.HALTED, {"state": TradingState.HALTED}, "halted"),
        (Reason.REDUCING_ONLY, {"state": TradingState.REDUCING}, "reduces a position"),
        (Reason.INVALID_SIGNAL, {"given_signal": signal(confidence=1.5)}, "confidence 1.5"),
        (Reason.INVALID_SIGNAL, {"given_signal": signal(confidence=0.0)}, "confidence 0"),
        (Reason.EXPIRED_SIGNAL, {"given_signal": signal(expires=NOW)}, "expired 0.0 s ago"),
        (Reason.UNKNOWN_PRODUCT, {"given_signal": signal(product_id="DOGE-USD")}, "DOGE-USD"),
        (Reason.NO_EQUITY, {"portfolio": replace(PORTFOLIO, equity=None)}, "no valuation"),
        (Reason.STALE_EQUITY, {"portfolio": equity(at=NOW - timedelta(seconds=61))}, "61.0 s old; limit 60 s"),
        (Reason.NO_QUOTE, {"quotes": {}}, "BTC-USD"),
        (Reason.STALE_PRICE, {"quotes": {BTC: quote(age=5.1)}}, "5.1 s old; limit 5 s"),
        (Reason.STALE_PRICE, {"quotes": {BTC: quote(age=-6)}}, "-6.0 s old"),
        (Reason.WIDE_SPREAD, {"quotes": {BTC: quote(half_spread=D("0.3"))}}, "0.600%"),
        (Reason.WIDE_SPREAD, {"quotes": {BTC: quote(half_spread=D("-0.3"))}}, "-0.600%"),
        (Reason.PRICE_COLLAR, {"given_signal": signal(reference_price=D("102.1"))}, "reference price 102.1 is 2.100%"),
        (Reason.PRICE_COLLAR, {"limits": replace(LIMITS, price_collar_ratio=D("0.001"))}, "limit price"),
        (Reason.ORDER_RATE, {"portfolio": replace(PORTFOLIO, orders_last_minute=10)}, "10 orders"),
        (Reason.OPEN_ORDERS, {"portfolio": replace(PORTFOLIO, open_orders=5)}, "5 orders are open"),
        (
            Reason.LOSS_COOLDOWN,
            {"portfolio": replace(PORTFOLIO, holdings={BTC: Holding(D(0), NOW - timedelta(seconds=299))})},
            "lost 299 s ago",
        ),
        (Reason.NO_POSITION, {"given_signal": signal(Side.SELL)}, "no BTC-USD is held"),
        (
            Reason.NO_POSITION,
            {
                "given_signal": signal(Side.SELL),
                "portfolio": holding("2", pending=(PendingOrder(BTC, Side.SELL, D(2)),)),
            },
            "being sold",
        ),
        (Reason.DAILY_LOSS, {"portfolio": equity(day_start=D(12_500))}, "lost 500.00"),
        (Reason.DRAWDOWN, {"portfolio": equity(peak=D(13_334))}, "10.004% below its peak 13334.00"),
        (Reason.ORDER_SIZE, {"given_signal": signal(confidence=0.009)}, "leaves 9.00"),
        (Reason.PRODUCT_EXPOSURE, {"portfolio": holding("49.95")}, "leaves 5.00"),
        (Reason.TOTAL_EXPOSURE, {"portfolio": holding("800", ETH)}, "leaves 0.00"),
        (Reason.CONCENTRATION, {"portfolio": equity(total=D(18), day_start=D(18), peak=D(18))}, "leaves 9.00"),
        (Reason.INSUFFICIENT_CASH, {"portfolio": equity(cash=D("9.99"))}, "leaves 9.99"),
    ],
    ids=lambda value: str(value) if isinstance(value, Reason) else "",
)
def test_each_denial_has_its_code_and_figures(reason: Reason, changes: dict[str, object], says: str) -> None:
    found = judged(**changes)  # type: ignore[arg-type]
    assert (found.reason, found.size, found.limit_price) == (reason, None, None)
    assert says in found.detail
    assert 0 <= found.risk_score <= 1


def test_what_is_pending_counts_as_exposure_and_leaves_less() -> None:
    pending = (PendingOrder(BTC, Side.BUY, D("4500.005")),)
    assert judged(portfolio=replace(PORTFOLIO, pending=pending)).size == D("499.99")


def test_a_product_that_cannot_be_valued_stops_purchases_of_all_others_but_no_sale() -> None:
    portfolio = replace(PORTFOLIO, holdings={BTC: Holding(D(1)), "DOGE-USD": Holding(D(1))})
    assert judged(portfolio=portfolio).reason is Reason.NO_QUOTE
    assert judged(signal(Side.SELL), portfolio=portfolio).approved
    stale = {BTC: quote(), ETH: quote(ETH, age=9)}
    assert judged(quotes=stale, portfolio=holding("1", ETH)).reason is Reason.STALE_PRICE


def test_after_a_loss_and_while_reducing_a_position_may_be_sold() -> None:
    lost = equity(day_start=D(12_500))
    sale = replace(lost, holdings={BTC: Holding(D(1), NOW)})
    assert judged(signal(Side.SELL), portfolio=sale).approved
    assert judged(signal(Side.SELL), portfolio=sale, state=TradingState.REDUCING).approved


def test_without_a_peak_the_drawdown_is_whole() -> None:
    assert breach(replace(EQUITY, total=D(0), peak=D(0)), LIMITS)[0] is TradingState.HALTED


def one_of(*values: str) -> st.SearchStrategy[Decimal]:
    """Few values on both sides of what matters: of wholly random ones hardly a case gets past every limit."""
    return st.sampled_from([D(value) for value in values])


MONEY = one_of("0", "90", "1000.005", "20000")
AGE = st.sampled_from((0, 0, 1, 4, 30)).map(lambda seconds: timedelta(seconds=seconds))


@st.composite
def limits_(draw: st.DrawFn) -> Limits:
    return replace(
        LIMITS,
        min_order=draw(one_of("0.001", "10")),
        max_order=draw(one_of("50", "500.005", "9000")),
        product_exposure=draw(one_of("300", "3000", "30000")),
        total_exposure=draw(one_of("500", "1500", "5000")),
        concentration_ratio=draw(one_of("0.1", "0.5", "1")),
        price_collar_ratio=draw(one_of("0.005", "0.02")),
        spread_ratio=draw(one_of("0.0015", "0.03")),
        daily_loss=draw(one_of("50", "500")),
        drawdown_ratio=draw(one_of("0.05", "0.2")),
        orders_per_minute=draw(st.sampled_from((2, 12))),
        open_orders=draw(st.sampled_from((2, 8))),
        quote_age=draw(AGE) + timedelta(seconds=1),
        equity_age=draw(AGE) + timedelta(seconds=1),
        loss_cooldown=draw(AGE),
    )


@st.composite
def quotes_(draw: st.DrawFn, product: str) -> Quote:
    mid = draw(one_of("10", "99.99"))
    return quote(product, mid, mid * draw(one_of("0", "0.0005", "0.01", "-0.0005")), draw(st.integers(0, 4)))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    products = st.sampled_from((BTC, ETH))
    orders = st.builds(PendingOrder, products, st.sampled_from(Side), MONEY)
    total = draw(one_of("600", "6000", "60000"))
    known = draw(st.sampled_from(((BTC, ETH), (BTC, ETH), (BTC,), (ETH,))))
    return Snapshot(
        now=NOW,
        state=draw(st.sampled_from((TradingState.ACTIVE, TradingState.ACTIVE, *TradingState))),
        quotes={product: draw(quotes_(product)) for product in known},
        portfolio=Portfolio(
            holdings={
                product: Holding(
                    draw(one_of("0", "7.003", "60", "-1")),
                    draw(st.none() | AGE.map(lambda age: NOW - age)),
                )
                for product in draw(st.sets(products))
            },
            pending=tuple(draw(st.lists(orders, max_size=2))),
            open_orders=draw(st.sampled_from((0, 0, 3))),
            orders_last_minute=draw(st.sampled_from((0, 0, 3))),
            equity=Equity(
                NOW - draw(AGE),
                cash=draw(MONEY),
                total=total,
                day_start=total + draw(one_of("0", "0", "-5", "60")),
                peak=total * draw(one_of("1", "1", "1.1")),
            ),
        ),
    )


SIGNALS = st.builds(
    lambda side, confidence, price: signal(side, confidence=confidence, reference_price=price),
    st.sampled_from(Side),
    st.sampled_from((0.1, 0.35, 0.7, 1.0)),
    one_of("10", "99.99", "101"),
)


def at_the_quote(given_signal: Signal, snapshot: Snapshot) -> Signal:
    """Most random prices are far from the quote; half of the cases should get past the collar."""
    known = snapshot.quotes.get(BTC)
    return replace(given_signal, reference_price=known.mid) if known and given_signal.confidence > 0.2 else given_signal


@settings(max_examples=600)
@given(SIGNALS, snapshots(), limits_())
def test_nothing_is_approved_above_a_limit(given_signal: Signal, snapshot: Snapshot, limits: Limits) -> None:
    given_signal = at_the_quote(given_signal, snapshot)
    found = assess(given_signal, snapshot, limits)
    assert 0 <= found.risk_score <= 1
    assert (found.size is None) == (found.limit_price is None) == (found.reason is not Reason.WITHIN_LIMITS)
    if found.size is None or found.limit_price is None:
        return
    portfolio = snapshot.portfolio
    known, owned = snapshot.quotes[BTC], portfolio.equity
    assert owned is not None
    assert snapshot.state is not TradingState.HALTED
    assert 0 < limits.min_order <= found.size <= limits.max_order
    assert found.size % D("0.01") == 0
    assert abs(found.limit_price - known.mid) <= limits.price_collar_ratio * known.mid
    assert abs(given_signal.reference_price - known.mid) <= limits.price_collar_ratio * known.mid
    assert abs(NOW - known.time) <= limits.quote_age
    assert NOW - owned.at <= limits.equity_age
    assert portfolio.orders_last_minute < limits.orders_per_minute
    assert portfolio.open_orders < limits.open_orders
    assert owned.drawdown_ratio < limits.drawdown_ratio
    if given_signal.side is Side.SELL:
        selling = sum(order.left for order in portfolio.pending if (order.product_id, order.side) == (BTC, Side.SELL))
        assert found.size / found.limit_price <= portfolio.holdings[BTC].quantity - selling
        return
    assert snapshot.state is TradingState.ACTIVE, "reducing never adds to an exposure"
    own, total = exposure(BTC, snapshot), total_exposure(snapshot)
    assert own is not None
    assert total is not None
    assert own + found.size <= min(limits.product_exposure, limits.concentration_ratio * owned.total)
    assert total + found.size <= limits.total_exposure
    assert found.size <= owned.cash
    assert owned.daily_loss < limits.daily_loss
    lost = portfolio.holdings[BTC].last_loss if BTC in portfolio.holdings else None
    assert lost is None or NOW - lost >= limits.loss_cooldown


@given(SIGNALS, snapshots(), limits_(), limits_())
def test_tighter_limits_never_approve_more(
    given_signal: Signal, snapshot: Snapshot, one: Limits, other: Limits
) -> None:
    given_signal = at_the_quote(given_signal, snapshot)
    names = [name for name in Limits.__slots__ if name not in ("products", "limit_offset_ratio")]
    tighter = replace(
        one,
        **{
            name: (max if name in ("min_order", "loss_cooldown") else min)(getattr(one, name), getattr(other, name))
            for name in names
        },
    )
    loose, tight = assess(given_signal, snapshot, one), assess(given_signal, snapshot, tighter)
    assert (tight.size or 0) <= (loose.size or 0)
    assert tight.risk_score >= loose.risk_score or tight.size != loose.size
