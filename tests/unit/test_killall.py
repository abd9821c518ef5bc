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


@pytest.fixture
def mounted(killall: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that stands for the kernel's mounts; umount takes all but the busy ones out of it."""
    file = tmp_path / "mounts"
    umount = tmp_path / "umount"
    umount.write_text(
        '#!/bin/sh\n[ "$1" = --lazy ] || exit 2\n'
        'case "$2" in *busy*) echo "umount: $2: target is busy." >&2; exit 32;; esac\n'
        # The first of its lines.
        f'sed "0,\\| $2 |{{\\| $2 |d}}" {file} >{file}.new; mv {file}.new {file}\n'
    )
    umount.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(killall, "PROC_MOUNTS", file)
    return file


POD = "/var/lib/kubelet/pods/a/volumes/kubernetes.io~csi"


def test_the_pods_mounts_go_and_others_stay(
    killall: ModuleType, mounted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ["/dev/sda1 / ext4 rw 0 0", "/dev/sdb1 /var/lib/kubelet ext4 rw 0 0"]
    gone = [
        f"tmpfs {POD} tmpfs rw 0 0",
        f"/dev/sdd1 {POD} ext4 rw 0 0",
        f"/dev/sdc1 {POD}/b ext4 rw 0 0",
        "shm /run/k3s/containerd/x/shm tmpfs rw 0 0",
    ]
    mounted.write_text("\n".join(kept + gone) + "\n")
    killall.unmount()
    assert mounted.read_text().splitlines() == kept
    assert sorted(capsys.readouterr().out.splitlines()) == sorted({f"removed mount {line.split()[1]}" for line in gone})


def test_a_mount_that_stays_ends_the_removal_by_its_name(
    killall: ModuleType, mounted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mounted.write_text(f"nas:/x {POD}/busy nfs rw 0 0\ntmpfs {POD}/free tmpfs rw 0 0\n")
    with pytest.raises(SystemExit) as ended:
        killall.unmount()
    # A text as the code is printed, and 1.
    assert ended.value.code == f"{POD}/busy is still mounted: umount: {POD}/busy: target is busy."
    assert capsys.readouterr().out == f"removed mount {POD}/free\n"


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
