"""A panel's data: its queries asked, bounded, and brought into the shape that the browser draws."""

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tradewatch.monitoring.dashboard_report import tables
from tradewatch.monitoring.dashboard_report.dashboards import Annotation, Panel, Target
from tradewatch.monitoring.dashboard_report.sources import QueryError, Source, one_line
from tradewatch.monitoring.dashboard_report.variables import Scope

MAX_POINTS = 400
MAX_SERIES = 60
MAX_ROWS = 300
MAX_LINES = 300
MAX_LINE_CHARACTERS = 4000
MAX_BUCKETS = 40
MAX_ANNOTATIONS = 100
# Steps that divide an hour or a day, so that the points of viewers who come at other moments are the same ones.
_STEPS_SECONDS = (
    1,
    2,
    5,
    10,
    15,
    20,
    30,
    60,
    120,
    300,
    600,
    900,
    1200,
    1800,
    3600,
    7200,
    10_800,
    21_600,
    43_200,
    86_400,
)
_LEGEND = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")


@dataclass(frozen=True)
class Series:
    """One series on the panel's time grid; None where there is no finite value."""

    ref_id: str
    name: str
    labels: Mapping[str, str]
    values: Sequence[float | None]

    def view(self) -> dict[str, Any]:
        """What the browser is told."""
        return {"ref": self.ref_id, "name": self.name, "labels": dict(self.labels), "values": list(self.values)}


def step_seconds(span_seconds: float, at_least: float, points: int | None = None) -> float:
    """The smallest even step that gives at most so many points over the span."""
    wanted = max(span_seconds / min(points or MAX_POINTS, MAX_POINTS), at_least, 1.0)
    return float(next((step for step in _STEPS_SECONDS if step >= wanted), math.ceil(wanted / 86_400) * 86_400))


def aligned(scope: Scope, step: float) -> Scope:
    """The span's ends moved onto multiples of the step."""
    end = math.floor(scope.end / step) * step
    start = min(math.floor(scope.start / step) * step, end - step)
    return replace(scope, start=start, end=end, step_seconds=step)


async def evaluate(panel: Panel, scope: Scope, sources: Mapping[str, Source]) -> dict[str, Any]:
    """The panel's data; what failed is a line in `errors`, what was cut short one in `notices`."""
    at_least = max([panel.min_interval_seconds, *(target.min_interval_seconds for target in panel.targets), 0.0])
    span = scope.end - scope.start
    grid = aligned(scope, step_seconds(span, max(at_least, scope.scrape_seconds), panel.max_points))
    found: dict[str, Any] = {
        "start": grid.start,
        "end": grid.end,
        "step": grid.step_seconds,
        "errors": [],
        "notices": [],
    }
    results = await asyncio.gather(
        *(_ask(target, panel, grid, sources) for target in panel.targets), return_exceptions=True
    )
    answers: list[tuple[Target, Mapping[str, Any]]] = []
    for target, result in zip(panel.targets, results, strict=True):
        if isinstance(result, QueryError):
            if str(result) not in found["errors"]:
                found["errors"].append(str(result))
        elif isinstance(result, BaseException):
            raise result
        else:
            answers.append((target, result))
    try:
        _shape(panel, answers, grid, found)
        if any(target.exemplars for target in panel.targets):
            found["exemplars"] = await _exemplars(panel, grid, sources, found["notices"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        found["errors"].append(one_line(f"the answer cannot be drawn: {type(error).__name__}"))
    return found


async def _ask(target: Target, panel: Panel, grid: Scope, sources: Mapping[str, Source]) -> Mapping[str, Any]:
    source = sources.get(target.source)
    if source is None:
        what = f"query {target.ref_id} is of the data source {target.source}"
        raise QueryError("refused", f"{what}, which is not drawn here")
    if not target.expression:
        raise QueryError("refused", f"query {target.ref_id} is of no kind that is drawn here")
    expression = grid.fill(target.expression)
    more = 1 + (MAX_ROWS if panel.type == "table" else MAX_SERIES)
    if target.source == "loki":
        data = await _ask_loki(source, target, panel, expression, grid)
    elif target.instant:
        end = {"query": expression, "time": f"{grid.end:.0f}", "limit": str(more)}
        data = await source.get("api/v1/query", end)
    else:
        data = await source.get("api/v1/query_range", {**_range(expression, grid), "limit": str(more)})
    if not isinstance(data, dict) or not isinstance(data.get("result"), list):
        raise QueryError("nonsense", f"{source.name}: the answer is not of the expected shape")
    return data


async def _exemplars(
    panel: Panel, grid: Scope, sources: Mapping[str, Source], notices: list[str]
) -> list[dict[str, Any]]:
    """Single measurements with their labels, such as a trace's id: of each step the one with the greatest value."""
    greatest: dict[int, dict[str, Any]] = {}
    for target in panel.targets:
        source = sources.get(target.source)
        if not target.exemplars or source is None:
            continue
        span = {"start": f"{grid.start:.0f}", "end": f"{grid.end:.0f}"}
        try:
            answer = await source.get("api/v1/query_exemplars", {"query": grid.fill(target.expression), **span})
        except QueryError as error:
            # The lines are drawn without them.
            notices.append(str(error))
            continue
        for exemplar in (each for series in answer for each in series["exemplars"]):
            at, value = float(exemplar["timestamp"]), number(exemplar["value"])
            step = round((at - grid.start) / grid.step_seconds)
            if value is None or not grid.start <= at <= grid.end:
                continue
            if step not in greatest or value > greatest[step]["value"]:
                labels = {str(name): str(text) for name, text in exemplar["labels"].items()}
                greatest[step] = {"time": at, "value": value, "labels": labels}
    return list(greatest.values())


async def _ask_loki(source: Source, target: Target, panel: Panel, expression: str, grid: Scope) -> Any:
    if target.instant and panel.type != "logs":
        return await source.get("loki/api/v1/query", {"query": expression, "time": f"{grid.end:.0f}"})
    # Log lines up to now: the newest are what people look for.
    end = grid.end + grid.step_seconds if panel.type == "logs" else grid.end
    parameters = {**_range(expression, grid), "end": f"{end:.0f}"}
    if panel.type == "logs":
        parameters["limit"] = str(min(target.max_lines or MAX_LINES, MAX_LINES))
        parameters["direction"] = "backward"
    return await source.get("loki/api/v1/query_range", parameters)


def _range(expression: str, grid: Scope) -> dict[str, str]:
    times = {"start": grid.start, "end": grid.end, "step": grid.step_seconds}
    return {"query": expression, **{name: f"{value:.0f}" for name, value in times.items()}}


def _shape(
    panel: Panel, answers: Sequence[tuple[Target, Mapping[str, Any]]], grid: Scope, found: dict[str, Any]
) -> None:
    if panel.type == "logs":
        found["lines"] = _lines(answers)
        return
    if panel.type == "table":
        instant = [(target.ref_id, _samples(data)) for target, data in answers]
        table, unknown = tables.make(instant, panel.transformations)
        found["notices"] += [f"the transformation {name} is not drawn here" for name in unknown]
        if len(table["rows"]) > MAX_ROWS:
            found["notices"].append(f"only the first {MAX_ROWS} of {len(table['rows'])} rows are shown")
            table["rows"] = table["rows"][:MAX_ROWS]
        found["table"] = table
        return
    series = [item for target, data in answers for item in _series(target, data, grid)]
    if panel.type == "heatmap":
        series = _buckets(series)
    bound = MAX_BUCKETS if panel.type == "heatmap" else MAX_SERIES
    if len(series) > bound:
        found["notices"].append(f"only the first {bound} series are drawn")
    found["series"] = [item.view() for item in series[:bound]]


def _series(target: Target, data: Mapping[str, Any], grid: Scope) -> list[Series]:
    result = data["result"]
    if data.get("resultType") == "scalar":
        result = [{"metric": {}, "value": result}]
    if data.get("resultType") == "streams":
        raise ValueError("log lines are no series")
    varying = _varying([item["metric"] for item in result])
    count = round((grid.end - grid.start) / grid.step_seconds) + 1
    found = []
    for item in result:
        labels = {str(name): str(value) for name, value in item["metric"].items()}
        if "value" in item:
            values: list[float | None] = [number(item["value"][1])]
        else:
            values = [None] * count
            for at, text in item["values"]:
                index = round((float(at) - grid.start) / grid.step_seconds)
                if 0 <= index < count:
                    values[index] = number(text)
        found.append(Series(target.ref_id, _name(target, labels, varying), labels, values))
    return found


def number(text: object) -> float | None:
    """A sample's value; None for NaN and the infinities, which have no place on an axis."""
    value = float(str(text))
    return value if math.isfinite(value) else None


def _name(target: Target, labels: Mapping[str, str], varying: Sequence[str]) -> str:
    if target.legend and target.legend != "__auto":
        return _named(target.legend, labels)
    if target.legend == "__auto" and varying:
        return ", ".join(labels[name] for name in varying if name in labels)
    inside = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return labels.get("__name__", "") + (f"{{{inside}}}" if inside else "") or target.expression


def _named(template: str, labels: Mapping[str, str]) -> str:
    """The template with each `{{label}}` filled in."""
    return _LEGEND.sub(lambda match: str(labels.get(match[1], "")), template)


def _varying(metrics: Sequence[Mapping[str, str]]) -> list[str]:
    """The labels that tell the series apart; all of them where there is only one series."""
    names = dict.fromkeys(name for metric in metrics for name in metric if name != "__name__")
    if len(metrics) == 1:
        return list(names)
    return [name for name in names if len({metric.get(name) for metric in metrics}) > 1]


def _samples(data: Mapping[str, Any]) -> list[tuple[Mapping[str, str], float, float | None]]:
    """Labels, time and value of each series' newest sample."""
    found = []
    for item in data["result"]:
        at, text = item["value"] if "value" in item else item["values"][-1]
        found.append((item["metric"], float(at), number(text)))
    return found


def _buckets(series: Sequence[Series]) -> list[Series]:
    """A classic histogram's cumulative `le` series as one series a bucket, rising; others stay as they are."""
    if not series or not all("le" in item.labels for item in series):
        return list(series)
    rising = sorted(series, key=lambda item: float(item.labels["le"]))
    found: list[Series] = []
    below: Sequence[float | None] = [0.0] * len(rising[0].values)
    for item in rising:
        values = [
            None if value is None else max(0.0, value - (under or 0.0))
            for value, under in zip(item.values, below, strict=True)
        ]
        found.append(replace(item, name=item.labels["le"], values=values))
        below = item.values
    return found


def _lines(answers: Sequence[tuple[Target, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Log lines, newest first; times in nanoseconds stay text, for a float does not hold them."""
    found = []
    for _, data in answers:
        if data.get("resultType") != "streams":
            raise ValueError("not log lines")
        for stream in data["result"]:
            labels = {str(name): str(value) for name, value in stream["stream"].items()}
            for at, text, *_ in stream["values"]:
                line = str(text)
                if len(line) > MAX_LINE_CHARACTERS:
                    line = f"{line[:MAX_LINE_CHARACTERS]}… ({len(line)} characters)"
                found.append({"time": str(at), "labels": labels, "line": line})
    found.sort(key=lambda item: int(str(item["time"])), reverse=True)
    return found[:MAX_LINES]


async def annotate(annotations: Sequence[Annotation], scope: Scope, sources: Mapping[str, Source]) -> dict[str, Any]:
    """The marks on the time axis: `start` and `end` in seconds; one that fails is a line in `errors`."""
    grid = aligned(scope, step_seconds(scope.end - scope.start, scope.scrape_seconds))
    results = await asyncio.gather(
        *(_marks(annotation, grid, sources) for annotation in annotations), return_exceptions=True
    )
    marks: list[dict[str, Any]] = []
    errors = []
    for annotation, result in zip(annotations, results, strict=True):
        if isinstance(result, list):
            marks += result
        elif isinstance(result, QueryError | KeyError | TypeError | ValueError | AttributeError):
            reason = str(result) if isinstance(result, QueryError) else "the answer cannot be drawn"
            errors.append(one_line(f"{annotation.name}: {reason}"))
        else:
            raise result
    return {"marks": _joined(marks)[-MAX_ANNOTATIONS:], "errors": errors}


def _joined(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of time, with marks that say the same of times that overlap as one."""
    found: list[dict[str, Any]] = []
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for mark in sorted(marks, key=lambda mark: mark["start"]):
        said = (mark["name"], mark["title"], mark["text"])
        before = newest.get(said)
        if before is not None and mark["start"] <= before["end"]:
            before["end"] = max(before["end"], mark["end"])
        else:
            newest[said] = mark
            found.append(mark)
    return found


async def _marks(annotation: Annotation, grid: Scope, sources: Mapping[str, Source]) -> list[dict[str, Any]]:
    expression = grid.fill(annotation.expression)
    path = "loki/api/v1/query_range" if annotation.source == "loki" else "api/v1/query_range"
    source = sources.get(annotation.source)
    if source is None:
        return []
    data = await source.get(path, {**_range(expression, grid), "limit": str(MAX_ANNOTATIONS)})
    found = []
    for item in data["result"]:
        labels = item.get("metric") or item.get("stream") or {}
        for start, end, line in _spans(item["values"], grid.step_seconds, data["resultType"] == "streams"):
            title, text = _named(annotation.title, labels), _named(annotation.text, labels) or line
            found.append(
                {
                    "start": start,
                    "end": end,
                    "name": annotation.name,
                    "title": one_line(title or annotation.name),
                    "text": one_line(text),
                    "colour": annotation.colour,
                }
            )
    return found


def _spans(values: Sequence[Any], step: float, moments: bool) -> list[tuple[float, float, str]]:
    """Log lines are moments; samples above 0 that follow each other step by step are one span."""
    if moments:
        return [(int(at) / 1e9, int(at) / 1e9, str(line)) for at, line, *_ in values]
    found: list[tuple[float, float, str]] = []
    for at, text in values:
        if not (number(text) or 0) > 0:
            continue
        if found and float(at) - found[-1][1] <= step * 1.5:
            found[-1] = (found[-1][0], float(at), "")
        else:
            found.append((float(at), float(at), ""))
    return found
