"""What reset.yml removes from a host's kernel, and what it must not."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

SAVED = """*filter
:INPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-ROUTER-INPUT - [0:0]
:ssh-guard - [0:0]
-A INPUT -m comment --comment "kube-router netpol - ABC" -j KUBE-ROUTER-INPUT
-A INPUT -s 192.0.2.0/24 -p tcp --dport 22 -j ssh-guard
-A KUBE-FORWARD -j ACCEPT
COMMIT
"""


@pytest.fixture
def killall(repository: Path) -> ModuleType:
    return script(repository, "killall")


def script(repository: Path, name: str) -> ModuleType:
    """A script of the role as a module."""
    spec = importlib.util.spec_from_file_location(name, repository / f"roles/k3s_node/files/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_user_s_own_rules_stay(killall: ModuleType) -> None:
    kept = [line for line in SAVED.splitlines() if not killall.CHAIN.match(line) and not killall.RULE.search(line)]
    assert kept == [
        "*filter",
        ":INPUT ACCEPT [0:0]",
        ":ssh-guard - [0:0]",
        "-A INPUT -s 192.0.2.0/24 -p tcp --dport 22 -j ssh-guard",
        "COMMIT",
    ]


@pytest.mark.parametrize("name", ["cni0", "flannel.1", "kube-bridge", "kube-dummy-if", "veth1a2b3c4d"])
def test_the_pod_network_s_interfaces_go(killall: ModuleType, name: str) -> None:
    assert killall.INTERFACES.match(name)


@pytest.mark.parametrize("name", ["lo", "eth0", "bond0", "br0", "wg0", "vethwifi", "tailscale0"])
def test_other_interfaces_stay(killall: ModuleType, name: str) -> None:
    assert not killall.INTERFACES.match(name)


def test_only_the_state_of_k3s_s_network_goes(
    killall: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killall, "CNI_STATE", tmp_path)
    ours, theirs = "a1" * 32, "b2" * 32
    kept = ["networks/podman/10.88.0.2", f"results/podman-{theirs}-eth0", f"results/cni-loopback-{theirs}-lo"]
    gone = [
        "networks/cbr0/10.42.0.2",
        f"results/cbr0-{ours}-eth0",
        f"results/cni-loopback-{ours}-lo",
        f"flannel/{ours}",
    ]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{ours if name in gone else theirs}\r\neth0")
    killall.remove_cni_state()
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()) == sorted(kept)


def test_k3s_s_own_programs_are_found(
    killall: ModuleType, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killall, "DATA", tmp_path)
    program = tmp_path / "5e1f/bin/aux/iptables-save-of-k3s"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho saved\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert killall.run(program.name) == ""
    killall.with_k3s_programs()
    assert killall.run(program.name) == "saved\n"


def test_a_user_s_disk_is_emptied_and_stays_mounted(
    killall: ModuleType, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "k3s/storage"
    (disk / "pvc-1/data").mkdir(parents=True)
    (disk / "pvc-1/data/file").touch()
    (tmp_path / "k3s/elsewhere").symlink_to(repository)
    rmdir = os.rmdir

    def busy(folder: str) -> None:
        if folder == str(disk):
            raise OSError("Device or resource busy")
        rmdir(folder)

    monkeypatch.setattr(os, "rmdir", busy)
    remove_tree = script(repository, "remove_tree")
    assert [remove_tree.remove(str(tmp_path / "k3s")) for _ in range(2)] == [4, 0]
    assert list(tmp_path.rglob("*")) == [tmp_path / "k3s", disk]
    assert (repository / "README.md").exists()
    assert not [mount for mount in killall.MOUNTS if str(Path("/var/lib/rancher/k3s/storage")).startswith(mount)]
    monkeypatch.undo()
    assert remove_tree.remove(str(tmp_path / "k3s")) == 2
    assert not list(tmp_path.iterdir())
