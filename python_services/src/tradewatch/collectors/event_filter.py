"""Keeps duplicates, late repeats and impossible times out of the streams."""

from collections import deque
from datetime import datetime, timedelta

from tradewatch.collectors.metrics import FilterReason
from tradewatch.common.events import MarketDataEvent, Ticker, Trade

TRADE_WINDOW = 4096
# More than clocks of synchronised hosts differ by; an event from further ahead would hide that data has gone stale.
MAX_AHEAD = timedelta(seconds=60)


class _SeenTrades:
    """The newest trade ids of a product.

    Within the window an id is a duplicate or new; one below the window is too old to tell and counts as stale.
    A trade that comes late but was not seen is let through, so a snapshot can fill the hole that a gap left.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: set[int] = set()
        self._order: deque[int] = deque()
        self._forgotten = -1

    def judge(self, trade_id: int) -> FilterReason | None:
        """None for a trade to forward, else why not."""
        if trade_id in self._ids:
            return FilterReason.DUPLICATE_TRADE
        if trade_id <= self._forgotten:
            return FilterReason.STALE_TRADE
        self._ids.add(trade_id)
        self._order.append(trade_id)
        if len(self._order) > self._size:
            oldest = self._order.popleft()
            self._ids.remove(oldest)
            self._forgotten = max(self._forgotten, oldest)
        return None


class EventFilter:
    """Judges the events of one exchange, over all its connections.

    A ticker older than the product's newest is stale; equal times are not, since several may share one. Trades are
    judged by id. Either is refused when its time is more than MAX_AHEAD after its arrival.
    """

    def __init__(self, products: tuple[str, ...], trade_window: int = TRADE_WINDOW) -> None:
        self._trades = {product: _SeenTrades(trade_window) for product in products}
        self._tickers: dict[str, datetime] = {}

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
