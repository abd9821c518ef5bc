"""The page and the report in a real browser: what people see, and what the browser complains of."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import dashboard_support as support
import pytest
import pytest_asyncio
from dashboard_support import HOSTILE, PASSWORD, QUOTED, TRACE, USER
from playwright.async_api import Browser, BrowserContext, Page, Request, Route, async_playwright
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from services_support import eventually
from tradewatch.cli import main as cli
from tradewatch.monitoring.dashboard_report.metrics import DashboardReportMetrics
from tradewatch.monitoring.dashboard_report.service import open_sources
from tradewatch.monitoring.dashboard_report.site import Site, TlsFiles
from tradewatch.monitoring.dashboard_report.sources import Access, Limits
from tradewatch.monitoring.dashboard_report.viewer import Viewer

# One browser for all: starting one takes seconds.
pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]

DESK, PHONE = (1440, 900), (390, 844)
# Above all of the page, so that every panel is in view and drawn.
TALL = (1440, 2200)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with support.prometheus(tmp_path_factory.mktemp("prometheus")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium-headless-shell on PATH (Debian's package of that name)")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        await running.close()


class Watched:
    """A page of the browser, and what it complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("request", self._request)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        self._closing = asyncio.ensure_future(dialog.dismiss())

    def _request(self, request: Request) -> None:
        self.asked.append(request.url)

    async def drawn(self, number: int) -> int:
        """How often that panel was drawn."""
        found = await self.page.locator(f'[data-panel="{number}"]').get_attribute("data-drawn")
        return int(found or 0)

    async def all_drawn(self) -> None:
        """Wait until every panel of the dashboard of every kind is drawn."""
        numbers = [panel["id"] for panel in support.dashboard()["panels"] if panel["type"] != "row"]

        async def done() -> bool:
            with contextlib.suppress(TimeoutError):
                return all([await self.drawn(number) for number in numbers])
            return False

        await self.page.wait_for_selector('[data-panel="14"]')
        await eventually(done)

    async def picture(self, name: str) -> None:
        """A screenshot, for who wants to look: into $TRADEWATCH_SCREENSHOTS, where that is set."""
        folder = os.environ.get("TRADEWATCH_SCREENSHOTS")
        if folder:
            await self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@asynccontextmanager
async def opened(browser: Browser, size: tuple[int, int], **options: Any) -> AsyncIterator[Watched]:
    context: BrowserContext = await browser.new_context(
        ignore_https_errors=True, viewport={"width": size[0], "height": size[1]}, **options
    )
    yield Watched(await context.new_page())
    await context.close()


LOGIN = {"http_credentials": {"username": USER, "password": PASSWORD}}


@asynccontextmanager
async def served(directory: Path, prometheus: str, loki: str) -> AsyncIterator[str]:
    """The page's address."""
    metrics = DashboardReportMetrics(CollectorRegistry())
    limits = Limits(timeout_seconds=5, cache_seconds=0.5)
    async with open_sources(Access(prometheus), Access(loki), limits, metrics) as sources:
        viewer = Viewer(support.folder(directory), sources, support.SAMPLE_SECONDS)
        viewer.refresh()
        tls = TlsFiles(*support.certificate(directory))
        async with Site(0, viewer, metrics, USER, SecretStr(PASSWORD), tls.context) as site:
            yield f"https://localhost:{site.port}"


async def test_every_panel_is_drawn_and_hostile_text_stays_text(
    tmp_path: Path, prometheus: str, browser: Browser
) -> None:
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, TALL, **LOGIN) as watched,
    ):
        await watched.page.goto(f"{url}/d/kinds?from=now-2h&to=now")
        await watched.all_drawn()
        page = watched.page
        assert await page.locator(".problem:not([hidden])").count() == 0
        assert await page.locator(".timeseries .js-line").count() == 9
        assert await page.locator('[data-panel="6"] .tile-value').all_inner_texts() == ["up"] * 3
        assert "°C" in await page.locator('[data-panel="7"] .tile-value').inner_text()
        assert await page.locator('[data-panel="8"] .bar-row').count() == 3
        # risk-manager was down for a tenth of the time: three states for it, one for each other.
        assert await page.locator('[data-panel="10"] .state').count() == 5
        assert set(await page.locator('[data-panel="11"] td:first-child').all_inner_texts()) >= {QUOTED, "calm"}
        assert HOSTILE in await page.locator('[data-panel="11"] table').inner_text()
        assert HOSTILE in await page.locator('[data-panel="13"]').inner_text()
        assert HOSTILE in await page.locator('[data-panel="14"]').inner_text()
        hrefs = await page.locator("main a").evaluate_all("links => links.map(link => link.href)")
        trace = f"{url}/d/kinds?var-search={TRACE}&viewPanel=14&from=now-2h&to=now"
        assert hrefs == ["https://example.org/", *[trace] * 24]
        painted = await page.locator('[data-panel="9"] .hm image').evaluate("image => image.href.baseVal.length")
        assert painted > 500
        assert await page.title() == "Every kind of panel · Tradewatch"
        assert await page.locator("main img, main script").count() == 0
        assert watched.complaints == []
        assert all(asked.startswith(url) for asked in watched.asked)
        await watched.picture("desk")


async def test_a_first_load_waits_for_no_login_and_asks_for_data_before_plotly_is_there(
    tmp_path: Path, prometheus: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradewatch.monitoring.dashboard_report.site.REFUSED_SECONDS", 600.0)
    held: asyncio.Future[Route] = asyncio.get_running_loop().create_future()
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, TALL, **LOGIN) as watched,
    ):
        page = watched.page
        await page.route("**/plotly.min.js*", lambda route: held.set_result(route))
        await page.goto(f"{url}/d/kinds", wait_until="commit")
        await page.wait_for_selector('[data-panel="6"][data-drawn]')
        await page.wait_for_selector('[data-panel="14"][data-drawn]')
        assert await watched.drawn(3) == 0
        # What came with the page is not asked for.
        assert not [
            asked for asked in watched.asked if urlsplit(asked).path in ("/api/dashboards", "/api/dashboards/kinds")
        ]
        await (await held).continue_()
        await watched.all_drawn()
        assert await page.locator(".timeseries .js-line").count() == 9
        assert watched.complaints == []


async def test_new_data_comes_by_itself_and_nothing_is_built_anew(
    tmp_path: Path, prometheus: str, browser: Browser
) -> None:
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, TALL, **LOGIN) as watched,
    ):
        page = watched.page
        await page.clock.install()
        await page.goto(f"{url}/d/kinds")
        await watched.all_drawn()
        before = await watched.drawn(3)
        curves = await page.query_selector('[data-panel="3"] .main-svg')
        await page.locator('[data-panel="14"] .search').fill("error number 2")
        assert await page.locator('[data-panel="14"] .log-line').count() == 1
        await page.clock.run_for(31_000)

        async def again() -> bool:
            return await watched.drawn(3) > before and await watched.drawn(14) > before

        await eventually(again)
        assert curves is not None
        assert await curves.evaluate("curves => curves.isConnected")
        # What was typed stays, and still holds.
        assert await page.locator('[data-panel="14"] .search').input_value() == "error number 2"
        assert await page.locator('[data-panel="14"] .log-line').count() == 1
        assert watched.complaints == []


async def test_a_plot_answers_the_pointer_and_is_drawn_when_seen(
    tmp_path: Path, prometheus: str, browser: Browser
) -> None:
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, (1440, 600), **LOGIN) as watched,
    ):
        page = watched.page
        await page.goto(f"{url}/d/kinds?from=now-1h&to=now")
        panel = page.locator('[data-panel="5"]')
        await panel.locator(".js-line").first.wait_for(state="attached")
        assert await watched.drawn(14) == 0
        await panel.locator(".legend-item", has_text="calm").click()
        assert await panel.locator(".js-line").count() == 2
        box = await panel.locator(".nsewdrag").bounding_box()
        assert box is not None
        left, middle = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
        await page.mouse.move(left, middle)
        await page.locator(".tip .tip-row").first.wait_for()
        names = await page.locator(".tip .tip-name").all_inner_texts()
        assert sorted(names) == sorted([HOSTILE, QUOTED])
        await page.mouse.down()
        await page.mouse.move(left + box["width"] / 2, middle, steps=4)
        await page.mouse.up()
        await eventually(lambda: "from=now-1h" not in page.url)
        chosen = parse_qs(urlsplit(page.url).query)
        assert int(chosen["to"][0]) - int(chosen["from"][0]) == pytest.approx(1_800_000, rel=0.05)
        await page.locator('[data-panel="14"]').scroll_into_view_if_needed()
        await page.wait_for_selector('[data-panel="14"][data-drawn]')
        assert watched.complaints == []


async def test_range_choice_and_tabs_are_in_the_address(tmp_path: Path, prometheus: str, browser: Browser) -> None:
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, TALL, **LOGIN) as watched,
    ):
        page = watched.page
        await page.goto(url)
        await watched.all_drawn()
        await page.get_by_label("Time range").select_option("now-15m")
        await eventually(lambda: any("panels/3?from=now-15m" in asked for asked in watched.asked))
        assert "from=now-15m" in page.url
        await page.locator("details.multi summary").click()
        await page.locator(".option", has_text="risk-manager").click()
        await page.locator("h2").first.click()
        await eventually(lambda: "var-service=risk-manager" in page.url)

        async def one_of_each() -> bool:
            shown = ('[data-panel="6"] .tile', '[data-panel="8"] .bar-row')
            return [await page.locator(each).count() for each in shown] == [1, 1]

        await eventually(one_of_each)
        await page.locator('[data-panel="6"] .tile').click()
        link = await page.locator(".menu a").get_attribute("href")
        assert link == "/d/kinds?var-service=risk-manager&from=now-15m&to=now"
        await page.evaluate("history.back()")
        await eventually(lambda: "var-service" not in page.url)
        await page.get_by_role("link", name="The other one").click()
        await page.wait_for_selector(".tile-value")
        assert await page.locator(".tile-value").inner_text() == "3"
        await page.goto(f"{url}/d/other")
        await page.wait_for_selector(".tile-value")
        assert await page.title() == "The other one · Tradewatch"
        await page.goto(f"{url}/d/kinds?viewPanel=14")
        await page.wait_for_selector(".log-line")
        assert await page.locator(".panel").count() == 1
        assert watched.complaints == []


async def test_a_link_that_a_constant_begins_leads_out_before_the_variables_are_known(
    tmp_path: Path, prometheus: str, browser: Browser
) -> None:
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, TALL, **LOGIN) as watched,
    ):
        page = watched.page
        await page.route("**/frame?*", lambda route: route.abort())
        await page.goto(f"{url}/d/kinds")
        for name, address in (("calm", "calm"), (HOSTILE, quote(HOSTILE, safe="!'()*"))):
            await page.locator('[data-panel="11"] td span.linked', has_text=name).click()
            link = page.locator(".menu a")
            assert await link.get_attribute("href") == f"https://example.org/runbooks/{address}.md"
            assert await link.get_attribute("rel") == "noopener noreferrer"
            await page.keyboard.press("Escape")


async def test_a_trace_is_a_click_away_from_a_line(tmp_path: Path, prometheus: str, browser: Browser) -> None:
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, DESK, **LOGIN) as watched,
    ):
        page = watched.page
        await page.goto(f"{url}/d/kinds?viewPanel=14&from=now-15m")
        lines = page.locator(".log-line")
        # It stands once in a line, and a line without one has no link.
        assert TRACE not in await lines.locator(".log-rest").first.inner_text()
        assert await lines.filter(has_text=HOSTILE).locator("a").count() == 0
        await lines.get_by_role("link", name=f"trace_id={TRACE}").first.click()
        await page.wait_for_url(f"**/d/kinds?from=now-15m&to=now&var-search={TRACE}&viewPanel=14")
        await lines.first.wait_for()
        assert loki.asked[-1]["query"] == f'{{namespace="crypto-trading"}} |= "{TRACE}"'
        assert watched.complaints == []


async def test_a_trace_is_a_click_away_from_an_exemplar(tmp_path: Path, prometheus: str, browser: Browser) -> None:
    now = time.time()
    told = [
        # Two of one step: the greater is drawn. Those without a trace lead nowhere.
        {"labels": {"trace_id": TRACE}, "value": "60", "timestamp": now - 1800},
        {"labels": {"trace_id": "cd" * 16}, "value": "50", "timestamp": now - 1800},
        {"labels": {"order": HOSTILE}, "value": "20", "timestamp": now - 900},
        {"labels": {"trace_id": TRACE}, "value": "NaN", "timestamp": now - 600},
        {"labels": {"trace_id": TRACE}, "value": "1", "timestamp": now - 7200},
    ]
    series = [{"seriesLabels": {"service": "risk-manager"}, "exemplars": told}]
    async with (
        support.loki() as loki,
        support.with_exemplars(prometheus, series) as source,
        served(tmp_path, source, loki.url) as url,
        opened(browser, TALL, **LOGIN) as watched,
    ):
        page = watched.page
        await page.goto(f"{url}/d/kinds?from=now-1h")
        panel = page.locator('[data-panel="3"]')
        await panel.locator(".dot").first.wait_for()
        assert await panel.locator(".dot").evaluate_all("dots => dots.map(dot => dot.tagName)") == ["A", "SPAN"]
        assert HOSTILE in str(await panel.locator("span.dot").get_attribute("title"))
        # In the middle of the time, and inside of the plot although above all of its lines.
        plot, dot = await panel.locator(".nsewdrag").bounding_box(), await panel.locator("a.dot").bounding_box()
        assert plot is not None
        assert dot is not None
        assert dot["x"] + dot["width"] / 2 == pytest.approx(plot["x"] + plot["width"] / 2, abs=plot["width"] / 50)
        assert plot["y"] < dot["y"] < plot["y"] + plot["height"] / 3
        await watched.picture("exemplars")
        await panel.locator("a.dot").click()
        await page.wait_for_url(f"**/d/kinds?from=now-1h&to=now&var-search={TRACE}&viewPanel=14")
        await page.locator(".log-line").first.wait_for()
        assert watched.complaints == []


async def test_tabs_and_the_dashboards_links_keep_time_and_choices(
    tmp_path: Path, prometheus: str, browser: Browser
) -> None:
    carried = "from=now-15m&to=now&var-service=risk-manager"
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, TALL, **LOGIN) as watched,
    ):
        page = watched.page
        await page.goto(f"{url}/d/kinds?from=now-15m")
        links = page.locator(".links a")
        await page.locator("details.multi summary").click()
        await page.locator(".option", has_text="risk-manager").click()
        await page.locator("h2").first.click()
        await page.wait_for_url(f"**/d/kinds?{carried}")
        assert await links.all_inner_texts() == ["Runbooks", "Words"]
        assert await links.first.get_attribute("href") == "https://example.org/runbooks/README.md"
        assert await links.last.get_attribute("href") == f"/d/kinds?viewPanel=13&{carried}"
        for name, uid in (("The other one", "other"), ("Every kind of panel", "kinds")):
            await page.get_by_role("link", name=name).click()
            await page.wait_for_url(f"**/d/{uid}?{carried}")
        assert await page.locator("details.multi summary").inner_text() == "risk-manager"
        assert watched.complaints == []


async def test_a_long_title_is_wrapped_and_said_in_full(
    tmp_path: Path, prometheus: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = "How long an order takes from the call to the exchange to its end, by product and by side"
    document = support.dashboard()
    document["panels"][1]["title"] = title
    monkeypatch.setattr(support, "dashboard", lambda: document)
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, DESK, **LOGIN) as watched,
    ):
        page = watched.page
        await page.route("**/panels/*", lambda route: route.abort())
        await page.goto(f"{url}/d/kinds")
        heading = page.locator('[data-panel="3"] h2')
        assert await heading.get_attribute("title") == title
        box = await heading.bounding_box()
        assert box is not None
        assert 30 < box["height"] < 40
        await watched.picture("title")


async def test_a_service_that_went_away_is_said_and_the_last_data_stays(
    tmp_path: Path, prometheus: str, browser: Browser
) -> None:
    async with support.loki() as loki, opened(browser, TALL, **LOGIN) as watched:
        async with served(tmp_path, prometheus, loki.url) as url:
            await watched.page.goto(f"{url}/d/kinds")
            await watched.all_drawn()
        await watched.page.get_by_role("button", name="Refresh").click()
        await watched.page.get_by_text("The service does not answer; trying again.").first.wait_for()
        assert await watched.page.locator('[data-panel="8"] .bar-row').count() == 3


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_nothing_sticks_out(tmp_path: Path, prometheus: str, browser: Browser, size: tuple[int, int]) -> None:
    async with (
        support.loki() as loki,
        served(tmp_path, prometheus, loki.url) as url,
        opened(browser, size, **LOGIN) as watched,
    ):
        await watched.page.goto(f"{url}/d/kinds")
        await watched.page.wait_for_selector('[data-panel="3"][data-drawn]')
        width = await watched.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0]
        await watched.picture(f"{size[0]}")


async def test_the_report_opens_without_a_network(tmp_path: Path, prometheus: str, browser: Browser) -> None:
    output = tmp_path / "report.html"
    async with support.loki() as loki:
        arguments = ["report", "--output", str(output), "--dashboards", str(support.folder(tmp_path)), "--from", "2h"]
        assert await asyncio.to_thread(cli, [*arguments, "--prometheus", prometheus, "--loki", loki.url]) == 0
    async with opened(browser, TALL, offline=True) as watched:
        await watched.page.goto(output.as_uri())
        await watched.all_drawn()
        assert HOSTILE in await watched.page.locator('[data-panel="14"]').inner_text()
        assert await watched.page.title() == "Every kind of panel · Tradewatch"
        await watched.picture("report")
        await watched.page.get_by_role("link", name="The other one").click()
        await watched.page.wait_for_selector(".tile-value")
        assert watched.complaints == []
        assert watched.asked == [output.as_uri()]
