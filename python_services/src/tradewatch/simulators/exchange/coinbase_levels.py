"""The messages of Coinbase's `level2` channel: a book as price levels, and what has changed of it."""

from decimal import Decimal

from tradewatch.simulators.exchange.book import Book
from tradewatch.simulators.exchange.feed_server import now_text

# Size by price, of the bids and of the offers.
Sides = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]
NO_LEVELS: Sides = ({}, {})


def levels_of(book: Book) -> Sides:
    """The levels of a book now."""
    return {level.price: level.size for level in book.bids()}, {level.price: level.size for level in book.asks()}


def changed_levels(before: Sides, now: Sides) -> Sides:
    """The levels that differ, with their new size; zero for one that is gone."""
    bids, offers = (_changed(old, new) for old, new in zip(before, now, strict=True))
    return bids, offers


def level_events(kind: str, product: str, sides: Sides) -> str:
    """The events array of a message, `kind` being `snapshot` or `update`."""
    at = now_text()
    updates = ",".join(
        f'{{"side":"{side}","event_time":"{at}","price_level":"{price:f}","new_quantity":"{size:f}"}}'
        for side, levels in zip(("bid", "offer"), sides, strict=True)
        for price, size in levels.items()
    )
    return f'[{{"type":"{kind}","product_id":"{product}","updates":[{updates}]}}]'


def _changed(before: dict[Decimal, Decimal], now: dict[Decimal, Decimal]) -> dict[Decimal, Decimal]:
    gone = {price: Decimal(0) for price in before if price not in now}
    return gone | {price: size for price, size in now.items() if before.get(price) != size}
