"""What shares the cache builds each thing once, and two things side by side."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.bundle import golang, oci, parts
from lab.bundle.lock import building
from lab.steps import LabError


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that a stand-in of Go has built; it fails when two builds of one run at a time."""
    monkeypatch.setenv("TRADEWATCH_CACHE", str(tmp_path))
    busy: dict[str, threading.Lock] = {}
    done: list[str] = []

    def run(words: list[Any], **_: Any) -> str:
        output = Path(words[words.index("-o") + 1])
        lock = busy.setdefault(output.stem, threading.Lock())
        assert lock.acquire(blocking=False), f"two builds of {output.stem} at a time"
        time.sleep(0.2)
        output.write_text("a program")
        done.append(output.stem)
        lock.release()
        return ""

    monkeypatch.setattr(golang, "run", run)
    monkeypatch.setattr(golang, "go", lambda: Path("/go"))
    monkeypatch.setattr(golang, "modfile", lambda *_: Path("/go.mod"))
    return done


def test_a_program_is_built_once(builds: list[str]) -> None:
    names = ["promtool", "promtool", "loki", "loki"]
    with ThreadPoolExecutor(len(names)) as pool:
        made = list(pool.map(lambda name: golang.binary("prometheus", ".", name), names))
    assert sorted(builds) == ["loki", "promtool"]
    assert all(path.read_text() == "a program" for path in made)


def test_what_builds_for_something_else_waits_not_for_itself(builds: list[str]) -> None:
    with building():
        golang.binary("prometheus", ".", "promtool")
    assert builds == ["promtool"]


def test_build_caches_are_left_to_who_builds(
    tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[bool] = []
    monkeypatch.setattr(golang, "drop_build_cache", lambda: dropped.append(True))
    for held in (building(), building("go-caches", shared=True)):
        with held, ThreadPoolExecutor(1) as pool:
            pool.submit(parts.drop_build_caches).result()
    assert (dropped, builds) == ([], [])
    parts.drop_build_caches()
    assert dropped == [True]


def run_ahead(*names: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(task) for task in parts.ahead(names)]:
            future.result()


def test_programs_are_built_ahead_of_their_parts(
    tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise LabError("it does not compile")

    with building():
        run_ahead("k3s", "prometheus", "loki")
        assert builds == ["prometheus", "promtool", "loki"]
        monkeypatch.setitem(parts.COMPILED, "loki", fail)
        monkeypatch.setitem(parts.DOWNLOADED, "promtail", lambda: None)
        run_ahead("loki", "promtail")
        assert builds[3:] == ["promtail"], "the part says so in its turn"


def test_a_root_is_made_once_and_ahead_of_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEWATCH_CACHE", str(tmp_path))
    made: list[str] = []

    def run(words: list[Any], **_: Any) -> None:
        made.append(next(word for word in words if str(word).startswith("--include=")))
        time.sleep(0.2)
        Path(words[-1]).write_text("a root")

    monkeypatch.setattr(oci, "run", run)
    with building(), ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(run_ahead, "postgresql", "valkey")
    assert made == ["--include=postgresql-17", "--include=valkey-server,valkey-tools"]
