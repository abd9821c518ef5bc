"""Waiting times between attempts."""

import random


class Backoff:
    """Exponential back-off with jitter, in seconds.

    Each delay is uniform between a tenth of a ceiling and the ceiling, which doubles from `base_seconds` to
    `max_seconds`. The jitter keeps many clients of a recovering peer from arriving together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    def __init__(self, base_seconds: float, max_seconds: float, rng: random.Random | None = None) -> None:
        self._base_seconds = base_seconds
        self._max_seconds = max_seconds
        self._rng = rng or random.Random()  # noqa: S311
        self._attempt = 0

    def next_seconds(self) -> float:
        """The delay before the next attempt."""
        ceiling = min(self._max_seconds, self._base_seconds * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        return self._rng.uniform(ceiling / 10, ceiling)

    def reset(self) -> None:
        """Start again from the base: the peer has proved healthy."""
        self._attempt = 0
