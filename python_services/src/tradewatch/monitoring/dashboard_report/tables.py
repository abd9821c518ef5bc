"""Tables of instant queries: a column a label, a column a query's values, and the transformations that shape them."""

from collections.abc import Mapping, Sequence
from typing import Any

Sample = tuple[Mapping[str, str], float, float | None]
TIME = "Time"
# A row's labels as they were, for links; no label has this name.
_LABELS = ""


class _Table:
    """Columns by name, and rows as mappings; a cell that is not there is empty."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        self.columns = list(columns)
        self.rows = [dict(row) for row in rows]


def make(
    frames: Sequence[tuple[str, Sequence[Sample]]], transformations: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """The table, and the ids of transformations that are not known.

    The table is `{"columns", "rows", "labels"}`; `labels` are each row's labels as they were before transformations.
    Several queries' rows are brought together where their labels are the same, as Grafana's `merge` does.
    """
    several = len(frames) > 1
    table = _merged([_frame(samples, f"Value #{ref}" if several else "Value") for ref, samples in frames])
    unknown = []
    for transformation in transformations:
        if transformation.get("disabled"):
            continue
        name, options = str(transformation.get("id")), transformation.get("options") or {}
        change = _CHANGES.get(name)
        if change is None:
            unknown.append(name[:40])
        else:
            change(table, options)
    rows = [[row.get(name) for name in table.columns] for row in table.rows]
    return {"columns": table.columns, "rows": rows, "labels": [row[_LABELS] for row in table.rows]}, unknown


def _frame(samples: Sequence[Sample], value: str) -> _Table:
    labels = dict.fromkeys(str(name) for metric, _, _ in samples for name in metric)
    rows = []
    for metric, at, sample in samples:
        texts = {str(name): str(text) for name, text in metric.items()}
        rows.append({TIME: at * 1000, **texts, value: sample, _LABELS: texts})
    return _Table([TIME, *labels, value], rows)


def _merged(frames: Sequence[_Table]) -> _Table:
    """Rows with the same labels become one; `Time` and the values are last, for people read labels first."""
    names = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    values = [name for name in names if name == "Value" or name.startswith("Value #")]
    labels = [name for name in names if name not in values and name != TIME]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for frame in frames:
        # Only what every query has tells rows apart.
        shared = [name for name in labels if all(name in other.columns or not other.rows for other in frames)]
        for number, row in enumerate(frame.rows):
            key = tuple(row.get(name) for name in shared) if len(frames) > 1 else (number,)
            into = rows.setdefault(key, {})
            into.update({**row, _LABELS: {**into.get(_LABELS, {}), **row[_LABELS]}})
    return _Table([TIME, *labels, *values], list(rows.values()))


def _organize(table: _Table, options: Mapping[str, Any]) -> None:
    """Grafana's `organize`: leave out, put in order, rename."""
    left_out = {name for name, out in (options.get("excludeByName") or {}).items() if out}
    wanted = {name for name, kept in (options.get("includeByName") or {}).items() if kept}
    if wanted:
        left_out |= set(table.columns) - wanted
    order = options.get("indexByName") or {}
    names = [name for name in table.columns if name not in left_out]
    names.sort(key=lambda name: order.get(name, len(order) + 1))
    table.columns = names
    renames = {old: new for old, new in (options.get("renameByName") or {}).items() if new and old in names}
    _rename(table, renames)


def _rename(table: _Table, renames: Mapping[str, str]) -> None:
    table.columns = [renames.get(name, name) for name in table.columns]
    table.rows = [{renames.get(name, name): cell for name, cell in row.items()} for row in table.rows]


def _sort(table: _Table, options: Mapping[str, Any]) -> None:
    """Grafana's `sortBy`; empty cells come last."""
    for wanted in reversed(options.get("sort") or []):
        name, falling = wanted.get("field"), bool(wanted.get("desc"))
        filled = [row for row in table.rows if row.get(name) is not None]
        empty = [row for row in table.rows if row.get(name) is None]
        numeric = all(isinstance(row[name], int | float) for row in filled)
        filled.sort(key=lambda row: row[name] if numeric else str(row[name]), reverse=falling)
        table.rows = filled + empty


def _limit(table: _Table, options: Mapping[str, Any]) -> None:
    table.rows = table.rows[: int(options.get("limitField") or 10)]


def _keep(table: _Table, options: Mapping[str, Any]) -> None:
    """Grafana's `filterFieldsByName`."""
    wanted = (options.get("include") or {}).get("names")
    if wanted:
        table.columns = [name for name in table.columns if name in wanted]


def _nothing(table: _Table, options: Mapping[str, Any]) -> None:
    """What `make` has done already."""


_CHANGES = {
    "merge": _nothing,
    "joinByField": _nothing,
    "labelsToFields": _nothing,
    "organize": _organize,
    "sortBy": _sort,
    "limit": _limit,
    "filterFieldsByName": _keep,
}
KNOWN = frozenset(_CHANGES)
