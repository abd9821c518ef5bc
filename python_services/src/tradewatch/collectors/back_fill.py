"""Filling the holes that a feed leaves in a product's trades, and keeping the order while that lasts.

Exchanges number a product's trades one after the other, so a trade whose id is not the next one reveals a hole,
whatever made it: a gap, an outage that the snapshot does not reach back over, or a stop of this service. From then on
the product's trades are held back, not its tickers, until REST has brought what is missing; then all of them go on in
the order of their ids. They are held for `hold_seconds` at most: live data matters more than order, and what REST
brings after that goes on when it comes.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tradewatch.collectors.exchanges.protocol import Hole
from tradewatch.collectors.metrics import BackFillFailure, CollectionMetrics
from tradewatch.collectors.past_trades import PastTrades, RequestFailed
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import Trade, new_trace_id
from tradewatch.common.logging import get_logger, trace

_log = get_logger("back_fill")

_RELEASE_AT_ONCE = 500


@dataclass(frozen=True)
class BackFillLimits:
    """Bounds of filling one hole.

    `settle_seconds` is how long a hole may fill by itself, as trades that merely came in another order do. `seconds`,
    `requests` and `trades` bound the filling, `age_seconds` how far back it goes. `walks` is how often it goes through
    all that the exchange has: REST may lag behind the WebSocket. `trades` also bounds what is held back.
    """

    settle_seconds: float = 0.25
    hold_seconds: float = 5.0
    seconds: float = 60.0
    requests: int = 30
    walks: int = 3
    trades: int = 10_000
    age_seconds: float = 3600.0
    holes: int = 16


@dataclass
class _Open:
    """A hole that is being filled; `missing` trades of it have not come."""

    hole: Hole
    missing: int
    found: list[Trade] = field(default_factory=list)


@dataclass
class _Product:
    """`newest` is the id and time of the trade with the highest id, `held` what waits."""

    newest: tuple[int, datetime] | None = None
    open: list[_Open] = field(default_factory=list)
    held: dict[int, Trade] = field(default_factory=dict)
    holding: bool = False
    timer: asyncio.TimerHandle | None = None


class BackFill:
    """Takes the trades that the filter lets through and forwards them in order, with those that REST brings.

    `judge` says of a trade that REST brought whether it is to be forwarded: not when it came already. `forward` puts a
    trade on the bus, `crowded` says that the bus does not keep up.
    """

    def __init__(
        self,
        products: tuple[str, ...],
        source: PastTrades,
        interval_seconds: float,
        metrics: CollectionMetrics,
        judge: Callable[[Trade], bool],
        forward: Callable[[Trade], None],
        crowded: Callable[[], bool],
        limits: BackFillLimits | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._products = {product: _Product() for product in products}
        self._source = source
        self._interval_seconds = interval_seconds
        self._metrics = metrics
        self._judge = judge
        self._forward = forward
        self._crowded = crowded
        self._limits = limits or BackFillLimits()
        self._backoff = backoff or Backoff(0.5, 10.0)
        self._not_before = 0.0
        self._waiting: asyncio.Queue[str] = asyncio.Queue()

    def remember(self, product_id: str, trades: Iterable[Trade]) -> None:
        """Take the trades that an earlier process put on the bus; recent holes among them are filled."""
        earliest = self._earliest()
        for trade in sorted(trades, key=_number):
            if trade.exchange_time < earliest:
                self._products[product_id].newest = (_number(trade), trade.exchange_time)
            else:
                self._notice(trade)

    def take(self, trade: Trade) -> None:
        """Forward a live trade, or hold it back while a hole before it is being filled."""
        product = self._products[trade.product_id]
        self._notice(trade)
        if not product.holding:
            self._forward(trade)
            return
        product.held[_number(trade)] = trade
        if len(product.held) >= self._limits.trades:
            self._release(product)

    def release_all(self) -> None:
        """Forward what is held back, as it stands."""
        for product in self._products.values():
            self._release(product)

    async def run(self) -> None:
        """Fill holes, one product after the other."""
        while True:
            product_id = await self._waiting.get()
            product = self._products[product_id]
            while product.open:
                await asyncio.sleep(self._limits.settle_seconds)
                await self._fill(product, product.open[0])
                product.open.pop(0)
            await self._release_in_order(product)

    def _notice(self, trade: Trade) -> None:
        product = self._products[trade.product_id]
        trade_id, at = _number(trade), trade.exchange_time
        if product.newest is None:
            product.newest = (trade_id, at)
            return
        newest_id, newest_time = product.newest
        if trade_id > newest_id + 1:
            self._open(product, Hole(trade.product_id, newest_id, newest_time, trade_id, at))
        elif trade_id < newest_id:
            for hole in product.open:
                if hole.hole.after_id < trade_id < hole.hole.before_id:
                    hole.missing -= 1
        if trade_id > newest_id:
            product.newest = (trade_id, at)

    def _open(self, product: _Product, hole: Hole) -> None:
        missing = hole.before_id - hole.after_id - 1
        if len(product.open) >= self._limits.holes:
            self._give_up(hole, missing)
            return
        product.open.append(_Open(hole, missing))
        if len(product.open) > 1:
            return
        product.holding = True
        if product.timer is not None:
            product.timer.cancel()
        product.timer = asyncio.get_running_loop().call_later(self._limits.hold_seconds, self._release, product)
        self._waiting.put_nowait(hole.product_id)

    async def _fill(self, product: _Product, open_hole: _Open) -> None:
        if open_hole.missing <= 0:
            return
        trace_id = new_trace_id()
        with trace(trace_id):
            try:
                await self._fetch_all(open_hole, trace_id)
            finally:
                # Also when this is cancelled: they count as seen.
                self._hand_on(product, open_hole)
            if open_hole.missing > 0:
                self._give_up(open_hole.hole, open_hole.missing)

    async def _fetch_all(self, open_hole: _Open, trace_id: str) -> None:
        limits = self._limits
        hole = open_hole.hole
        earliest = self._earliest()
        # What is beyond the bound stays missing, so looking again would be of no use.
        walks = 1 if hole.after_time < earliest else limits.walks
        hole = replace(hole, after_time=max(hole.after_time, earliest))
        give_up_at = time.monotonic() + limits.seconds
        cursor: str | None = None
        for _ in range(limits.requests):
            if self._not_before >= give_up_at:
                return
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            if time.monotonic() >= give_up_at:
                return
            self._not_before = time.monotonic() + self._interval_seconds
            try:
                page = await self._source.fetch(hole, cursor, trace_id)
            except RequestFailed as error:
                wait = max(error.retry_after_seconds, self._backoff.next_seconds())
                self._not_before = time.monotonic() + wait
                self._metrics.backfill_failures[error.reason].inc()
                _log.warning(
                    "back-fill request failed",
                    reason=error.reason.value,
                    detail=str(error)[:200],
                    delay_seconds=round(wait, 3),
                )
                continue
            for reason in page.rejected:
                self._metrics.errors[reason].inc()
            self._take_page(open_hole, page.trades)
            if open_hole.missing <= 0 or len(open_hole.found) >= limits.trades:
                self._backoff.reset()
                return
            if page.cursor is not None and page.cursor != cursor:
                self._backoff.reset()
                cursor = page.cursor
                continue
            walks -= 1
            if walks == 0:
                return
            cursor = None
            self._not_before = time.monotonic() + max(self._interval_seconds, self._backoff.next_seconds())

    def _earliest(self) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=self._limits.age_seconds)

    def _take_page(self, open_hole: _Open, trades: tuple[Trade, ...]) -> None:
        hole = open_hole.hole
        for trade in trades:
            if hole.after_id < _number(trade) < hole.before_id and self._judge(trade):
                open_hole.missing -= 1
                open_hole.found.append(trade)
                self._metrics.backfilled[hole.product_id].inc()

    def _hand_on(self, product: _Product, open_hole: _Open) -> None:
        found, open_hole.found = open_hole.found, []
        if found:
            _log.info("back-filled", product_id=open_hole.hole.product_id, trades=len(found))
        for trade in sorted(found, key=_number):
            if product.holding:
                product.held[_number(trade)] = trade
            else:
                self._forward(trade)

    def _give_up(self, hole: Hole, missing: int) -> None:
        self._metrics.backfill_failures[BackFillFailure.INCOMPLETE].inc()
        _log.error(
            "trades stay missing",
            product_id=hole.product_id,
            missing=missing,
            after_id=hole.after_id,
            before_id=hole.before_id,
        )

    async def _release_in_order(self, product: _Product) -> None:
        """Forward what is held in portions, so that neither the loop nor the bus's buffer is taken up by it."""
        while product.holding and not product.open:
            if self._crowded():
                await asyncio.sleep(0.02)
                continue
            for trade_id in sorted(product.held)[:_RELEASE_AT_ONCE]:
                self._forward(product.held.pop(trade_id))
            if not product.held:
                self._release(product)
            await asyncio.sleep(0)

    def _release(self, product: _Product) -> None:
        held, product.held = product.held, {}
        product.holding = False
        if product.timer is not None:
            product.timer.cancel()
            product.timer = None
        for trade_id in sorted(held):
            self._forward(held[trade_id])


def _number(trade: Trade) -> int:
    return int(trade.trade_id)
