"""What all tests share: the repository's root, and a bound on how many may be skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# A skip says why in the summary; more than these means that something no longer runs at all.
SKIPS_ALLOWED = 3


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if skipped > SKIPS_ALLOWED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\n{skipped} tests were skipped, {SKIPS_ALLOWED} are allowed")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
