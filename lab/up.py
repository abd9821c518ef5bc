"""`make lab`: hosts, bundle, site.yml, verify.yml and the table; a second run resumes and builds nothing twice."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lab import environment, hosts, machine, paths, playbooks, secrets, table
from lab.bundle import parts
from lab.steps import LabError, say, together

GO_ON = "Fix the cause and run `make lab` again; it resumes from there"


@contextmanager
def lock() -> Iterator[None]:
    """Let one command at a time work on a lab; the kernel lets go of the lock of a process that died.

    Raises:
        LabError: another command works on this lab.
    """
    paths.lab_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (paths.lab_dir() / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"another command works on the lab in {paths.lab_dir()}; wait for it") from None
        yield


def missing_parts() -> list[str]:
    """The bundle's parts that the artifacts table may need: those that were not placed in the cache by hand."""
    placed = paths.cache_dir() / "artifacts"
    return [
        e["registries"] for e in parts.artifacts_table() if e.get("registries") and not (placed / e["file"]).exists()
    ]


def build_bundle(names: list[str]) -> None:
    """Make these parts, saying which and how far."""
    for number, name in enumerate(names, 1):
        say(f"bundle {number}/{len(names)}: {name}")
        try:
            parts.make(name)
        except LabError as error:
            raise LabError(f"the bundle's part {name} cannot be made: {error}") from None
    if names:
        parts.drop_build_caches()


def up(*, verify: bool = True) -> dict[str, float]:
    """Bring the lab up and print its table; returns the wall seconds of each stage.

    Raises:
        LabError: a stage failed; the message says which, why, and what to run to go on.
    """
    seconds: dict[str, float] = {}
    found = machine.obstacles()
    if found:
        raise LabError("\n".join(f"this machine cannot host it: {obstacle}" for obstacle in found))
    with lock():
        started = time.monotonic()
        secrets.ensure()
        names = playbooks.inventory_hosts()
        try:
            missing = missing_parts()
            lab, *_ = together(lambda: hosts.up(names), lambda: build_bundle(missing), *parts.ahead(missing))
        except LabError as error:
            raise LabError(f"{error}\n{GO_ON}") from None
        seconds["hosts and bundle"] = time.monotonic() - started
        for stage in ["site.yml", *(["playbooks/verify.yml"] if verify else [])]:
            result = playbooks.play(stage)
            seconds[stage] = result.seconds
            if result.status != 0:
                raise LabError(
                    f"{stage} failed after {result.seconds:.0f} s; what failed stands above, the whole output in "
                    f"{paths.lab_dir()}/runner/artifacts/. {GO_ON}"
                )
        table.show(lab, playbooks.read_json("endpoints.json") or {}, seconds)
    return seconds


def _close_connections() -> None:
    """End the connections that Ansible left open for its next run: their processes would outlive the hosts."""
    folder = environment.control_folder(paths.lab_dir())
    for socket in folder.iterdir() if folder.is_dir() else ():
        # One that has ended by itself is an error of ssh's, and fine.
        subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "lab"], capture_output=True, check=False)


def down() -> None:
    """Remove every trace of the lab but the cache."""
    with lock():
        _close_connections()
        hosts.down()
        for entry in paths.lab_dir().iterdir():
            # The tests' labs live below the user's, and outlive it.
            if entry.name == paths.TESTS_LABS and any(entry.iterdir()):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    if not any(paths.lab_dir().iterdir()):
        paths.lab_dir().rmdir()
    say(f"the lab is gone; the cache stays in {paths.cache_dir()}")
