"""What labs change in the machine's kernel is put back after the last one, also when one of them died."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
import shutil
from pathlib import Path

import pytest

from lab import hosts, kernel

PANIC = "kernel/panic"


class Podman:
    """Volumes and labelled objects, as podman keeps them."""

    def __init__(self) -> None:
        self.volumes: dict[str, str] = {}
        self.labs: list[str] = []

    def __call__(self, argv: list[str]) -> str:
        match argv[1:]:
            case ["volume", "create", *labels, name]:
                assert name not in self.volumes
                pairs = (label.removeprefix("--label=").split("=", 1) for label in labels)
                self.volumes[name] = json.dumps(dict(pairs))
            case ["volume", "ls", *_]:
                return "\n".join(self.volumes)
            case ["volume", "inspect", *_, name]:
                return self.volumes[name] + "\n"
            case ["volume", "rm", *names]:
                for name in names:
                    del self.volumes[name]
            case ["network", "ls", *_] | ["ps", *_]:
                return "\n".join(self.labs)
        return ""


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in ((PANIC, "0"), ("vm/overcommit_memory", "0"), (kernel.BOOT_ID, "first-boot")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
    monkeypatch.setattr(kernel, "PROC", tmp_path)
    return tmp_path


@pytest.fixture
def podman(monkeypatch: pytest.MonkeyPatch, proc: Path, tmp_path: Path) -> Podman:
    podman = Podman()
    monkeypatch.setattr(kernel, "run", podman)
    monkeypatch.setattr(hosts, "run", podman)
    monkeypatch.setattr(kernel, "LOCKED_FOLDER", tmp_path)
    return podman


def test_the_last_lab_puts_back_what_the_first_one_found(podman: Podman, proc: Path) -> None:
    kernel.note()
    (proc / PANIC).write_text("10\n")
    kernel.note()
    podman.labs = ["of another checkout"]
    hosts.down()
    assert (proc / PANIC).read_text() == "10\n"
    podman.labs = []
    hosts.down()
    assert (proc / PANIC).read_text() == "0"
    assert podman.volumes == {}


def test_values_of_before_a_reboot_are_not_put_back(podman: Podman, proc: Path) -> None:
    kernel.note()
    (proc / kernel.BOOT_ID).write_text("second-boot\n")
    (proc / PANIC).write_text("60\n")
    kernel.note()
    [(name, label)] = podman.volumes.items()
    assert name.endswith("second-boot")
    noted = {f"{kernel.LABEL}.kernel.panic": "60", f"{kernel.LABEL}.vm.overcommit_memory": "0"}
    assert json.loads(label) == {kernel.LABEL: "1", **noted}


def test_a_setting_that_cannot_be_put_back_is_one_line(
    podman: Podman, proc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel.note()
    (proc / "vm/overcommit_memory").write_text("1\n")
    (proc / PANIC).write_text("10\n")
    writable = Path.write_text

    def refuse(self: Path, text: str) -> int:
        if self == proc / PANIC:
            raise PermissionError(13, "Permission denied")
        return writable(self, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        kernel.restore()
    assert capsys.readouterr().err.split("\n")[0].strip() == (
        "the kernel's kernel.panic stays 10, it was 0: Permission denied"
    )
    assert (proc / "vm/overcommit_memory").read_text() == "0"


Event = multiprocessing.synchronize.Event


def _choose(folder: Path, arrived: Event, entered: Event, release: Event) -> None:
    kernel.LOCKED_FOLDER = folder
    arrived.set()
    with kernel.shared():
        entered.set()
        release.wait(20)


def test_one_lab_at_a_time_chooses(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    release = context.Event()
    first, second = ((context.Event(), context.Event()) for _ in range(2))
    processes = [context.Process(target=_choose, args=(tmp_path, *events, release)) for events in (first, second)]
    processes[0].start()
    assert first[1].wait(20)
    processes[1].start()
    assert second[0].wait(20)
    assert not second[1].wait(0.5)
    release.set()
    assert second[1].wait(20)
    for process in processes:
        process.join()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("podman") is None, reason="no podman")
def test_this_machine_has_the_settings() -> None:
    assert set(kernel.values()) >= {"kernel.panic", "vm.overcommit_memory", "fs.inotify.max_user_instances"}
