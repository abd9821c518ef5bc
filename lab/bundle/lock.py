"""One builder at a time of each thing, of all the processes and threads that share the cache."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lab import paths

_held = threading.local()


@contextmanager
def building(what: str = "parts", *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a thing; who holds it already, in this thread, goes on.

    Raises:
        BlockingIOError: with ``wait`` false, somebody else holds it just now.
    """
    held: set[str] = _held.__dict__.setdefault("names", set())
    if what in held:
        yield
        return
    root = paths.cache_dir() / "bundle" / "locks"
    root.mkdir(parents=True, exist_ok=True)
    with (root / what).open("w") as stream:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        held.add(what)
        try:
            yield
        finally:
            held.remove(what)
