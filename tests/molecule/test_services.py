"""The scenarios of the stores and of what trades with them, on hosts of their own: another core runs them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import REPOSITORY
from tests.molecule.scenarios import SharedHosts, params, shared_hosts

DIRECTORY = REPOSITORY / ".lab/tests/molecule-services"
ORDER = ["valkey", "postgresql", "trading_services"]


@pytest.fixture(scope="module")
def stands() -> Iterator[SharedHosts]:
    with shared_hosts(DIRECTORY) as hosts:
        yield hosts


@pytest.mark.parametrize("scenario", params(ORDER))
def test_scenario(scenario: str, stands: SharedHosts, tmp_path: Path) -> None:
    stands.test(scenario, tmp_path)
