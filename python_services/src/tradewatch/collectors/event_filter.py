"""Keeps duplicates, late repeats and impossible times out of the streams."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from tradewatch.collectors.metrics import FilterReason
from tradewatch.collectors.seen_ids import SeenIds
from tradewatch.common.events import MarketDataEvent, Ticker, Trade

# More than clocks of synchronised hosts differ by; an event from further ahead would hide that data has gone stale.
MAX_AHEAD = timedelta(seconds=60)


class _SeenTrades:
    """The trade ids of a product that have been forwarded.

    A trade that comes late but was not seen is let through: it fills the hole that a gap left. What is at or below
    the floor was dealt with by an earlier process.
    """

    def __init__(self) -> None:
        self._ids = SeenIds()
        self._floor = -1

    def remember(self, trade_ids: Iterable[int]) -> None:
        """Take the ids that were forwarded before the start, as far back as they are known."""
        known = sorted(trade_ids)
        self._floor = max(self._floor, known[0] if known else -1)
        for trade_id in known:
            self._ids.add(trade_id)

    def judge(self, trade_id: int) -> FilterReason | None:
        """None for a trade to forward, else why not."""
        if trade_id < self._floor:
            return FilterReason.STALE_TRADE
        return None if self._ids.add(trade_id) else FilterReason.DUPLICATE_TRADE


class EventFilter:
    """Judges the events of one exchange, over all its connections.

    A ticker older than the product's newest is stale; equal times are not, since several may share one. Trades are
    judged by id. Either is refused when its time is more than MAX_AHEAD after its arrival.
    """

    def __init__(self, products: tuple[str, ...]) -> None:
        self._trades = {product: _SeenTrades() for product in products}
        self._tickers: dict[str, datetime] = {}

    def remember(self, product_id: str, trade_ids: Iterable[int]) -> None:
        """Take the ids of a product's trades that are on the bus already; older ones are stale from now on."""
        self._trades[product_id].remember(trade_ids)

    def judge(self, event: MarketDataEvent) -> FilterReason | None:
        """None for an event to forward, else why not."""
        if event.exchange_time - event.received_time > MAX_AHEAD:
            return FilterReason.FUTURE_TIMESTAMP
        if isinstance(event, Trade):
            return self._trades[event.product_id].judge(int(event.trade_id))
        return self._judge_ticker(event)

    def _judge_ticker(self, event: Ticker) -> FilterReason | None:
        newest = self._tickers.get(event.product_id)
        if newest is not None and event.exchange_time < newest:
            return FilterReason.STALE_TICKER
        self._tickers[event.product_id] = event.exchange_time
        return None
