"""How the tests of a lab run their commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab_under_test import LabUnderTest


def test_kubectl_gives_both_outputs_of_a_command_that_exits_as_expected(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    kubectl = tmp_path / "bin/kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@"\necho warning >&2\nexit 3\n')
    kubectl.chmod(0o755)
    lab = LabUnderTest(tmp_path)
    assert lab.kubectl("get", "pods", code=3) == f"--kubeconfig {tmp_path}/kubeconfig get pods\nwarning\n"
    with pytest.raises(AssertionError, match=r"(?s)exited with 3, not 0.*warning"):
        lab.kubectl("get", "pods")
