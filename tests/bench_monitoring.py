"""The monitoring's part of `make bench`: what it takes in on a lab, and how soon it tells."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import HttpCredentials, sync_playwright

from tests.bench import BENCH_LAB, Figure, clean_lab, spread
from tests.e2e.alerts import messages
from tests.e2e.faults import fault, in_pod, kill_switch_engaged, no_faults
from tests.e2e.test_2_dashboards import loki
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

MIB = 1024**2
# Rates are over this: what `make lab` began has settled.
CALM_SECONDS = 120
TRIES = 5
PAGE_MILLISECONDS = 90_000
BURST_LINES = 30_000
# Two critical ones: a switch that a service tells, and data that does not come.
ALERTS = ("KillSwitchEngaged", "MarketDataStale")
DASHBOARDS = ("unified-system", "crypto-trading-engine")
# What each number is, by its query; Loki's and Promtail's counters are per pod.
COUNTS = {
    "samples": f"sum(rate(prometheus_tsdb_head_samples_appended_total[{CALM_SECONDS}s]))",
    "series": "max(prometheus_tsdb_head_series)",
    "targets": "count(up)",
    "memory": 'max(process_resident_memory_bytes{job="prometheus"})',
    "lines": f"sum(rate(loki_distributor_lines_received_total[{CALM_SECONDS}s]))",
    "dropped": f"sum(increase(logentry_dropped_lines_by_label_total[{CALM_SECONDS}s]))",
}
# In a pod, into the output of its first process, which is what the node's log file takes.
WRITE = """
import sys
marker, count = sys.argv[1], int(sys.argv[2])
with open("/proc/1/fd/1", "w") as output:
    for number in range(count):
        output.write(f'{{"event": "bench", "level": "info", "marker": "{marker}", "number": {number}}}\\n')
"""
# Of the panels in the window: how many there are, and how many are drawn.
PANELS = """() => {
  const seen = [...document.querySelectorAll(".panel")].filter((panel) => {
    const { top, bottom } = panel.getBoundingClientRect();
    return bottom > top && top < innerHeight;
  });
  return seen.length > 0 && seen.every((panel) => panel.dataset.drawn);
}"""


def measure(*, keep: bool) -> list[Figure]:
    """All figures, of the standing lab that TRADEWATCH_E2E_LAB names, else of a lab of its own."""
    with standing_lab(keep=keep) as lab:
        return [*intake(lab), *log_lines(lab), *(alert(lab, name) for name in ALERTS), *pages(lab)]


@contextmanager
def standing_lab(*, keep: bool) -> Iterator[LabUnderTest]:
    named = os.environ.get("TRADEWATCH_E2E_LAB")
    lab = LabUnderTest(Path(named or BENCH_LAB).resolve())
    if named:
        yield lab
        return
    with clean_lab(lab.env, keep=keep):
        lab.make("lab")
        yield lab


def intake(lab: LabUnderTest) -> list[Figure]:
    """What Prometheus and Loki take in while nothing is injected."""
    settled = f'time() - max(process_start_time_seconds{{job="prometheus"}}) > {2 * CALM_SECONDS}'
    wait(lambda: lab.query(settled), "Prometheus has run for a while", 3 * CALM_SECONDS)
    counted = {name: number(lab.query(query)) for name, query in COUNTS.items()}
    scraped = f"{counted['samples']:.0f} samples/s, {counted['series']:.0f} series of {counted['targets']:.0f} targets"
    logged = f"{counted['lines']:.1f} lines/s, {counted['dropped']:.0f} dropped"
    return [
        Figure("scraped by Prometheus", scraped),
        Figure("memory of Prometheus", f"{counted['memory'] / MIB:.0f} MiB"),
        Figure("logs taken in by Loki", logged),
    ]


def number(result: list[dict[str, Any]]) -> float:
    """The value of an answer of one series at most; 0 where there is none, such as of a counter that never counted."""
    return float(result[0]["value"][1]) if result else 0.0


def log_lines(lab: LabUnderTest) -> list[Figure]:
    """How soon one line is found, and how fast many are taken in."""
    one = [until_found(lab, 1) for _ in range(TRIES)]
    many = until_found(lab, BURST_LINES)
    return [
        Figure("log line to Loki query", spread(one), "under 10 s"),
        Figure(
            f"{BURST_LINES} lines of one pod, until all are found", f"{many:.1f} s ({BURST_LINES / many:.0f} lines/s)"
        ),
    ]


def until_found(lab: LabUnderTest, lines: int) -> float:
    """Seconds from the command that writes so many lines until a query counts them all."""
    marker = uuid.uuid4().hex
    query = f'sum(count_over_time({{namespace="crypto-trading"}} |= "{marker}" [15m]))'
    began = time.monotonic()
    in_pod(lab, "risk-manager", "python3", "-c", WRITE, marker, str(lines))
    while number(loki(lab, "query", query=query)["result"]) < lines:
        assert time.monotonic() < began + 300, f"Loki does not have all {lines} lines within 300 s"
        time.sleep(0.1)
    return time.monotonic() - began


def alert(lab: LabUnderTest, name: str) -> Figure:
    """From its cause to the message, by the chat's clock."""
    wait(lambda: not lab.query(f'ALERTS{{alertname="{name}"}}'), f"{name} does not fire", 300)
    caused = datetime.now(UTC)
    with causes(lab, name):
        told = wait(lambda: told_since(lab, name, caused), f"somebody is told of {name}", 300)
    return Figure(f"fault to webhook, {name}", f"{(min(told) - caused).total_seconds():.1f} s", "under 60 s")


@contextmanager
def causes(lab: LabUnderTest, name: str) -> Iterator[None]:
    """What raises the alert, over again afterwards: the switch, or a feed of one exchange that is garbage."""
    if name == "KillSwitchEngaged":
        with kill_switch_engaged(lab):
            yield
        return
    fault(lab, "exchange-simulator", fault="malformed", exchange="kraken", count=10_000)
    try:
        yield
    finally:
        no_faults(lab, "exchange-simulator")


def told_since(lab: LabUnderTest, name: str, caused: datetime) -> list[datetime]:
    """When the chat was told that the alert fires, of what began after its cause."""
    # A message names the second in which its alert began.
    since = caused.replace(microsecond=0)
    return [each.received for each in messages(lab, name) if each.state == "FIRING" and each.started >= since]


def pages(lab: LabUnderTest) -> list[Figure]:
    """Each dashboard in a browser that has never seen it, until every panel in its window is drawn."""
    endpoint = lab.endpoints()["dashboards"]
    password = Path(endpoint["password_file"]).read_text().strip()
    login = HttpCredentials(username=endpoint["username"], password=password)
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert program, "no chromium-headless-shell on PATH (Debian's package of that name)"
    taken: dict[str, list[float]] = {dashboard: [] for dashboard in DASHBOARDS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(TRIES):
            for dashboard, seconds in taken.items():
                context = browser.new_context(
                    ignore_https_errors=True, viewport={"width": 1440, "height": 900}, http_credentials=login
                )
                page = context.new_page()
                began = time.monotonic()
                page.goto(
                    f"{endpoint['url'].rstrip('/')}/d/{dashboard}", wait_until="commit", timeout=PAGE_MILLISECONDS
                )
                page.wait_for_function(PANELS, timeout=PAGE_MILLISECONDS)
                seconds.append(time.monotonic() - began)
                context.close()
        browser.close()
    return [Figure(f"first load of {dashboard}", spread(seconds)) for dashboard, seconds in taken.items()]
