"""What a person does with the committed dashboards, in a browser: the same on a lab and on made-up series."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Locator

from tests.commands import REPOSITORY
from tests.walk import RANGE, WINDOW, Album

UIDS = ("unified-system", "crypto-trading-engine")
AVAILABILITY, ALERTS, LOGS, TRACE = 107, 501, 603, 604
# The panels that are not drawn, or in which something is wrong, with what they say.
UNSOUND = """
panels => Object.fromEntries(panels.map(panel => {
  const wrong = panel.querySelector(".problem.wrong:not([hidden])");
  return [panel.querySelector("h2").textContent, wrong ? wrong.textContent : panel.dataset.drawn ? "" : "not drawn"];
}).filter(([, said]) => said))
"""


def height(uid: str) -> int:
    """Pixels of a dashboard's whole page, and some more."""
    panels = json.loads((REPOSITORY / f"files/dashboards/{uid}.json").read_text())["panels"]
    # A panel's units are 30 pixels and the 8 between them; a row's title is higher than one.
    units: int = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    return 400 + 38 * units + 10 * len(panels)


def no_panel_is_wrong(pictures: Album, uid: str) -> None:
    """Every panel of a dashboard is drawn, and none has an error; nor have the variables and marks."""
    pictures.page.set_viewport_size({"width": WINDOW[0], "height": height(uid)})
    pictures.open(f"/d/{uid}?{RANGE}")
    panels = pictures.page.locator("main .panel")
    panels.first.wait_for()
    try:
        pictures.until(lambda: not panels.evaluate_all(UNSOUND), f"all panels of {uid}")
    except AssertionError as error:
        error.add_note(f"{panels.evaluate_all(UNSOUND)}")
        raise
    said = pictures.page.locator(".notice:not([hidden]), .choices .wrong").all_inner_texts()
    assert not said, f"{uid}: {said}"


def chosen(pictures: Album) -> dict[str, list[str]]:
    """What the page's address says: the time, the variables, the one panel."""
    return parse_qs(urlsplit(pictures.page.url).query)


def traced_from(pictures: Album, link: Locator, trace: str) -> None:
    """A click on a link leads to the lines of that trace alone, over the same time."""
    link.click()
    pictures.page.wait_for_url(f"**/d/unified-system?*var-trace_id={trace}*")
    assert chosen(pictures) == {**parse_qs(RANGE), "var-trace_id": [trace], "viewPanel": [str(TRACE)]}
    lines = pictures.panel(TRACE).locator(".log-line")
    pictures.until(lines.count, f"lines of the trace {trace}")
    assert set(lines.locator(".log-trace").all_inner_texts()) == {f"trace_id={trace}"}
    assert pictures.panel(TRACE).locator(".log-line:not(:has(.log-trace))").count() == 0


def from_a_service_to_a_trace(pictures: Album, service: str) -> None:
    """A click on a service's name, one on its logs, one on the trace of a line."""
    pictures.open(f"/d/unified-system?{RANGE}")
    pictures.until(pictures.band(service).count, f"{service} among the services")
    pictures.follow(service, "Its logs")
    pictures.page.wait_for_url(f"**/d/unified-system?*viewPanel={LOGS}*")
    assert chosen(pictures)["var-service"] == [service]
    lines = pictures.panel(LOGS).locator(".log-line")
    pictures.until(lines.get_by_role("link").count, f"a line of {service} with a trace")
    assert set(lines.locator(".log-service").all_inner_texts()) == {service}
    link = lines.get_by_role("link").first
    traced_from(pictures, link, link.inner_text().removeprefix("trace_id="))


def from_an_exemplar_to_its_trace(pictures: Album, uid: str, panel: int) -> None:
    """A click on a dot of a panel."""
    pictures.open(f"/d/{uid}?{RANGE}")
    dots = pictures.panel(panel).locator("a.dot")
    pictures.until(dots.count, f"a dot in panel {panel} of {uid}")
    # The last lies above the others.
    dot = dots.last
    [trace] = parse_qs(urlsplit(str(dot.get_attribute("href"))).query)["var-trace_id"]
    traced_from(pictures, dot, trace)


def from_an_alert_to_its_runbook(pictures: Album, alert: str) -> None:
    """A click on an alert's name, and one on its runbook, which opens beside."""
    pictures.open(f"/d/unified-system?{RANGE}")
    name = pictures.panel(ALERTS).locator("td .linked", has_text=alert)
    pictures.until(name.count, f"{alert} among the alerts")
    name.first.click()
    with pictures.page.context.expect_page() as opened:
        pictures.page.locator(".menu a", has_text="Runbook").click()
    opened.value.wait_for_load_state()
    assert opened.value.inner_text("body").startswith(f"# {alert}\n")
    opened.value.close()


def across_dashboards(pictures: Album, product: str) -> None:
    """The tabs keep what is chosen, there and back; the link to the runbooks is there."""
    wanted = {**parse_qs(RANGE), "var-product": [product]}
    pictures.open(f"/d/{UIDS[1]}?{RANGE}&var-product={product}")
    for uid, title in zip(UIDS, ("Unified System", "Crypto Trading Engine"), strict=True):
        pictures.page.locator(".tabs a", has_text=title).click()
        pictures.page.wait_for_url(f"**/d/{uid}?*")
        assert chosen(pictures) == wanted
        choice = pictures.page.locator(".choice", has_text="Product").locator("summary")
        pictures.until(lambda: choice.all_inner_texts() == [product], f"the choice {product}")  # noqa: B023
        assert pictures.page.locator(".links a", has_text="Runbooks").count() == 1
