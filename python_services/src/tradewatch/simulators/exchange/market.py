"""The simulated market: paces the price processes and tells listeners about every tick."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from tradewatch.common.service import Liveness
from tradewatch.simulators.exchange.metrics import SimulatorMetrics
from tradewatch.simulators.exchange.prices import HALF_LIFE_SECONDS, PriceProcess, Tick

LIVENESS_LOOP = "market"
RECENT_TRADES = 100
WAKE_SECONDS = 0.005
# After a stall (a stopped container, a slow host) the missed ticks are skipped rather than sent in one burst.
MAX_CATCH_UP_SECONDS = 1.0


@dataclass
class ProductState:
    """What a snapshot of a product is made of; highs, lows, volume (base) and turnover (quote) are since the start."""

    last: Tick
    last_time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    turnover: Decimal
    trades: deque[tuple[Tick, datetime]] = field(default_factory=lambda: deque(maxlen=RECENT_TRADES))


class Market:
    """`ticks_per_second` ticks over all products in turn, each given to every listener with its time."""

    def __init__(
        self,
        seed: int,
        products: tuple[str, ...],
        ticks_per_second: float,
        metrics: SimulatorMetrics,
        liveness: Liveness,
        half_life_seconds: float = HALF_LIFE_SECONDS,
    ) -> None:
        self.products = products
        self.states: dict[str, ProductState] = {}
        self.listeners: list[Callable[[Tick, ProductState], None]] = []
        self._rate = ticks_per_second
        self._metrics = metrics
        self._liveness = liveness
        step = len(products) / ticks_per_second
        # Trade ids never fall, not even over a restart: microseconds pass faster than trades are made.
        first_trade_id = time.time_ns() // 1000
        self._processes = [PriceProcess(seed, product, step, first_trade_id, half_life_seconds) for product in products]
        self.increments = {
            product: process.increment for product, process in zip(products, self._processes, strict=True)
        }
        self._turn = 0
        self.last_tick_at = time.monotonic()
        # Every product has a price before the first subscriber comes.
        for _ in products:
            self._tick()

    async def run(self) -> None:
        """Tick until cancelled."""
        due = 0.0
        before = time.monotonic()
        while True:
            self._liveness.beat(LIVENESS_LOOP)
            await asyncio.sleep(min(1.0, max(WAKE_SECONDS, (1.0 - due) / self._rate)))
            now = time.monotonic()
            due += min(now - before, MAX_CATCH_UP_SECONDS) * self._rate
            before = now
            while due >= 1.0:
                due -= 1.0
                self._tick()

    def _tick(self) -> None:
        process = self._processes[self._turn]
        self._turn = (self._turn + 1) % len(self._processes)
        tick = process.next_tick()
        now = datetime.now(UTC)
        state = self.states.get(tick.product_id)
        if state is None:
            state = ProductState(tick, now, tick.price, tick.price, tick.price, Decimal(0), Decimal(0))
            self.states[tick.product_id] = state
        state.last = tick
        state.last_time = now
        state.high = max(state.high, tick.price)
        state.low = min(state.low, tick.price)
        state.volume += tick.size
        state.turnover += tick.price * tick.size
        state.trades.append((tick, now))
        self.last_tick_at = time.monotonic()
        self._metrics.ticks[tick.product_id].inc()
        for listener in self.listeners:
            listener(tick, state)
