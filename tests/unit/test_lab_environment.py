"""What the lab's tools write stays below the lab, the venv and the cache; what they read stays the user's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab import environment, paths
from lab.bundle import golang


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TRADEWATCH_LAB_DIR", str(tmp_path / "lab"))
    monkeypatch.setenv("TRADEWATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("GOENV", raising=False)
    return home


def test_every_folder_is_below_those_that_the_lab_may_write(tmp_path: Path) -> None:
    allowed = (str(tmp_path / "lab"), str(tmp_path / "cache"), str(paths.REPOSITORY / ".venv"))
    others = {"GOENV", "PYTHONDONTWRITEBYTECODE"}
    for name, value in {**environment.variables(Path("/l")), **environment.go_variables()}.items():
        assert value.startswith((*allowed, "/l/")) or name in others, name


def test_ssh_can_make_its_socket_in_the_longest_folder_that_is_used(tmp_path: Path) -> None:
    room = environment.CONTROL_FOLDER_BYTES - len("/ssh/cp")
    lab = "/" + "x" * (room - 1)
    assert environment.variables(Path(lab))["ANSIBLE_SSH_CONTROL_PATH_DIR"] == f"{lab}/ssh/cp"
    # The kernel takes a path of this length, and no longer one.
    longest = f"{lab}/ssh/cp/{'c' * 10}.{'r' * 16}"
    with socket.socket(socket.AF_UNIX) as probe:
        with pytest.raises(FileNotFoundError):
            probe.bind(longest)
        with pytest.raises(OSError, match="path too long"):
            probe.bind(longest + "x")


def test_below_a_deep_folder_connections_are_not_shared() -> None:
    variables = environment.variables(Path("/" + "x" * environment.CONTROL_FOLDER_BYTES))
    assert "ANSIBLE_SSH_CONTROL_PATH_DIR" not in variables
    assert "ControlMaster=no" in variables["ANSIBLE_SSH_ARGS"]


def test_a_command_runs_within_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab.environment", "sh", "-c", 'echo "$UV_CACHE_DIR" "$1"', "sh", "a b"]
    result = subprocess.run(command, cwd=paths.REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout == f"{tmp_path}/cache/uv a b\n"


def test_what_python_compiles_is_kept_in_the_venv_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    asked = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode, sys.pycache_prefix)"]
    command = [sys.executable, "-m", "lab.environment", *asked]
    result = subprocess.run(command, cwd=paths.REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout == f"False {paths.REPOSITORY}/.venv/tools/pycache\n"


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go on this machine")
def test_go_reads_the_user_s_configuration_and_writes_nothing_beside_it(home: Path) -> None:
    configuration = home / ".config" / "go" / "env"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("GOPROXY=https://mirror.example\n")
    golang.go()
    answer = subprocess.run(
        ["go", "env", "GOPROXY"],
        env={**os.environ, **environment.go_variables()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "https://mirror.example\n"
    assert [path for path in home.rglob("*") if path.is_file()] == [configuration]
