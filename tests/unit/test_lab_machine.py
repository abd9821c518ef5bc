"""What keeps a machine from hosting the lab is one line each, before anything is changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import machine

GOOD: dict[str, Any] = {
    "architecture": "x86_64",
    "uid": 0,
    "memory_gib": 16.0,
    "disk_gib": 100.0,
    "namespaces": lambda: True,
    "packages": lambda: [],
    "storage": lambda: [],
    "subnet_free": lambda: True,
}


def test_a_good_machine_has_no_obstacle() -> None:
    assert machine.obstacles(**GOOD) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"uid": 1000}, "not root"),
        ({"memory_gib": 3.2}, "3.2 GiB of memory available, 8 GiB needed"),
        ({"disk_gib": 1.0}, "1.0 GiB of disk free"),
        ({"namespaces": lambda: False}, "nested containers"),
        ({"architecture": "aarch64"}, "aarch64"),
        ({"subnet_free": lambda: False}, "no free subnet among 10.213.0.0/24 ... 192.168.249.0/24"),
        ({"packages": lambda: ["podman", "runc"]}, "not installed and no apt-get to do it: podman runc"),
    ],
)
def test_each_obstacle_is_one_line_that_names_it(
    fault: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    [line] = machine.obstacles(**{**GOOD, **fault})
    assert said in line


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRADEWATCH_LAB_DIR", str(tmp_path))
    return tmp_path


def test_a_lab_that_stands_has_its_memory_and_disk_already(directory: Path) -> None:
    taken = {**GOOD, "memory_gib": 2.0, "disk_gib": 10.0}
    assert len(machine.obstacles(**taken)) == 2
    (directory / "lab.json").write_text("{}")
    assert machine.obstacles(**taken) == []
    assert machine.obstacles(**{**taken, "disk_gib": 1.0}) != []


def test_the_image_alone_wants_neither_the_labs_memory_nor_its_disk() -> None:
    small = {**GOOD, "memory_gib": 2.0, "disk_gib": 10.0}
    assert machine.obstacles("image", **small) == []
    [line] = machine.obstacles("image", **{**small, "disk_gib": 1.0})
    assert "1.0 GiB of disk free" in line


def test_the_filesystem_of_the_hosts_volumes_counts_too(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEWATCH_CACHE", str(tmp_path / "cache"))
    for name in ("cache", "images", "volumes"):
        (tmp_path / name).mkdir()
    # The device of each, and what is free on it.
    found = {"cache": (1, 100.0), "images": (2, 3.0), "volumes": (2, 3.0)}
    monkeypatch.setattr(machine, "_filesystem", lambda place: found[place.name])
    measured = {**GOOD, "disk_gib": None, "storage": lambda: [tmp_path / "images", tmp_path / "volumes" / "none yet"]}
    assert machine.obstacles(**measured) == [
        f"3.0 GiB of disk free below {tmp_path / 'images'}, 20 GiB needed; free some"
    ]
    found["images"] = found["volumes"] = (2, 30.0)
    assert machine.obstacles(**measured) == []


def test_podman_is_asked_where_it_keeps_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "STORAGE", tmp_path / "usual")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine._storage() == [tmp_path / "usual"]
    podman = tmp_path / "podman"
    podman.write_text('#!/bin/sh\n[ "$1" = info ] && printf "/srv/graph\\n/srv/volumes\\n"\n')
    podman.chmod(0o755)
    assert machine._storage() == [Path("/srv/graph"), Path("/srv/volumes")]


def test_a_path_with_a_space_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEWATCH_LAB_DIR", str(tmp_path / "my lab"))
    [line] = machine.obstacles(**GOOD)
    assert "my lab' holds a space" in line


@pytest.mark.parametrize("target", ["lab", "check"])
def test_make_refuses_a_checkout_whose_path_holds_a_space(repository: Path, tmp_path: Path, target: str) -> None:
    checkout = tmp_path / "my checkout"
    checkout.mkdir()
    shutil.copy(repository / "Makefile", checkout)
    result = subprocess.run(["make", target], cwd=checkout, capture_output=True, text=True)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert "my checkout" in line
    assert "move the checkout" in line
    assert [entry.name for entry in checkout.iterdir()] == ["Makefile"]


def test_all_obstacles_are_said_at_once() -> None:
    assert len(machine.obstacles(**{**GOOD, "uid": 1000, "memory_gib": 1.0, "disk_gib": 1.0})) == 3


def test_packages_are_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "PROGRAM_FOLDERS", (str(tmp_path),))
    assert set(machine.missing_packages()) >= set(machine.PROGRAMS.values())
    (tmp_path / "podman").touch(mode=0o755)
    assert "podman" not in machine.missing_packages()


def test_another_user_is_refused_before_anything_is_changed(repository: Path) -> None:
    # Run as `nobody` for real: the check must not need root to say that it needs root.
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "lab.machine"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp"}
    if not os.access(repository, os.X_OK) or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    readable = subprocess.run(
        [*command[:4], "test", "-r", str(repository / "lab/machine.py")], capture_output=True
    ).returncode
    interpreter = subprocess.run([*command[:5], "-c", ""], capture_output=True).returncode
    if readable or interpreter:
        pytest.skip("another user cannot read this checkout or its interpreter")
    result = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "not root" in result.stderr
