"""What runs side by side ends at the first failure."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lab.steps import LabError, run, together


def test_the_first_failure_ends_the_others_commands(tmp_path: Path) -> None:
    def fail() -> None:
        # Not before the other command runs.
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        raise LabError("host X does not boot")

    def build() -> None:
        run(["sh", "-c", f"touch {tmp_path}/started; exec sleep 60"])

    started = time.monotonic()
    with pytest.raises(LabError, match="host X does not boot"):
        together(fail, build)
    assert time.monotonic() - started < 20


def test_no_command_starts_after_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        run(["false"])

    def build() -> None:
        for _ in range(1000):
            run(["sleep", "0.05"])

    with pytest.raises(LabError, match="false"):
        together(fail, build)
    # ... and the next attempt may start some.
    assert together(lambda: run(["echo", "again"]), lambda: 7) == ["again\n", 7]
