"""A token bucket: so many requests a second, as many at once."""

import time
from collections.abc import Callable


class RateLimit:
    """`per_second` requests on average, with a burst of as many (at least one)."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = max(1.0, per_second)
        self._clock = clock
        self._tokens = self._burst
        self._at = clock()

    def wait_seconds(self) -> float:
        """Take a token: 0 when there is one, else the seconds until there will be, and none is taken."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._per_second
