"""Which decisions are driven, and when: one at a time for a product, in the order they came; so many at once in all."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from tradewatch.common.logging import get_logger, trace
from tradewatch.trading.orchestrator.decisions import Decision
from tradewatch.trading.orchestrator.pipeline import Stopped

_log = get_logger("scheduler")


class Scheduler:
    """Holds the decisions in hand, each once.

    A product's decisions are driven one after another: the second is judged on the position that the first made.
    One that fails unexpectedly is let go; whoever looks for unfinished decisions finds it again.
    """

    def __init__(self, drive: Callable[[Decision], Awaitable[Decision]], max_at_once: int, max_open: int) -> None:
        self._drive = drive
        self._max_open = max_open
        self._slots = asyncio.Semaphore(max_at_once)
        self._known: dict[UUID, datetime] = {}
        self._lanes: dict[str, deque[Decision]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether further signals must wait on the bus."""
        return len(self._known) >= self._max_open

    def __len__(self) -> int:
        return len(self._known)

    def oldest(self) -> datetime | None:
        """When the oldest decision in hand was received."""
        return min(self._known.values(), default=None)

    def submit(self, decision: Decision) -> bool:
        """Take a decision; False where it is in hand already."""
        if decision.decision_id in self._known:
            return False
        self._known[decision.decision_id] = decision.received
        product_id = decision.signal.product_id
        if product_id in self._lanes:
            self._lanes[product_id].append(decision)
            return True
        self._lanes[product_id] = deque([decision])
        task = asyncio.create_task(self._run_lane(product_id), name=f"lane:{product_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def wait(self) -> None:
        """Wait until nothing is being driven."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run_lane(self, product_id: str) -> None:
        lane = self._lanes[product_id]
        try:
            while lane:
                async with self._slots:
                    await self._run(lane[0])
                lane.popleft()
        except Stopped:
            return
        finally:
            for decision in lane:
                self._known.pop(decision.decision_id, None)
            del self._lanes[product_id]

    async def _run(self, decision: Decision) -> None:
        with trace(decision.signal.trace_id):
            try:
                ended = await self._drive(decision)
                _log.info(
                    "decision ended",
                    decision_id=str(decision.decision_id),
                    product_id=decision.signal.product_id,
                    state=ended.state.value,
                )
            except Stopped:
                raise
            except Exception as error:
                _log.exception("decision let go", decision_id=str(decision.decision_id), error=type(error).__name__)
            self._known.pop(decision.decision_id, None)
