"""Orders, fills and positions in PostgreSQL: every change with its audit, in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from tradewatch.common.events import Side
from tradewatch.store import audit
from tradewatch.store.database import Connection, Pool
from tradewatch.trading.contracts import OrderRequest, OrderStatus, TradingState
from tradewatch.trading.execution import sizing
from tradewatch.trading.execution.coinbase import ExchangeFill, ExchangeOrder, Product
from tradewatch.trading.execution.orders import (
    Event,
    Observed,
    OrderState,
    Reason,
    Rejected,
    Sending,
    advance,
)
from tradewatch.trading.execution.positions import Position
from tradewatch.trading.identity import client_order_id

ACTOR = "trade-executor"


@dataclass(frozen=True)
class StoredOrder:
    """A row of `orders`; sizes in base, prices and fees in quote currency. `read` is the database's time of reading."""

    client_order_id: UUID
    decision_id: UUID
    trace_id: str
    product_id: str
    side: Side
    order_type: str
    base_size: Decimal | None
    limit_price: Decimal
    state: OrderState
    average_price: Decimal | None
    fees: Decimal
    created: datetime
    submitted: datetime | None
    finished: datetime | None
    read: datetime

    @property
    def age_seconds(self) -> float:
        """Since the decision came."""
        return (self.read - self.created).total_seconds()

    @property
    def sent_seconds(self) -> float:
        """Since it was last about to be sent."""
        return (self.read - (self.submitted or self.created)).total_seconds()


@dataclass(frozen=True)
class Change:
    """An order after a change, whether that was its end, and the fills that were new."""

    order: StoredOrder
    ended: bool
    fills: tuple[ExchangeFill, ...] = ()


class OrderExpired(Exception):
    """The decision's time is over, and it has no order."""


class OrderStore:
    """What the executor keeps."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def accept(self, request: OrderRequest, product: Product | None, order_type: str) -> Change:
        """Store a decision's order, `pending` or at once `rejected`; a decision that has one gets that one.

        Raises:
            OrderExpired: it has none and comes too late.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            known = await _by_decision(connection, request.decision_id)
            if known is not None:
                return Change(known, ended=False)
            state, now = await _trading_state(connection)
            if now >= request.expires:
                raise OrderExpired("the decision's time is over")
            held = await _sellable(connection, request.product_id) if request.side is Side.SELL else Decimal(0)
            planned = sizing.plan(request.side, request.quote_size, request.limit_price, product, state, held)
            row = await connection.fetchrow(
                """INSERT INTO orders (client_order_id, decision_id, trace_id, product_id, side, order_type,
                        quote_size, base_size, limit_price, status, reason, finished)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text, $11,
                        CASE WHEN $10::text = 'rejected' THEN now() END)
                    ON CONFLICT DO NOTHING RETURNING *, now() AS read""",
                client_order_id(request.decision_id),
                request.decision_id,
                request.trace_id,
                request.product_id,
                request.side,
                order_type,
                request.quote_size,
                planned.base_size,
                planned.limit_price,
                (OrderStatus.REJECTED if planned.refusal else OrderStatus.PENDING).value,
                planned.refusal.value if planned.refusal else "",
            )
            if row is None:
                return Change(cast(StoredOrder, await _by_decision(connection, request.decision_id)), ended=False)
            order = _order(row)
            await _audit(connection, order, {"quote_size": request.quote_size})
            return Change(order, ended=order.state.final)

    async def order(self, order_id: UUID) -> StoredOrder | None:
        """An order by its `client_order_id`."""
        row = await self._pool.fetchrow("SELECT *, now() AS read FROM orders WHERE client_order_id = $1", order_id)
        return _order(row) if row else None

    async def unfinished(self) -> list[StoredOrder]:
        """The orders that have not come to their end."""
        return [
            _order(row) for row in await self._pool.fetch("SELECT *, now() AS read FROM orders WHERE finished IS NULL")
        ]

    async def known(self, order_ids: Sequence[UUID]) -> dict[UUID, StoredOrder]:
        """The orders of these ids that have a row."""
        rows = await self._pool.fetch(
            "SELECT *, now() AS read FROM orders WHERE client_order_id = ANY($1::uuid[])", list(order_ids)
        )
        return {row["client_order_id"]: _order(row) for row in rows}

    async def begin_sending(self, connection: Connection, order_id: UUID) -> Change:
        """Mark a pending order as sent, in the lock holder's transaction, unless the trading state forbids it by now.

        The share lock on the state orders the two: a kill switch either is seen here, or finds the order marked.
        """
        order = await _locked(connection, order_id)
        state, _ = await _trading_state(connection)
        refusal = sizing.refusal_by_state(state, order.side)
        return await _move(connection, order, Rejected(refusal) if refusal else Sending())

    async def apply(self, order_id: UUID, event: Event, details: Mapping[str, Any] | None = None) -> Change:
        """Bring an event to an order."""
        async with self._pool.acquire() as connection, connection.transaction():
            return await _move(connection, await _locked(connection, order_id), event, details)

    async def mark_cancelling(self, order_id: UUID, reason: Reason) -> None:
        """Note why an order is about to be cancelled, for when it is."""
        await self._pool.execute(
            "UPDATE orders SET reason = $2 WHERE client_order_id = $1 AND finished IS NULL AND reason = ''",
            order_id,
            reason.value,
        )

    async def observe(self, order_id: UUID, seen: ExchangeOrder, fills: Sequence[ExchangeFill]) -> Change:
        """Store what the exchange says of an order, with the fills that are new and what they do to the position."""
        async with self._pool.acquire() as connection, connection.transaction():
            order = await _locked(connection, order_id)
            new = tuple([fill for fill in fills if await _add_fill(connection, order, fill)])
            stored = await connection.fetchval(
                "SELECT coalesce(sum(size), 0) FROM fills WHERE client_order_id = $1", order_id
            )
            event = Observed(seen.order_id, seen.status, seen.filled_size, stored)
            change = await _move(connection, order, event, {"detail": seen.detail, "new_fills": len(new)})
            return Change(change.order, change.ended, new)

    async def unstored_fills(self, fills: Sequence[ExchangeFill]) -> dict[UUID, list[ExchangeFill]]:
        """Those of the fills that belong to orders here and are not stored yet, by `client_order_id`."""
        rows = await self._pool.fetch(
            "SELECT exchange_order_id, client_order_id FROM orders WHERE exchange_order_id = ANY($1::text[])",
            sorted({fill.order_id for fill in fills}),
        )
        ours = {row["exchange_order_id"]: row["client_order_id"] for row in rows}
        stored = {
            row["trade_id"]
            for row in await self._pool.fetch(
                "SELECT trade_id FROM fills WHERE trade_id = ANY($1::text[])", [fill.trade_id for fill in fills]
            )
        }
        missing: dict[UUID, list[ExchangeFill]] = {}
        for fill in fills:
            if fill.order_id in ours and fill.trade_id not in stored:
                missing.setdefault(ours[fill.order_id], []).append(fill)
        return missing

    async def fills_from(self) -> datetime | None:
        """From when fills may be missing: an hour before the newest known one, or the first order; None without any."""
        row = await self._pool.fetchrow("SELECT (SELECT max(traded) FROM fills), (SELECT min(created) FROM orders)")
        newest = row[0] or row[1]
        return newest - timedelta(hours=1) if newest else None

    async def now(self) -> datetime:
        """The database's time."""
        return cast(datetime, await self._pool.fetchval("SELECT now()"))

    async def moving_products(self, since: datetime) -> set[str]:
        """Products with an order that has not ended or has changed since a time of the database's."""
        rows = await self._pool.fetch(
            "SELECT DISTINCT product_id FROM orders WHERE finished IS NULL OR updated >= $1", since
        )
        return {row["product_id"] for row in rows}

    async def quantities(self) -> dict[str, Decimal]:
        """The base currency held of each product that has a position."""
        return {
            row["product_id"]: row["quantity"]
            for row in await self._pool.fetch("SELECT product_id, quantity FROM positions")
        }

    async def adopt_position(self, product_id: str, quantity: Decimal, price: Decimal) -> None:
        """Begin a product's position with what the exchange holds of it, bought at `price` as far as anyone knows."""
        async with self._pool.acquire() as connection, connection.transaction():
            made = await connection.fetchval(
                """INSERT INTO positions (product_id, quantity, average_price, realized_pnl, fees)
                   VALUES ($1, $2, $3, 0, 0) ON CONFLICT DO NOTHING RETURNING product_id""",
                product_id,
                quantity,
                price,
            )
            if made:
                details = {"product_id": product_id, "quantity": quantity, "average_price": price}
                await audit.append(connection, actor=ACTOR, action="position_adopted", details=details)

    async def add_equity(self, cash: Decimal, holdings: Decimal) -> None:
        """Store a valuation, in quote currency."""
        await self._pool.execute(
            "INSERT INTO equity (at, cash, holdings, total) VALUES (clock_timestamp(), $1, $2, $3)",
            cash,
            holdings,
            cash + holdings,
        )

    async def note(self, action: str, details: dict[str, Any]) -> None:
        """Write to the audit what is about no single decision."""
        await audit.append(self._pool, actor=ACTOR, action=action, details=details)


def _order(row: Mapping[str, Any]) -> StoredOrder:
    return StoredOrder(
        client_order_id=row["client_order_id"],
        decision_id=row["decision_id"],
        trace_id=row["trace_id"],
        product_id=row["product_id"],
        side=Side(row["side"]),
        order_type=row["order_type"],
        base_size=row["base_size"],
        limit_price=row["limit_price"],
        state=OrderState(
            OrderStatus(row["status"]),
            row["filled_size"],
            row["exchange_order_id"],
            Reason(row["reason"]) if row["reason"] else None,
        ),
        average_price=row["average_price"],
        fees=row["fees"],
        created=row["created"],
        submitted=row["submitted"],
        finished=row["finished"],
        read=row["read"],
    )


async def _by_decision(connection: Connection, decision_id: UUID) -> StoredOrder | None:
    row = await connection.fetchrow("SELECT *, now() AS read FROM orders WHERE decision_id = $1", decision_id)
    return _order(row) if row else None


async def _locked(connection: Connection, order_id: UUID) -> StoredOrder:
    row = await connection.fetchrow(
        "SELECT *, now() AS read FROM orders WHERE client_order_id = $1 FOR UPDATE", order_id
    )
    if row is None:
        raise LookupError(f"no order {order_id}")
    return _order(row)


async def _trading_state(connection: Connection) -> tuple[TradingState, datetime]:
    """The state, and the time at which the transaction began."""
    state, now = await connection.fetchrow("SELECT (SELECT state FROM trading_state WHERE id = 1 FOR SHARE), now()")
    return TradingState(state) if state else TradingState.HALTED, now


async def _sellable(connection: Connection, product_id: str) -> Decimal:
    """What is held less what open sales will take; the lock keeps two sales from counting the same."""
    held = await connection.fetchval("SELECT quantity FROM positions WHERE product_id = $1 FOR UPDATE", product_id)
    promised = await connection.fetchval(
        """SELECT coalesce(sum(base_size - filled_size), 0) FROM orders
           WHERE product_id = $1 AND side = 'SELL' AND finished IS NULL""",
        product_id,
    )
    return (held or Decimal(0)) - cast(Decimal, promised)


async def _move(
    connection: Connection, order: StoredOrder, event: Event, details: Mapping[str, Any] | None = None
) -> Change:
    state = advance(order.state, event)
    if state == order.state:
        return Change(order, ended=False)
    row = await connection.fetchrow(
        """UPDATE orders SET status = $2::text, filled_size = $3, exchange_order_id = $4, reason = $5, updated = now(),
                submitted = CASE WHEN $6 THEN clock_timestamp() ELSE submitted END,
                finished = CASE WHEN $7 THEN coalesce(finished, clock_timestamp()) END,
                average_price = (SELECT sum(price * size) / sum(size) FROM fills WHERE fills.client_order_id = $1),
                fees = (SELECT coalesce(sum(fee), 0) FROM fills WHERE fills.client_order_id = $1)
            WHERE client_order_id = $1 RETURNING *, now() AS read""",
        order.client_order_id,
        state.status.value,
        state.filled_size,
        state.exchange_order_id,
        state.reason.value if state.reason else "",
        isinstance(event, Sending),
        state.final,
    )
    moved = _order(row)
    await _audit(connection, moved, details)
    return Change(moved, ended=state.final and not order.state.final)


async def _audit(connection: Connection, order: StoredOrder, details: Mapping[str, Any] | None) -> None:
    what = {
        "client_order_id": str(order.client_order_id),
        "exchange_order_id": order.state.exchange_order_id,
        "reason": order.state.reason,
        "base_size": order.base_size,
        "limit_price": order.limit_price,
        "filled_size": order.state.filled_size,
        **(details or {}),
    }
    await audit.append(
        connection,
        actor=ACTOR,
        action=f"order_{order.state.status}",
        trace_id=order.trace_id,
        decision_id=order.decision_id,
        details=what,
    )


async def _add_fill(connection: Connection, order: StoredOrder, fill: ExchangeFill) -> bool:
    new = await connection.fetchval(
        """INSERT INTO fills (trade_id, client_order_id, product_id, side, price, size, fee, liquidity, traded)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (trade_id) DO NOTHING RETURNING true""",
        fill.trade_id,
        order.client_order_id,
        fill.product_id,
        fill.side,
        fill.price,
        fill.size,
        fill.fee,
        fill.liquidity,
        fill.traded,
    )
    if not new:
        return False
    row = await connection.fetchrow(
        "SELECT quantity, average_price, realized_pnl, fees FROM positions WHERE product_id = $1 FOR UPDATE",
        fill.product_id,
    )
    position = (Position(*row) if row else Position()).after(fill.side, fill.price, fill.size, fill.fee)
    await connection.execute(
        """INSERT INTO positions (product_id, quantity, average_price, realized_pnl, fees) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (product_id) DO UPDATE SET quantity = excluded.quantity, average_price = excluded.average_price,
               realized_pnl = excluded.realized_pnl, fees = excluded.fees, updated = now()""",
        fill.product_id,
        position.quantity,
        position.average_price,
        position.realized_pnl,
        position.fees,
    )
    return True
