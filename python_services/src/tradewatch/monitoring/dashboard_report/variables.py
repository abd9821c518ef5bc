"""A dashboard's variables: what can be chosen, and how a choice gets into a query.

As Grafana does it (grafana/grafana, packages/grafana-prometheus, `interpolateQueryExpr`), with one difference: a value
must be one of the variable's own options, and quotes in it are escaped too, so that no value changes a query's shape.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from tradewatch.monitoring.dashboard_report.dashboards import Dashboard, Variable
from tradewatch.monitoring.dashboard_report.sources import QueryError, Source

ALL = "$__all"
MAX_OPTIONS = 500
MAX_TEXT = 200
_REFERENCE = re.compile(r"\$(\w+)|\$\{(\w+)(?::(\w+))?\}|\[\[(\w+)(?::(\w+))?\]\]")
_LABEL_VALUES = re.compile(r"label_values\(\s*(?:(?P<selector>.+?)\s*,\s*)?(?P<label>\w+)\s*\)", re.DOTALL)
_METRIC = re.compile(r"[a-zA-Z_:][\w:]*(\{.*\})?", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """A variable with its options (value, text) and what is chosen of them; `error` is why there are no options."""

    variable: Variable
    options: tuple[tuple[str, str], ...] = ()
    values: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_all(self) -> bool:
        """Whether everything is chosen."""
        return self.values == (ALL,)

    def chosen(self) -> tuple[str, ...]:
        """The values themselves."""
        return tuple(value for value, _ in self.options) if self.is_all else self.values

    def view(self) -> dict[str, object]:
        """What the browser is told."""
        return {
            "name": self.variable.name,
            "label": self.variable.label,
            "kind": self.variable.kind,
            "multi": self.variable.multi,
            "all": self.variable.include_all,
            "hidden": self.variable.hidden or self.variable.kind == "constant",
            "options": [list(option) for option in self.options],
            "values": list(self.values),
            "error": self.error,
        }


@dataclass(frozen=True)
class Scope:
    """What a query is filled in with: a span of time (seconds since the epoch), a step and the choices."""

    start: float
    end: float
    step_seconds: float
    scrape_seconds: float
    choices: Mapping[str, Choice] = field(default_factory=dict)

    def fill(self, text: str, form: str = "") -> str:
        """`text` with every `$name`, `${name}`, `${name:format}` and `[[name]]` that is known filled in.

        `form` is the format of those that name none.
        """
        macros = self._macros()

        def written(match: re.Match[str]) -> str:
            name = match[1] or match[2] or match[4]
            own = match[3] or match[5] or form
            if name in macros:
                return macros[name]
            choice = self.choices.get(name)
            return match[0] if choice is None else _written(choice, own)

        return _REFERENCE.sub(written, text)

    def _macros(self) -> dict[str, str]:
        """Durations in seconds, the rate's as Grafana reckons it: four scrapes at least, a scrape above the step."""
        span = max(1, round(self.end - self.start))
        step = max(1, round(self.step_seconds))
        rate = max(step + self.scrape_seconds, 4 * self.scrape_seconds)
        return {
            "__interval": f"{step}s",
            "__auto": f"{step}s",
            "__interval_ms": str(step * 1000),
            "__rate_interval": f"{round(rate)}s",
            "__range": f"{span}s",
            "__range_s": str(span),
            "__range_ms": str(span * 1000),
            "__from": str(round(self.start * 1000)),
            "__to": str(round(self.end * 1000)),
        }


def _written(choice: Choice, form: str) -> str:
    variable = choice.variable
    if form == "text":
        return "All" if choice.is_all else " + ".join(choice.values)
    if choice.is_all and variable.all_value:
        return variable.all_value
    values = choice.chosen()
    if variable.kind in ("custom", "constant", "interval") and form in ("raw", "") and len(values) == 1:
        # The dashboard's own text, as it stands: no one else wrote it.
        return values[0]
    match form:
        case "raw" | "csv" | "glob":
            return ",".join(map(_quoted, values))
        case "pipe":
            return "|".join(map(_quoted, values))
        case "queryparam":
            return "&".join(f"var-{variable.name}={quote(value, safe='')}" for value in values)
        case "percentencode":
            return quote(",".join(values), safe="")
    if not (variable.multi or variable.include_all or form == "regex"):
        return _quoted(values[0]) if values else ""
    if not values:
        # Nothing to choose from: a pattern that no label's value has, where an empty one would match everything.
        return "[^\\\\s\\\\S]"
    return _pattern(values[0]) if len(values) == 1 else f"({'|'.join(map(_pattern, values))})"


def _quoted(value: str) -> str:
    """For the inside of a string in double quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _pattern(value: str) -> str:
    """For a regular expression inside a string in double quotes."""
    return _quoted(re.sub(r"[\\^$*+?.()|{}\[\]]", r"\\\g<0>", value))


async def choose(
    dashboard: Dashboard, wanted: Mapping[str, Sequence[str]], sources: Mapping[str, Source], span: Scope
) -> dict[str, Choice]:
    """Each variable's options and what is chosen of them, in the dashboard's order: a later one can use the earlier.

    Those that use none of each other are asked for at once.

    `wanted` is what the viewer asks for; what is no option is left out, and without any the dashboard's own choice
    counts, then everything, then the first. A datasource's failure is in `Choice.error`; then nothing is checked
    against, and the viewer's values are not taken.
    """
    found: dict[str, Choice] = {}
    left = list(dashboard.variables)
    while left:
        scope = replace(span, choices=found)
        names = [variable.name for variable in left]
        ready = [variable for place, variable in enumerate(left) if not _uses(variable, names[:place])]
        given = (tuple(wanted.get(variable.name, ())) for variable in ready)
        chosen = await asyncio.gather(
            *(_choose(variable, values, sources, scope) for variable, values in zip(ready, given, strict=True))
        )
        found = {**found, **{choice.variable.name: choice for choice in chosen}}
        left = [variable for variable in left if variable.name not in found]
    return {variable.name: found[variable.name] for variable in dashboard.variables}


def _uses(variable: Variable, names: Sequence[str]) -> bool:
    """Whether its query names one of these variables."""
    return any((match[1] or match[2] or match[4]) in names for match in _REFERENCE.finditer(str(variable.query)))


async def _choose(variable: Variable, wanted: tuple[str, ...], sources: Mapping[str, Source], scope: Scope) -> Choice:
    if variable.kind == "textbox":
        text = (wanted or variable.current or (str(variable.query or ""),))[0]
        return Choice(variable, values=(" ".join(text.split())[:MAX_TEXT],))
    error = ""
    try:
        options = await _options(variable, sources, scope)
    except QueryError as problem:
        options, error = [], str(problem)
    known = {value for value, _ in options}
    if variable.include_all:
        known.add(ALL)
    for values in (wanted, variable.current):
        kept = tuple(value for value in dict.fromkeys(values) if value in known)
        if kept:
            return Choice(variable, tuple(options), _narrowed(variable, kept), error)
    default = (ALL,) if variable.include_all else tuple(value for value, _ in options[:1])
    return Choice(variable, tuple(options), default, error)


def _narrowed(variable: Variable, values: tuple[str, ...]) -> tuple[str, ...]:
    if ALL in values:
        return (ALL,)
    return values if variable.multi else values[:1]


async def _options(variable: Variable, sources: Mapping[str, Source], scope: Scope) -> list[tuple[str, str]]:
    text = variable.query if isinstance(variable.query, str) else ""
    match variable.kind:
        case "custom" | "interval":
            return [_custom(part) for part in re.split(r"(?<!\\),", text) if part.strip()]
        case "constant":
            return [(text, text)]
        case "query":
            source = sources.get(variable.source)
            if source is None:
                what = f"the variable {variable.name} is of the data source {variable.source}"
                raise QueryError("refused", f"{what}, which is not drawn here")
            values = await _values(variable, source, scope)
            return [(value, value) for value in _tidied(values, variable)][:MAX_OPTIONS]
        case "datasource":
            return []
    raise QueryError("refused", f"variables of the kind {variable.kind[:30]!r} are not drawn here")


def _custom(part: str) -> tuple[str, str]:
    """`text : value`, or one for both."""
    text, separator, value = part.replace("\\,", ",").partition(" : ")
    return (value.strip(), text.strip()) if separator else (text.strip(), text.strip())


async def _values(variable: Variable, source: Source, scope: Scope) -> list[str]:
    start, end = (f"{value:.0f}" for value in (scope.start, scope.end))
    query = variable.query
    selector, label = "", ""
    if isinstance(query, dict) and query.get("label"):
        label, selector = str(query["label"]), str(query.get("stream") or query.get("metric") or "")
    else:
        text = str(query.get("query") or "") if isinstance(query, dict) else str(query or "")
        if match := _LABEL_VALUES.fullmatch(text.strip()):
            label, selector = match["label"], match["selector"] or ""
        else:
            raise QueryError("refused", f"the query of the variable {variable.name} is not understood here")
    selector = scope.fill(selector).strip()
    if source.name == "loki":
        parameters = {"start": f"{start}000000000", "end": f"{end}000000000"}
        if selector:
            parameters["query"] = selector
        return list(await source.get(f"loki/api/v1/label/{label}/values", parameters) or [])
    parameters = {"start": start, "end": end, "limit": str(MAX_OPTIONS)}
    if _METRIC.fullmatch(selector) or selector.startswith("{"):
        parameters["match[]"] = selector
    elif selector:
        raise QueryError("refused", f"the query of the variable {variable.name} is not understood here")
    return list(await source.get(f"api/v1/label/{label}/values", parameters) or [])


def _tidied(values: Sequence[object], variable: Variable) -> list[str]:
    """Those that the variable's `regex` (as `/.../`) finds, by its first group where it has one; sorted."""
    texts = [value for value in values if isinstance(value, str)]
    pattern = variable.regex.strip()
    if pattern:
        try:
            wanted = re.compile(pattern[1:-1] if pattern.startswith("/") and pattern.endswith("/") else pattern)
        except re.error:
            raise QueryError("refused", f"the regex of the variable {variable.name} cannot be read") from None
        found = (wanted.search(text) for text in texts)
        texts = [match[1] if match.re.groups and match[1] is not None else match[0] for match in found if match]
    texts = list(dict.fromkeys(texts))
    if variable.sort:
        texts.sort(key=str.lower, reverse=variable.sort in (2, 4, 6))
    return texts
