"""What `make bench` reads and writes: recaps, stages, cgroups, the page."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
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
    section = bench.markdown([bench.Figure("runs", "3 s", "under 4 s")], datetime(2026, 1, 2, tzinfo=UTC), "2 cores")
    page = bench.between_markers(f"above\n{BEGIN}\nold\n{END}\nbelow\n", "lab", section)
    assert "old" not in page
    assert page.startswith(f"above\n{BEGIN}\nMeasured on 2026-01-02: 2 cores.\n")
    assert page.endswith(f"| runs | 3 s | under 4 s |\n{END}\nbelow\n")
    assert bench.between_markers(page, "lab", section) == page


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
        "p99 under 250 ms",
    )
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
            wait(lambda: page(port), "an answer", 20, despite=(OSError,))  # noqa: B023
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
