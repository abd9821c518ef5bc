"""What a client sends becomes an instruction, or is refused as the exchange would.

A body that is not an order at all is `BadRequest` (HTTP 400); an order that breaks a rule of its product is
`OrderRejected` (HTTP 200 with `success: false`). Codes follow
https://docs.cdp.coinbase.com/api-reference/advanced-trade-api/rest-api/orders/create-order; where it gives none for a
case, the message is our own.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from tradewatch.simulators.exchange.orders import Instruction, OrderRejected, OrderType, Side, TimeInForce
from tradewatch.simulators.exchange.products import Product

MAX_CLIENT_ORDER_ID = 128
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_CONFIGURATIONS = {
    "market_market_ioc": (OrderType.MARKET, TimeInForce.IOC),
    "sor_limit_ioc": (OrderType.LIMIT, TimeInForce.IOC),
    "limit_limit_gtc": (OrderType.LIMIT, TimeInForce.GTC),
    "limit_limit_gtd": (OrderType.LIMIT, TimeInForce.GTD),
    "limit_limit_fok": (OrderType.LIMIT, TimeInForce.FOK),
}


class BadRequest(Exception):
    """The request itself is wrong; its text is one line that says how."""


def read_order(body: Mapping[str, Any], products: Mapping[str, Product], now: datetime) -> tuple[str, Instruction]:
    """The client's order id and the instruction of a create order body. Raises BadRequest and OrderRejected."""
    client_order_id = body.get("client_order_id")
    if not isinstance(client_order_id, str) or not 1 <= len(client_order_id) <= MAX_CLIENT_ORDER_ID:
        raise BadRequest(f"client_order_id must be text of 1 to {MAX_CLIENT_ORDER_ID} characters")
    return client_order_id, read_instruction(body, products, now)


def read_instruction(body: Mapping[str, Any], products: Mapping[str, Product], now: datetime) -> Instruction:
    """The instruction of an order's or a preview's body. Raises BadRequest and OrderRejected."""
    product = products.get(str(body.get("product_id")))
    if product is None:
        raise OrderRejected("INVALID_PRODUCT_ID", "valid product_id is required")
    if body.get("side") not in ("BUY", "SELL"):
        raise BadRequest("side must be BUY or SELL")
    kind, fields = _configuration(body.get("order_configuration"))
    order_type, time_in_force = _CONFIGURATIONS[kind]
    instruction = Instruction(
        product_id=product.product_id,
        side=Side(body["side"]),
        order_type=order_type,
        time_in_force=time_in_force,
        base_size=_number(fields, "base_size"),
        quote_size=_number(fields, "quote_size"),
        limit_price=_number(fields, "limit_price"),
        post_only=_flag(fields, "post_only"),
        end_time=_end_time(fields) if time_in_force == TimeInForce.GTD else None,
        configuration={kind: dict(fields)},
    )
    _check_shape(instruction)
    _check_product(instruction, product)
    if instruction.end_time is not None and instruction.end_time <= now:
        raise BadRequest("end_time must be in the future")
    return instruction


def read_number(value: object, name: str) -> Decimal:
    """A number above zero in plain decimal text. Raises BadRequest."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value) or not Decimal(value):
        raise BadRequest(f'{name} must be text that is a number above zero, such as "0.01"')
    return Decimal(value)


def _configuration(configuration: object) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(configuration, dict) or len(configuration) != 1:
        raise BadRequest("order_configuration must hold exactly one configuration")
    kind, fields = next(iter(configuration.items()))
    if kind not in _CONFIGURATIONS:
        raise OrderRejected("UNSUPPORTED_ORDER_CONFIGURATION", f"use one of {', '.join(_CONFIGURATIONS)}")
    if not isinstance(fields, dict):
        raise BadRequest(f"{kind} must be an object")
    return kind, fields


def _number(fields: Mapping[str, Any], name: str) -> Decimal | None:
    return read_number(fields[name], name) if fields.get(name) not in (None, "") else None


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value


def _end_time(fields: Mapping[str, Any]) -> datetime:
    return read_time(fields.get("end_time"), "end_time")


def read_time(value: object, name: str) -> datetime:
    """A moment in RFC 3339. Raises BadRequest."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest(f"{name} must be a time such as 2026-01-31T12:00:00Z")
    return moment


def _check_shape(instruction: Instruction) -> None:
    if (instruction.base_size is None) == (instruction.quote_size is None):
        raise BadRequest("give exactly one of base_size and quote_size")
    if instruction.order_type == OrderType.LIMIT:
        if instruction.limit_price is None:
            raise BadRequest("limit_price is required")
        if instruction.base_size is None:
            raise BadRequest("base_size is required")
    elif instruction.side == Side.SELL and instruction.base_size is None:
        raise OrderRejected("UNSUPPORTED_ORDER_CONFIGURATION", "market sells must be parameterized in base currency")


def _check_product(instruction: Instruction, product: Product) -> None:
    base, quote, price = instruction.base_size, instruction.quote_size, instruction.limit_price
    if price is not None and price % product.price_increment:
        raise OrderRejected("INVALID_PRICE_PRECISION", f"price must be a multiple of {product.price_increment:f}")
    if base is not None:
        if base % product.base_increment:
            raise OrderRejected("INVALID_SIZE_PRECISION", f"size must be a multiple of {product.base_increment:f}")
        if base < product.base_min_size:
            raise _preview("PREVIEW_INVALID_BASE_SIZE_TOO_SMALL")
        if base > product.base_max_size:
            raise _preview("PREVIEW_INVALID_BASE_SIZE_TOO_LARGE")
        quote = base * price if price is not None else None
    elif quote is not None and quote % product.price_increment:
        raise OrderRejected("INVALID_SIZE_PRECISION", f"size must be a multiple of {product.price_increment:f}")
    if quote is not None and quote < product.quote_min_size:
        raise _preview("PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL")
    if quote is not None and quote > product.quote_max_size:
        raise _preview("PREVIEW_INVALID_QUOTE_SIZE_TOO_LARGE")


def _preview(code: str) -> OrderRejected:
    return OrderRejected("UNKNOWN_FAILURE_REASON", preview=code)
