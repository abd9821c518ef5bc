"""Coinbase's endpoints of products and market data; each is there twice, with a token and below `/market` without."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tradewatch.simulators.exchange.book import Level
from tradewatch.simulators.exchange.feed_server import format_time
from tradewatch.simulators.exchange.history import History
from tradewatch.simulators.exchange.market import Market
from tradewatch.simulators.exchange.matching import MatchingEngine
from tradewatch.simulators.exchange.order_entry import BadRequest
from tradewatch.simulators.exchange.rest.render import number
from tradewatch.simulators.exchange.rest.server import BROKERAGE, Endpoint, NotFound, query_number

MAX_CANDLES = 350
MAX_TRADES = 1000
_GRANULARITY_SECONDS = {
    "ONE_MINUTE": 60,
    "FIVE_MINUTE": 300,
    "FIFTEEN_MINUTE": 900,
    "THIRTY_MINUTE": 1800,
    "ONE_HOUR": 3600,
    "TWO_HOUR": 7200,
    "SIX_HOUR": 21600,
    "ONE_DAY": 86400,
}


class ProductEndpoints:
    """What a client may know of the market."""

    def __init__(self, market: Market, engine: MatchingEngine, history: History) -> None:
        self._market = market
        self._engine = engine
        self._history = history

    def endpoints(self) -> list[Endpoint]:
        """The endpoints."""
        found = [Endpoint("best_bid_ask", "GET", f"{BROKERAGE}/best_bid_ask", self._best)]
        for base, public in ((BROKERAGE, False), (f"{BROKERAGE}/market", True)):
            product = f"{base}/products/{{product_id}}"
            found += [
                Endpoint("list_products", "GET", f"{base}/products", self._list, public),
                Endpoint("product_book", "GET", f"{base}/product_book", self._book, public),
                Endpoint("get_product", "GET", product, self._get, public),
                Endpoint("product_candles", "GET", f"{product}/candles", self._candles, public),
                Endpoint("market_trades", "GET", f"{product}/ticker", self._trades, public),
            ]
        return found

    async def _list(self, request: web.Request) -> dict[str, Any]:
        wanted = request.query.getall("product_ids", list(self._market.products))
        products = [self._json(product) for product in self._market.products if product in wanted]
        return {"products": products, "num_products": len(products)}

    async def _get(self, request: web.Request) -> dict[str, Any]:
        return self._json(self._known(request.match_info["product_id"]))

    async def _book(self, request: web.Request) -> dict[str, Any]:
        product = self._known(request.query.get("product_id", ""))
        limit = query_number(request, "limit", 250, 1000)
        book = self._engine.books[product]
        state = self._market.states[product]
        middle = (state.last.best_bid + state.last.best_ask) / 2
        spread = state.last.best_ask - state.last.best_bid
        return {
            "pricebook": self._pricebook(product, book.bids()[:limit], book.asks()[:limit]),
            "last": number(state.last.price),
            "mid_market": number(middle),
            "spread_bps": number(round(spread / middle * 10_000, 4)),
            "spread_absolute": number(spread),
        }

    async def _best(self, request: web.Request) -> dict[str, Any]:
        wanted = request.query.getall("product_ids", list(self._market.products))
        books = {product: self._engine.books[self._known(product)] for product in wanted}
        return {"pricebooks": [self._pricebook(p, book.bids()[:1], book.asks()[:1]) for p, book in books.items()]}

    async def _candles(self, request: web.Request) -> dict[str, Any]:
        product = self._known(request.match_info["product_id"])
        width = _GRANULARITY_SECONDS.get(request.query.get("granularity", ""))
        if width is None:
            raise BadRequest(f"granularity must be one of {', '.join(_GRANULARITY_SECONDS)}")
        limit = query_number(request, "limit", MAX_CANDLES, MAX_CANDLES)
        start, end = _seconds(request, "start", 0), _seconds(request, "end", int(time.time()))
        if "start" in request.query and (end - start) // width > MAX_CANDLES:
            raise BadRequest(f"number of candles requested should be less than {MAX_CANDLES}")
        candles = self._history.candles(product, width, start, end)
        return {
            "candles": [
                {
                    "start": str(candle.start),
                    "low": number(candle.low),
                    "high": number(candle.high),
                    "open": number(candle.open),
                    "close": number(candle.close),
                    "volume": number(candle.volume),
                }
                for candle in reversed(candles[-limit:])
            ]
        }

    async def _trades(self, request: web.Request) -> dict[str, Any]:
        product = self._known(request.match_info["product_id"])
        limit = query_number(request, "limit", 100, MAX_TRADES)
        start, end = _seconds(request, "start", 0), _seconds(request, "end", 2**40)
        trades: list[dict[str, str]] = []
        for tick, at in reversed(self._history.trades[product]):
            if at.timestamp() < start or len(trades) == limit:
                break
            if at.timestamp() > end:
                continue
            trades.append(
                {
                    "trade_id": str(tick.trade_id),
                    "product_id": product,
                    "price": number(tick.price),
                    "size": number(tick.size),
                    "time": format_time(at),
                    "side": "BUY" if tick.buyer_is_maker else "SELL",
                }
            )
        last = self._market.states[product].last
        return {"trades": trades, "best_bid": number(last.best_bid), "best_ask": number(last.best_ask)}

    def _known(self, product: str) -> str:
        if product not in self._market.states:
            raise NotFound("valid product_id is required")
        return product

    def _pricebook(self, product: str, bids: Sequence[Level], asks: Sequence[Level]) -> dict[str, Any]:
        def levels(side: Sequence[Level]) -> list[dict[str, str]]:
            return [{"price": number(level.price), "size": number(level.size)} for level in side]

        return {
            "product_id": product,
            "bids": levels(bids),
            "asks": levels(asks),
            "time": format_time(datetime.now(UTC)),
        }

    def _json(self, product_id: str) -> dict[str, Any]:
        product = self._engine.products[product_id]
        state = self._market.states[product_id]
        change = (state.last.price / state.open - 1) * 100
        flags = ("watched", "is_disabled", "new", "cancel_only", "limit_only", "post_only", "trading_disabled")
        return {
            "product_id": product_id,
            "price": number(state.last.price),
            "price_percentage_change_24h": number(round(change, 8)),
            "volume_24h": number(state.volume),
            "volume_percentage_change_24h": "0",
            "base_increment": number(product.base_increment),
            "quote_increment": number(product.price_increment),
            "quote_min_size": number(product.quote_min_size),
            "quote_max_size": number(product.quote_max_size),
            "base_min_size": number(product.base_min_size),
            "base_max_size": number(product.base_max_size),
            "base_name": product.base,
            "quote_name": product.quote,
            **dict.fromkeys(flags, False),
            "status": "online",
            "auction_mode": False,
            "product_type": "SPOT",
            "quote_currency_id": product.quote,
            "base_currency_id": product.base,
            "mid_market_price": "",
            "alias": "",
            "alias_to": [],
            "base_display_symbol": product.base,
            "quote_display_symbol": product.quote,
            "view_only": False,
            "price_increment": number(product.price_increment),
            "display_name": product_id,
            "product_venue": "CBE",
            "approximate_quote_24h_volume": number(round(state.turnover, 2)),
        }


def _seconds(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise BadRequest(f"{name} must be seconds since 1970")
    return int(text)
