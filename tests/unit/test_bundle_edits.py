"""What is edited of upstream's Go code stands there as the edit expects it, or the build fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.bundle.edits import Edit, apply
from lab.steps import LabError


def test_each_match_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "some.go"
    file.write_text("do(a)\nkeep(b)\ndo(c)\n")
    apply(Edit("example.com/module", "some.go", r"do\((\w)\)", r"do(x, \1)", 2), file)
    assert file.read_text() == "do(x, a)\nkeep(b)\ndo(x, c)\n"


def test_what_matches_otherwise_than_expected_is_named(tmp_path: Path) -> None:
    file = tmp_path / "some.go"
    file.write_text("do(a)\n")
    with pytest.raises(LabError, match=r"^example.com/module, some.go: done matches 0 times, not 1$"):
        apply(Edit("example.com/module", "some.go", "done", "", 1), file)
    assert file.read_text() == "do(a)\n"
