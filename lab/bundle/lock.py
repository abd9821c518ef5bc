"""One builder at a time of each thing, of all the processes and threads that share the cache."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from lab import paths


@contextmanager
def building(what: str = "parts", *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a thing. Who holds it does not ask for it again.

    Raises:
        BlockingIOError: with ``wait`` false, somebody else holds it just now.
    """
    root = paths.cache_dir() / "bundle" / "locks"
    root.mkdir(parents=True, exist_ok=True)
    with (root / what).open("w") as stream:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
