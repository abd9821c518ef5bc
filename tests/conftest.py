"""What all tests share: the repository's root, and a bound on how many may be skipped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from lab import hosts, kernel
from tests import diagnosis
from tests.commands import REPOSITORY, run
from tests.lab_under_test import MOLECULE_DIRECTORY, LabUnderTest, e2e_directory
from tests.schedule import pytest_configure, pytest_xdist_make_scheduler  # noqa: F401

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


def checkout() -> set[str]:
    """What git does not know in the checkout, ignored or not, outside .lab and .venv."""
    listed = run("git", "status", "--porcelain", "--ignored", "--untracked-files=all").splitlines()
    return {line[3:] for line in listed if line[:2] in ("??", "!!") and not line[3:].startswith((".lab/", ".venv/"))}


def podman_objects() -> set[str]:
    """podman's networks and volumes, of whomever."""
    return {
        f"{kind} {name}"
        for kind in ("network", "volume")
        for name in run("podman", kind, "ls", "--format", "{{.Name}}").split()
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have a failed test say what its lab looks like."""
    report = yield
    fixtures = getattr(item, "fixturenames", ())
    for fixture, directory in {"lab": e2e_directory(), "stands": MOLECULE_DIRECTORY}.items():
        if report.failed and fixture in fixtures:
            report.sections.append(("the lab after the failure", diagnosis.says(directory)))
    return report


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[LabUnderTest]:
    """The lab after `make lab` from zero, beside the user's; removed at the end, unless it stood before."""
    standing = bool(os.environ.get("TRADEWATCH_E2E_LAB"))
    under_test = LabUnderTest(e2e_directory())
    if not standing:
        run("python", "-m", "lab", "down", env=under_test.env)
    # Past pytest's capturing: it is for who waits now.
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nmake lab: its progress is in {under_test.log}", file=sys.stderr, flush=True)
    alone = not hosts.any_lab()
    before = checkout()
    under_test.kernel_found = kernel.values()
    objects = podman_objects()
    started = time.monotonic()
    under_test.output = under_test.make("lab")
    under_test.seconds = time.monotonic() - started
    under_test.strays = checkout() - before
    yield under_test
    if not standing:
        run("python", "-m", "lab", "down", env=under_test.env)
        assert not under_test.directory.exists()
        if alone and not hosts.any_lab():
            assert kernel.values() == under_test.kernel_found
            assert podman_objects() <= objects
