"""Every query of a dashboard's JSON, of panels, variables and annotations, with its variables filled in.

For the tests, which parse and run them all. It reads the committed JSON, so it needs no SDK.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# How a panel's description says that an answer may be empty while nothing is wrong.
CALM = "Empty in calm weather: "
# What Grafana fills in by itself, for a graph of an hour.
BUILT_IN = {"__rate_interval": "5m", "__interval": "1m", "__range": "1h"}
# Not `$1`: that is the replacement in a label_replace.
_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::\w+)?\}|([A-Za-z_]\w*))")
_LABEL_VALUES = re.compile(r"label_values\((.+),\s*(\w+)\)")

Kind = Literal["instant", "range", "label_values"]


@dataclass(frozen=True)
class DashboardQuery:
    """One query as its datasource gets it.

    `place` names panel, variable or annotation for people. `label` is the one whose values a `label_values` query asks
    for; then `expr` is the selector. `calm` is why the answer may rightly be empty, or empty itself.
    """

    dashboard: str
    place: str
    panel_id: int | None
    datasource: str
    kind: Kind
    expr: str
    label: str = ""
    calm: str = ""


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Each `*.json` of the folder by its name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def variables(document: Mapping[str, Any]) -> dict[str, str]:
    """The dashboard's own variables with what they stand for before anybody chose: everything."""
    return {
        variable["name"]: variable["allValue"] if variable.get("includeAll") else str(variable.get("query", ""))
        for variable in document["templating"]["list"]
    }


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with each `$name` and `${name}` replaced. Raises ValueError for a name without a value."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise ValueError(f"${name} is not defined: {text}")
        return values[name]

    return _REFERENCE.sub(value, text)


def queries(document: Mapping[str, Any], chosen: Mapping[str, str] | None = None) -> Iterator[DashboardQuery]:
    """All queries of one dashboard; `chosen` overrides variables. Raises ValueError for an undefined variable."""
    uid = document["uid"]
    values = {**BUILT_IN, **variables(document), **(chosen or {})}
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["query"])
            if match is None:
                raise ValueError(f"{uid}: the variable {variable['name']} asks for no label's values")
            place = f"variable {variable['name']}"
            source = variable["datasource"]["uid"]
            yield DashboardQuery(uid, place, None, source, "label_values", filled(match[1], values), match[2])
    for each in document["annotations"]["list"]:
        yield DashboardQuery(
            uid,
            f"annotation {each['name']}",
            None,
            each["datasource"]["uid"],
            "range",
            filled(each["target"]["expr"], values),
            calm="marks are there only when something happens",
        )
    for panel in document["panels"]:
        _, _, calm = panel.get("description", "").partition(CALM)
        for target in panel.get("targets", []):
            instant = target.get("instant") is True or target.get("queryType") == "instant"
            yield DashboardQuery(
                uid,
                f"panel {panel['id']} {panel['title']} {target['refId']}",
                panel["id"],
                target["datasource"]["uid"],
                "instant" if instant else "range",
                filled(target["expr"], values),
                calm=calm,
            )
