"""Folders of dashboards: what roles take of them, Grafana's folders, and wrong files named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plugins.filter import dashboards
from plugins.filter.dashboards import (
    tradewatch_dashboard_files,
    tradewatch_dashboard_folders,
    tradewatch_dashboard_problems,
)
from tests.commands import REPOSITORY

OURS = str(REPOSITORY / "files/dashboards")


def write(folder: Path, name: str, content: Any = None, **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps({"uid": name, "title": name, "panels": [], **changed})
    (folder / f"{name}.json").write_text(text)
    return folder


def test_ours_are_right() -> None:
    assert tradewatch_dashboard_problems([OURS]) == []


def test_files_are_those_of_all_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    other = write(tmp_path / "other", "a-first")
    assert [Path(file).name for file in tradewatch_dashboard_files([OURS, str(other)])] == [
        "a-first.json",
        "crypto-trading-engine.json",
        "unified-system.json",
    ]


def test_a_folder_of_one_s_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", "x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tradewatch_dashboard_files(["~/mine"]) == [f"{tmp_path}/mine/x.json"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x", "{", "x.json: is not JSON (line 1: "),
        ("x", '"\\ud800', "x.json: is not JSON"),
        ("x", "[]", "x.json: is no dashboard: it has no panels"),
        ("x", '{"dashboard": {}}', "it has no panels, what is below its key dashboard may be one"),
        ("x", {"title": ""}, "x.json: has no title"),
        ("x", {"uid": "a b"}, "x.json: its uid must be 1 to 40 letters, digits, '-' and '_'"),
        ("x", {"uid": None}, "x.json: its uid must be"),
        ("x", {"uid": "unified-system"}, "x.json: its uid unified-system is also that of "),
        ("x", {"__inputs": [1]}, "x.json: has __inputs, which nobody answers"),
        ("a b", {"uid": "x"}, "a b.json: its name may have letters, digits, '.', '_' and '-' only"),
        ("unified-system", {"uid": "x"}, "files/dashboards/unified-system.json has the same name"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, content: Any, said: str) -> None:
    text = content if isinstance(content, str) else None
    folder = write(tmp_path / "mine", name, text, **(content if isinstance(content, dict) else {}))
    (problem,) = tradewatch_dashboard_problems([str(folder)], OURS)
    assert said in problem
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        tradewatch_dashboard_files([OURS, str(folder)])
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ("/a", "is not a list of folders"),
        ([{"path": "/a"}], "is not a list of folders"),
        (["dashboards"], "dashboards is not an absolute path"),
        (["/nonexistent"], "/nonexistent is not a folder"),
        ([str(REPOSITORY / "files/rules")], "files/rules holds no *.json"),
    ],
)
def test_a_wrong_folder_is_named(folders: Any, said: str) -> None:
    (problem,) = tradewatch_dashboard_problems(folders, OURS)
    assert said in problem


def test_too_much_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(write(tmp_path / "mine", "x", description="x" * 1024 * 1024))
    assert "is too much for a ConfigMap" in tradewatch_dashboard_problems([folder])[0]
    monkeypatch.setattr(dashboards, "MAX_FILES", 1)
    assert tradewatch_dashboard_problems([], OURS) == ["there are 2 dashboards, and dashboard-report reads 1"]


FOLDERS = [
    {"uid": "a", "title": "A", "dashboards": ["one"]},
    {"uid": "b", "title": "B", "dashboards": []},
    {"uid": "c", "title": "C", "dashboards": []},
]


def test_what_no_folder_names_is_in_the_one_for_the_rest() -> None:
    found = tradewatch_dashboard_folders(FOLDERS, ["/x/one.json", "/y/two.json"], "b")
    assert found == [
        {"uid": "a", "title": "A", "dashboards": ["/x/one.json"]},
        {"uid": "b", "title": "B", "dashboards": ["/y/two.json"]},
    ]


@pytest.mark.parametrize(
    ("folders", "further", "said"),
    [
        (FOLDERS, "d", "there is no folder d for those that no folder names"),
        ([{**FOLDERS[0], "dashboards": ["three"]}], "a", "the folder a names three, and there is no three.json"),
        ([FOLDERS[0], {**FOLDERS[0], "uid": "d"}], "a", "the folders a and d both name one"),
    ],
)
def test_a_wrong_place_is_named(folders: Any, further: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tradewatch_dashboard_folders(folders, ["/x/one.json"], further)
