"""The role host_baseline notes a host's kernel settings once, and puts back what differs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def kernel(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernel", repository / "roles/host_baseline/files/kernel.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PROC", tmp_path / "proc")
    for name, value in (("kernel/panic", "0"), ("net/ipv4/ip_local_port_range", "32768\t60999")):
        (tmp_path / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc" / name).write_text(value + "\n")
    return module


def test_settings_are_noted_once(kernel: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "state" / "found"
    kernel.note(file, ["kernel.panic", "vm.is_not_there"])
    (tmp_path / "proc/kernel/panic").write_text("10\n")
    kernel.note(file, ["kernel.panic", "net.ipv4.ip_local_port_range"])
    assert file.read_text() == "kernel.panic = 0\nnet.ipv4.ip_local_port_range = 32768 60999\n"
    capsys.readouterr()
    kernel.note(file, ["kernel.panic"])
    assert capsys.readouterr().out == ""


def test_what_differs_is_put_back_and_nothing_stays(
    kernel: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "state" / "found"
    kernel.note(file, ["kernel.panic", "net.ipv4.ip_local_port_range"])
    (tmp_path / "proc/kernel/panic").write_text("10\n")
    capsys.readouterr()
    kernel.restore(file)
    assert (tmp_path / "proc/kernel/panic").read_text() == "0"
    assert capsys.readouterr().out.splitlines() == ["restored kernel.panic = 0", f"removed {file}"]
    assert not file.parent.exists()
    kernel.restore(file)
    assert capsys.readouterr().out == ""


def test_a_refused_setting_is_named_and_keeps_the_file(kernel: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "state" / "found"
    kernel.note(file, ["kernel.panic", "net.ipv4.ip_local_port_range"])
    (tmp_path / "proc/kernel/panic").write_text("10\n")
    (tmp_path / "proc/net/ipv4/ip_local_port_range").write_text("1 2\n")
    write = Path.write_text

    def refuse(self: Path, text: str) -> int:
        if self.name == "panic":
            raise PermissionError(1, "Operation not permitted")
        return write(self, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        with pytest.raises(SystemExit, match=r"kernel.panic = 0 \(Operation not permitted\)"):
            kernel.restore(file)
    assert file.exists()
    assert (tmp_path / "proc/net/ipv4/ip_local_port_range").read_text() == "32768 60999"
