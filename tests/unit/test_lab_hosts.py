"""Names, networks and locks of labs that live side by side."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from lab import hosts, paths, secrets, up
from lab.steps import LabError, digest


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRADEWATCH_LAB_DIR", str(tmp_path / "lab"))
    (tmp_path / "lab").mkdir()
    return tmp_path / "lab"


def test_labs_of_two_checkouts_have_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = paths.lab_name()
    monkeypatch.setenv("TRADEWATCH_LAB_DIR", str(tmp_path / "other"))
    assert paths.lab_name() != first


def test_the_first_free_subnet_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[str] = []

    def run(argv: list[str]) -> str:
        if argv[:3] == ["podman", "network", "create"]:
            created.append(argv[argv.index("--subnet") + 1])
        return ""

    monkeypatch.setattr(hosts, "run", run)
    monkeypatch.setattr(hosts, "_taken_networks", lambda: ["10.213.0.0/23", "10.213.2.128/25", "0.0.0.0/0"])
    lab = hosts._network(None)
    assert created == ["10.213.3.0/24"]
    assert lab.gateway == "10.213.3.1"


def test_no_free_subnet_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_taken_networks", lambda: ["10.0.0.0/8"])
    with pytest.raises(LabError, match="no free subnet"):
        hosts._network(None)


def test_addresses_are_never_given_twice() -> None:
    addresses: dict[str, str] = {}
    for name in "abcdef":
        addresses[name] = hosts._free_address("10.213.7.0/24", addresses)
    assert len(set(addresses.values())) == 6
    assert addresses["a"] == "10.213.7.11"


def test_secrets_are_private_and_stay(directory: Path) -> None:
    secrets.ensure()
    file = directory / "secrets.json"
    first = json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    # The exchange's public key is that of its private one.
    assert set(first) == set(secrets.NAMES)
    assert len(set(first.values())) == len(first)
    secrets.ensure()
    assert json.loads(file.read_text()) == first


def test_two_commands_on_one_lab_do_not_mix(directory: Path) -> None:
    with (directory / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LabError, match="another command works on the lab"), up.lock():
            pass


def test_a_dead_process_s_lock_blocks_nobody(directory: Path) -> None:
    (directory / "lock").write_text("left by a process that died")
    with up.lock():
        pass


def test_a_content_key_follows_content_and_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = digest(tmp_path / "a")
    (tmp_path / "a").write_text("2")
    second = digest(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, digest(tmp_path / "b")}) == 3


def test_down_leaves_the_tests_labs_and_nothing_else(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "down", lambda: None)
    (directory / "ssh").mkdir()
    (directory / "kubeconfig").touch()
    (directory / "tests" / "e2e").mkdir(parents=True)
    up.down()
    assert [entry.name for entry in directory.iterdir()] == ["tests"]
    (directory / "tests" / "e2e").rmdir()
    up.down()
    assert not directory.exists()
