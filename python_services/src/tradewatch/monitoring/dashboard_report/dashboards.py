"""Grafana's dashboard JSON, read into what is drawn of it.

Only what the viewer needs is kept; a file that is no dashboard is one line in `Library.problems`, the rest goes on.
Source of the format: Grafana's dashboard schema v1 (`grafana/grafana`, kinds/dashboard/dashboard_kind.cue).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_FILES = 50
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_PANELS = 300
DEFAULT_RANGE = "now-1h"
# The datasources that there are, by uid.
SOURCES = ("prometheus", "loki")
# What the browser is told of a panel; queries stay here.
_SHOWN = ("type", "title", "description", "gridPos", "options", "fieldConfig", "links", "collapsed", "repeat")
_UNITS_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r">?\s*(\d+)\s*(ms|[smhdw])")


class DashboardError(ValueError):
    """Why a file is no dashboard, in one line."""


@dataclass(frozen=True)
class Target:
    """One query of a panel. `source` is `prometheus`, `loki`, or the uid of a data source that there is not here."""

    ref_id: str
    source: str
    expression: str
    legend: str
    instant: bool
    exemplars: bool
    max_lines: int
    min_interval_seconds: float


@dataclass(frozen=True)
class Panel:
    """A panel: what the browser is told (`view`) and what is asked for it."""

    id: int
    view: Mapping[str, Any]
    targets: tuple[Target, ...]
    transformations: tuple[Mapping[str, Any], ...]
    max_points: int | None
    min_interval_seconds: float

    @property
    def type(self) -> str:
        """Grafana's name of the panel's kind."""
        return str(self.view["type"])


@dataclass(frozen=True)
class Variable:
    """A dashboard's variable. `query` of a `query` variable is Grafana's text or object as it stands."""

    name: str
    label: str
    kind: str
    source: str
    query: Any
    regex: str
    multi: bool
    include_all: bool
    all_value: str
    current: tuple[str, ...]
    hidden: bool
    sort: int


@dataclass(frozen=True)
class Annotation:
    """Marks on the time axis: a query whose results are moments, or spans where its value is above 0."""

    name: str
    source: str
    expression: str
    colour: str
    title: str
    text: str


@dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    uid: str
    title: str
    description: str
    time_from: str
    panels: tuple[Panel, ...]
    variables: tuple[Variable, ...]
    annotations: tuple[Annotation, ...]
    links: tuple[Mapping[str, Any], ...]

    def panel(self, panel_id: int) -> Panel | None:
        """The panel with that id."""
        return next((panel for panel in self.panels if panel.id == panel_id), None)

    def view(self) -> dict[str, Any]:
        """What the browser is told of it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "from": self.time_from,
            "panels": [{"id": panel.id, "queries": len(panel.targets), **panel.view} for panel in self.panels],
            "links": list(self.links),
            # Links begin with them, and are drawn before any datasource has answered.
            "constants": {each.name: _text(each.query) for each in self.variables if each.kind == "constant"},
        }


@dataclass(frozen=True)
class Library:
    """The dashboards of a folder by uid, in the order of their titles, and a line for each file that is none."""

    dashboards: Mapping[str, Dashboard] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when the folder's files do. Raises OSError."""
    return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.glob("*.json")))


def load(folder: Path) -> Library:
    """Read every `*.json` of the folder."""
    found: dict[str, Dashboard] = {}
    problems = []
    try:
        paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    except OSError as error:
        return Library(problems=(f"{folder}: {error.strerror}",))
    for path in paths[:MAX_FILES]:
        try:
            dashboard = parse(_read(path))
            if dashboard.uid in found:
                raise DashboardError(f"the uid {dashboard.uid} is also another file's")
            found[dashboard.uid] = dashboard
        except DashboardError as error:
            problems.append(f"{path.name}: {error}")
    if len(paths) > MAX_FILES:
        problems.append(f"{folder}: only the first {MAX_FILES} of {len(paths)} files are read")
    if not found:
        problems.append(f"{folder}: holds no dashboard")
    return Library({item.uid: item for item in sorted(found.values(), key=lambda item: item.title)}, tuple(problems))


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DashboardError(f"larger than {MAX_FILE_BYTES} bytes")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DashboardError(str(error.strerror)) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DashboardError):
            raise
        raise DashboardError("not JSON") from None


def parse(document: Any) -> Dashboard:
    """A dashboard from its JSON.

    Raises:
        DashboardError: naming what is missing or of the wrong shape.
    """
    if not isinstance(document, dict) or not isinstance(document.get("panels"), list):
        raise DashboardError("not a dashboard: an object with panels is needed")
    uid, title = document.get("uid"), document.get("title")
    if not (isinstance(uid, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", uid)):
        raise DashboardError("the uid must be 1 to 40 letters, digits, - and _")
    if not (isinstance(title, str) and title):
        raise DashboardError("has no title")
    try:
        panels = tuple(_panels(document["panels"]))
        if len(panels) > MAX_PANELS:
            raise DashboardError(f"{len(panels)} panels, at most {MAX_PANELS}")
        return Dashboard(
            uid=uid,
            title=title,
            description=_text(document.get("description")),
            time_from=_text(_object(document.get("time")).get("from")) or DEFAULT_RANGE,
            panels=panels,
            variables=tuple(map(_variable, _list(_object(document.get("templating")).get("list"), "templating"))),
            annotations=tuple(_annotations(_list(_object(document.get("annotations")).get("list"), "annotations"))),
            links=tuple(_list(document.get("links"), "links")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, DashboardError):
            raise
        raise DashboardError(f"not Grafana's shape: {type(error).__name__} {str(error)[:80]}") from None


def _panels(items: Sequence[Any]) -> Iterator[Panel]:
    """All panels in the order of their places; those that a collapsed row holds follow it."""
    seen: set[int] = set()
    for item in _flat(items):
        panel = _panel(item)
        if panel.id in seen:
            raise DashboardError(f"two panels have the id {panel.id}")
        seen.add(panel.id)
        yield panel


def _flat(items: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    for item in sorted(items, key=lambda item: (_place(item).get("y", 0), _place(item).get("x", 0))):
        yield item
        yield from _flat(_list(item.get("panels"), "a row's panels"))


def _place(item: Any) -> Mapping[str, Any]:
    return _object(_object(item).get("gridPos"))


def _panel(item: Mapping[str, Any]) -> Panel:
    datasource = _source(item.get("datasource"))
    shared = seconds(item.get("interval"))
    view = {name: item[name] for name in _SHOWN if item.get(name) is not None}
    view["type"] = str(item["type"])
    points = item.get("maxDataPoints")
    return Panel(
        id=int(item["id"]),
        view=view,
        targets=tuple(
            _target(target, index, datasource)
            for index, target in enumerate(_list(item.get("targets"), "targets"))
            if not target.get("hide")
        ),
        transformations=tuple(_list(item.get("transformations"), "transformations")),
        max_points=int(points) if points else None,
        min_interval_seconds=shared,
    )


def _target(item: Mapping[str, Any], index: int, datasource: str) -> Target:
    own = item.get("datasource")
    source = _source(own) if own else datasource
    instant = item.get("instant") is True or item.get("queryType") == "instant"
    return Target(
        ref_id=_text(item.get("refId")) or chr(ord("A") + index % 26),
        source=source,
        expression=_text(item.get("expr")),
        legend=_text(item.get("legendFormat")),
        instant=instant and item.get("range") is not True,
        exemplars=item.get("exemplar") is True,
        max_lines=int(item.get("maxLines") or 0),
        min_interval_seconds=seconds(item.get("interval")),
    )


def _source(reference: Any) -> str:
    """The kind of a datasource by its reference; the text form is its uid, which by custom says its kind.

    A reference to any other datasource is that one's uid: what is asked of it must not be drawn from ours.
    """
    uid = _text(reference.get("uid")) if isinstance(reference, dict) else ""
    if uid and not uid.startswith("$") and uid not in SOURCES:
        return uid
    kind = _text(reference.get("type") or reference.get("uid")) if isinstance(reference, dict) else _text(reference)
    return "loki" if "loki" in kind.lower() else "grafana" if "grafana" in kind.lower() else "prometheus"


def _variable(item: Mapping[str, Any]) -> Variable:
    current = _object(item.get("current")).get("value")
    values = current if isinstance(current, list) else [] if current is None else [current]
    kind = str(item["type"])
    query = item.get("query")
    if kind == "query" and isinstance(item.get("definition"), str) and not query:
        query = item["definition"]
    return Variable(
        name=_name(item["name"]),
        label=_text(item.get("label")) or str(item["name"]),
        kind=kind,
        source=_source(item.get("datasource")),
        query=query,
        regex=_text(item.get("regex")),
        multi=bool(item.get("multi")),
        include_all=bool(item.get("includeAll")),
        all_value=_text(item.get("allValue")),
        current=tuple(str(value) for value in values),
        hidden=item.get("hide") == 2 or item.get("hide") == "hideVariable",
        sort=int(item.get("sort") or 0),
    )


def _name(value: Any) -> str:
    if not (isinstance(value, str) and re.fullmatch(r"\w{1,60}", value)):
        raise DashboardError(f"{str(value)[:40]!r} is no variable's name")
    return value


def _annotations(items: Sequence[Mapping[str, Any]]) -> Iterator[Annotation]:
    """Those that are queries; Grafana's own (the built-in one) has none."""
    for item in items:
        target = _object(item.get("target"))
        expression = _text(item.get("expr") or target.get("expr"))
        if expression and item.get("enable", True):
            yield Annotation(
                name=_text(item.get("name")),
                source=_source(item.get("datasource")),
                expression=expression,
                colour=_text(item.get("iconColor")) or "blue",
                title=_text(item.get("titleFormat")),
                text=_text(item.get("textFormat")),
            )


def seconds(value: Any) -> float:
    """A duration such as `30s` or `>1m` in seconds; 0 for anything else."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return int(match[1]) * _UNITS_SECONDS[match[2]] if match else 0.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DashboardError(f"{what} must be a list of objects")
    return value
