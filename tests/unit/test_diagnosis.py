"""What a failed test says of its lab: bounded, and never an error of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import diagnosis


def test_a_lab_that_never_came_up_is_said_in_a_line(tmp_path: Path) -> None:
    assert diagnosis.says(tmp_path) == "no host is there"


def test_hosts_that_are_gone_and_a_cluster_without_kubectl_are_said(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text(json.dumps({"hosts": {"trading-1": "127.0.0.1"}}))
    (tmp_path / "kubeconfig").touch()
    _, kubectl, *_ = text = diagnosis.says(tmp_path).splitlines()
    assert "No such file or directory" in kubectl
    assert text.index("trading-1:") < len(text) - 1


def test_a_lab_that_is_lost_is_not_asked_for_every_test(tmp_path: Path) -> None:
    assert [bool(diagnosis.says(tmp_path)) for _ in range(diagnosis.FAILURES + 1)] == [True] * diagnosis.FAILURES + [
        False
    ]


@pytest.mark.parametrize(
    ("line", "unwell"),
    [
        ("crypto-trading risk-manager-7c-x 1/1 Running 0 5m", False),
        ("crypto-trading database-upgrade-b 0/1 Completed 0 5m", False),
        ("crypto-trading risk-manager-7c-x 0/1 Running 0 5m", True),
        ("crypto-trading risk-manager-7c-x 1/1 Running 2 (3m ago) 5m", True),
        ("crypto-trading risk-manager-7c-x 0/1 ImagePullBackOff 0 5m", True),
        ("The connection to the server was refused", True),
    ],
)
def test_pods_that_are_well_are_left_out(line: str, unwell: bool) -> None:
    assert diagnosis._unwell(line) is unwell
