"""What `make bench` reads and writes: recaps, stages, cgroups, the page."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from plugins.filter.extensions import tradewatch_external_problems
from tests import bench, bench_monitoring, simulated_services
from tests.commands import REPOSITORY
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

OUTPUT = """
PLAY RECAP *********************************************************************
\x1b[0;33mcontrol-1\x1b[0m        : \x1b[0;32mok=39  \x1b[0m \x1b[0;33mchanged=12  \x1b[0m unreachable=0    failed=0
localhost                  : ok=24   changed=2    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0

TASKS RECAP ********************************************************************
PLAY RECAP *********************************************************************
localhost                  : ok=2    changed=0    unreachable=0    failed=0    skipped=1    rescued=0    ignored=0
┃ host               ┃ address   ┃ node ┃ role ┃ runs                            ┃
│ stages             │           │      │      │ hosts and bundle: 4 s           │
│                    │           │      │      │ site.yml: 71 s                  │
│                    │           │      │      │ playbooks/verify.yml: 13 s      │
"""


def test_each_run_s_recap_is_read_with_its_colours() -> None:
    assert bench.recaps(OUTPUT) == [{"control-1": 12, "localhost": 2}, {"localhost": 0}]
    assert bench.changed(bench.recaps(OUTPUT)[0]) == "changed=14"


def test_stages_are_read_from_the_table() -> None:
    assert bench.stages(OUTPUT) == {"hosts and bundle": 4, "site.yml": 71, "playbooks/verify.yml": 13}


def test_memory_is_usage_without_inactive_file_cache(tmp_path: Path) -> None:
    old, new = tmp_path / "v1", tmp_path / "v2"
    (old / "memory/host").mkdir(parents=True)
    (old / "memory/host/memory.usage_in_bytes").write_text("1000\n")
    (old / "memory/host/memory.stat").write_text("inactive_file 1\ntotal_inactive_file 300\n")
    (new / "host").mkdir(parents=True)
    (new / "cgroup.controllers").write_text("memory\n")
    (new / "host/memory.current").write_text("1000\n")
    (new / "host/memory.stat").write_text("anon 600\ninactive_file 400\n")
    assert bench.cgroup_memory_bytes("/host", old) == 700
    assert bench.cgroup_memory_bytes("/host", new) == 600


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"12345")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "three").symlink_to("one")
    assert bench.size_bytes(tmp_path) == 5


BEGIN, END = "<!-- bench:lab:begin -->", "<!-- bench:lab:end -->"


def test_the_table_replaces_what_stands_between_the_markers_and_nothing_else() -> None:
    section = bench.markdown(
        [bench.Figure("runs", "3 s", (bench.under(3, 4, "s"),))], datetime(2026, 1, 2, tzinfo=UTC), "2 cores"
    )
    page = bench.between_markers(f"above\n{BEGIN}\nold\n{END}\nbelow\n", "lab", section)
    assert "old" not in page
    assert page.startswith(f"above\n{BEGIN}\nMeasured on 2026-01-02: 2 cores.\n")
    assert page.endswith(f"| runs | 3 s | under 4 s |\n{END}\nbelow\n")
    assert bench.between_markers(page, "lab", section) == page


def test_a_missed_bar_is_marked() -> None:
    kept, missed = bench.under(99.9, 100, "s"), bench.unchanged({"control-1": 1, "localhost": 0})
    assert not bench.Figure("again", "99.9 s, changed=1", (kept,)).missed
    figure = bench.Figure("again", "99.9 s, changed=1", (kept, missed))
    assert figure.missed
    assert figure.row == "| again | 99.9 s, changed=1 | under 100 s, **missed: changed=0** |"
    assert bench.under(100, 100, "s").missed
    assert not bench.unchanged({"control-1": 0}).missed


def test_rows_measured_alone_replace_their_own_and_say_when() -> None:
    when, later = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    whole = bench.markdown([bench.Figure("one", "1 s"), bench.Figure("one more", "2 s")], when, "2 cores")
    again = [bench.Figure("one", "3 s"), bench.Figure("new", "4 s")]
    head = "Measured on 2026-01-02: 2 cores.\n\n| what | measured | bar |\n|---|---|---|\n"
    assert bench.with_rows(whole, again, when, "2 cores") == (
        f"{head}| one | 3 s |  |\n| one more | 2 s |  |\n| new | 4 s |  |"
    )
    assert "| one | 3 s (2026-01-03) |  |\n| one more | 2 s |  |" in bench.with_rows(whole, again, later, "2 cores")
    assert "| one | 3 s (2026-01-03, 4 cores) |" in bench.with_rows(whole, again, later, "4 cores")


@pytest.mark.parametrize(("seconds", "status"), [(59.9, 0), (60.0, 1)])
def test_a_missed_bar_fails_the_run_after_its_row_is_written(
    seconds: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    begin, end = "<!-- bench:monitoring:begin -->", "<!-- bench:monitoring:end -->"
    other = bench.markdown([bench.Figure("other", "1 s")], datetime.now(UTC), bench.machine())
    page.write_text(f"{begin}\n{other}\n{end}\n")
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(bench_monitoring, "standing_lab", lambda *, keep: nullcontext())
    monkeypatch.setattr(
        bench_monitoring,
        "told_of",
        lambda _, cause: bench.Figure(cause.alert, f"{seconds} s", (bench.under(seconds, 60, "s"),)),
    )
    assert bench.main(["monitoring", "--fault", "ReconcileStale", "--write"]) == status
    mark = "**missed: under 60 s**" if status else "under 60 s"
    assert f"| other | 1 s |  |\n| ReconcileStale | {seconds} s | {mark} |\n{end}" in page.read_text()
    assert ("missed its bar: | ReconcileStale" in capsys.readouterr().err) == bool(status)


def test_a_fault_that_nothing_measures_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["monitoring", "--fault", "Weather"]) == 1
    assert "no fault raises Weather; known: BusHeartbeatMissing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench.main(["--fault", "ReconcileStale"])


def test_a_page_without_markers_is_not_written() -> None:
    with pytest.raises(ValueError, match="needs one"):
        bench.between_markers("no markers", "lab", "table")


@pytest.mark.parametrize("part", bench.PARTS)
def test_the_page_has_its_markers(part: str) -> None:
    assert "Measured on" in bench.between_markers(bench.PAGE.read_text(), part, "Measured on")


def test_an_unknown_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["weather"])
    assert "unknown part: weather; known: lab, trading, monitoring" in capsys.readouterr().err


def test_the_figures_of_trading_are_lines_of_the_table() -> None:
    came = {"orders": 300, "denied": 1, "without_order": {"expired": 3}, "p50_ms": 20, "p99_ms": 80}
    rate = {
        "ticks_per_second": 1000,
        "events_per_second": 1990,
        "in_turn": came,
        "together": came | {"p99_ms": 400, "without_order": {}},
        "collector_seconds": 0.3,
        "aggregator_seconds": 0.1,
        "keeps_up": True,
        "cores": {"market-data-collector": 0.3, "market-data-aggregator": 0.5},
        "resident_mib": {"market-data-collector": 50},
    }
    few = came | {"orders": 3, "p99_ms": None, "without_order": {}}
    answer = {
        "rates": [rate, rate | {"ticks_per_second": 5000, "in_turn": few}],
        "capacity": {"keeps_up": 2000, "fails_at": 2500, "busiest": {"market-data-collector": 0.99}},
        "resident_mib": {"signal-generator": 150},
        "recovery_seconds": {"valkey": 1.5},
    }
    lines = bench.trading_figures(json.dumps(answer))
    assert lines[0] == bench.Figure(
        "tick to order at 1000 ticks/s",
        "p50 20 ms, p99 80 ms (300 orders, 1 denied, 3 expired without one)",
        (bench.Bar(80, 250, "p99 under 250 ms"),),
    )
    assert not any(line.missed for line in lines)
    assert lines[1] == bench.Figure(
        "the same, all products at once, at 1000 ticks/s", "p50 20 ms, p99 400 ms (300 orders, 1 denied)"
    )
    assert lines[2].value == "1990 events/s, at most 0.3 s and 0.1 s behind: keeps up"
    assert lines[3].value == "market-data-aggregator 0.5, market-data-collector 0.3"
    assert lines[5].value == "too few orders to say (3 orders, 1 denied)"
    assert lines[-3].value == "between 2000 and 2500 ticks/s, the busiest by then: market-data-collector 0.99 cores"
    assert lines[-2].value == "signal-generator 150 MiB"
    assert lines[-1].value == "valkey 1.5 s"


def test_several_tries_are_told_by_their_median_and_worst() -> None:
    assert bench.spread([2.0, 1.04, 30.0]) == "2.0 s, worst of 3: 30.0 s"


def test_the_causes_are_of_critical_alerts_and_their_thresholds_are_there() -> None:
    texts = [path.read_text() for path in (REPOSITORY / "files/rules").glob("*.yml")]
    rules = {
        rule["alert"]: rule
        for text in texts
        for group in yaml.safe_load(text).get("groups", ())
        for rule in group["rules"]
        if "alert" in rule
    }
    for cause in bench_monitoring.CAUSES:
        rule = rules[cause.alert]
        assert rule["labels"]["severity"] == "critical"
        assert set(re.findall(r"\$\{(\w+)\}", rule["expr"])) == ({cause.threshold} if cause.threshold else set())


def test_simulated_services_are_targets_that_the_role_takes() -> None:
    entries = simulated_services.entries(50, "192.0.2.1")
    assert len(entries) == 50
    assert tradewatch_external_problems(entries) == []


def test_a_simulated_service_answers_with_the_page_and_goes_on_counting(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("# TYPE asked_total counter\nasked_total 7\nlimit 3\n")
    with ExitStack() as free:
        taken = [free.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [str(each.getsockname()[1]) for each in taken]
    process = subprocess.Popen([sys.executable, "-c", simulated_services.SERVER, *ports], cwd=tmp_path)

    def page(port: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    try:
        for port in ports:
            wait(lambda: page(port), "an answer", despite=(OSError,))  # noqa: B023
            first, second = (float(page(port).splitlines()[1].removeprefix("asked_total ")) for _ in range(2))
            assert 7 < first < second
            assert page(port).splitlines()[2] == "limit 3"
    finally:
        process.kill()
        process.wait(10)


def test_the_rate_before_the_first_that_is_too_high_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {1_000: (0.5, ""), 2_000: (1.26, ""), 4_000: (11.0, "90 % are found after 10 s, 5 discarded by Loki")}
    monkeypatch.setattr(bench_monitoring, "at_rate", lambda _, rate: found[rate])
    assert bench_monitoring.throughput(LabUnderTest(tmp_path)).value == (
        "2000 lines/s, the last found 1.3 s after it was written;"
        " at 4000 lines/s 90 % are found after 10 s, 5 discarded by Loki"
    )
