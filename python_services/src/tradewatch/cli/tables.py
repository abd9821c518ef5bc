"""`tradewatch positions`, `orders` and `decisions`: what the store holds, as tables."""

from argparse import Namespace
from typing import Any

from tradewatch.cli.reading import EXIT_OK, show, with_store
from tradewatch.store.database import Pool

_POSITION_COLUMNS = ("product_id", "quantity", "average_price", "realized_pnl", "fees", "last_loss", "updated")
_POSITIONS = f"SELECT {', '.join(_POSITION_COLUMNS)} FROM positions ORDER BY product_id"  # noqa: S608
_ORDERS = """
SELECT created, product_id, side, status, quote_size, limit_price, filled_size, average_price, fees, reason,
       client_order_id, exchange_order_id, decision_id, trace_id, finished
FROM orders WHERE finished IS NULL OR NOT $1 ORDER BY created DESC, client_order_id LIMIT $2
"""
_ORDER_COLUMNS = (
    *("created", "product_id", "side", "status", "quote_size", "limit_price", "filled_size", "average_price"),
    *("fees", "reason", "decision_id"),
)
_DECISIONS = """
SELECT d.received, s.product_id, s.side, s.confidence, d.state, d.reason, d.finished - d.received AS lasted,
       d.decision_id, d.trace_id, d.finished
FROM decisions AS d JOIN signals AS s ON s.signal_id = d.decision_id
WHERE d.finished IS NULL OR NOT $1 ORDER BY d.received DESC, d.decision_id LIMIT $2
"""


def run(options: Namespace) -> int:
    """The command of `options`. Returns the exit code."""
    work = {"positions": _positions, "orders": _orders, "decisions": _decisions}[options.command]
    return with_store(options.command, options, work)


async def _positions(pool: Pool, options: Namespace) -> int:
    rows = await pool.fetch(_POSITIONS)
    show("Positions", _POSITION_COLUMNS, rows, options.json)
    return EXIT_OK


async def _orders(pool: Pool, options: Namespace) -> int:
    rows = await pool.fetch(_ORDERS, options.open, options.limit)
    show("Orders, newest first", _ORDER_COLUMNS, rows, options.json)
    return EXIT_OK


async def _decisions(pool: Pool, options: Namespace) -> int:
    rows = [_with_seconds(row) for row in await pool.fetch(_DECISIONS, options.open, options.limit)]
    columns = ["received", "product_id", "side", "confidence", "state", "reason", "lasted_seconds", "decision_id"]
    show("Decisions, newest first", columns, rows, options.json)
    return EXIT_OK


def _with_seconds(row: Any) -> dict[str, Any]:
    lasted = row["lasted"]
    found = {name: value for name, value in row.items() if name != "lasted"}
    return {**found, "lasted_seconds": None if lasted is None else round(lasted.total_seconds(), 3)}
