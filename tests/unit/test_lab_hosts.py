"""Names, networks and locks of labs that live side by side."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lab import hosts, machine, paths, playbooks, secrets, subnets, table, up
from lab.bundle import parts
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


@pytest.mark.parametrize(
    ("taken", "subnet"),
    [
        # A VPN's.
        (["0.0.0.0/1", "128.0.0.0/1"], "10.213.0.0/24"),
        (["10.0.0.0/8"], "172.29.0.0/24"),
        (["10.0.0.0/8", "172.16.0.0/12", "fd00::/8"], "192.168.213.0/24"),
        (["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], None),
    ],
)
def test_a_routed_block_is_left_for_the_next(taken: list[str], subnet: str | None) -> None:
    assert subnets.free(taken) == subnet


def test_no_free_subnet_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_taken_networks", lambda: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])
    with pytest.raises(LabError, match="no free subnet"):
        hosts._network(None)


LAB = hosts.Lab("tradewatch-x", "tradewatch-x", "10.213.0.0/24", "10.213.0.1", {"control-1": "10.213.0.11"})


def test_a_host_whose_boot_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def run(argv: list[str]) -> str:
        match argv[argv.index("systemctl") + 1 :]:
            case ["is-system-running"]:
                raise LabError("podman exec ... failed with exit code 1:\nstarting")
            case ["list-jobs", *_]:
                return "7 hangs.service start running\n"
            case ["--failed", *_]:
                return ""
        raise AssertionError(f"may never end: {argv}")

    monkeypatch.setattr(hosts, "run", run)
    monkeypatch.setattr(hosts, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept)))
    with pytest.raises(LabError) as given_up:
        hosts._wait_running(LAB, "control-1")
    assert sum(slept) == hosts.BOOT_TIMEOUT_SECONDS
    assert str(given_up.value) == (
        "host control-1 is 'starting', not running; failed units: none; unfinished jobs: 7 hangs.service start running"
    )


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


@pytest.fixture
def stages(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages of `make lab` in the order in which they were begun; none does anything."""
    begun: list[str] = []

    def play(playbook: str) -> playbooks.Result:
        begun.append(playbook)
        return playbooks.Result(playbook, 0, 1.0, {})

    monkeypatch.setattr(machine, "obstacles", lambda: [])
    monkeypatch.setattr(playbooks, "inventory_hosts", lambda: ["control-1"])
    monkeypatch.setattr(playbooks, "play", play)
    monkeypatch.setattr(hosts, "up", lambda _: begun.append("hosts"))
    monkeypatch.setattr(up, "missing_parts", lambda: ["valkey"])
    monkeypatch.setattr(parts, "make", begun.append)
    monkeypatch.setattr(parts, "drop_build_caches", lambda: None)
    monkeypatch.setattr(table, "show", lambda *_: begun.append("table"))
    return begun


def test_make_lab_succeeds_when_every_stage_did(stages: list[str]) -> None:
    assert set(up.up()) == {"hosts and bundle", "site.yml", "playbooks/verify.yml"}
    assert sorted(stages[:2]) == ["hosts", "valkey"]
    assert stages[2:] == ["site.yml", "playbooks/verify.yml", "table"]


@pytest.mark.parametrize("stage", ["site.yml", "playbooks/verify.yml"])
def test_a_playbook_that_fails_fails_make_lab(stages: list[str], monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    play = playbooks.play
    monkeypatch.setattr(
        playbooks, "play", lambda name: playbooks.Result(name, 2, 7.0, {}) if name == stage else play(name)
    )
    with pytest.raises(LabError, match=rf"^{stage} failed after 7 s; .*run `make lab` again; it resumes from there$"):
        up.up()
    assert "table" not in stages


@pytest.mark.parametrize(
    ("module", "function", "said"),
    [(hosts, "up", "no answer"), (parts, "make", "the bundle's part valkey cannot be made: no answer")],
)
def test_a_failed_boot_or_build_says_what_failed_and_how_to_go_on(
    stages: list[str], monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, said: str
) -> None:
    def fail(_: object) -> None:
        raise LabError("no answer")

    monkeypatch.setattr(module, function, fail)
    with pytest.raises(LabError) as failed:
        up.up()
    assert str(failed.value) == f"{said}\nFix the cause and run `make lab` again; it resumes from there"
    assert "site.yml" not in stages
