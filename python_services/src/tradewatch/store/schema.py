"""Bringing the store's schema to this version, and the role that the services use."""

import base64
import hashlib
import hmac
import secrets
from typing import Annotated

import asyncpg
from alembic import command
from pydantic import Field, SecretStr, StringConstraints
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine

from tradewatch.store.database import CONNECT_SECONDS, DatabaseSettings
from tradewatch.store.revision import configuration, head

# One migration at a time, whoever starts it: an arbitrary number, the same for all.
_LOCK = 7218034519
_SCRAM_ITERATIONS = 4096


class UpgradeSettings(DatabaseSettings):
    """Settings of `tradewatch database upgrade`; `database_url` and its password are the owner's."""

    service_role: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = Field(
        default="tradewatch", description="the role that the services use"
    )
    service_password: SecretStr | None = Field(default=None, description="file that holds that role's password")


async def upgrade(settings: UpgradeSettings) -> str:
    """Make the services' role, and bring the schema to `head()`; the revision is returned.

    Repeating it changes nothing but the role's password, which becomes the given one.

    Raises:
        OSError, asyncpg.PostgresError: the server does not answer or refuses.
    """
    password = settings.database_password.get_secret_value() if settings.database_password else None
    await _prepare_role(settings, password)

    def migrate(connection: Connection) -> None:
        config = configuration()
        config.attributes["connection"] = connection
        config.attributes["service_role"] = settings.service_role
        command.upgrade(config, "head")

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(settings.database_url, password=password, timeout=CONNECT_SECONDS)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=pool.NullPool)
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()
    return head()


async def _prepare_role(settings: UpgradeSettings, password: str | None) -> None:
    connection = await asyncpg.connect(settings.database_url, password=password, timeout=CONNECT_SECONDS)
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
            role = settings.service_role
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(f'CREATE ROLE "{role}" LOGIN')
            if settings.service_password is not None:
                # The verifier, not the password: statements end up in the server's log.
                verifier = scram_verifier(settings.service_password.get_secret_value())
                await connection.execute(f"ALTER ROLE \"{role}\" PASSWORD '{verifier}'")
    finally:
        await connection.close()


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """What PostgreSQL stores for a password (RFC 5803; src/common/scram-common.c): it cannot be used to log in.

    The password is taken as it is: SASLprep (RFC 4013) leaves the ASCII that generated passwords are made of alone.
    """
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    encoded_salt, encoded_stored, encoded_server = parts
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encoded_salt}${encoded_stored}:{encoded_server}"
