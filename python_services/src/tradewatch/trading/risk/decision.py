"""Whether a signal may become an order, and of what size: a function of what is known and the limits, without IO.

Positions are spot: a sale reduces what is held and can never go below zero. What is open at the exchange, and what was
approved but has no order yet, counts as if it had been filled: purchases as exposure, sales as already sold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal

from tradewatch.common.events import Side
from tradewatch.common.streams import Quote, Signal
from tradewatch.trading.contracts import TradingState
from tradewatch.trading.risk.limits import Limits, Reason

# Approved sizes are whole multiples of this, in quote currency.
SIZE_STEP = Decimal("0.01")
# Limit prices are rounded to so many digits, towards the quote; the exchange's own increments are the executor's.
PRICE_DIGITS = 12
_SEVERITY = (TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Holding:
    """A position: `quantity` in base currency, and when the product last lost money."""

    quantity: Decimal
    last_loss: datetime | None = None


@dataclass(frozen=True, slots=True)
class PendingOrder:
    """What is left of an order, or of an approval without an order: quote currency for BUY, base currency for SELL."""

    product_id: str
    side: Side
    left: Decimal


@dataclass(frozen=True, slots=True)
class Equity:
    """The newest valuation, in quote currency; what it was at the start of the day, and its highest since a release."""

    at: datetime
    cash: Decimal
    total: Decimal
    day_start: Decimal
    peak: Decimal

    @property
    def daily_loss(self) -> Decimal:
        """What was lost since the start of the day; zero where nothing was."""
        return max(_ZERO, self.day_start - self.total)

    @property
    def drawdown_ratio(self) -> Decimal:
        """The fall from the peak as a share of the peak; 1 where there is no peak above zero."""
        return min(Decimal(1), max(_ZERO, 1 - self.total / self.peak)) if self.peak > 0 else Decimal(1)


@dataclass(frozen=True, slots=True)
class Portfolio:
    """What is held, pending and owned; `orders_last_minute` counts approvals without an order too."""

    holdings: Mapping[str, Holding]
    pending: tuple[PendingOrder, ...]
    open_orders: int
    orders_last_minute: int
    equity: Equity | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision is made from; `state` is the stored one."""

    now: datetime
    state: TradingState
    quotes: Mapping[str, Quote]
    portfolio: Portfolio


@dataclass(frozen=True, slots=True)
class Assessment:
    """The answer. Without `size` it is a denial. `size` and `limit_price` in quote currency, `risk_score` 0 to 1."""

    reason: Reason
    detail: str
    risk_score: float
    size: Decimal | None = None
    limit_price: Decimal | None = None

    @property
    def approved(self) -> bool:
        """Whether the order may be placed."""
        return self.size is not None


class _DeniedError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def breach(equity: Equity | None, limits: Limits) -> tuple[TradingState, str]:
    """The state that the account's losses call for, and the figures. A drawdown halts, a daily loss lets reduce."""
    if equity is None:
        return TradingState.ACTIVE, ""
    if equity.drawdown_ratio >= limits.drawdown_ratio:
        figures = f"equity {_money(equity.total)} is {_percent(equity.drawdown_ratio)} below its peak"
        limit = f"{_money(equity.peak)}; the limit is {_percent(limits.drawdown_ratio)}"
        return TradingState.HALTED, f"drawdown: {figures} {limit}"
    if limits.daily_loss and equity.daily_loss >= limits.daily_loss:
        figures = f"lost {_money(equity.daily_loss)} since the start of the day; the limit is"
        return TradingState.REDUCING, f"daily loss: {figures} {_money(limits.daily_loss)}"
    return TradingState.ACTIVE, ""


def stricter(one: TradingState, other: TradingState) -> TradingState:
    """The one that allows less."""
    return max(one, other, key=_SEVERITY.index)


def exposure(product_id: str, snapshot: Snapshot) -> Decimal | None:
    """What a product's position and pending purchases are worth at the mid price, or None where it has no quote."""
    portfolio = snapshot.portfolio
    holding = portfolio.holdings.get(product_id)
    held = abs(holding.quantity) if holding else _ZERO
    bought = sum((order.left for order in _pending(snapshot, product_id, Side.BUY)), _ZERO)
    if held == 0:
        return bought
    quote = snapshot.quotes.get(product_id)
    return None if quote is None else held * quote.mid + bought


def total_exposure(snapshot: Snapshot) -> Decimal | None:
    """The sum over all products, or None where one of them cannot be valued."""
    values = [exposure(product, snapshot) for product in _exposed(snapshot)]
    known = [value for value in values if value is not None]
    return sum(known, _ZERO) if len(known) == len(values) else None


def exposure_used(product_id: str, snapshot: Snapshot, limits: Limits, bought: Decimal = _ZERO) -> Decimal | None:
    """The largest share used of the limits on exposure and concentration, with a purchase; None where not known."""
    equity, own, total = snapshot.portfolio.equity, exposure(product_id, snapshot), total_exposure(snapshot)
    if equity is None or equity.total <= 0 or own is None or total is None:
        return None
    return max(
        (own + bought) / limits.product_exposure,
        (total + bought) / limits.total_exposure,
        (own + bought) / (limits.concentration_ratio * equity.total),
    )


def assess(signal: Signal, snapshot: Snapshot, limits: Limits) -> Assessment:
    """The decision. `risk_score` is the largest share of a limit that is used, with this order; 1 where one is unknown.

    The limits in it: spread, age of the quote, distance of the prices, daily loss, drawdown, orders a minute, open
    orders, and for a purchase exposure of the product and in all, and concentration.
    """
    try:
        _check_state(signal, snapshot, limits)
        _check_signal(signal, snapshot, limits)
        equity = _fresh_equity(snapshot, limits)
        quote = _fresh_quote(signal.product_id, snapshot, limits)
        limit_price = _limit_price(signal, quote, limits)
        _check_flow(signal, snapshot, limits)
        if signal.side is Side.SELL:
            size = _sale(signal, snapshot, limits, limit_price)
        else:
            size = _purchase(signal, snapshot, limits, equity)
    except _DeniedError as denied:
        return Assessment(denied.reason, denied.detail, _score(signal, snapshot, limits, _ZERO))
    score = _score(signal, snapshot, limits, size if signal.side is Side.BUY else _ZERO)
    detail = f"{signal.side} for {_money(size)} at {limit_price:f} or better"
    return Assessment(Reason.WITHIN_LIMITS, detail, score, size, limit_price)


def _check_state(signal: Signal, snapshot: Snapshot, limits: Limits) -> None:
    if snapshot.state is TradingState.HALTED:
        raise _DeniedError(Reason.HALTED, "trading is halted")
    wanted, figures = breach(snapshot.portfolio.equity, limits)
    if wanted is TradingState.HALTED:
        raise _DeniedError(Reason.DRAWDOWN, figures)
    if signal.side is Side.SELL:
        return
    if wanted is TradingState.REDUCING:
        raise _DeniedError(Reason.DAILY_LOSS, figures)
    if snapshot.state is TradingState.REDUCING:
        raise _DeniedError(Reason.REDUCING_ONLY, "only what reduces a position may be ordered; this is a purchase")


def _check_signal(signal: Signal, snapshot: Snapshot, limits: Limits) -> None:
    if not 0 < signal.confidence <= 1:
        raise _DeniedError(Reason.INVALID_SIGNAL, f"confidence {signal.confidence:g} is not above 0 and at most 1")
    if signal.expires <= snapshot.now:
        late = (snapshot.now - signal.expires).total_seconds()
        raise _DeniedError(Reason.EXPIRED_SIGNAL, f"the signal expired {late:.1f} s ago")
    if signal.product_id not in limits.products:
        known = ", ".join(sorted(limits.products))
        raise _DeniedError(Reason.UNKNOWN_PRODUCT, f"{signal.product_id[:40]} is not traded; these are: {known}")


def _fresh_equity(snapshot: Snapshot, limits: Limits) -> Equity:
    equity = snapshot.portfolio.equity
    if equity is None:
        raise _DeniedError(Reason.NO_EQUITY, "the account has no valuation yet")
    age = snapshot.now - equity.at
    if abs(age) > limits.equity_age:
        limit = limits.equity_age.total_seconds()
        raise _DeniedError(
            Reason.STALE_EQUITY, f"the newest valuation is {age.total_seconds():.1f} s old; limit {limit:g} s"
        )
    return equity


def _fresh_quote(product_id: str, snapshot: Snapshot, limits: Limits) -> Quote:
    quote = snapshot.quotes.get(product_id)
    if quote is None:
        raise _DeniedError(Reason.NO_QUOTE, f"{product_id} has no usable quote")
    age = snapshot.now - quote.time
    if abs(age) > limits.quote_age:
        limit = limits.quote_age.total_seconds()
        raise _DeniedError(
            Reason.STALE_PRICE,
            f"the newest quote of {product_id} is {age.total_seconds():.1f} s old; limit {limit:g} s",
        )
    return quote


def _limit_price(signal: Signal, quote: Quote, limits: Limits) -> Decimal:
    spread = _spread_ratio(quote)
    if abs(spread) > limits.spread_ratio:
        raise _DeniedError(
            Reason.WIDE_SPREAD, f"the spread is {_percent(spread)} of the price; limit {_percent(limits.spread_ratio)}"
        )
    if signal.side is Side.BUY:
        price = _round(quote.best_ask * (1 + limits.limit_offset_ratio), ROUND_DOWN)
    else:
        price = _round(quote.best_bid * (1 - limits.limit_offset_ratio), ROUND_UP)
    for name, value in (("reference price", signal.reference_price), ("limit price", price)):
        distance = _distance(value, quote)
        if distance > limits.price_collar_ratio:
            raise _DeniedError(
                Reason.PRICE_COLLAR,
                f"the {name} {value:f} is {_percent(distance)} from {quote.mid:f}; "
                f"limit {_percent(limits.price_collar_ratio)}",
            )
    return price


def _check_flow(signal: Signal, snapshot: Snapshot, limits: Limits) -> None:
    portfolio = snapshot.portfolio
    if portfolio.orders_last_minute >= limits.orders_per_minute:
        figures = f"{portfolio.orders_last_minute} orders in the last minute; limit {limits.orders_per_minute}"
        raise _DeniedError(Reason.ORDER_RATE, figures)
    if portfolio.open_orders >= limits.open_orders:
        raise _DeniedError(Reason.OPEN_ORDERS, f"{portfolio.open_orders} orders are open; limit {limits.open_orders}")
    holding = portfolio.holdings.get(signal.product_id)
    if signal.side is Side.BUY and holding and holding.last_loss:
        since = snapshot.now - holding.last_loss
        if since < limits.loss_cooldown:
            figures = f"{signal.product_id} lost {since.total_seconds():.0f} s ago"
            limit = limits.loss_cooldown.total_seconds()
            raise _DeniedError(Reason.LOSS_COOLDOWN, f"{figures}; nothing is bought for {limit:g} s")


def _sale(signal: Signal, snapshot: Snapshot, limits: Limits, limit_price: Decimal) -> Decimal:
    holding = snapshot.portfolio.holdings.get(signal.product_id)
    sold = sum((order.left for order in _pending(snapshot, signal.product_id, Side.SELL)), _ZERO)
    free = (holding.quantity if holding else _ZERO) - sold
    if free <= 0:
        raise _DeniedError(Reason.NO_POSITION, f"no {signal.product_id} is held that is not being sold already")
    # At this price the size is at most what is held; at a better one the exchange sells as much for more.
    return _smallest(signal, limits, {Reason.NO_POSITION: free * limit_price})


def _purchase(signal: Signal, snapshot: Snapshot, limits: Limits, equity: Equity) -> Decimal:
    for product in _exposed(snapshot):
        if snapshot.portfolio.holdings.get(product, Holding(_ZERO)).quantity != 0:
            _fresh_quote(product, snapshot, limits)
    own = exposure(signal.product_id, snapshot)
    total = total_exposure(snapshot)
    if own is None or total is None:
        raise _DeniedError(Reason.NO_QUOTE, "a product that is held has no quote, so exposure is unknown")
    bought = sum((order.left for order in snapshot.portfolio.pending if order.side is Side.BUY), _ZERO)
    return _smallest(
        signal,
        limits,
        {
            Reason.PRODUCT_EXPOSURE: limits.product_exposure - own,
            Reason.TOTAL_EXPOSURE: limits.total_exposure - total,
            Reason.CONCENTRATION: limits.concentration_ratio * equity.total - own,
            Reason.INSUFFICIENT_CASH: equity.cash - bought,
        },
    )


def _smallest(signal: Signal, limits: Limits, rooms: Mapping[Reason, Decimal]) -> Decimal:
    """The order's size: the largest allowed, scaled by confidence, or less where a limit leaves less."""
    wanted = limits.max_order * Decimal(repr(signal.confidence))
    reason, room = min({Reason.ORDER_SIZE: wanted, **rooms}.items(), key=lambda item: item[1])
    size = max(room, _ZERO).quantize(SIZE_STEP, ROUND_DOWN)
    if size < limits.min_order or size <= 0:
        figures = f"{reason} leaves {_money(max(room, _ZERO))} for this order"
        raise _DeniedError(reason, f"{figures}; the smallest order is {_money(limits.min_order)}")
    return size


def _score(signal: Signal, snapshot: Snapshot, limits: Limits, bought: Decimal) -> float:
    if snapshot.state is TradingState.HALTED:
        return 1.0
    return float(min(Decimal(1), max(_shares(signal, snapshot, limits, bought))))


def _shares(signal: Signal, snapshot: Snapshot, limits: Limits, bought: Decimal) -> Iterator[Decimal]:
    portfolio = snapshot.portfolio
    quote, equity = snapshot.quotes.get(signal.product_id), portfolio.equity
    if quote is None or equity is None:
        yield Decimal(1)
        return
    yield abs(_spread_ratio(quote)) / limits.spread_ratio
    yield Decimal(repr(abs((snapshot.now - quote.time) / limits.quote_age)))
    yield _distance(signal.reference_price, quote) / limits.price_collar_ratio
    yield equity.drawdown_ratio / limits.drawdown_ratio
    if limits.daily_loss:
        yield equity.daily_loss / limits.daily_loss
    yield Decimal(portfolio.orders_last_minute) / limits.orders_per_minute
    yield Decimal(portfolio.open_orders) / limits.open_orders
    if signal.side is Side.SELL:
        return
    used = exposure_used(signal.product_id, snapshot, limits, bought)
    yield Decimal(1) if used is None else used


def _exposed(snapshot: Snapshot) -> list[str]:
    pending = {order.product_id for order in snapshot.portfolio.pending}
    return sorted(pending.union(snapshot.portfolio.holdings))


def _pending(snapshot: Snapshot, product_id: str, side: Side) -> list[PendingOrder]:
    return [order for order in snapshot.portfolio.pending if (order.product_id, order.side) == (product_id, side)]


def _spread_ratio(quote: Quote) -> Decimal:
    """From the prices themselves, whatever the entry says of its spread."""
    return (quote.best_ask - quote.best_bid) / quote.mid


def _distance(price: Decimal, quote: Quote) -> Decimal:
    return abs(price - quote.mid) / quote.mid


def _round(price: Decimal, rounding: str) -> Decimal:
    return Context(prec=PRICE_DIGITS, rounding=rounding).plus(price)


def _money(value: Decimal) -> str:
    return f"{value:.2f}"


def _percent(ratio: Decimal) -> str:
    return f"{ratio:.3%}"
