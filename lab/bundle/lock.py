"""One builder at a time, of all the processes and threads that share the cache."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lab import paths

_held = threading.local()


@contextmanager
def building(*, wait: bool = True) -> Iterator[None]:
    """Hold the bundle's lock; what is built for something else holds it already.

    Raises:
        BlockingIOError: with ``wait`` false, somebody builds just now.
    """
    if getattr(_held, "held", False):
        yield
        return
    root = paths.cache_dir() / "bundle"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        _held.held = True
        try:
            yield
        finally:
            _held.held = False
