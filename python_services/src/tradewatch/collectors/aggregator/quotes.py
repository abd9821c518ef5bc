"""The best quote of one product over all exchanges that agree, once a second of bus time."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median

from tradewatch.collectors.aggregator.candles import SECOND_US, from_microseconds, microseconds
from tradewatch.common.events import Ticker
from tradewatch.common.streams import Quote

# How long a quote says which of two exchanges that disagree is the one to believe.
REFERENCE_SECONDS = 60


@dataclass(frozen=True)
class QuoteLimits:
    """`stale_seconds`: age of an exchange's ticker, by the exchange's time, above which it is left out.

    `outlier_ratio`: distance of an exchange's mid price from what the others say, over that, above which it is an
    outlier.
    """

    stale_seconds: float
    outlier_ratio: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a second came to: the quote, or None where there is none to be trusted; and who was left out, and why."""

    at_us: int
    quote: Quote | None
    outliers: tuple[str, ...]
    stale: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Book:
    """An exchange's usable ticker."""

    exchange: str
    at_us: int
    bid: Decimal
    ask: Decimal
    bid_size: Decimal
    ask_size: Decimal
    mid: Decimal
    trace_id: str


class QuoteFold:
    """A fold over a product's tickers in the order of the bus.

    With three exchanges or more, one is an outlier whose mid price is too far from the median of all. Two that are
    too far apart are judged by the last quote, if that is less than REFERENCE_SECONDS old: the nearer one counts if
    it is near enough, else neither. A single one is judged by the last quote, too. Where nothing is left there is
    no quote: those who trade on it see it age and stop.
    """

    def __init__(self, product_id: str, exchanges: Sequence[str], limits: QuoteLimits) -> None:
        self._product_id = product_id
        self._exchanges = tuple(sorted(exchanges))
        self._limits = limits
        self._ratio = Decimal(repr(limits.outlier_ratio))
        self._stale_us = round(limits.stale_seconds * SECOND_US)
        self._tickers: dict[str, Ticker] = {}
        self._newest_us = 0
        self._reference: tuple[int, Decimal] | None = None
        self._judged_us: int | None = None

    def add(self, ticker: Ticker) -> None:
        """Take a ticker."""
        known = self._tickers.get(ticker.exchange)
        if known is None or ticker.exchange_time >= known.exchange_time:
            self._tickers[ticker.exchange] = ticker
            self._newest_us = max(self._newest_us, microseconds(ticker.exchange_time))

    def restore(self, last: Quote) -> None:
        """Go on from a quote that was written before."""
        self._judged_us = microseconds(last.time)
        self._reference = (self._judged_us, last.mid)

    def reference(self, bus_us: int) -> Decimal | None:
        """The mid price of the last quote, None when there is none that is recent."""
        if self._reference is None or bus_us - self._reference[0] > REFERENCE_SECONDS * SECOND_US:
            return None
        return self._reference[1]

    def advance(self, bus_us: int) -> list[Judgement]:
        """Judge every whole second up to this bus time, given that every earlier entry was taken."""
        if not self._tickers:
            return []
        now = bus_us - bus_us % SECOND_US
        start = now if self._judged_us is None else self._judged_us + SECOND_US
        # After `alive` every ticker is stale; of those seconds the last is judged and no other.
        alive = self._newest_us + self._stale_us
        seconds = [*range(start, min(now, alive) + 1, SECOND_US)]
        if alive < now and start <= now:
            seconds.append(now)
        if seconds:
            self._judged_us = seconds[-1]
        return [self._judge(at) for at in seconds]

    def _judge(self, at_us: int) -> Judgement:
        books = [book for book in map(self._book, self._exchanges) if book is not None]
        fresh = [book for book in books if at_us - book.at_us <= self._stale_us]
        stale = tuple(name for name in self._exchanges if name not in {book.exchange for book in fresh})
        kept = self._agreeing(fresh, self.reference(at_us))
        outliers = tuple(book.exchange for book in fresh if book not in kept)
        if not kept:
            return Judgement(at_us, None, outliers, stale)
        quote = self._quote(at_us, kept, outliers)
        self._reference = (at_us, quote.mid)
        return Judgement(at_us, quote, outliers, stale)

    def _agreeing(self, books: list[_Book], reference: Decimal | None) -> list[_Book]:
        if len(books) >= 3:
            middle = median(book.mid for book in books)
            return [book for book in books if self._near(book.mid, middle)]
        if len(books) == 2 and self._near(books[0].mid, books[1].mid):
            return books
        if len(books) == 1 and reference is None:
            return books
        if not books or reference is None:
            return []
        nearest = min(books, key=lambda book: (abs(book.mid - reference), book.exchange))
        return [nearest] if self._near(nearest.mid, reference) else []

    def _near(self, price: Decimal, reference: Decimal) -> bool:
        return abs(price - reference) <= self._ratio * reference

    def _book(self, exchange: str) -> _Book | None:
        ticker = self._tickers.get(exchange)
        if ticker is None or ticker.best_bid is None or ticker.best_ask is None:
            return None
        return _Book(
            exchange,
            microseconds(ticker.exchange_time),
            ticker.best_bid,
            ticker.best_ask,
            ticker.best_bid_size or Decimal(0),
            ticker.best_ask_size or Decimal(0),
            (ticker.best_bid + ticker.best_ask) / 2,
            ticker.trace_id,
        )

    def _quote(self, at_us: int, books: list[_Book], outliers: tuple[str, ...]) -> Quote:
        best_bid = max(book.bid for book in books)
        best_ask = min(book.ask for book in books)
        mid = (best_bid + best_ask) / 2
        bid_size = sum(book.bid_size for book in books)
        ask_size = sum(book.ask_size for book in books)
        size = bid_size + ask_size
        return Quote(
            product_id=self._product_id,
            time=from_microseconds(at_us),
            best_bid=best_bid,
            best_ask=best_ask,
            mid=mid,
            spread_ratio=float((best_ask - best_bid) / mid),
            imbalance=float((bid_size - ask_size) / size) if size else 0.0,
            exchanges=tuple(book.exchange for book in books),
            outliers=outliers,
            trace_id=max(books, key=lambda book: (book.at_us, book.exchange)).trace_id,
        )
