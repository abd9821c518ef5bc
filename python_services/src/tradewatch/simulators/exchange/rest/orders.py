"""Coinbase's endpoints of orders and fills."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from aiohttp import web

from tradewatch.simulators.exchange.faults import PartialFill, Reject
from tradewatch.simulators.exchange.matching import MatchingEngine
from tradewatch.simulators.exchange.order_entry import (
    BadRequest,
    read_instruction,
    read_number,
    read_order,
    read_time,
)
from tradewatch.simulators.exchange.orders import EditRejected, Fill, Instruction, Order, OrderRejected, OrderStatus
from tradewatch.simulators.exchange.request_faults import ActiveRequestFaults
from tradewatch.simulators.exchange.rest.render import fill_json, number, order_json
from tradewatch.simulators.exchange.rest.server import BROKERAGE, Endpoint, NotFound, query_number, read_body

MAX_CANCELS = 100
MAX_PAGE = 1000
FILLS_PAGE = 100
ItemT = TypeVar("ItemT", Order, Fill)


class OrderEndpoints:
    """What a client does with orders."""

    def __init__(self, engine: MatchingEngine, faults: ActiveRequestFaults) -> None:
        self._engine = engine
        self._faults = faults

    def endpoints(self) -> list[Endpoint]:
        """The endpoints."""
        orders = f"{BROKERAGE}/orders"
        return [
            Endpoint("create_order", "POST", orders, self._create),
            Endpoint("preview_order", "POST", f"{orders}/preview", self._preview),
            Endpoint("cancel_orders", "POST", f"{orders}/batch_cancel", self._cancel),
            Endpoint("edit_order", "POST", f"{orders}/edit", self._edit),
            Endpoint("preview_edit_order", "POST", f"{orders}/edit_preview", self._preview_edit),
            Endpoint("list_orders", "GET", f"{orders}/historical/batch", self._list),
            Endpoint("list_fills", "GET", f"{orders}/historical/fills", self._fills),
            Endpoint("get_order", "GET", f"{orders}/historical/{{order_id}}", self._get),
        ]

    async def _create(self, request: web.Request) -> dict[str, Any]:
        body = await read_body(request)
        try:
            client_order_id, instruction = read_order(body, self._engine.products, datetime.now(UTC))
            order = self._place(client_order_id, instruction)
        except OrderRejected as error:
            return {
                "success": False,
                "failure_reason": "UNKNOWN_FAILURE_REASON",
                "order_id": "",
                "error_response": {
                    "error": error.error,
                    "message": error.message,
                    "error_details": "",
                    "preview_failure_reason": error.preview,
                    "new_order_failure_reason": error.error,
                },
                "order_configuration": body.get("order_configuration", {}),
            }
        return {
            "success": True,
            "failure_reason": "UNKNOWN_FAILURE_REASON",
            "order_id": order.order_id,
            "success_response": {
                "order_id": order.order_id,
                "product_id": order.product_id,
                "side": order.side.value,
                "client_order_id": order.client_order_id,
                "attached_order_id": "",
            },
            "order_configuration": order.instruction.configuration,
        }

    def _place(self, client_order_id: str, instruction: Instruction) -> Order:
        known = self._engine.by_client_id(client_order_id)
        if known is not None:
            return known
        reject = self._faults.for_order(Reject)
        if reject is not None and reject.as_order:
            return self._engine.fail(client_order_id, instruction, reject.reason)
        if reject is not None:
            raise OrderRejected(reject.reason, "a fault that was asked for")
        share = Decimal(1)
        # A market order, or a limit order that meets the book: the others have nothing to fill in part.
        if self._engine.preview(instruction):
            partial = self._faults.for_order(PartialFill)
            share = Decimal(str(partial.fraction)) if partial else share
        return self._engine.place(client_order_id, instruction, share)

    async def _preview(self, request: web.Request) -> dict[str, Any]:
        body = await read_body(request)
        try:
            instruction = read_instruction(body, self._engine.products, datetime.now(UTC))
        except OrderRejected as error:
            return {"errs": [error.preview], "warning": [], **self._preview_figures(None)}
        return {"errs": [], "warning": [], **self._preview_figures(instruction)}

    def _preview_figures(self, instruction: Instruction | None) -> dict[str, Any]:
        if instruction is None:
            zeros = dict.fromkeys(("order_total", "commission_total", "quote_size", "base_size"), "0")
            return {**zeros, "best_bid": "", "best_ask": "", "average_filled_price": "0", "slippage": "0"}
        book = self._engine.books[instruction.product_id]
        plan = self._engine.preview(instruction)
        value = sum((level.price * level.size for level in plan), Decimal(0))
        size = sum((level.size for level in plan), Decimal(0))
        if instruction.limit_price is not None and instruction.base_size is not None:
            value += (instruction.base_size - size) * instruction.limit_price
            size = instruction.base_size
        commission = value * self._engine.fees.taker
        return {
            "order_total": number(value + commission if instruction.side == "BUY" else value - commission),
            "commission_total": number(commission),
            "quote_size": number(value),
            "base_size": number(size),
            "best_bid": number(book.bids()[0].price) if book.bids() else "",
            "best_ask": number(book.asks()[0].price) if book.asks() else "",
            "average_filled_price": number(round(value / size, 12)) if size else "0",
            "slippage": "0" if not plan else number(round(abs(plan[-1].price / plan[0].price - 1), 8)),
        }

    async def _cancel(self, request: web.Request) -> dict[str, Any]:
        order_ids = (await read_body(request)).get("order_ids")
        if not isinstance(order_ids, list) or not order_ids or not all(isinstance(one, str) for one in order_ids):
            raise BadRequest("order_ids must be a list of order ids")
        if len(order_ids) > MAX_CANCELS:
            raise BadRequest(f"at most {MAX_CANCELS} orders can be cancelled at once")
        results = []
        for order_id in order_ids:
            failure = self._engine.cancel(order_id)
            results.append(
                {
                    "success": failure is None,
                    "failure_reason": failure or "UNKNOWN_CANCEL_FAILURE_REASON",
                    "order_id": order_id,
                }
            )
        return {"results": results}

    async def _edit(self, request: web.Request) -> dict[str, Any]:
        order_id, price, size = await self._read_edit(request)
        try:
            order = self._engine.edit(order_id, price, size)
        except EditRejected as error:
            return {
                "success": False,
                "error_response": {"error_details": "", "edit_order_failure_reason": error.reason},
                "errors": [_edit_error(error)],
            }
        return {"success": True, "success_response": {"order_id": order.order_id}, "errors": []}

    async def _preview_edit(self, request: web.Request) -> dict[str, Any]:
        order_id, price, size = await self._read_edit(request)
        try:
            _, instruction = self._engine.check_edit(order_id, price, size)
        except EditRejected as error:
            return {"errors": [_edit_error(error)], **self._preview_figures(None)}
        return {"errors": [], **self._preview_figures(instruction)}

    async def _read_edit(self, request: web.Request) -> tuple[str, Decimal | None, Decimal | None]:
        body = await read_body(request)
        if not isinstance(body.get("order_id"), str):
            raise BadRequest("order_id is required")
        price, size = (read_number(body[key], key) if body.get(key) else None for key in ("price", "size"))
        if price is None and size is None:
            raise BadRequest("give a price or a size")
        return body["order_id"], price, size

    async def _get(self, request: web.Request) -> dict[str, Any]:
        order = self._engine.orders.get(request.match_info["order_id"])
        if order is None:
            raise NotFound("order with this orderID was not found")
        return {"order": order_json(order)}

    async def _list(self, request: web.Request) -> dict[str, Any]:
        query = request.query
        statuses = query.getall("order_status", [])
        unknown = [status for status in statuses if status not in OrderStatus.__members__]
        if unknown:
            raise BadRequest(f"{unknown[0][:40]} is not an order status")
        if OrderStatus.OPEN in statuses and len(set(statuses)) > 1:
            raise BadRequest("OPEN cannot be combined with other order statuses")
        first, last = _time(request, "start_date"), _time(request, "end_date")
        ids = query.getall("order_ids", [])
        if ids:
            orders = [self._engine.orders[one] for one in dict.fromkeys(ids) if one in self._engine.orders]
            orders.sort(key=lambda order: order.number)
        else:
            orders = list(self._engine.orders.values())
        products, sides = query.getall("product_ids", []), query.getall("order_side", [])
        types, times_in_force = query.getall("order_types", []), query.getall("time_in_forces", [])
        found = [
            order
            for order in reversed(orders)
            if _among(order.status.value, statuses)
            and _among(order.product_id, products)
            and _among(order.side.value, sides)
            and _among(order.instruction.order_type.value, types)
            and _among(order.instruction.time_in_force.value, times_in_force)
            and (first is None or order.created >= first)
            and (last is None or order.created < last)
        ]
        page, cursor = _page(found, [order.number for order in found], request, MAX_PAGE)
        return {
            "orders": [order_json(order) for order in page],
            "sequence": "0",
            "has_next": bool(cursor),
            "cursor": cursor,
        }

    async def _fills(self, request: web.Request) -> dict[str, Any]:
        query = request.query
        first, last = _time(request, "start_sequence_timestamp"), _time(request, "end_sequence_timestamp")
        ids = query.getall("order_ids", query.getall("order_id", []))
        fills: Iterable[Fill] = self._engine.fills
        if ids:
            orders = [self._engine.orders[one] for one in dict.fromkeys(ids) if one in self._engine.orders]
            fills = sorted((fill for order in orders for fill in order.fills), key=lambda fill: fill.sequence)
        trades, products = query.getall("trade_ids", []), query.getall("product_ids", query.getall("product_id", []))
        found = [
            fill
            for fill in reversed(list(fills))
            if _among(fill.trade_id, trades)
            and _among(fill.product_id, products)
            and (first is None or fill.time >= first)
            and (last is None or fill.time < last)
        ]
        page, cursor = _page(found, [fill.sequence for fill in found], request, FILLS_PAGE)
        return {"fills": [fill_json(fill) for fill in page], "cursor": cursor}


def _among(value: str, wanted: Sequence[str]) -> bool:
    return not wanted or value in wanted


def _time(request: web.Request, name: str) -> datetime | None:
    return read_time(request.query[name], name) if request.query.get(name) else None


def _page(found: list[ItemT], numbers: list[int], request: web.Request, default: int) -> tuple[list[ItemT], str]:
    """The page of a list, newest first, after the query's cursor, and the cursor of the next page (empty: none)."""
    limit = query_number(request, "limit", default, MAX_PAGE)
    cursor = request.query.get("cursor", "")
    if cursor:
        if not cursor.isascii() or not cursor.isdigit():
            raise BadRequest("cursor is not one that this endpoint gave")
        start = next((index for index, one in enumerate(numbers) if one < int(cursor[:30])), len(numbers))
        found, numbers = found[start:], numbers[start:]
    page = found[:limit]
    return page, str(numbers[limit - 1]) if len(found) > limit else ""


def _edit_error(error: EditRejected) -> dict[str, str]:
    return {"edit_failure_reason": error.reason, "preview_failure_reason": "UNKNOWN_PREVIEW_FAILURE_REASON"}
