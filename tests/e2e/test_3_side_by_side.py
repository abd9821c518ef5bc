"""Labs of two checkouts live side by side, and what a dead one left blocks nobody."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.commands import run
from tests.lab_under_test import LabUnderTest


def podman(*arguments: str) -> str:
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


def containers_of(directory: Path) -> list[str]:
    return podman("ps", "--all", "--quiet", "--filter", f"label=tradewatch.lab.dir={directory}").split()


def test_another_lab_has_a_network_and_names_of_its_own(lab: LabUnderTest, tmp_path: Path) -> None:
    other = LabUnderTest(tmp_path / "lab")
    before = containers_of(lab.directory)
    run("python", "-m", "lab", "hosts", "control-1", env=other.env)
    try:
        ours, theirs = (json.loads((one.directory / "lab.json").read_text()) for one in (lab, other))
        assert ours["subnet"] != theirs["subnet"]
        assert ours["name"] != theirs["name"]
        assert other.ssh("control-1", "hostname").strip() == "control-1"
    finally:
        run("python", "-m", "lab", "down", env=other.env)
    assert not other.directory.exists()
    assert containers_of(other.directory) == []
    assert containers_of(lab.directory) == before


def test_the_remains_of_a_dead_lab_block_nobody(lab: LabUnderTest, tmp_path: Path) -> None:
    dead = LabUnderTest(tmp_path / "dead")
    run("python", "-m", "lab", "hosts", "control-1", env=dead.env)
    podman("kill", *containers_of(dead.directory))
    (dead.directory / "lab.json").unlink()
    # Its containers are dead and its record is lost: the same lab comes up again ...
    run("python", "-m", "lab", "hosts", "control-1", env=dead.env)
    assert dead.ssh("control-1", "systemctl is-system-running").strip() == "running"
    # ... and when its directory is gone as well, the next lab of anybody takes the remains away.
    shutil.rmtree(dead.directory)
    assert containers_of(dead.directory)
    hosts = list(json.loads((lab.directory / "lab.json").read_text())["hosts"])
    run("python", "-m", "lab", "hosts", *hosts, env=lab.env)
    assert containers_of(dead.directory) == []


def test_a_stopped_host_is_started_again_with_what_it_held(tmp_path: Path) -> None:
    one = LabUnderTest(tmp_path / "lab")
    run("python", "-m", "lab", "hosts", "control-1", env=one.env)
    try:
        one.ssh("control-1", "echo kept > /var/lib/rancher/kept")
        podman("stop", "--time", "2", *containers_of(one.directory))
        run("python", "-m", "lab", "hosts", "control-1", env=one.env)
        assert one.ssh("control-1", "cat /var/lib/rancher/kept").strip() == "kept"
    finally:
        run("python", "-m", "lab", "down", env=one.env)
