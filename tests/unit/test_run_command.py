"""How the tests run commands."""

from __future__ import annotations

from pathlib import Path

from tests.commands import run
from tests.machines import run_kubectl


def test_bytes_that_are_no_text_do_not_break_the_reading() -> None:
    assert run("printf", r"a\xffb") == "a\ufffdb"


def test_nor_do_those_in_a_pod_s_log(tmp_path: Path) -> None:
    kubectl = tmp_path / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text("#!/bin/sh\nprintf 'a\\377b'\n")
    kubectl.chmod(0o755)
    assert run_kubectl(tmp_path, "logs").stdout == "a\ufffdb"
