"""A PostgreSQL of the test's own: it is restarted, and other tests share theirs."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_support import PostgresServer
from services_support import ValkeyServer
from world import World

SEED = 20_261_123


@pytest.fixture
def world(valkey: ValkeyServer, tmp_path: Path) -> Iterator[World]:
    """Everything made, nothing but Valkey and PostgreSQL started."""
    directory = tmp_path / "chaos"
    directory.mkdir()
    server = PostgresServer(directory)
    server.start()
    try:
        made = World(directory, valkey, server, server.migrate(), random.Random(SEED))
        try:
            yield made
        finally:
            made.end()
    finally:
        server.stop()
