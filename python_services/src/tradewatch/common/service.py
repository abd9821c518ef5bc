"""A service's life: signals, the HTTP server, its loop, and a drain that is bounded."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from tradewatch.common.http import HttpServer
from tradewatch.common.logging import get_logger

_log = get_logger("service")

EXIT_OK = 0
EXIT_FAILED = 1
# Above the longest clean-up of a healthy loop: the roll-back of one transaction.
CANCEL_AGAIN_SECONDS = 3.0


class Service(Protocol):
    """What the runner needs: a loop that ends soon after `stop` is set, having finished what it had in hand."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain and return."""


class Liveness:
    """Remembers when each of a service's loops last advanced; /healthz fails when one has not for too long.

    Loops must beat at least every few seconds, idle or not. `limit_seconds` is above the longest wait of a healthy
    loop (connection time limit plus longest back-off), so that only a stuck one is restarted.
    """

    def __init__(self, limit_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_seconds = limit_seconds
        self._clock = clock
        self._last: dict[str, float] = {}

    def beat(self, loop: str) -> None:
        """Note that the named loop advanced."""
        self._last[loop] = self._clock()

    def ages_seconds(self) -> dict[str, float]:
        """Seconds since each loop advanced."""
        now = self._clock()
        return {loop: now - at for loop, at in self._last.items()}

    def stuck(self) -> list[str]:
        """The loops that have not advanced within the limit."""
        return [loop for loop, age in self.ages_seconds().items() if age > self._limit_seconds]


async def run(service: Service, server: HttpServer, drain_seconds: float) -> int:
    """Run a service until SIGTERM or SIGINT, then drain it for at most `drain_seconds`.

    While draining /readyz answers 503. A second signal ends the process at once. Returns the exit code: 0 after a
    complete drain, 1 when the service failed or could not drain in time.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            _log.warning("second signal, ending at once", signal=number.name)
            os._exit(128 + number)
        _log.info("stopping", signal=number.name, drain_seconds=drain_seconds)
        server.stopping = True
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        async with server:
            return await _run_until_stopped(service, stop, drain_seconds)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _run_until_stopped(service: Service, stop: asyncio.Event, drain_seconds: float) -> int:
    work = asyncio.create_task(service.run(stop), name="service")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await asyncio.wait({work}, timeout=drain_seconds)
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=1.0)
            _log.error("not drained in time", drain_seconds=drain_seconds)
            return EXIT_FAILED
        error = work.exception()
        if error is not None:
            _log.critical("service failed", error=type(error).__name__, exc_info=error)
            return EXIT_FAILED
        if not stop.is_set():
            _log.critical("service ended without being asked to")
            return EXIT_FAILED
        _log.info("stopped")
        return EXIT_OK
    finally:
        stopped.cancel()


def run_to_exit_code(main: Coroutine[Any, Any, int]) -> int:
    """Run an entry coroutine on uvloop where it is installed (it is not on every platform), else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def end_if_cancelled() -> None:
    """Raise CancelledError in a task that was cancelled and goes on.

    For loops over a client that may swallow it, as valkey-py does while it checks a connection.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def cancel_and_wait(task: "asyncio.Future[Any]") -> None:
    """Cancel a task until it has ended; its result or exception stays in it.

    A cancellation may get lost in a library (before Python 3.12 `asyncio.wait_for` drops it when what it waits for ends
    at that very moment, https://github.com/python/cpython/issues/86296): it is given again while the task goes on.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)


async def until_stopped(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Await `work`, cancelling it when `stop` is set first. Returns whether the work ended by itself.

    Raises whatever the work raised.
    """
    task = asyncio.ensure_future(work)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        stopped.cancel()
        await cancel_and_wait(task)
        await asyncio.gather(task, stopped, return_exceptions=True)
