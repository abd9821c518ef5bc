"""Which test runs on which core and when: what needs a lab on one of them, the other files on the rest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# What boots hosts, or needs those that are booted: one test after the other.
LABS = ("tests/e2e/", "tests/k3s_contract/", "tests/molecule/")
# From an empty cache, this one compiles everything, with all cores.
BUILDS = "tests/molecule/test_scenarios.py::test_scenario[artifacts]"
BUILD_SECONDS = 3600


class Scheduler(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Gives each core a file at a time, in the order of the command line, and all that needs a lab to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "labs" if file.startswith(LABS) else file


class Turns:
    """On a core: what needs no lab waits until everything is built.

    What needs a lab takes longest, and waits for the build itself; afterwards it leaves enough of the cores idle.
    """

    def __init__(self, config: pytest.Config) -> None:
        # The workers' folders lie side by side.
        self._built = Path(config.getoption("basetemp")).parent / "built"
        self._waits = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._waits = any(item.nodeid == BUILDS for item in session.items)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if not self._waits or item.nodeid.startswith(LABS):
            return
        deadline = time.monotonic() + BUILD_SECONDS
        while not self._built.exists() and time.monotonic() < deadline:
            time.sleep(1)
        self._waits = False

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if nodeid == BUILDS:
            self._built.touch()


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Turns(config))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    """With ``-n``; without it there is no scheduler."""
    return Scheduler(config, log)
