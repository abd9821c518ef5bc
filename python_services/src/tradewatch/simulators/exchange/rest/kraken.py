"""Kraken's public REST endpoints.

Follows https://docs.kraken.com/api/docs/rest-api/get-recent-trades and the pages beside it: always status 200, errors
in the list `error`. Results are named as the pair was asked for; pairs are `XBTUSD`, `BTCUSD` or `BTC/USD`.
"""

import time
from typing import Any

from aiohttp import web

from tradewatch.simulators.exchange.book import Level
from tradewatch.simulators.exchange.history import History
from tradewatch.simulators.exchange.market import Market
from tradewatch.simulators.exchange.matching import MatchingEngine
from tradewatch.simulators.exchange.rest.render import number
from tradewatch.simulators.exchange.rest.server import Endpoint, Handler

MAX_TRADES = 1000
MAX_CANDLES = 720
_INTERVAL_MINUTES = (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)


class _Refused(Exception):
    """Its text is Kraken's error."""


class KrakenEndpoints:
    """Kraken's view of the market."""

    def __init__(self, market: Market, engine: MatchingEngine, history: History) -> None:
        self._market = market
        self._engine = engine
        self._history = history
        self._products: dict[str, str] = {}
        for product in market.products:
            base, quote = product.split("-", 1)
            for name in {base, "XBT" if base == "BTC" else base}:
                self._products |= {f"{name}{quote}": product, f"{name}/{quote}": product}

    def endpoints(self) -> list[Endpoint]:
        """The endpoints."""
        handlers = {
            "Trades": self._trades,
            "OHLC": self._ohlc,
            "Ticker": self._ticker,
            "Depth": self._depth,
            "AssetPairs": self._pairs,
        }
        return [
            Endpoint(f"kraken_{name.lower()}", "GET", f"/0/public/{name}", _with_errors(handler), public=True)
            for name, handler in handlers.items()
        ]

    async def _trades(self, request: web.Request) -> dict[str, Any]:
        pair, product = self._pair(request)
        since = _whole(request, "since", 0)
        # Kraken takes seconds as well as nanoseconds; it answers in nanoseconds.
        since = since if since > 10**12 else since * 10**9
        count = min(_whole(request, "count", MAX_TRADES), MAX_TRADES)
        trades = [(tick, int(at.timestamp() * 1_000_000) * 1000) for tick, at in self._history.trades[product]]
        found = [(tick, at) for tick, at in trades if at > since]
        page = found[:count] if since else found[-count:]
        rows = [
            [
                number(tick.price),
                f"{tick.size:.8f}",
                at / 1e9,
                "s" if tick.buyer_is_maker else "b",
                "m",
                "",
                tick.trade_id,
            ]
            for tick, at in page
        ]
        return {pair: rows, "last": str(page[-1][1] if page else since)}

    async def _ohlc(self, request: web.Request) -> dict[str, Any]:
        pair, product = self._pair(request)
        minutes = _whole(request, "interval", 1)
        if minutes not in _INTERVAL_MINUTES:
            raise _Refused("EGeneral:Invalid arguments:interval")
        since = _whole(request, "since", 0)
        candles = self._history.candles(product, minutes * 60, 0, int(time.time()))
        rows = [
            [
                candle.start,
                number(candle.open),
                number(candle.high),
                number(candle.low),
                number(candle.close),
                number(round(candle.turnover / candle.volume, 8)),
                number(candle.volume),
                candle.trades,
            ]
            for candle in candles
            if candle.start > since
        ]
        # The last candle is not closed yet: `last` names the one before it, as Kraken's does.
        last = candles[-2].start if len(candles) > 1 else 0
        return {pair: rows[-MAX_CANDLES:], "last": last}

    async def _ticker(self, request: web.Request) -> dict[str, Any]:
        pair, product = self._pair(request)
        state = self._market.states[product]
        tick = state.last
        vwap = number(round(state.turnover / state.volume, 8))
        return {
            pair: {
                "a": [number(tick.best_ask), "1", f"{tick.best_ask_size:.3f}"],
                "b": [number(tick.best_bid), "1", f"{tick.best_bid_size:.3f}"],
                "c": [number(tick.price), number(tick.size)],
                "v": [number(state.volume)] * 2,
                "p": [vwap] * 2,
                "t": [len(self._history.trades[product])] * 2,
                "l": [number(state.low)] * 2,
                "h": [number(state.high)] * 2,
                "o": number(state.open),
            }
        }

    async def _depth(self, request: web.Request) -> dict[str, Any]:
        pair, product = self._pair(request)
        count = max(1, min(_whole(request, "count", 100), 500))
        book = self._engine.books[product]
        now = int(time.time())

        def rows(levels: list[Level]) -> list[list[object]]:
            return [[number(level.price), f"{level.size:.3f}", now] for level in levels[:count]]

        return {pair: {"asks": rows(book.asks()), "bids": rows(book.bids())}}

    async def _pairs(self, request: web.Request) -> dict[str, Any]:
        wanted = request.query.get("pair", "")
        names = wanted.split(",") if wanted else [product.replace("-", "") for product in self._market.products]
        pairs = {}
        for name in names:
            product = self._engine.products[self._product(name)]
            pairs[name] = {
                "altname": f"{product.base}{product.quote}",
                "wsname": f"{product.base}/{product.quote}",
                "base": product.base,
                "quote": product.quote,
                "pair_decimals": -int(product.price_increment.as_tuple().exponent),
                "lot_decimals": -int(product.base_increment.as_tuple().exponent),
                "ordermin": number(product.base_min_size),
                "costmin": number(product.quote_min_size),
                "tick_size": number(product.price_increment),
                "status": "online",
            }
        return pairs

    def _pair(self, request: web.Request) -> tuple[str, str]:
        pair = request.query.get("pair", "")
        return pair, self._product(pair)

    def _product(self, pair: str) -> str:
        product = self._products.get(pair)
        if product is None:
            raise _Refused("EQuery:Unknown asset pair")
        return product


def _with_errors(handler: Handler) -> Handler:
    async def answer(request: web.Request) -> dict[str, Any]:
        try:
            return {"error": [], "result": await handler(request)}
        except _Refused as error:
            return {"error": [str(error)]}

    return answer


def _whole(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise _Refused(f"EGeneral:Invalid arguments:{name}")
    return int(text)
