"""Connections to PostgreSQL.

asyncpg gives `numeric` as Decimal and `timestamptz` as aware datetimes; `jsonb` is set to Python values here, with
decimals written as text, because a float would not give back what was stored.
"""

import asyncio
import json
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

import asyncpg
from pydantic import BeforeValidator, Field, SecretStr

from tradewatch.common.http import Check, CheckResult
from tradewatch.common.settings import CommonSettings, split_url
from tradewatch.store.revision import head

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 5.0
CHECK_SECONDS = 1.0

# What a caller may meet when the database is away, restarts or cannot take the write now: an outage, never a yes.
OUTAGE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What is left of a connection that died in the middle of something.
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
    asyncpg.QueryCanceledError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
)
# With what else the server refuses: for a loop that goes on whatever it is.
STORE_ERRORS = (*OUTAGE_ERRORS, asyncpg.PostgresError)

# asyncpg has no types of its own.
Pool: TypeAlias = Any
Connection: TypeAlias = Any


def _database_url(value: object) -> object:
    if isinstance(value, str):
        parts = split_url(value)
        if parts.scheme != "postgresql" or not parts.hostname or not parts.path.strip("/"):
            raise ValueError("must be a postgresql:// URL with a host and a database")
        if parts.password:
            raise ValueError("must not hold the password; give it with TRADEWATCH_DATABASE_PASSWORD_FILE")
    return value


class DatabaseSettings(CommonSettings):
    """What a service that uses the store takes."""

    database_url: Annotated[str, BeforeValidator(_database_url)] = Field(
        default="postgresql://tradewatch@localhost:5432/tradewatch", description="the store"
    )
    database_password: SecretStr | None = Field(default=None, description="file that holds the store's password")

    def connect(self, application_name: str) -> Pool:
        """A pool for these settings, to be used with `async with`."""
        password = self.database_password.get_secret_value() if self.database_password else None
        return connect(self.database_url, password, application_name)


def connect(url: str, password: str | None, application_name: str, *, max_size: int = 5) -> Pool:
    """A pool that makes its first connection with its first query, so that a service starts while the store is away.

    Every command ends within COMMAND_SECONDS, on the server too.
    """
    return asyncpg.create_pool(
        url,
        password=password,
        min_size=0,
        max_size=max_size,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        init=_prepare,
        reset=_keep,
        server_settings={
            "application_name": application_name,
            "statement_timeout": str(int(COMMAND_SECONDS * 1000)),
            "idle_in_transaction_session_timeout": "30000",
        },
    )


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=_to_json, decoder=json.loads, schema="pg_catalog")


async def _keep(_: Connection) -> None:
    """Reset nothing when a connection comes back: it costs a round trip, and who leaves something ends its session."""


def _to_json(value: Any) -> str:
    return json.dumps(value, default=_json_default, allow_nan=False)


def _json_default(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def check(pool: Pool, name: str = "store") -> Check:
    """The readiness check of the store: it answers and its schema is the one that this version was written for."""

    async def run() -> CheckResult:
        return await ping(pool)

    return Check(name, run)


async def ping(pool: Pool) -> CheckResult:
    """What `check` answers now."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            version = await pool.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return CheckResult(False, "no schema; run tradewatch database upgrade")
    except STORE_ERRORS as error:
        # The type only: messages of the driver hold the address and the user.
        return CheckResult(False, f"no answer: {type(error).__name__}")
    if version != head():
        return CheckResult(False, f"schema {version}, wanted {head()}")
    return CheckResult(True, f"schema {version}")
