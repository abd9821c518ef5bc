"""Walk the four steps of docs/operations.md on a standing lab, and renew their pictures and times (`make walk`).

The exchange stops giving balances; an alert fires; a person goes from overall health to the service, its logs and
Prometheus, and finds why. The fault is taken away again, whatever happens.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Error, FloatRect, Locator, Page, sync_playwright

from lab import paths
from tests.bench import between_markers, machine
from tests.commands import REPOSITORY
from tests.e2e.alerts import told_to_chat
from tests.e2e.faults import fault, no_faults, tradewatch
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

PAGE = REPOSITORY / "docs" / "operations.md"
PICTURES = REPOSITORY / "docs" / "pictures"
HEALTH, ALERTS, SERVICE, ENGINE, LOGS, CAUSE = (
    "walk-1-health.png",
    "walk-1-alerts.png",
    "walk-2-service.png",
    "walk-2-engine.png",
    "walk-3-logs.png",
    "walk-4-prometheus.png",
)
# They are read on slow lines too, and git keeps every version of them.
MAX_PICTURE_BYTES = 120_000

SIMULATOR = "exchange-simulator"
# Reading balances is what comparing with the exchange ends with; orders and prices go on as before.
BALANCES = "/api/v3/brokerage/accounts"
FAULT_SECONDS = 1200
SICK, ALERT = "trade-executor", "ReconcileStale"
MESSAGE = "not reconciled"
# As in docs/operations.md; tests/unit/test_walk.py holds the two together.
AVAILABLE = f'namespace_service:available:min{{namespace="crypto-trading", service="{SICK}"}}'
FIRING = f'ALERTS{{alertname="{ALERT}", alertstate="firing"}}'
WHY = (
    'sum by (endpoint, status) (increase(exchange_api_request_duration_seconds_count{job="kubernetes-pods-metrics", '
    'namespace="crypto-trading"}[5m])) > 0'
)
# Whom a critical alert of the trading team reaches in the lab, where a simulated chat takes all messages.
RECEIVERS = {"pager", "trading"}
# In the browser: width, height, and red, green, blue and opacity of every pixel in base64.
PIXELS = """
async (encoded) => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${encoded}`)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, image.width, image.height);
  const text = await new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(new Blob([data]));
  });
  return [image.width, image.height, text.split(",")[1]];
}
"""
RANGE = "from=now-15m&to=now"
# dashboard-report's answers serve as long.
REFRESH_SECONDS = 10.0
# For something to be on the page; for Prometheus or a person to know of something.
WAIT_SECONDS, KNOWN_SECONDS = 180.0, 300.0
# Tall, so that no panel needs scrolling to, and wide enough for the panels' titles.
WINDOW = (1600, 5200)
# How much of a band a person sees: with RANGE a quarter of a minute.
SEEN_PIXELS = 10.0
# Of panels that are mostly empty, or repeat themselves.
ALERTS_HEIGHT, SERVICE_HEIGHT, LOGS_HEIGHT = 230.0, 110.0, 430.0


def with_palette(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of at most 256 colours (https://www.w3.org/TR/png-3/); ``pixels`` is height by width by red, green, blue.

    Colours that are alike share the palette's entry, their mean: for a page on dark ground nobody sees it, and the file
    is a third of the browser's.
    """
    height, width, _ = pixels.shape
    colours = pixels.reshape(-1, 3).astype(np.uint32)
    for bits in range(8):
        keys = (colours >> bits) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
        found, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
        if len(found) <= 256:
            break
    sums = np.stack([np.bincount(places, weights=colours[:, channel]) for channel in range(3)], axis=1)
    palette = np.rint(sums / counts[:, None]).astype(np.uint8)
    # Each row begins with its filter: none.
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = places.reshape(height, width)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = {b"IHDR": header, b"PLTE": palette.tobytes(), b"IDAT": zlib.compress(rows.tobytes(), 9), b"IEND": b""}
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class Album:
    """A browser on dashboard-report's page, and the pictures that it takes."""

    def __init__(self, page: Page, url: str, folder: Path) -> None:
        self.page = page
        self.url = url.rstrip("/")
        self._folder = folder

    def open(self, path: str) -> None:
        """Show a page by its path and query."""
        self.page.goto(f"{self.url}{path}")

    def panel(self, number: int) -> Locator:
        """A panel by its number in the dashboard, drawn or not."""
        return self.page.locator(f'[data-panel="{number}"]')

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until the page shows something, refreshing it now and then."""
        refreshed = time.monotonic()

        def shown() -> bool:
            nonlocal refreshed
            if condition():
                return True
            # A page that is refreshed before its panels have come would never show them.
            if time.monotonic() > refreshed + REFRESH_SECONDS:
                self.page.get_by_role("button", name="Refresh").click()
                refreshed = time.monotonic()
            return False

        wait(shown, f"on the page: {what}", WAIT_SECONDS)

    def text(self, number: int) -> str:
        """What a drawn panel says, or nothing while it is not drawn."""
        found = self.page.locator(f'[data-panel="{number}"][data-drawn]')
        return found.inner_text() if found.count() else ""

    def values(self, number: int) -> list[str]:
        """The values of a panel of numbers, none while it is not drawn."""
        return self.panel(number).locator(".tile-value").all_inner_texts()

    def follow(self, band: str, link: str) -> None:
        """Click a service's name in the timeline, and then an entry of its menu."""
        self.band(band).click()
        self.page.locator(".menu a", has_text=link).click()

    def band(self, name: str) -> Locator:
        """A service's name in the timeline of the services."""
        return self.panel(107).locator(".band-name", has_text=name)

    def now(self, name: str) -> str:
        """The newest state in a service's band, once it is wide enough to be seen."""
        states = self.panel(107).locator(".band-row", has_text=name).locator(".state")
        box = states.last.bounding_box() if states.count() else None
        return (states.last.get_attribute("title") or "") if box and box["width"] >= SEEN_PIXELS else ""

    def take(self, name: str, *numbers: int, height: float = float("inf")) -> None:
        """The part of the page that these panels fill, at most so many pixels high, as a file."""
        self.page.mouse.move(0, 0)
        boxes = [box for number in numbers if (box := self.panel(number).bounding_box())]
        assert len(boxes) == len(numbers), f"{name}: not every panel of {numbers} is on the page"
        left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
        right = max(box["x"] + box["width"] for box in boxes)
        bottom = max(box["y"] + box["height"] for box in boxes)
        clip = FloatRect(x=left - 4, y=top - 4, width=right - left + 8, height=min(bottom - top, height) + 8)
        picture = with_palette(self._pixels(self.page.screenshot(clip=clip)))
        assert len(picture) <= MAX_PICTURE_BYTES, f"{name} has {len(picture)} bytes, more than {MAX_PICTURE_BYTES}"
        (self._folder / name).write_bytes(picture)

    def _pixels(self, picture: bytes) -> NDArray[np.uint8]:
        """The pixels of an image file; the browser knows how to read one."""
        # On a page of its own: dashboard-report's policy lets nobody read such an address.
        blank = self.page.context.new_page()
        width, height, encoded = blank.evaluate(PIXELS, base64.b64encode(picture).decode())
        blank.close()
        return np.frombuffer(base64.b64decode(encoded), dtype=np.uint8).reshape(height, width, 4)[:, :, :3]


@contextmanager
def album(endpoint: dict[str, Any], folder: Path) -> Iterator[Album]:
    """A browser that is logged in at an endpoint of endpoints.json."""
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert program, "no chromium-headless-shell on PATH: install Debian's package of that name"
    folder.mkdir(parents=True, exist_ok=True)
    password = Path(endpoint["password_file"]).read_text().strip()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = browser.new_context(
            # The browser keeps no authorities of its own that the lab's could be added to.
            ignore_https_errors=True,
            http_credentials={"username": endpoint["username"], "password": password, "origin": endpoint["url"]},
            viewport={"width": WINDOW[0], "height": WINDOW[1]},
            timezone_id="UTC",
        )
        context.set_default_timeout(WAIT_SECONDS * 1000)
        yield Album(context.new_page(), endpoint["url"], folder)
        browser.close()


def health(pictures: Album) -> None:
    """Step 1: that something is wrong, and what."""
    pictures.open(f"/d/unified-system?{RANGE}")
    pictures.until(lambda: pictures.values(102) not in ([], ["0"]), "a service that is down")
    pictures.until(lambda: f"{SICK}: down" in pictures.now(SICK), f"{SICK} down")
    pictures.until(lambda: ALERT in pictures.text(501), f"{ALERT} among the alerts")
    pictures.band(SICK).scroll_into_view_if_needed()
    pictures.panel(501).locator("tr", has_text=ALERT).first.scroll_into_view_if_needed()
    pictures.take(HEALTH, 101, 102, 103, 104, 105, 106, 107, 108)
    pictures.take(ALERTS, 501, height=ALERTS_HEIGHT)


def service(pictures: Album) -> None:
    """Step 2: the service alone, and what it is that does not work."""
    pictures.follow(SICK, "This service alone")
    pictures.until(lambda: pictures.panel(107).locator(".band-name.linked").count() == 1, f"{SICK} alone")
    pictures.until(lambda: SICK in pictures.text(108), f"the row of {SICK}")
    pictures.take(SERVICE, 107, 108, height=SERVICE_HEIGHT)


def engine(pictures: Album) -> None:
    """Step 2, the alert's own dashboard."""
    pictures.open(f"/d/crypto-trading-engine?{RANGE}")
    pictures.until(lambda: pictures.values(103) not in ([], ["0"]), "a service that is down")
    pictures.until(lambda: all(map(pictures.values, range(101, 107))), "the trading engine's health")
    pictures.take(ENGINE, 101, 102, 103, 104, 105, 106)


def logs(pictures: Album) -> None:
    """Step 3: what the service says."""
    pictures.open(f"/d/unified-system?var-namespace=crypto-trading&var-service={SICK}&{RANGE}")
    pictures.until(pictures.band(SICK).count, f"{SICK} alone")
    pictures.follow(SICK, "Its logs")
    pictures.until(lambda: MESSAGE in pictures.text(603), f"{MESSAGE!r} among the lines")
    pictures.panel(603).locator(".log-line", has_text=MESSAGE).first.click()
    pictures.take(LOGS, 603, height=LOGS_HEIGHT)


def cause(pictures: Album) -> None:
    """Step 4: the query that says why, as its panel draws it."""
    pictures.open(f"/d/crypto-trading-engine?{RANGE}")
    pictures.until(lambda: "accounts 5xx" in pictures.text(304), "the refused requests")
    pictures.take(CAUSE, 304, 305, 306)


STEPS: dict[str, Callable[[Album], None]] = {
    "overall health": health,
    "the service": service,
    "the alert's dashboard": engine,
    "its logs": logs,
    "Prometheus": cause,
}


@dataclass
class Watch:
    """What happened, and how many seconds after the beginning."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    events: list[tuple[float, str]] = field(default_factory=list)

    def see(self, what: str, when: datetime | None = None) -> None:
        """Note and say it: of now, where no time is given."""
        seconds = ((when or datetime.now(UTC)) - self.started).total_seconds()
        self.events.append((seconds, what))
        print(f"{seconds:6.0f} s  {what}", flush=True)

    def rows(self) -> list[str]:
        """The lines of a table, in the order of time."""
        return [f"| {seconds:.0f} s | {what} |" for seconds, what in sorted(self.events)]


def told(lab: LabUnderTest, state: str, since: datetime) -> list[dict[str, Any]]:
    """The messages about the alert that people have got since then, oldest first."""
    title = f"[{state}] critical: {ALERT} "
    return [
        m for m in told_to_chat(lab) if m["title"].startswith(title) and datetime.fromisoformat(m["received"]) >= since
    ]


def acknowledge(lab: LabUnderTest) -> None:
    """As the person whom the alert reached: somebody looks after it, so nobody else is woken."""
    alerts = json.loads(tradewatch(lab, "alerts", "list", "--open", "--json"))
    fingerprint = next(each["fingerprint"] for each in alerts if each["alert"] == ALERT)
    tradewatch(lab, "alerts", "ack", fingerprint, "--by", "walk")


def others(lab: LabUnderTest) -> str:
    """The names of the other alerts that fire."""
    firing = lab.query(f'count by (alertname) (ALERTS{{alertstate="firing", alertname!~"Watchdog|{ALERT}"}})')
    return ", ".join(sorted(each["metric"]["alertname"] for each in firing)) or "none"


def answered(lab: LabUnderTest, watch: Watch, queries: dict[str, str]) -> None:
    """Wait until every query has an answer; each is noted when it has, under its name."""
    left = dict(queries)

    def all_answered() -> bool:
        for what in [what for what, query in left.items() if lab.query(query)]:
            watch.see(what)
            del left[what]
        return not left

    wait(all_answered, ", ".join(queries), KNOWN_SECONDS)


def people_told(lab: LabUnderTest, watch: Watch, state: str) -> None:
    """Wait until all whom it concerns have been told."""

    def all_told() -> list[dict[str, Any]]:
        messages = told(lab, state, watch.started)
        return messages if {message["channel"] for message in messages} >= RECEIVERS else []

    for message in wait(all_told, f"messages that {ALERT} is {state.lower()}", KNOWN_SECONDS):
        received = datetime.fromisoformat(message["received"])
        watch.see(f"`{message['channel']}` is told: {message['title']}", received)


def broken(lab: LabUnderTest, pictures: Album) -> Watch:
    """From the fault to its cause; the times are those since the fault."""
    watch = Watch()
    fault(lab, SIMULATOR, fault="status", status=503, method="GET", path=BALANCES, seconds=FAULT_SECONDS)
    watch.see(f"the exchange answers `GET {BALANCES}` with 503")
    answered(lab, watch, {f"{ALERT} fires": FIRING, f"{SICK} is not available: it takes no order": f"{AVAILABLE} == 0"})
    people_told(lab, watch, "FIRING")
    acknowledge(lab)
    for name, step in STEPS.items():
        step(pictures)
        print(f"seen: {name}", flush=True)
    for sample in lab.query(WHY):
        labels, count = sample["metric"], float(sample["value"][1])
        print(f'Prometheus: {{endpoint="{labels["endpoint"]}", status="{labels["status"]}"}} {count:.0f}', flush=True)
    print(f"other alerts that fire: {others(lab)}", flush=True)
    return watch


def mended(lab: LabUnderTest) -> Watch:
    """Wait until all is well; the times are those since the fault was taken away."""
    watch = Watch()
    watch.see("the exchange answers again")
    answered(lab, watch, {f"{SICK} is available": f"{AVAILABLE} == 1", f"{ALERT} is over": f"absent({FIRING})"})
    people_told(lab, watch, "RESOLVED")
    print(f"other alerts that fire: {others(lab)}", flush=True)
    return watch


def section(before: Watch, after: Watch) -> str:
    """The table of times for the page."""
    title = f"Measured on {before.started:%Y-%m-%d}: {machine()}."
    return "\n".join([title, "", "| after | |", "|---|---|", *before.rows(), "| | |", *after.rows()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Walk. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.walk", description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="put them there, and leave docs/ as it is")
    options = parser.parse_args(arguments)
    lab = LabUnderTest(paths.lab_dir())
    try:
        assert (lab.directory / "endpoints.json").exists(), f"no lab in {lab.directory}: run make lab"
        page = lab.endpoints()["dashboards"]
        assert page, "the lab has no dashboard-report"
        wait(lambda: lab.query(f"{AVAILABLE} == 1") and not lab.query(FIRING), f"{SICK} well before the walk", 60)
        with album(page, options.pictures or PICTURES) as pictures:
            try:
                before = broken(lab, pictures)
            finally:
                no_faults(lab, SIMULATOR)
        after = mended(lab)
        if not options.pictures:
            PAGE.write_text(between_markers(PAGE.read_text(), "walk", section(before, after)))
    except (AssertionError, Error, OSError) as error:
        print(f"walk: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
