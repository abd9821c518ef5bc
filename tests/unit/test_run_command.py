"""How the tests run commands."""

from __future__ import annotations

from tests.commands import run


def test_bytes_that_are_no_text_do_not_break_the_reading() -> None:
    assert run("printf", r"a\xffb") == "a\ufffdb"
