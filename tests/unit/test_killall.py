"""What reset.yml removes from a host's kernel, and what it must not."""

from __future__ import annotations

import importlib.util
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
    spec = importlib.util.spec_from_file_location("killall", repository / "roles/k3s_node/files/killall.py")
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
