"""The limits that every order is held to, and the codes of the answers."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Limits:
    """Money in quote currency; a `_ratio` is a share of one, 0.02 for two per cent.

    `daily_loss` 0 is no limit. `limit_offset_ratio` says how far beyond the best quote an order may still trade.
    """

    products: frozenset[str]
    min_order: Decimal
    max_order: Decimal
    product_exposure: Decimal
    total_exposure: Decimal
    concentration_ratio: Decimal
    price_collar_ratio: Decimal
    limit_offset_ratio: Decimal
    spread_ratio: Decimal
    quote_age: timedelta
    equity_age: timedelta
    daily_loss: Decimal
    drawdown_ratio: Decimal
    orders_per_minute: int
    open_orders: int
    loss_cooldown: timedelta


class Reason(StrEnum):
    """Why an assessment ended as it did."""

    WITHIN_LIMITS = "within_limits"
    HALTED = "halted"
    REDUCING_ONLY = "reducing_only"
    INVALID_SIGNAL = "invalid_signal"
    EXPIRED_SIGNAL = "expired_signal"
    UNKNOWN_PRODUCT = "unknown_product"
    NO_EQUITY = "no_equity"
    STALE_EQUITY = "stale_equity"
    NO_QUOTE = "no_quote"
    STALE_PRICE = "stale_price"
    WIDE_SPREAD = "wide_spread"
    PRICE_COLLAR = "price_collar"
    ORDER_RATE = "order_rate"
    OPEN_ORDERS = "open_orders"
    LOSS_COOLDOWN = "loss_cooldown"
    NO_POSITION = "no_position"
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    ORDER_SIZE = "order_size"
    PRODUCT_EXPOSURE = "product_exposure"
    TOTAL_EXPOSURE = "total_exposure"
    CONCENTRATION = "concentration"
    INSUFFICIENT_CASH = "insufficient_cash"
