"""What needs no lab waits for the build, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, run
from tests.schedule import BUILDS

NOTE = """
import time
from pathlib import Path

import pytest


def note(what):
    with Path("order").open("a") as stream:
        stream.write(what + "\\n")

"""
BUILD = """
@pytest.mark.parametrize("scenario", ["host_baseline", "artifacts", "valkey"])
def test_scenario(scenario):
    time.sleep(1)
    note(scenario)
    assert scenario != "artifacts" or {built}
"""
UNIT = """
def test_unit():
    note("unit")
"""


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., list[str]]:
    """Which test ran after which, of these folders of a copy of the tests' layout."""

    def ran(*folders: str, built: bool = True) -> list[str]:
        files = {BUILDS.partition("::")[0]: BUILD.format(built=built), "tests/unit/test_unit.py": UNIT}
        for name, body in files.items():
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_text(NOTE + body)
        schedule = ("-p", "tests.schedule", "-n", "2", "--no-loadscope-reorder", f"--basetemp={tmp_path / 'base'}")
        command = ("pytest", *schedule, "-p", "no:cacheprovider", f"--rootdir={tmp_path}", *folders)
        run(*command, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, code=0 if built else 1)
        return (tmp_path / "order").read_text().split()

    return ran


@pytest.mark.parametrize("built", [True, False])
def test_a_file_without_a_lab_waits_for_the_build_and_no_longer(order: Callable[..., list[str]], built: bool) -> None:
    found = order("tests/molecule", "tests/unit", built=built)
    assert found.index("artifacts") < found.index("unit") < found.index("valkey")


def test_where_nothing_is_built_nothing_waits(order: Callable[..., list[str]]) -> None:
    assert order("tests/unit") == ["unit"]
