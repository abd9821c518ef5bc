"""Coinbase's JSON of orders and fills; numbers are text without an exponent."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from tradewatch.simulators.exchange.accounts import PORTFOLIO_ID, USER_ID
from tradewatch.simulators.exchange.feed_server import format_time
from tradewatch.simulators.exchange.orders import Fill, Order, OrderStatus, OrderType


def number(value: Decimal) -> str:
    """Plain decimal text without superfluous zeros."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def order_json(order: Order) -> dict[str, Any]:
    """An order as `orders/historical` shows it."""
    instruction = order.instruction
    last_fill: datetime | None = order.fills[-1].time if order.fills else None
    return {
        "order_id": order.order_id,
        "product_id": order.product_id,
        "user_id": USER_ID,
        "order_configuration": configuration(order),
        "side": order.side.value,
        "client_order_id": order.client_order_id,
        "status": order.status.value,
        "time_in_force": instruction.time_in_force.value,
        "created_time": format_time(order.created),
        "completion_percentage": completion(order),
        "filled_size": number(order.filled_size),
        "average_filled_price": number(order.average_price),
        "fee": "",
        "number_of_fills": str(len(order.fills)),
        "filled_value": number(order.filled_value),
        "pending_cancel": False,
        "size_in_quote": instruction.quote_size is not None,
        "total_fees": number(order.fees),
        "size_inclusive_of_fees": instruction.quote_size is not None,
        "total_value_after_fees": number(value_after_fees(order)),
        "trigger_status": "INVALID_ORDER_TYPE",
        "order_type": instruction.order_type.value,
        "reject_reason": order.reject_reason or "REJECT_REASON_UNSPECIFIED",
        "settled": order.final,
        "product_type": "SPOT",
        "reject_message": order.reject_reason,
        "cancel_message": order.cancel_message,
        "order_placement_source": "RETAIL_ADVANCED",
        "outstanding_hold_amount": number(order.hold),
        "is_liquidation": False,
        "last_fill_time": None if last_fill is None else format_time(last_fill),
        "edit_history": [
            {"price": number(e.price), "size": number(e.size), "replace_accept_timestamp": format_time(e.time)}
            for e in order.edits
        ],
        "leverage": "",
        "margin_type": "UNKNOWN_MARGIN_TYPE",
        "retail_portfolio_id": PORTFOLIO_ID,
        "originating_order_id": "",
        "attached_order_id": "",
    }


def fill_json(fill: Fill) -> dict[str, Any]:
    """A fill as `orders/historical/fills` shows it; `size` is always in base currency."""
    return {
        "entry_id": f"{fill.sequence:016x}",
        "trade_id": fill.trade_id,
        "order_id": fill.order_id,
        "trade_time": format_time(fill.time),
        "trade_type": "FILL",
        "price": number(fill.price),
        "size": number(fill.size),
        "commission": number(fill.commission),
        "product_id": fill.product_id,
        "sequence_timestamp": format_time(fill.time),
        "liquidity_indicator": fill.liquidity.value,
        "size_in_quote": False,
        "user_id": USER_ID,
        "side": fill.side.value,
        "retail_portfolio_id": PORTFOLIO_ID,
    }


def user_order_json(order: Order) -> dict[str, Any]:
    """An order as the WebSocket's `user` channel shows it."""
    instruction = order.instruction
    market = instruction.order_type == OrderType.MARKET
    return {
        "avg_price": number(order.average_price),
        "cancel_reason": order.cancel_message,
        "client_order_id": order.client_order_id,
        "completion_percentage": completion(order),
        "contract_expiry_type": "UNKNOWN_CONTRACT_EXPIRY_TYPE",
        "cumulative_quantity": number(order.filled_size),
        "filled_value": number(order.filled_value),
        "leaves_quantity": number(Decimal(0) if order.final else order.remaining),
        "limit_price": "" if market or order.limit_price is None else number(order.limit_price),
        "number_of_fills": str(len(order.fills)),
        "order_id": order.order_id,
        "order_side": order.side.value,
        "order_type": "Market" if market else "Limit",
        "outstanding_hold_amount": number(order.hold),
        "post_only": str(instruction.post_only).lower(),
        "product_id": order.product_id,
        "product_type": "SPOT",
        "reject_reason": order.reject_reason,
        "retail_portfolio_id": PORTFOLIO_ID,
        "risk_managed_by": "UNKNOWN_RISK_MANAGEMENT_TYPE",
        "status": order.status.value,
        "stop_price": "",
        "time_in_force": instruction.time_in_force.name,
        "total_fees": number(order.fees),
        "total_value_after_fees": number(value_after_fees(order)),
        "trigger_status": "INVALID_ORDER_TYPE",
        "creation_time": format_time(order.created),
        "end_time": "0001-01-01T00:00:00Z" if instruction.end_time is None else format_time(instruction.end_time),
        "start_time": "0001-01-01T00:00:00Z",
    }


def configuration(order: Order) -> dict[str, Any]:
    """The order's configuration with its present price and size."""
    kind, fields = next(iter(order.instruction.configuration.items()))
    if not order.edits:
        return {kind: fields}
    edit = order.edits[-1]
    return {kind: {**fields, "limit_price": number(edit.price), "base_size": number(edit.size)}}


def completion(order: Order) -> str:
    """How much is filled, of 100."""
    if order.status == OrderStatus.FILLED:
        return "100"
    if order.base_size is not None:
        return number(round(order.filled_size / order.base_size * 100, 2))
    assert order.instruction.quote_size is not None
    return number(round((order.filled_value + order.fees) / order.instruction.quote_size * 100, 2))


def value_after_fees(order: Order) -> Decimal:
    """What a buy cost or a sell brought, in quote currency."""
    return order.filled_value + (order.fees if order.side == "BUY" else -order.fees)
