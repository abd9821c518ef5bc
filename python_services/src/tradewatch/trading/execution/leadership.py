"""One writer: the replica that holds a PostgreSQL advisory lock sends orders, the others wait for it.

The lock lives as long as the connection that took it. An order is marked as sent in a transaction on that same
connection, so a replica that lost the lock cannot mark one, and what is not marked is not sent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg

from tradewatch.common.logging import get_logger
from tradewatch.store.database import STORE_ERRORS, Connection, Pool

_log = get_logger("leadership")

# An arbitrary number, the same for all executors of a database.
LOCK = 5127736019
# The server notices within seconds that the lock's holder is gone, host and all.
_KEEPALIVE = "SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"


class NotActive(Exception):
    """This replica does not hold the lock."""


class Leadership:
    """Takes the lock when it is free, keeps it, and says when it is lost."""

    def __init__(
        self, pool: Pool, beat: Callable[[], None], changed: Callable[[bool], None], interval_seconds: float = 1.0
    ) -> None:
        self._pool = pool
        self._beat = beat
        self._changed = changed
        self._interval_seconds = interval_seconds
        self._connection: Connection | None = None
        self._busy = asyncio.Lock()

    @property
    def active(self) -> bool:
        """Whether this replica held the lock when it last looked."""
        return self._connection is not None

    async def run(self) -> None:
        """Take and keep the lock until cancelled."""
        while True:
            self._beat()
            try:
                async with self._pool.acquire() as connection:
                    if await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                        await connection.execute(_KEEPALIVE)
                        await self._hold(connection)
            except STORE_ERRORS as error:
                _log.warning("cannot hold the lock", error=type(error).__name__)
            await asyncio.sleep(self._interval_seconds)

    async def _hold(self, connection: Connection) -> None:
        self._connection = connection
        self._changed(True)
        _log.info("holds the lock: orders are sent from here")
        try:
            while True:
                self._beat()
                await asyncio.sleep(self._interval_seconds)
                async with self._busy:
                    await connection.fetchval("SELECT 1")
        finally:
            self._connection = None
            self._changed(False)
            _log.warning("gave the lock up: no order is sent from here")
            # The lock ends with its connection, which the pool would keep; one that died is the pool's no more.
            with suppress(asyncpg.InterfaceError):
                connection.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction that only the lock's holder can make.

        Raises:
            NotActive: this replica is not the one.
        """
        async with self._busy:
            connection = self._connection
            if connection is None:
                raise NotActive("another replica holds the lock, or the store is away")
            async with connection.transaction():
                yield connection
