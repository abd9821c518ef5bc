"""Comparing what is kept here with the exchange: at start, on a timer, and before any order may be sent."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from tradewatch.common.logging import get_logger
from tradewatch.trading.contracts import OrderStatus
from tradewatch.trading.execution.coinbase import Coinbase, Product
from tradewatch.trading.execution.lifecycle import Lifecycle
from tradewatch.trading.execution.metrics import ExecutionMetrics
from tradewatch.trading.execution.store import OrderStore

_log = get_logger("reconcile")

# How long orders of which nobody knows may take to be looked up, before the comparison counts as failed.
SETTLE_SECONDS = 5.0
OVERLAP = timedelta(minutes=10)
_UNSETTLED = (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN)


class ReconcileFailed(Exception):
    """The two sides could not be brought together; the text says over what."""


class Reconciler:
    """Takes up unfinished orders, stores fills that were missed, compares balances with positions.

    `products` are the exchange's, by id, as of the last success.
    """

    def __init__(
        self,
        exchange: Coinbase,
        store: OrderStore,
        lifecycle: Lifecycle,
        metrics: ExecutionMetrics,
        product_ids: Sequence[str],
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.products: dict[str, Product] = {}
        self._exchange = exchange
        self._store = store
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._product_ids = tuple(product_ids)
        self._settle_seconds = settle_seconds
        self._fills_from: datetime | None = None
        self._balances: dict[str, Decimal] = {}

    async def run(self) -> None:
        """Compare once.

        Raises:
            ReconcileFailed, ExchangeError, or what the store raises: no order may be sent on the strength of this.
        """
        started = await self._store.now()
        products = await self._exchange.products(self._product_ids)
        missing = [name for name in self._product_ids if name not in products]
        if missing:
            raise ReconcileFailed(f"the exchange has no {', '.join(missing)}")
        await self._take_up(started)
        await self._check_open_orders()
        await self._store_missed_fills(started)
        await self._compare_balances(started)
        self.products = products
        self._metrics.reconciled.set(time.time())

    async def value(self) -> None:
        """Store the portfolio's worth at the newest prices. Raises ReconcileFailed where a price is missing."""
        prices = await self._exchange.mid_prices(self._product_ids)
        cash, holdings = Decimal(0), Decimal(0)
        for quote in {product.partition("-")[2] for product in self._product_ids}:
            cash += self._balances.get(quote, Decimal(0))
        for product in self._product_ids:
            quantity = self._balances.get(product.partition("-")[0], Decimal(0))
            if quantity and product not in prices:
                raise ReconcileFailed(f"no price for {product}")
            holdings += quantity * prices.get(product, Decimal(0))
        await self._store.add_equity(cash, holdings)

    async def _take_up(self, started: datetime) -> None:
        waiting: set[UUID] = set()
        # In this order a row older than `started` is either claimed in `running`, or has ended, or was left behind.
        running = self._lifecycle.running
        for order in await self._store.unfinished():
            if order.client_order_id in running or order.created >= started:
                # Its own task is at it; only an answer that is overdue is something to wait for.
                if order.state.status is OrderStatus.UNKNOWN:
                    waiting.add(order.client_order_id)
            elif order.state.status is OrderStatus.PENDING:
                await self._lifecycle.never_sent(order)
            else:
                self._lifecycle.begin(order.client_order_id)
                if order.state.status in _UNSETTLED:
                    waiting.add(order.client_order_id)
        deadline = time.monotonic() + self._settle_seconds
        while waiting:
            unsettled = {
                order.client_order_id
                for order in await self._store.unfinished()
                if order.state.status in _UNSETTLED and order.client_order_id in waiting
            }
            if not unsettled:
                return
            if time.monotonic() > deadline:
                raise ReconcileFailed(f"{len(unsettled)} orders of unknown outcome")
            await asyncio.sleep(0.05)

    async def _check_open_orders(self) -> None:
        found = {}
        foreign = 0
        for order in await self._exchange.open_orders(self._product_ids):
            try:
                found[UUID(order.client_order_id)] = order
            except ValueError:
                foreign += 1
        known = await self._store.known(list(found))
        self._metrics.foreign.set(foreign + len(found) - len(known))
        ended = [found[order_id] for order_id, order in known.items() if order.state.final]
        if ended:
            # It was given up here and is open there: it must not fill behind the positions' back.
            _log.error("cancelling open orders that have ended here", orders=[order.client_order_id for order in ended])
            await self._store.note("cancel_ended_orders", {"orders": [order.client_order_id for order in ended]})
            await self._exchange.cancel_orders([order.order_id for order in ended])

    async def _store_missed_fills(self, started: datetime) -> None:
        since = self._fills_from or await self._store.fills_from()
        if since is not None:
            fills = await self._exchange.fills(since=since)
            for order_id, missed in (await self._store.unstored_fills(fills)).items():
                if order_id in self._lifecycle.running:
                    continue
                found = await self._exchange.order(missed[0].order_id)
                _log.warning("fills were missed", client_order_id=str(order_id), fills=len(missed))
                self._lifecycle.note(await self._store.observe(order_id, found, missed))
        self._fills_from = started - OVERLAP

    async def _compare_balances(self, started: datetime) -> None:
        self._balances = await self._exchange.balances()
        held = await self._store.quantities()
        moving = await self._store.moving_products(started)
        unknown = [product for product in self._product_ids if product not in held]
        prices = await self._exchange.mid_prices(unknown) if unknown else {}
        for product in self._product_ids:
            if product in moving:
                continue
            balance = self._balances.get(product.partition("-")[0], Decimal(0))
            if product not in held:
                if balance and product not in prices:
                    raise ReconcileFailed(f"no price for {product}")
                await self._store.adopt_position(product, balance, prices.get(product, Decimal(0)))
                held[product] = balance
            drift = balance - held[product]
            if drift:
                _log.warning("position drift", product_id=product, balance=str(balance), position=str(held[product]))
            self._metrics.drift.labels(product_id=product).set(float(drift))
