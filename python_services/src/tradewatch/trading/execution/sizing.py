"""From a decision's money to an order's size: what the trading state, the holding and the product's steps allow."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from tradewatch.common.events import Side
from tradewatch.trading.contracts import TradingState
from tradewatch.trading.execution.coinbase import Product
from tradewatch.trading.execution.orders import Reason


@dataclass(frozen=True)
class Plan:
    """What to send: `base_size` in base currency; or why not."""

    limit_price: Decimal
    base_size: Decimal | None = None
    refusal: Reason | None = None


def refusal_by_state(state: TradingState, side: Side) -> Reason | None:
    """Why an order may not be sent in a trading state. This is spot: what reduces a position is a sale."""
    if state is TradingState.HALTED:
        return Reason.HALTED
    if state is TradingState.REDUCING and side is Side.BUY:
        return Reason.REDUCING_ONLY
    return None


def plan(
    side: Side, quote_size: Decimal, limit_price: Decimal, product: Product | None, state: TradingState, held: Decimal
) -> Plan:
    """Size an order. `held` is the base currency that may be sold: a sale is cut to it, never below zero.

    Sizes are rounded down, the limit price towards the market's far side, so that neither exceeds what was approved.
    """
    refusal = refusal_by_state(state, side)
    if refusal is None and (product is None or not product.tradable):
        refusal = Reason.PRODUCT_UNAVAILABLE
    if refusal or product is None:
        return Plan(limit_price, refusal=refusal)
    rounding = ROUND_FLOOR if side is Side.BUY else ROUND_CEILING
    price = _step(limit_price, product.price_increment, rounding)
    if price <= 0:
        return Plan(limit_price, refusal=Reason.TOO_SMALL)
    size = quote_size / price
    if side is Side.SELL:
        if held <= 0:
            return Plan(price, refusal=Reason.NO_POSITION)
        size = min(size, held)
    size = _step(size, product.base_increment, ROUND_FLOOR)
    if size < product.base_min_size:
        return Plan(price, refusal=Reason.TOO_SMALL)
    if size > product.base_max_size:
        return Plan(price, refusal=Reason.TOO_LARGE)
    return Plan(price, size)


def _step(number: Decimal, increment: Decimal, rounding: str) -> Decimal:
    return (number / increment).to_integral_value(rounding) * increment
