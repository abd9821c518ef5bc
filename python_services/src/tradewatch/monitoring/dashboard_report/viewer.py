"""What a viewer asks for: dashboards, variables and panels of a span of time; for the page and for the file."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tradewatch.monitoring.dashboard_report import dashboards, panels
from tradewatch.monitoring.dashboard_report.dashboards import Dashboard, Library
from tradewatch.monitoring.dashboard_report.sources import Source
from tradewatch.monitoring.dashboard_report.variables import Scope, choose

MIN_SPAN_SECONDS = 60.0
MAX_SPAN_SECONDS = 90 * 86_400.0
# Variables and annotations are asked for a span's ends on these multiples, so that many viewers ask the same.
EVEN_SECONDS = 30.0
_RELATIVE = re.compile(r"now(?:-(\d{1,6})([smhdw]))?")
_UNITS_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class NotFoundError(LookupError):
    """There is no such dashboard or panel."""


class SpanError(ValueError):
    """The span of time is none, in one line."""


def moment(text: str, now: float) -> float:
    """Seconds since the epoch of `now`, `now-6h`, milliseconds since then or an ISO 8601 time. Raises SpanError."""
    if match := _RELATIVE.fullmatch(text):
        return now - int(match[1] or 0) * _UNITS_SECONDS.get(match[2] or "s", 1)
    if text.isascii() and text.isdigit() and len(text) <= 14:
        return int(text) / 1000
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise SpanError(f"{text[:40]!r} is no time: now, now-6h, milliseconds or ISO 8601") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


class Viewer:
    """Dashboards of a folder, drawn from datasources."""

    def __init__(
        self,
        folder: Path,
        sources: Mapping[str, Source],
        scrape_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._sources = sources
        self._scrape_seconds = scrape_seconds
        self._clock = clock
        self._signature: tuple[object, ...] | None = None
        self.library = Library()

    def refresh(self) -> bool:
        """Read the folder again if its files are others than before. Returns whether they were."""
        try:
            signature = dashboards.signature(self._folder)
        except OSError:
            signature = ()
        if signature == self._signature:
            return False
        self._signature = signature
        self.library = dashboards.load(self._folder)
        return True

    def index(self) -> dict[str, Any]:
        """Every dashboard's name, and the problems of files that are none."""
        return {
            "dashboards": [{"uid": item.uid, "title": item.title} for item in self.library.dashboards.values()],
            "problems": list(self.library.problems),
        }

    def dashboard(self, uid: str) -> Dashboard:
        """The dashboard of that uid. Raises NotFoundError."""
        found = self.library.dashboards.get(uid)
        if found is None:
            raise NotFoundError(f"no dashboard has the uid {uid[:40]!r}")
        return found

    def start(self, uid: str | None) -> dict[str, Any]:
        """What a page needs before it can ask for data: the index, and the dashboard of that uid, else the first."""
        known = self.library.dashboards
        found = known.get(uid or "") or next(iter(known.values()), None)
        return {"index": self.index(), "dashboard": found and found.view()}

    def scope(self, start: str, end: str) -> Scope:
        """The span of two texts as `moment` takes them, a minute at least. Raises SpanError."""
        now = self._clock()
        first, last = moment(start, now), min(moment(end, now), now)
        if not MIN_SPAN_SECONDS <= last - first <= MAX_SPAN_SECONDS:
            raise SpanError("the span must end after it starts, and be from a minute to 90 days long")
        step = panels.step_seconds(last - first, self._scrape_seconds)
        return Scope(first, last, step, self._scrape_seconds)

    async def frame(self, uid: str, start: str, end: str, wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """What surrounds the panels: variables with their options, and marks on the time axis."""
        dashboard = self.dashboard(uid)
        scope = await self._chosen(dashboard, self.scope(start, end), wanted)
        marks = await panels.annotate(dashboard.annotations, scope, self._sources)
        return {
            "start": scope.start,
            "end": scope.end,
            "variables": [choice.view() for choice in scope.choices.values()],
            **marks,
        }

    async def panel(
        self, uid: str, panel_id: int, start: str, end: str, wanted: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        """One panel's data. Raises NotFoundError or SpanError; what else fails is told in the data."""
        dashboard = self.dashboard(uid)
        panel = dashboard.panel(panel_id)
        if panel is None:
            raise NotFoundError(f"the dashboard {uid} has no panel {panel_id}")
        scope = await self._chosen(dashboard, self.scope(start, end), wanted)
        found = await panels.evaluate(panel, scope, self._sources)
        # Titles and texts name what is chosen.
        found["title"] = scope.fill(str(panel.view.get("title") or ""), "text")
        content = (panel.view.get("options") or {}).get("content")
        if isinstance(content, str):
            found["content"] = scope.fill(content, "text")
        return found

    async def _chosen(self, dashboard: Dashboard, scope: Scope, wanted: Mapping[str, Sequence[str]]) -> Scope:
        even = panels.aligned(scope, max(EVEN_SECONDS, scope.step_seconds))
        choices = await choose(dashboard, wanted, self._sources, even)
        return Scope(scope.start, scope.end, scope.step_seconds, scope.scrape_seconds, choices)
