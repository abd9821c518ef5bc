"""A thin client of Coinbase Advanced Trade's REST API: typed answers, and errors that say what is certain.

https://docs.cdp.coinbase.com/api-reference/advanced-trade-api/rest-api/introduction. No request is repeated here: what
may be repeated is for the caller to say.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from tradewatch.common.events import Side
from tradewatch.common.fields import format_time, parse_time
from tradewatch.trading.contracts import OrderStatus
from tradewatch.trading.execution.metrics import ExecutionMetrics
from tradewatch.trading.execution.signing import Signer

PREFIX = "/api/v3/brokerage"
PAGE = 250
MAX_PAGES = 100
MAX_RETRY_AFTER_SECONDS = 60.0
MAX_CANCELS = 100
Json = Mapping[str, Any]
ShapeT = TypeVar("ShapeT")

_STATUSES = {
    "FILLED": OrderStatus.FILLED,
    "CANCELLED": OrderStatus.CANCELLED,
    "EXPIRED": OrderStatus.EXPIRED,
    "FAILED": OrderStatus.REJECTED,
}


class ExchangeError(Exception):
    """A request that brought no result. Messages hold the exchange's codes, never keys or tokens."""


class Refused(ExchangeError):
    """A definite no: repeating it would be refused again. `code` is the exchange's, `status` HTTP's."""

    def __init__(self, code: str, status: int = 200) -> None:
        super().__init__(f"refused: {code}")
        self.code = code
        self.status = status


class NotTaken(ExchangeError):
    """Nothing happened at the exchange, for certain: it may be asked again."""

    retry_after_seconds = 0.0


class Unreachable(NotTaken):
    """No connection was made, so nothing was sent."""


class Throttled(NotTaken):
    """429: the exchange asks to wait."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"throttled for {retry_after_seconds:g} s")
        self.retry_after_seconds = retry_after_seconds


class Ambiguous(ExchangeError):
    """Sent, and no answer that says what became of it: a time limit, a 5xx, a lost connection, nonsense."""


@dataclass(frozen=True)
class Product:
    """A product's steps and limits; sizes in base, the price's step in quote currency."""

    product_id: str
    base_increment: Decimal
    price_increment: Decimal
    base_min_size: Decimal
    base_max_size: Decimal
    tradable: bool


@dataclass(frozen=True)
class ExchangeOrder:
    """An order as the exchange has it; `status` is OPEN for everything that is not an end."""

    order_id: str
    client_order_id: str
    product_id: str
    status: OrderStatus
    filled_size: Decimal
    detail: str


@dataclass(frozen=True)
class ExchangeFill:
    """A fill; `size` in base, `price` and `fee` in quote currency."""

    trade_id: str
    order_id: str
    product_id: str
    side: Side
    price: Decimal
    size: Decimal
    fee: Decimal
    liquidity: str
    traded: datetime


@dataclass(frozen=True)
class Limits:
    """Time limits of one request, in seconds; `total` bounds the whole of it."""

    connect: float = 2.0
    total: float = 5.0


class Coinbase:
    """The client; without a signer requests carry no token, which only a simulator would take."""

    def __init__(
        self,
        url: str,
        signer: Signer | None,
        metrics: ExecutionMetrics,
        limits: Limits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._signer = signer
        self._metrics = metrics
        self._host = urlsplit(url).netloc
        timeout = httpx.Timeout(self._limits.total, connect=self._limits.connect)
        self._client = httpx.AsyncClient(base_url=url.rstrip("/"), timeout=timeout, transport=transport)

    async def __aenter__(self) -> "Coinbase":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def products(self, product_ids: Sequence[str]) -> dict[str, Product]:
        """The products asked for that the exchange has."""
        answer = await self._call("products", "GET", "/products", params={"product_ids": list(product_ids)})
        return _shaped(lambda: {item["product_id"]: _product(item) for item in answer["products"]})

    async def balances(self) -> dict[str, Decimal]:
        """What is owned of each currency, what open orders hold included."""
        found: dict[str, Decimal] = {}
        async for page in self._pages("accounts", "/accounts", {"limit": PAGE}):
            for currency, total in _balances(page):
                found[currency] = found.get(currency, Decimal(0)) + total
        return found

    async def mid_prices(self, product_ids: Sequence[str]) -> dict[str, Decimal]:
        """The middle of the best bid and ask, for the products that have both."""
        answer = await self._call("best_bid_ask", "GET", "/best_bid_ask", params={"product_ids": list(product_ids)})
        return _shaped(
            lambda: {
                book["product_id"]: (_number(book["bids"][0]["price"]) + _number(book["asks"][0]["price"])) / 2
                for book in answer["pricebooks"]
                if book["bids"] and book["asks"]
            }
        )

    async def create_limit_order(
        self,
        client_order_id: UUID,
        product_id: str,
        side: Side,
        base_size: Decimal,
        limit_price: Decimal,
        *,
        immediate: bool,
        trace_id: str,
    ) -> str:
        """Send a limit order, immediate-or-cancel or good until cancelled. Returns the exchange's id of it.

        Coinbase makes one order for a `client_order_id`: a second request gets the first one's id.
        """
        sizes: dict[str, Any] = {"base_size": format(base_size, "f"), "limit_price": format(limit_price, "f")}
        kind = "sor_limit_ioc" if immediate else "limit_limit_gtc"
        body = {
            "client_order_id": str(client_order_id),
            "product_id": product_id,
            "side": side.value,
            "order_configuration": {kind: sizes if immediate else sizes | {"post_only": False}},
        }
        answer = await self._call("create_order", "POST", "/orders", body=body, trace_id=trace_id)
        if _shaped(lambda: answer["success"]) is True:
            return str(_shaped(lambda: answer["success_response"]["order_id"]))
        raise Refused(_refusal(answer))

    async def cancel_orders(self, order_ids: Sequence[str]) -> dict[str, bool]:
        """Ask for the end of orders: whether each request was taken. An order that has ended is answered False."""
        taken: dict[str, bool] = {}
        for start in range(0, len(order_ids), MAX_CANCELS):
            body = {"order_ids": list(order_ids[start : start + MAX_CANCELS])}
            taken |= _cancels(await self._call("cancel_orders", "POST", "/orders/batch_cancel", body=body))
        return taken

    async def order(self, order_id: str, trace_id: str | None = None) -> ExchangeOrder:
        """An order by the exchange's id."""
        answer = await self._call("get_order", "GET", f"/orders/historical/{order_id}", trace_id=trace_id)
        return _shaped(lambda: _order(answer["order"]))

    async def find_order(
        self, client_order_id: UUID, product_id: str, since: datetime, trace_id: str | None = None
    ) -> ExchangeOrder | None:
        """An order by our id, or None: the API filters by product and time, so the pages are searched here."""
        params = {"product_ids": [product_id], "start_date": format_time(since), "limit": PAGE}
        async for page in self._pages("list_orders", "/orders/historical/batch", params, trace_id):
            for order in _orders(page):
                if order.client_order_id == str(client_order_id):
                    return order
        return None

    async def open_orders(self, product_ids: Sequence[str]) -> list[ExchangeOrder]:
        """Every open order of the products, whoever made it."""
        params = {"product_ids": list(product_ids), "order_status": ["OPEN"], "limit": PAGE}
        pages = self._pages("list_orders", "/orders/historical/batch", params)
        return [order async for page in pages for order in _orders(page)]

    async def fills(
        self, *, order_id: str | None = None, since: datetime | None = None, trace_id: str | None = None
    ) -> list[ExchangeFill]:
        """The fills of an order, or all since a time."""
        params: dict[str, Any] = {"limit": PAGE}
        if order_id:
            params["order_ids"] = [order_id]
        if since:
            params["start_sequence_timestamp"] = format_time(since)
        found: list[ExchangeFill] = []
        async for page in self._pages("list_fills", "/orders/historical/fills", params, trace_id):
            found += _fills(page)
        return found

    async def _pages(
        self, endpoint: str, path: str, params: Mapping[str, Any], trace_id: str | None = None
    ) -> AsyncIterator[Json]:
        cursor = ""
        for _ in range(MAX_PAGES):
            paged = {**params, "cursor": cursor} if cursor else params
            page = await self._call(endpoint, "GET", path, params=paged, trace_id=trace_id)
            yield page
            following = str(page.get("cursor") or "")
            if not following or following == cursor or page.get("has_next") is False:
                return
            cursor = following
        raise Ambiguous(f"more than {MAX_PAGES} pages of {endpoint}")

    async def _call(
        self,
        endpoint: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Json | None = None,
        trace_id: str | None = None,
    ) -> Json:
        path = PREFIX + path
        headers = {"Authorization": f"Bearer {self._signer.token(method, self._host, path)}"} if self._signer else {}
        started, status = time.monotonic(), "error"
        try:
            async with asyncio.timeout(self._limits.total):
                response = await self._client.request(method, path, params=params, json=body, headers=headers)
            status = _status_class(response.status_code)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"no connection: {type(error).__name__}") from None
        except (TimeoutError, httpx.TimeoutException):
            status = "timeout"
            raise Ambiguous(f"no answer to {endpoint} in time") from None
        except httpx.HTTPError as error:
            raise Ambiguous(f"{endpoint} broke off: {type(error).__name__}") from None
        finally:
            self._metrics.observe_request(endpoint, status, time.monotonic() - started, trace_id)
        return _answer(endpoint, response)


def _status_class(code: int) -> str:
    if code == httpx.codes.TOO_MANY_REQUESTS:
        return "429"
    return {2: "2xx", 4: "4xx", 5: "5xx"}.get(code // 100, "other")


def _answer(endpoint: str, response: httpx.Response) -> Json:
    code = response.status_code
    if code == httpx.codes.TOO_MANY_REQUESTS:
        raise Throttled(_retry_after(response))
    if 400 <= code < 500 and code != httpx.codes.REQUEST_TIMEOUT:
        raise Refused(_error_code(response), code)
    if not response.is_success:
        raise Ambiguous(f"{endpoint} answered {code}")
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Ambiguous(f"{endpoint} answered no JSON object")
    return answer


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "1")
    seconds = float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1.0
    return min(max(seconds, 0.1), MAX_RETRY_AFTER_SECONDS)


def _error_code(response: httpx.Response) -> str:
    try:
        code = response.json().get("error")
    except (ValueError, AttributeError):
        code = None
    return str(code)[:80] if code else f"HTTP {response.status_code}"


def _refusal(answer: Json) -> str:
    error = answer.get("error_response")
    if not isinstance(error, dict):
        error = {}
    names = ("new_order_failure_reason", "error", "preview_failure_reason", "error_details")
    codes = [str(error.get(name, "")) for name in names] + [str(answer.get("failure_reason", ""))]
    return next((code[:80] for code in codes if code and not code.startswith("UNKNOWN_")), "UNKNOWN_FAILURE_REASON")


def _shaped(make: Callable[[], ShapeT]) -> ShapeT:
    """What `make` builds from an answer; an answer of another shape is as good as none."""
    try:
        return make()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, InvalidOperation):
        raise Ambiguous("an answer of another shape than documented") from None


def _number(text: object) -> Decimal:
    number = Decimal(str(text or "0"))
    if not number.is_finite():
        raise ValueError("not a finite number")
    return number


def _positive(text: object) -> Decimal:
    number = _number(text)
    if number <= 0:
        raise ValueError("not above zero")
    return number


def _product(item: Json) -> Product:
    flags = ("trading_disabled", "is_disabled", "cancel_only", "view_only", "post_only", "auction_mode")
    return Product(
        product_id=item["product_id"],
        base_increment=_positive(item["base_increment"]),
        price_increment=_positive(item.get("price_increment") or item["quote_increment"]),
        base_min_size=_positive(item["base_min_size"]),
        base_max_size=_positive(item["base_max_size"]),
        tradable=not any(item.get(flag) for flag in flags),
    )


def _balance(account: Json) -> tuple[str, Decimal]:
    return account["currency"], sum(
        (_number((account.get(part) or {}).get("value")) for part in ("available_balance", "hold")), Decimal(0)
    )


def _cancels(answer: Json) -> dict[str, bool]:
    return _shaped(lambda: {item["order_id"]: item["success"] is True for item in answer["results"]})


def _balances(page: Json) -> list[tuple[str, Decimal]]:
    return _shaped(lambda: [_balance(item) for item in page["accounts"]])


def _fills(page: Json) -> list[ExchangeFill]:
    return _shaped(lambda: [_fill(item) for item in page["fills"]])


def _orders(page: Json) -> list[ExchangeOrder]:
    return _shaped(lambda: [_order(item) for item in page["orders"]])


def _order(item: Json) -> ExchangeOrder:
    return ExchangeOrder(
        order_id=str(item["order_id"]),
        client_order_id=str(item["client_order_id"]),
        product_id=str(item["product_id"]),
        status=_STATUSES.get(item["status"], OrderStatus.OPEN),
        filled_size=_number(item.get("filled_size")),
        detail=str(item.get("reject_message") or item.get("reject_reason") or item.get("cancel_message") or "")[:200],
    )


def _fill(item: Json) -> ExchangeFill:
    size, price = _positive(item["size"]), _positive(item["price"])
    if item.get("size_in_quote"):
        size /= price
    return ExchangeFill(
        trade_id=str(item["trade_id"]),
        order_id=str(item["order_id"]),
        product_id=str(item["product_id"]),
        side=Side(item["side"]),
        price=price,
        size=size,
        fee=_number(item["commission"]),
        liquidity=str(item.get("liquidity_indicator") or "UNKNOWN")[:40],
        traded=parse_time(item["trade_time"]),
    )
