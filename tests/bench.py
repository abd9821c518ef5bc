"""Measure the figures of docs/benchmarks.md (`make bench`); the lab's in a lab of their own, beside the user's."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import paths
from tests.commands import REPOSITORY, run

# `make lab-down` leaves what is below the tests' folder alone.
BENCH_LAB = REPOSITORY / ".lab" / paths.TESTS_LABS / "bench"
COLD_CACHE = REPOSITORY / ".lab" / paths.TESTS_LABS / "bench-cache"
TRADING = REPOSITORY / "python_services/tests/bench_trading.py"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
MEASURED = "Measured on {when:%Y-%m-%d}: {machine}."
BEGIN, END = "<!-- bench:{part}:begin -->", "<!-- bench:{part}:end -->"
CGROUPS = Path("/sys/fs/cgroup")
GIB = 1024**3
TIMEOUT_SECONDS = 3600.0
ANSI = re.compile(r"\x1b\[[0-9;]*m")
RECAP_HOST = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", re.MULTILINE)
STAGE = re.compile(r"│\s+([\w./ ]+?): (\d+) s\s*│")


@dataclass(frozen=True)
class Bar:
    """What a figure is held to: the number measured, which is to be below `limit`, and how the table says so."""

    measured: float
    limit: float
    text: str

    @property
    def missed(self) -> bool:
        """Whether the number is not below the limit; infinity is one that could not be measured."""
        return not self.measured < self.limit


def under(measured: float, limit: float, unit: str, of: str = "") -> Bar:
    """A bar that says ``under 250 ms``, or ``p99 under 250 ms``."""
    return Bar(measured, limit, f"{of} under {limit:g} {unit}".lstrip())


@dataclass(frozen=True)
class Figure:
    """One line of the table: what was measured, what came out, and the bars it is held to."""

    what: str
    value: str
    bars: tuple[Bar, ...] = ()

    @property
    def missed(self) -> bool:
        """Whether one of the bars is missed."""
        return any(bar.missed for bar in self.bars)

    @property
    def row(self) -> str:
        """The line of the table."""
        bars = ", ".join(f"**missed: {bar.text}**" if bar.missed else bar.text for bar in self.bars)
        return f"| {self.what} | {self.value} | {bars} |"


def recaps(output: str) -> list[dict[str, int]]:
    """The changed counts by host of every playbook run in ``output``, in order."""
    _, *parts = ANSI.sub("", output).split("PLAY RECAP")
    return [{host: int(count) for host, count in RECAP_HOST.findall(part)} for part in parts]


def stages(output: str) -> dict[str, int]:
    """Stage -> wall seconds, from the table that `make lab` ends with."""
    return {name.strip(): int(seconds) for name, seconds in STAGE.findall(ANSI.sub("", output))}


def changed(counts: dict[str, int]) -> str:
    """``changed=2``: the sum over the hosts of a recap."""
    return f"changed={sum(counts.values())}"


def unchanged(counts: dict[str, int]) -> Bar:
    """The bar that nothing is changed."""
    return Bar(sum(counts.values()), 1, "changed=0")


def size_bytes(folder: Path) -> int:
    """The bytes of all files below ``folder``, each hard link once, symlinks not followed."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


def gib(count: int) -> str:
    """Bytes as ``1.23 GiB``."""
    return f"{count / GIB:.2f} GiB"


def cgroup_version(root: Path = CGROUPS) -> int:
    """2 where the machine has one hierarchy for everything, else 1."""
    return 2 if (root / "cgroup.controllers").exists() else 1


def cgroup_memory_bytes(cgroup: str, root: Path = CGROUPS) -> int:
    """What a container and all below it use: the cgroup's usage without page cache that can be dropped at once.

    The kubelet counts its working set in the same way. ``cgroup`` is the path from the hierarchy's root.
    """
    if cgroup_version(root) == 2:
        folder, usage, inactive = root / cgroup.lstrip("/"), "memory.current", "inactive_file"
    else:
        folder, usage, inactive = root / "memory" / cgroup.lstrip("/"), "memory.usage_in_bytes", "total_inactive_file"
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return max(0, int((folder / usage).read_text()) - int(statistics[inactive]))


def lab_memory_bytes(name: str) -> dict[str, int]:
    """Host -> bytes in use, of the lab whose podman label is ``name``."""
    listed = run("podman", "ps", "--quiet", "--filter", f"label=tradewatch.lab={name}").split()
    if not listed:
        return {}
    rows = json.loads(run("podman", "inspect", *listed))
    return {row["Name"].removeprefix(f"{name}-"): cgroup_memory_bytes(row["State"]["CgroupPath"]) for row in rows}


def machine() -> str:
    """One line about the machine: cores, memory, kernel, cgroup version."""
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    memory = int(total.split()[1]) / 1024**2
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, Linux {platform.release()} ({platform.machine()}), "
        f"cgroup v{cgroup_version()}"
    )


def markdown(figures: Sequence[Figure], when: datetime, machine_line: str) -> str:
    """The section between the markers: when, where, and the table."""
    lines = [MEASURED.format(when=when, machine=machine_line), "", "| what | measured | bar |", "|---|---|---|"]
    return "\n".join([*lines, *(figure.row for figure in figures)])


def with_rows(section: str, figures: Sequence[Figure], when: datetime, machine_line: str) -> str:
    """``section`` with these figures in the place of their rows, or at its end.

    A row says when and where it was measured, where that is not what the section's first line says.
    """
    lines = section.splitlines()
    note = ""
    if lines[0] != MEASURED.format(when=when, machine=machine_line):
        same_machine = lines[0].endswith(f": {machine_line}.")
        note = f" ({when:%Y-%m-%d})" if same_machine else f" ({when:%Y-%m-%d}, {machine_line})"
    for figure in figures:
        row = replace(figure, value=figure.value + note).row
        places = [index for index, line in enumerate(lines) if line.startswith(f"| {figure.what} |")]
        if places:
            lines[places[0]] = row
        else:
            lines.append(row)
    return "\n".join(lines)


def between_markers(page: str, part: str, section: str) -> str:
    """``page`` with ``section`` in the place of what stands between the markers of ``part``.

    Raises:
        ValueError: the page has not exactly one of each marker, in order.
    """
    start, stop = _bounds(page, part)
    return f"{page[:start]}\n{section}\n{page[stop:]}"


def section_of(page: str, part: str) -> str:
    """What stands between the markers of ``part``; raises as between_markers() does."""
    start, stop = _bounds(page, part)
    return page[start:stop].strip("\n")


def _bounds(page: str, part: str) -> tuple[int, int]:
    begin, end = BEGIN.format(part=part), END.format(part=part)
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page needs one {begin} and then one {end}")
    return page.index(begin) + len(begin), page.index(end)


def timed(*argv: str, env: dict[str, str]) -> tuple[str, float]:
    """Output and wall seconds of a command."""
    print(f"bench: {' '.join(argv)}", file=sys.stderr, flush=True)
    started = time.monotonic()
    output = run(*argv, env=env, timeout=TIMEOUT_SECONDS)
    return output, time.monotonic() - started


@contextmanager
def clean_lab(env: dict[str, str], *, keep: bool) -> Iterator[None]:
    """No lab before; none after, unless ``keep``."""
    run("python", "-m", "lab", "down", env=env)
    try:
        yield
    finally:
        if not keep:
            run("python", "-m", "lab", "down", env=env)


def measure_lab(*, cold: bool, keep: bool) -> list[Figure]:
    """Deploy a lab, and deploy it again."""
    env = {"TRADEWATCH_LAB_DIR": str(BENCH_LAB), "ANSIBLE_NOCOLOR": "1"}
    figures = []
    if cold:
        # The warm runs use what the cold one left, so that the size is that of one build and no more.
        shutil.rmtree(COLD_CACHE, ignore_errors=True)
        env["TRADEWATCH_CACHE"] = str(COLD_CACHE)
        with clean_lab(env, keep=False):
            _, seconds = timed("make", "lab", env=env)
        figures.append(Figure("`make lab`, nothing cached", f"{seconds:.0f} s", (under(seconds, 1800, "s"),)))
    else:
        figures.append(Figure("`make lab`, nothing cached", "not measured in this run (`--cold`)"))
    with clean_lab(env, keep=keep):
        output, seconds = timed("make", "lab", env=env)
        site = stages(output).get("site.yml")
        figures.append(Figure("`make lab`, warm cache, no hosts yet", f"{seconds:.0f} s", (under(seconds, 480, "s"),)))
        first = f"{site} s, {changed(recaps(output)[0])}"
        figures.append(Figure("`site.yml` on bare hosts", first))
        output, seconds = timed("ansible-playbook", "site.yml", env=env)
        recap = recaps(output)[0]
        bars = (under(seconds, 100, "s"), unchanged(recap))
        figures.append(Figure("`site.yml` again", f"{seconds:.0f} s, {changed(recap)}", bars))
        output, seconds = timed("ansible-playbook", "site.yml", "--check", "--diff", env=env)
        recap = recaps(output)[0]
        checked = f"{seconds:.0f} s, {changed(recap)}"
        figures.append(Figure("`site.yml --check --diff`", checked, (unchanged(recap),)))
        hosts = lab_memory_bytes(bench_name(env))
        each = ", ".join(f"{host} {gib(used)}" for host, used in sorted(hosts.items()))
        total = sum(hosts.values())
        figures.append(Figure("memory of the lab", f"{gib(total)} ({each})", (under(total / GIB, 8, "GiB"),)))
    cache = COLD_CACHE if cold else paths.cache_dir()
    size = size_bytes(cache)
    note = "" if cold else ", with what earlier versions of the sources left"
    figures.append(Figure("size of the cache", f"{gib(size)} ({size} bytes{note})"))
    return figures


def measure_trading() -> list[Figure]:
    """Run the trading system's own measurement: processes of this machine, no lab."""
    output, _ = timed("python", "-W", "ignore", str(TRADING), env={})
    return trading_figures(output.splitlines()[-1])


def trading_figures(measured: str) -> list[Figure]:
    """The lines of what `bench_trading.py` printed."""
    answer = json.loads(measured)
    figures = []
    for rate in answer["rates"]:
        ticks = rate["ticks_per_second"]
        held_to = ticks == 1_000
        p99 = rate["in_turn"]["p99_ms"]
        bars = (under(math.inf if p99 is None else p99, 250, "ms", "p99"),) if held_to else ()
        figures.append(Figure(f"tick to order at {ticks} ticks/s", tick_to_order(rate["in_turn"]), bars))
        figures.append(Figure(f"the same, all products at once, at {ticks} ticks/s", tick_to_order(rate["together"])))
        kept = "keeps up" if rate["keeps_up"] else "does not keep up"
        value = (
            f"{rate['events_per_second']} events/s, at most {rate['collector_seconds']} s and"
            f" {rate['aggregator_seconds']} s behind: {kept}"
        )
        bars = (under(max(rate["collector_seconds"], rate["aggregator_seconds"]), 1, "s"),) if held_to else ()
        figures.append(Figure(f"collector and aggregator at {ticks} ticks/s", value, bars))
        figures.append(Figure(f"cores used at {ticks} ticks/s", listed(rate["cores"], "")))
        figures.append(Figure(f"memory of the services at {ticks} ticks/s", listed(rate["resident_mib"], " MiB")))
    figures.append(Figure("stops keeping up", capacity(answer["capacity"])))
    figures.append(Figure("memory of every service at 100 ticks/s", listed(answer["resident_mib"], " MiB")))
    figures.append(Figure("trading again after a SIGKILL", listed(answer["recovery_seconds"], " s")))
    return figures


def tick_to_order(found: dict[str, Any]) -> str:
    """``p50 80 ms, p99 120 ms (119 orders, 1 denied, 1 expired without one)``."""
    times = "too few orders to say"
    if found["p99_ms"] is not None:
        times = f"p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms"
    without = "".join(f", {count} {state} without one" for state, count in sorted(found["without_order"].items()))
    return f"{times} ({found['orders']} orders, {found['denied']} denied{without})"


def capacity(found: dict[str, Any]) -> str:
    """``between 2000 and 2500 ticks/s, the busiest by then: name 0.99 cores``."""
    if "fails_at" not in found:
        return f"not up to {found['keeps_up']} ticks/s"
    return (
        f"between {found['keeps_up']} and {found['fails_at']} ticks/s,"
        f" the busiest by then: {listed(found['busiest'], ' cores')}"
    )


def spread(seconds: Sequence[float]) -> str:
    """The median and the worst of several."""
    return f"{statistics.median(seconds):.1f} s, worst of {len(seconds)}: {max(seconds):.1f} s"


def measure_monitoring(*, keep: bool, fault: str | None) -> list[Figure]:
    """Prometheus, Loki, the alerts and the pages of a lab; or how soon it tells of one alert's causes alone."""
    # It brings in a browser, and what the tests of a lab share.
    from tests import bench_monitoring

    return bench_monitoring.measure(keep=keep) if fault is None else bench_monitoring.measure_fault(fault, keep=keep)


def listed(values: dict[str, float], unit: str) -> str:
    """``name 1.5 s, other 2 s``, the largest first."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value}{unit}" for name, value in ordered)


def bench_name(env: dict[str, str]) -> str:
    """The name of the lab below ``env``'s lab directory, as the lab itself makes it."""
    answer = run("python", "-c", "from lab import paths; print(paths.lab_name())", env=env)
    return answer.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write them into the page when asked to. 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; all by default")
    parser.add_argument("--cold", action="store_true", help="also time `make lab` with an empty cache (half an hour)")
    parser.add_argument("--write", action="store_true", help="replace the parts' tables in docs/benchmarks.md")
    parser.add_argument("--keep", action="store_true", help="leave the lab and the cold cache standing")
    parser.add_argument(
        "--fault", metavar="ALERT", help="of the monitoring, measure (and write) this alert's rows alone"
    )
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    if options.fault and options.parts != ["monitoring"]:
        parser.error("--fault is of the part monitoring alone")
    missed: list[Figure] = []
    try:
        for part in options.parts or PARTS:
            figures = PARTS[part](options)
            missed += [figure for figure in figures if figure.missed]
            section = markdown(figures, datetime.now(UTC), machine())
            print(section, end="\n\n")
            if options.write:
                if options.fault:
                    section = with_rows(section_of(PAGE.read_text(), part), figures, datetime.now(UTC), machine())
                PAGE.write_text(between_markers(PAGE.read_text(), part, section))
    except (AssertionError, subprocess.TimeoutExpired) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if options.cold and not options.keep:
            shutil.rmtree(COLD_CACHE, ignore_errors=True)
    for figure in missed:
        print(f"bench: missed its bar: {figure.row}", file=sys.stderr)
    return 1 if missed else 0


PARTS: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "lab": lambda options: measure_lab(cold=options.cold, keep=options.keep),
    "trading": lambda _: measure_trading(),
    "monitoring": lambda options: measure_monitoring(keep=options.keep, fault=options.fault),
}

if __name__ == "__main__":
    raise SystemExit(main())
