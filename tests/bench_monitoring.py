"""The monitoring's part of `make bench`: what it takes in on a lab, and how soon it tells."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import HttpCredentials, sync_playwright

from tests.bench import BENCH_LAB, Figure, clean_lab, spread, under
from tests.commands import REPOSITORY
from tests.e2e.alerts import messages
from tests.e2e.faults import away, fault, in_pod, kill_switch_engaged, no_faults
from tests.e2e.test_2_dashboards import loki
from tests.lab_under_test import LabUnderTest
from tests.machines import wait
from tests.simulated_services import simulated_services

MIB = 1024**2
# Rates are over this: what `make lab` began has settled.
CALM_SECONDS = 120
# With more targets: of each, five samples and more.
SCRAPE_SECONDS, SCRAPED_SECONDS = 15, 75
SIMULATED = (4, 50)
TRIES = 5
PAGE_MILLISECONDS = 90_000
BURST_LINES = 30_000
# Doubled until one is too high. Of all these lines but the last rate's, Promtail's limit lets the burst through.
LINES_PER_SECOND = (1_000, 2_000, 4_000, 8_000, 16_000)
STEP_SECONDS = 20
MAX_LAG_SECONDS = 10.0
# A scrape of the counters, and some.
REASON_SECONDS = 25
FLOODED = "llm-validator"
WITHOUT_LOSS = f"lines of one pod for {STEP_SECONDS} s, none lost or later than {MAX_LAG_SECONDS:.0f} s"
MAX_TOLD_SECONDS = 60
AS_FAST_AS_IT_CAN = 10**9
DASHBOARDS = ("unified-system", "crypto-trading-engine")
# What each number is, by its query; Loki's and Promtail's counters are per pod.
COUNTS = {
    "samples": "sum(rate(prometheus_tsdb_head_samples_appended_total[{seconds}s]))",
    "series": "max(prometheus_tsdb_head_series)",
    "targets": "count(up)",
    "services": 'count(up{{job="kubernetes-services-metrics"}})',
    "memory": 'max(max_over_time(process_resident_memory_bytes{{job="prometheus"}}[{seconds}s]))',
    "lines": "sum(rate(loki_distributor_lines_received_total[{seconds}s]))",
    "dropped": "sum(increase(logentry_dropped_lines_by_label_total[{seconds}s]))",
}
# Where a line of a pod can be lost, by its counter.
LOSSES = {
    "dropped at Promtail's limit": "sum(logentry_dropped_lines_by_label_total)",
    "dropped by Promtail": "sum(promtail_dropped_entries_total)",
    "discarded by Loki": "sum(loki_discarded_samples_total)",
}
# In a pod, into the output of its first process, which is what the node's log file takes. A write of 4096 bytes at most
# is not mixed with what the service itself writes.
WRITE = """
import os, sys, time
marker, count, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
line = f'{{"event": "bench", "level": "info", "marker": "{marker}", "number": %d, "text": "{"x" * 100}"}}\\n'
output = os.open("/proc/1/fd/1", os.O_WRONLY)
began, written = time.monotonic(), 0
while written < count:
    due = min(count, int((time.monotonic() - began) * rate) + 1, written + 16)
    if due == written:
        time.sleep(0.005)
        continue
    os.write(output, "".join(line % number for number in range(written, due)).encode())
    written = due
print(time.monotonic() - began)
"""
# Of the panels in the window: how many there are, and how many are drawn.
PANELS = """() => {
  const seen = [...document.querySelectorAll(".panel")].filter((panel) => {
    const { top, bottom } = panel.getBoundingClientRect();
    return bottom > top && top < innerHeight;
  });
  return seen.length > 0 && seen.every((panel) => panel.dataset.drawn);
}"""


@dataclass(frozen=True)
class Cause:
    """What raises an alert for as long as it is made.

    `threshold` names the seconds that the alert's expression lets pass, in files/rules/thresholds.yml.
    """

    alert: str
    what: str
    made: Callable[[LabUnderTest], AbstractContextManager[None]]
    threshold: str = ""


@contextmanager
def of_the_exchange(lab: LabUnderTest, **fields: Any) -> Iterator[None]:
    """A fault of the simulated exchange."""
    fault(lab, "exchange-simulator", **fields)
    try:
        yield
    finally:
        no_faults(lab, "exchange-simulator")


def garbage(lab: LabUnderTest) -> AbstractContextManager[None]:
    """What Kraken sends cannot be read."""
    return of_the_exchange(lab, fault="malformed", exchange="kraken", count=10_000)


def no_balances(lab: LabUnderTest) -> AbstractContextManager[None]:
    """Coinbase has nothing to compare the positions with."""
    return of_the_exchange(lab, fault="status", status=503, path="/api/v3/brokerage/accounts", seconds=600)


@contextmanager
def placed_nowhere(lab: LabUnderTest, service: str) -> Iterator[None]:
    """The service's only host takes no pods, and its pod is gone."""
    selector = ("-n", "crypto-trading", "-l", f"app.kubernetes.io/name={service}")
    (pod,) = lab.get("pods", *selector)["items"]
    lab.kubectl("cordon", pod["spec"]["nodeName"])
    try:
        lab.kubectl("delete", "pods", *selector, "--wait=false")
        yield
    finally:
        lab.kubectl("uncordon", pod["spec"]["nodeName"])
        lab.kubectl("rollout", "status", "-n", "crypto-trading", f"deployment/{service}", "--timeout=110s")


# PostgreSQL and Valkey at the end: all services are behind for a while after them.
CAUSES = (
    Cause("KillSwitchEngaged", "somebody engages it", kill_switch_engaged),
    Cause("MarketDataStale", "a feed is garbage", garbage, "market_data_stale_seconds"),
    Cause(
        "MarketDataStale",
        "no collector",
        lambda lab: away(lab, "market-data-collector-kraken", namespace="crypto-collectors"),
        "market_data_stale_seconds",
    ),
    Cause("ReconcileStale", "an exchange gives no balances", no_balances, "reconcile_age_seconds"),
    Cause("ExecutorInactive", "no trade-executor", lambda lab: away(lab, "trade-executor")),
    Cause("TradingServiceDown", "no host takes a service", lambda lab: placed_nowhere(lab, "risk-manager")),
    Cause(
        "RiskStateStale",
        "no PostgreSQL",
        lambda lab: away(lab, "postgresql", "statefulset"),
        "risk_state_age_seconds",
    ),
    Cause(
        "BusHeartbeatMissing",
        "no Valkey",
        lambda lab: away(lab, "valkey", "statefulset", "crypto-collectors"),
        "heartbeat_age_seconds",
    ),
)


def measure(*, keep: bool) -> list[Figure]:
    """All figures, of the standing lab that TRADEWATCH_E2E_LAB names, else of a lab of its own."""
    with standing_lab(keep=keep) as lab:
        return [
            *intake(lab),
            *more_services(lab),
            *log_lines(lab),
            throughput(lab),
            *(told_of(lab, cause) for cause in CAUSES),
            *pages(lab),
        ]


def measure_fault(alert: str, *, keep: bool) -> list[Figure]:
    """How soon the lab tells of each cause of one alert."""
    causes = [cause for cause in CAUSES if cause.alert == alert]
    assert causes, f"no fault raises {alert}; known: {', '.join(sorted({cause.alert for cause in CAUSES}))}"
    with standing_lab(keep=keep) as lab:
        return [told_of(lab, cause) for cause in causes]


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
    counted = counts(lab, CALM_SECONDS)
    logged = f"{counted['lines']:.1f} lines/s, {counted['dropped']:.0f} dropped"
    return [
        Figure(f"scraped by Prometheus, {counted['services']:.0f} services", scraped(counted)),
        Figure("logs taken in by Loki", logged),
    ]


def more_services(lab: LabUnderTest) -> list[Figure]:
    """The same of Prometheus with simulated services beside the lab's."""
    figures = []
    with simulated_services(lab) as scrape:
        for count in SIMULATED:
            scrape(count)
            samples = SCRAPED_SECONDS // SCRAPE_SECONDS
            often = f'count(count_over_time(up{{job="external"}}[{SCRAPED_SECONDS}s]) >= {samples}) == {2 * count}'
            wait(lambda: lab.query(often), "rates of the simulated services", 2 * SCRAPED_SECONDS)  # noqa: B023
            figures.append(Figure(f"and {count} simulated services", scraped(counts(lab, SCRAPED_SECONDS))))
    return figures


def counts(lab: LabUnderTest, seconds: int) -> dict[str, float]:
    """Each of COUNTS, over so many seconds."""
    return {name: number(lab.query(query.format(seconds=seconds))) for name, query in COUNTS.items()}


def scraped(counted: dict[str, float]) -> str:
    """What Prometheus takes in, and what it needs for it."""
    return (
        f"{counted['samples']:.0f} samples/s, {counted['series']:.0f} series of {counted['targets']:.0f} targets,"
        f" {counted['memory'] / MIB:.0f} MiB"
    )


def number(result: list[dict[str, Any]]) -> float:
    """The value of an answer of one series at most; 0 where there is none, such as of a counter that never counted."""
    return float(result[0]["value"][1]) if result else 0.0


def log_lines(lab: LabUnderTest) -> list[Figure]:
    """How soon one line is found, and how fast many are taken in."""
    one = [until_found(lab, 1) for _ in range(TRIES)]
    many = until_found(lab, BURST_LINES)
    return [
        Figure("log line to Loki query", spread(one), (under(max(one), MAX_LAG_SECONDS, "s"),)),
        Figure(
            f"{BURST_LINES} lines of one pod, until all are found", f"{many:.1f} s ({BURST_LINES / many:.0f} lines/s)"
        ),
    ]


def until_found(lab: LabUnderTest, lines: int) -> float:
    """Seconds from the command that writes so many lines until a query counts them all."""
    began = time.monotonic()
    marker, _ = written(lab, "risk-manager", lines, AS_FAST_AS_IT_CAN)
    while found(lab, "risk-manager", marker) < lines:
        assert time.monotonic() < began + 300, f"Loki does not have all {lines} lines within 300 s"
        time.sleep(0.1)
    return time.monotonic() - began


def written(lab: LabUnderTest, service: str, lines: int, per_second: int) -> tuple[str, float]:
    """The mark of the lines that a pod has been made to write, and the seconds that it took."""
    marker = uuid.uuid4().hex
    seconds = in_pod(lab, service, "python3", "-c", WRITE, marker, str(lines), str(per_second))
    return marker, float(seconds)


def found(lab: LabUnderTest, service: str, marker: str) -> float:
    """How many of the marked lines Loki has."""
    selector = f'{{namespace="crypto-trading", service="{service}"}}'
    query = f'sum(count_over_time({selector} |= "{marker}" [15m]))'
    return number(loki(lab, "query", query=query)["result"])


def throughput(lab: LabUnderTest) -> Figure:
    """The highest rate of one pod at which every line is found in time, and what becomes of the next."""
    kept = "none"
    for rate in LINES_PER_SECOND:
        lag, problem = at_rate(lab, rate)
        if problem:
            return Figure(WITHOUT_LOSS, f"{kept}; at {rate} lines/s {problem}")
        kept = f"{rate} lines/s, the last found {lag:.1f} s after it was written"
    return Figure(WITHOUT_LOSS, f"{kept}; nothing faster was tried")


def at_rate(lab: LabUnderTest, rate: int) -> tuple[float, str]:
    """The seconds from the last line until all are found, and what is wrong where that is too long."""
    lines = rate * STEP_SECONDS
    lost_before = losses(lab)
    marker, seconds = written(lab, FLOODED, lines, rate)
    ended = time.monotonic()
    if seconds > 1.1 * STEP_SECONDS:
        return 0.0, f"the pod gets rid of {lines / seconds:.0f} only"
    while (have := found(lab, FLOODED, marker)) < lines:
        if time.monotonic() > ended + MAX_LAG_SECONDS:
            break
        time.sleep(0.1)
    lag = time.monotonic() - ended
    if have >= lines and lag <= MAX_LAG_SECONDS:
        return lag, ""
    return lag, f"{100 * have / lines:.0f} % are found after {lag:.0f} s, {reason(lab, marker, lines, lost_before)}"


def reason(lab: LabUnderTest, marker: str, lines: int, lost_before: dict[str, float]) -> str:
    """Whether the rest of the lines was late or is lost, and where."""
    began = time.monotonic()
    while time.monotonic() < began + REASON_SECONDS:
        if found(lab, FLOODED, marker) >= lines:
            return f"all {time.monotonic() - began:.0f} s later"
        time.sleep(1)
    lost = {where: count - lost_before[where] for where, count in losses(lab).items()}
    told = ", ".join(f"{count:.0f} {where}" for where, count in lost.items() if count > 0)
    return told or f"{found(lab, FLOODED, marker):.0f} of {lines} {REASON_SECONDS} s later"


def losses(lab: LabUnderTest) -> dict[str, float]:
    """How many lines were lost so far, by where."""
    return {where: number(lab.query(query)) for where, query in LOSSES.items()}


def told_of(lab: LabUnderTest, cause: Cause) -> Figure:
    """From an alert's cause to the message, by the chat's clock."""
    wait(lambda: not lab.query(f'ALERTS{{alertname="{cause.alert}"}}'), f"{cause.alert} does not fire", 300)
    own = own_seconds(lab, cause)
    began = datetime.now(UTC)
    with cause.made(lab):
        told = wait(lambda: told_since(lab, cause.alert, began), f"somebody is told of {cause.alert}", 300)
    wait(lambda: not lab.query(f'ALERTS{{alertname="{cause.alert}"}}'), f"the end of {cause.alert}", 300)
    seconds = (min(told) - began).total_seconds()
    waited = f", of which the rule waits {own:.0f} s" if own else ""
    bar = under(seconds, MAX_TOLD_SECONDS, "s")
    return Figure(f"fault to webhook, {cause.alert}: {cause.what}", f"{seconds:.1f} s{waited}", (bar,))


def own_seconds(lab: LabUnderTest, cause: Cause) -> float:
    """How long an alert's cause must last: its `for`, and what its expression lets pass."""
    groups = lab.prometheus("rules", **{"rule_name[]": cause.alert})["groups"]
    [rule] = [rule for group in groups for rule in group["rules"]]
    thresholds = yaml.safe_load((REPOSITORY / "files/rules/thresholds.yml").read_text())
    allowed = thresholds[cause.threshold]["value"] if cause.threshold else 0
    return float(rule["duration"]) + float(allowed)


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
