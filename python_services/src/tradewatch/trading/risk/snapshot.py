"""Reading what an assessment is made from: quotes from the bus, everything else from the store."""

from collections.abc import Iterable
from datetime import UTC, datetime, time

from valkey.asyncio import Valkey

from tradewatch.common.events import Side
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.streams import Quote, decode, quotes_stream
from tradewatch.store.database import Connection
from tradewatch.trading.risk.decision import Equity, Holding, PendingOrder, Portfolio

_log = get_logger("risk")
_throttle = Throttle()

# Approved and not yet an order: it may become one as long as its decision has not ended. One without a decision was
# asked for by hand and does not become an order later.
_RESERVED_FROM = """
FROM risk_assessments AS a LEFT JOIN decisions AS d USING (decision_id)
WHERE a.stage = 'before_execution' AND a.decision = 'approve'
  AND d.finished IS NULL AND (d.decision_id IS NOT NULL OR a.assessed > now() - interval '1 minute')
  AND NOT EXISTS (SELECT FROM orders AS o WHERE o.decision_id = a.decision_id)
"""
# A sale whose size is not known may sell everything.
_PENDING = f"""
SELECT product_id, side,
       greatest(0, CASE side
           WHEN 'BUY' THEN quote_size - filled_size * coalesce(average_price, 0)
           ELSE coalesce(base_size, quote_size / limit_price, 1e18) - filled_size END) AS remaining
FROM orders WHERE finished IS NULL
UNION ALL
SELECT a.product_id, a.side,
       CASE a.side WHEN 'BUY' THEN a.approved_quote_size ELSE a.approved_quote_size / a.limit_price END AS remaining
{_RESERVED_FROM}
"""  # noqa: S608
# One row, whose equity is empty as long as nothing was valued.
_FIGURES = f"""
SELECT (SELECT count(*) FROM orders WHERE created > now() - interval '1 minute')
     + (SELECT count(*) {_RESERVED_FROM} AND a.assessed > now() - interval '1 minute') AS orders_last_minute,
       newest.at, newest.cash, newest.total,
       coalesce((SELECT total FROM equity WHERE at <= $1 ORDER BY at DESC LIMIT 1),
                (SELECT total FROM equity ORDER BY at LIMIT 1)) AS day_start,
       greatest(newest.total, (SELECT max(total) FROM equity WHERE at >= $2)) AS peak
FROM (VALUES (1)) AS always LEFT JOIN (SELECT at, cash, total FROM equity ORDER BY at DESC LIMIT 1) AS newest ON true
"""  # noqa: S608


async def read_quotes(client: Valkey, products: Iterable[str]) -> dict[str, Quote]:
    """The newest quote of each product; one without an entry, or with one that cannot be read, is left out.

    Raises:
        valkey.exceptions.ValkeyError, OSError, TimeoutError: the bus does not answer.
    """
    names = sorted(products)
    pipeline = client.pipeline(transaction=False)
    for product in names:
        pipeline.xrevrange(quotes_stream(product), count=1)
    quotes = {}
    for product, entries in zip(names, await pipeline.execute(), strict=True):
        for _, fields in entries:
            try:
                quote = decode(Quote, fields)
            except EventDecodeError as error:
                _note_unusable(product, str(error))
                continue
            if quote.product_id == product:
                quotes[product] = quote
            else:
                _note_unusable(product, "product_id: another product's")
    return quotes


def _note_unusable(product_id: str, problem: str) -> None:
    held = _throttle.admit(product_id)
    if held is not None:
        _log.warning("quote cannot be used", product_id=product_id, problem=problem, lines_held_back=held)


async def read_portfolio(connection: Connection, now: datetime, measured_from: datetime) -> Portfolio:
    """What the store says. Losses are measured from midnight UTC or `measured_from`, drawdown from the latter."""
    positions = await connection.fetch("SELECT product_id, quantity, last_loss FROM positions")
    pending = tuple(
        PendingOrder(row["product_id"], Side(row["side"]), row["remaining"]) for row in await connection.fetch(_PENDING)
    )
    day_start = max(datetime.combine(now.date(), time(), UTC), measured_from)
    figures = dict(await connection.fetchrow(_FIGURES, day_start, measured_from))
    orders_last_minute = figures.pop("orders_last_minute")
    return Portfolio(
        holdings={row["product_id"]: Holding(row["quantity"], row["last_loss"]) for row in positions},
        pending=pending,
        open_orders=len(pending),
        orders_last_minute=orders_last_minute,
        equity=None if figures["at"] is None else Equity(**figures),
    )
