"""trade-executor: takes approved decisions over HTTP and makes at most one order of each."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, Field, SecretStr

from tradewatch.common import service
from tradewatch.common.api import ApiError, Request, Unavailable, json_get, json_route
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import get_logger
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import ProductIds, duration, http_url, split_url
from tradewatch.store import database
from tradewatch.trading.contracts import OrderAnswer, OrderRequest, OrderStatus
from tradewatch.trading.execution.coinbase import Coinbase, ExchangeError, Limits
from tradewatch.trading.execution.leadership import Leadership
from tradewatch.trading.execution.lifecycle import LIMIT_IOC, Lifecycle, Patience
from tradewatch.trading.execution.metrics import ExecutionMetrics
from tradewatch.trading.execution.orders import Reason
from tradewatch.trading.execution.reconcile import ReconcileFailed, Reconciler
from tradewatch.trading.execution.signing import TOKEN_SECONDS, Signer
from tradewatch.trading.execution.store import OrderExpired, OrderStore, StoredOrder
from tradewatch.trading.identity import client_order_id
from tradewatch.trading.mode import ExchangeKeySettings

NAME = "trade-executor"
REAL_HOST = "api.coinbase.com"
MIN_TOKEN_CHARACTERS = 16
# After a comparison that failed.
RETRY_SECONDS = 1.0
_SANDBOX_HOST = "api-sandbox.coinbase.com"

_log = get_logger("executor")


def _exchange_url(value: object) -> object:
    http_url(value)
    if isinstance(value, str):
        parts = split_url(value)
        if parts.path.strip("/") or parts.query:
            raise ValueError("must be a scheme, a host and a port only")
    return value


class TradeExecutorSettings(ExchangeKeySettings, database.DatabaseSettings):
    """Settings of trade-executor; durations in seconds."""

    products: ProductIds = Field(description="comma separated product ids that may be traded, of one quote currency")
    exchange_url: Annotated[str, BeforeValidator(_exchange_url)] = Field(
        default="http://localhost:8082", description="REST API of the exchange; on paper never the real one"
    )
    executor_token: SecretStr = Field(description="file that holds the token which cancel-all asks for")
    order_type: Literal["limit_ioc", "limit_gtc"] = Field(
        default="limit_ioc", description="limit_ioc fills at once or not at all, limit_gtc may rest in the book"
    )
    order_rest_seconds: float = duration(30.0, 86_400, "after which what is left of an order is cancelled")
    order_send_seconds: float = duration(5.0, 60, "for how long sending is tried, throttled or refused a connection")
    order_lookup_seconds: float = duration(
        60.0,
        3600,
        "after which an order that was sent and is not found is known never to have arrived",
        above=TOKEN_SECONDS,
    )
    exchange_timeout_seconds: float = duration(5.0, TOKEN_SECONDS, "bound of one request to the exchange")
    reconcile_seconds: float = duration(15.0, 3600, "between two comparisons with the exchange")
    reconcile_max_age_seconds: float = duration(120.0, 7200, "age of the last success above which no order is taken")
    equity_seconds: float = duration(60.0, 86_400, "between two valuations of the portfolio")

    def problems(self) -> Iterator[str]:
        """Also an exchange that does not fit the mode, and unusable keys."""
        yield from super().problems()
        parts = urlsplit(self.exchange_url)
        host = (parts.hostname or "").rstrip(".")
        url = self._variable("exchange_url")
        if self.paper and (host == "coinbase.com" or host.endswith(".coinbase.com")) and host != _SANDBOX_HOST:
            yield f"{url}: is the real exchange, which {self._variable('paper')} forbids"
        if not self.paper and (parts.scheme != "https" or host != REAL_HOST):
            yield f"{url}: must be https://{REAL_HOST} where {self._variable('paper')} is false"
        if len({product.partition("-")[2] for product in self.products}) > 1:
            yield f"{self._variable('products')}: must all be of one quote currency"
        if self.reconcile_max_age_seconds <= self.reconcile_seconds:
            yield f"{self._variable('reconcile_max_age_seconds')}: must be above {self._variable('reconcile_seconds')}"
        if len(self.executor_token.get_secret_value()) < MIN_TOKEN_CHARACTERS:
            yield f"{self._variable('executor_token')}: the token has fewer than {MIN_TOKEN_CHARACTERS} characters"
        try:
            self.signer()
        except ValueError as error:
            yield f"{self._variable('exchange_private_key')}: {error}"

    def signer(self) -> Signer | None:
        """What signs requests; None without keys. Raises ValueError for an unusable key."""
        if self.exchange_key_name is None or self.exchange_private_key is None:
            return None
        return Signer(self.exchange_key_name.get_secret_value(), self.exchange_private_key.get_secret_value())

    def patience(self) -> Patience:
        """The time limits of an order."""
        return Patience(self.order_send_seconds, self.order_rest_seconds, self.order_lookup_seconds)


class CancelAllRequest(Request):
    """The body of `POST /v1/cancel-all`."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class CancelAllAnswer(BaseModel):
    """The orders that were cancelled; none is open any more."""

    cancelled: list[UUID]


class ExecutedOrder(OrderAnswer):
    """The answer about an order, with the code of why it ended so."""

    reason: Reason | None


def _answer(order: StoredOrder) -> ExecutedOrder:
    return ExecutedOrder(
        client_order_id=order.client_order_id,
        status=order.state.status,
        filled_size=order.state.filled_size,
        average_price=order.average_price,
        fees=order.fees,
        final=order.state.final,
        reason=order.state.reason,
    )


class TradeExecutor:
    """The service: takes orders while it holds the lock and its last comparison with the exchange is fresh."""

    def __init__(
        self,
        pool: database.Pool,
        lock_pool: database.Pool,
        exchange: Coinbase,
        metrics: ExecutionMetrics,
        liveness: Liveness,
        product_ids: Sequence[str],
        patience: Patience,
        *,
        order_type: str = LIMIT_IOC,
        reconcile_seconds: float = 15.0,
        reconcile_max_age_seconds: float = 120.0,
        equity_seconds: float = 60.0,
        lock_seconds: float = 1.0,
        answer_seconds: float = 1.0,
        cancel_seconds: float = 3.0,
    ) -> None:
        self._pool = pool
        self._exchange = exchange
        self._metrics = metrics
        self._liveness = liveness
        self._product_ids = tuple(product_ids)
        self._order_type = order_type
        self._reconcile_seconds = reconcile_seconds
        self._reconcile_max_age_seconds = reconcile_max_age_seconds
        self._equity_seconds = equity_seconds
        self._answer_seconds = answer_seconds
        self._cancel_seconds = cancel_seconds
        self._store = OrderStore(pool)
        self._leadership = Leadership(lock_pool, lambda: liveness.beat("lock"), self._lock_changed, lock_seconds)
        self._lifecycle = Lifecycle(exchange, self._store, self._leadership, metrics, patience)
        self._reconciler = Reconciler(exchange, self._store, self._lifecycle, metrics, product_ids)
        self._reconciled_at: float | None = None
        self._wake = asyncio.Event()
        self._stopping = False

    def routes(self, token: SecretStr) -> list[web.RouteDef]:
        """The calls of docs/trading.md; cancel-all needs the token."""
        outages = (*database.STORE_ERRORS, ExchangeError)
        return [
            json_route("/v1/orders", OrderRequest, self.place, status=202, outages=outages),
            json_get("/v1/orders/{client_order_id}", self._get, outages=outages),
            json_route("/v1/cancel-all", CancelAllRequest, self.cancel_all, token=token, outages=outages),
        ]

    def checks(self) -> list[Check]:
        """What `/readyz` asks."""
        return [
            database.check(self._pool),
            Check("lock", self._check_lock),
            Check("reconcile", self._check_reconcile),
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then let the orders in progress end."""
        async with asyncio.TaskGroup() as tasks:
            lock = tasks.create_task(self._leadership.run())
            reconcile = tasks.create_task(self._reconcile())
            value = tasks.create_task(self._value())
            await stop.wait()
            self._stopping = True
            reconcile.cancel()
            value.cancel()
            await self._lifecycle.stop(self._cancel_seconds)
            lock.cancel()

    async def place(self, request: OrderRequest) -> ExecutedOrder:
        """Make a decision's order, or tell of the one it has; waits a moment for its end."""
        if request.product_id not in self._product_ids:
            raise ApiError(422, "unknown_product", f"product_id: not one of {', '.join(self._product_ids)}")
        self._require_ready()
        product = self._reconciler.products.get(request.product_id)
        with self._lifecycle.accepting(client_order_id(request.decision_id)):
            try:
                change = await self._store.accept(request, product, self._order_type)
            except OrderExpired as error:
                raise ApiError(409, "expired", str(error)) from None
            order = change.order
            if change.ended:
                self._lifecycle.note(change)
            if order.state.final:
                return _answer(order)
            task = self._lifecycle.begin(order.client_order_id)
        await asyncio.wait({task}, timeout=self._answer_seconds)
        return _answer(await self._store.order(order.client_order_id) or order)

    async def cancel_all(self, request: CancelAllRequest) -> CancelAllAnswer:
        """Cancel every open order of the traded products, whoever made it, and wait until ours have ended."""
        if not self._leadership.active:
            raise Unavailable("another replica sends the orders, or the store is away")
        await self._store.note("cancel_all", {"reason": request.reason})
        _log.warning("cancelling all orders", reason=request.reason)
        tasks = {}
        for order in await self._store.unfinished():
            await self._store.mark_cancelling(order.client_order_id, Reason.CANCEL_ALL)
            tasks[order.client_order_id] = self._lifecycle.cancel(order.client_order_id, Reason.CANCEL_ALL)
        open_orders = await self._exchange.open_orders(self._product_ids)
        if open_orders:
            await self._exchange.cancel_orders([order.order_id for order in open_orders])
        if tasks:
            await asyncio.wait(tasks.values(), timeout=self._cancel_seconds)
        ended = await self._store.known(list(tasks))
        left = [order_id for order_id, order in ended.items() if not order.state.final]
        if left:
            raise Unavailable(f"{len(left)} orders have not ended yet: {', '.join(map(str, left))}")
        still = await self._exchange.open_orders(self._product_ids)
        if still:
            raise Unavailable(f"{len(still)} orders are still open at the exchange")
        cancelled = (order_id for order_id, order in ended.items() if order.state.status is OrderStatus.CANCELLED)
        return CancelAllAnswer(cancelled=sorted(cancelled))

    async def _get(self, request: web.Request) -> ExecutedOrder:
        try:
            order_id = UUID(request.match_info["client_order_id"])
        except ValueError:
            raise ApiError(422, "invalid_request", "client_order_id: not a UUID") from None
        order = await self._store.order(order_id)
        if order is None:
            raise ApiError(404, "not_found", "no order of this client_order_id")
        return _answer(order)

    def _require_ready(self) -> None:
        if self._stopping:
            raise Unavailable("stopping")
        if not self._leadership.active:
            raise Unavailable("another replica sends the orders, or the store is away")
        if self._reconcile_age() > self._reconcile_max_age_seconds:
            raise Unavailable("not reconciled with the exchange")

    def _reconcile_age(self) -> float:
        return float("inf") if self._reconciled_at is None else time.monotonic() - self._reconciled_at

    def _lock_changed(self, active: bool) -> None:
        self._metrics.active.set(active)
        # Whoever held the lock in between may have traded: compare again before the next order.
        self._reconciled_at = None
        self._wake.set()

    async def _reconcile(self) -> None:
        while True:
            self._liveness.beat("reconcile")
            self._wake.clear()
            wait = self._reconcile_seconds
            if self._leadership.active and not await self._reconcile_once():
                wait = min(RETRY_SECONDS, wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _value(self) -> None:
        while True:
            self._liveness.beat("equity")
            if self._reconciled_at is not None:
                try:
                    async with asyncio.timeout(30.0):
                        await self._reconciler.value()
                except (ReconcileFailed, ExchangeError, TimeoutError, *database.STORE_ERRORS) as error:
                    _log.warning("portfolio not valued", error=type(error).__name__)
            await asyncio.sleep(self._equity_seconds if self._reconciled_at is not None else 1.0)

    async def _reconcile_once(self) -> bool:
        try:
            # Bounded, for what it waits for may never come, and the liveness probe watches this loop.
            async with asyncio.timeout(45.0):
                await self._reconciler.run()
                if self._leadership.active:
                    self._reconciled_at = time.monotonic()
        except (ReconcileFailed, ExchangeError, TimeoutError, *database.STORE_ERRORS) as error:
            self._metrics.reconcile_failures.inc()
            known = isinstance(error, ReconcileFailed | ExchangeError)
            _log.warning("not reconciled", error=str(error) if known else type(error).__name__)
            return False
        return True

    async def _check_lock(self) -> CheckResult:
        active = self._leadership.active
        return CheckResult(active, "sends orders" if active else "another replica sends orders, or the store is away")

    async def _check_reconcile(self) -> CheckResult:
        age = self._reconcile_age()
        detail = "not since the lock was taken" if self._reconciled_at is None else f"{age:.1f} s ago"
        return CheckResult(age <= self._reconcile_max_age_seconds, detail)


async def main(settings: TradeExecutorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness(limit_seconds=60.0 + max(settings.reconcile_seconds, settings.equity_seconds))
    metrics = ExecutionMetrics(registry, settings.products)
    limits = Limits(total=settings.exchange_timeout_seconds)
    async with (
        settings.connect(NAME) as pool,
        # The lock must not wait behind the orders.
        settings.connect(f"{NAME}-lock") as lock_pool,
        Coinbase(settings.exchange_url, settings.signer(), metrics, limits) as exchange,
    ):
        executor = TradeExecutor(
            pool,
            lock_pool,
            exchange,
            metrics,
            liveness,
            settings.products,
            settings.patience(),
            order_type=settings.order_type,
            reconcile_seconds=settings.reconcile_seconds,
            reconcile_max_age_seconds=settings.reconcile_max_age_seconds,
            equity_seconds=settings.equity_seconds,
        )
        _log.info(
            "trading", mode="paper" if settings.paper else "live", exchange=urlsplit(settings.exchange_url).netloc
        )
        routes = executor.routes(settings.executor_token)
        server = HttpServer(settings.http_port, registry, liveness, executor.checks(), routes)
        return await service.run(executor, server, settings.drain_seconds)
