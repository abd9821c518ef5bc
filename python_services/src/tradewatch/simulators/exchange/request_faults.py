"""Which faults of requests are on, and which of them a request or an order gets."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from tradewatch.simulators.exchange.faults import (
    Latency,
    PartialFill,
    RateLimitFault,
    Reject,
    RequestFault,
    Status,
    Timeout,
)
from tradewatch.simulators.exchange.rate_limit import RateLimit

PathFaultT = TypeVar("PathFaultT", Timeout, Status, Latency)
OrderFaultT = TypeVar("OrderFaultT", PartialFill, Reject)


@dataclass
class _On:
    """A fault, how often it may still act (None is without limit) and until when (monotonic seconds)."""

    fault: RequestFault
    left: int | None
    until: float | None
    limit: RateLimit | None = None


class ActiveRequestFaults:
    """The faults of requests that are on, oldest first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._on: list[_On] = []

    def apply(self, fault: RequestFault) -> None:
        """Switch a fault on; a rate limit replaces an earlier one."""
        until = None if fault.seconds is None else self._clock() + fault.seconds
        if isinstance(fault, RateLimitFault):
            self._on = [on for on in self._on if on.limit is None]
            self._on.append(_On(fault, None, until, RateLimit(fault.requests_per_second, self._clock)))
            return
        count = 1 if fault.count is None and fault.seconds is None else fault.count
        self._on.append(_On(fault, count, until))

    def active_faults(self) -> list[dict[str, object]]:
        """What is on, with how often it will still act."""
        self._forget()
        return [{**on.fault.model_dump(), "left": on.left} for on in self._on]

    def clear_faults(self) -> None:
        """Switch all off."""
        self._on.clear()

    def for_request(self, kind: type[PathFaultT], method: str, path: str) -> PathFaultT | None:
        """The first fault of a kind that is for such a request; it counts as used."""
        for on in self._current():
            fault = on.fault
            if isinstance(fault, kind) and fault.method in (None, method) and fnmatchcase(path, fault.path):
                self._use(on)
                return fault
        return None

    def for_order(self, kind: type[OrderFaultT]) -> OrderFaultT | None:
        """The first fault of a kind for a new order; it counts as used."""
        for on in self._current():
            if isinstance(on.fault, kind):
                self._use(on)
                return on.fault
        return None

    def rate_limit_wait_seconds(self) -> float:
        """How long the tighter rate limit has a request wait; 0 lets it through."""
        return max((on.limit.wait_seconds() for on in self._current() if on.limit is not None), default=0.0)

    def _current(self) -> list[_On]:
        self._forget()
        return self._on

    def _forget(self) -> None:
        now = self._clock()
        self._on = [on for on in self._on if on.left != 0 and (on.until is None or on.until > now)]

    def _use(self, on: _On) -> None:
        if on.left is not None:
            on.left -= 1
