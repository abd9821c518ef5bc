"""Prometheus' rule files with their thresholds filled in.

A rule file names a threshold as ``${name}``; ``files/rules/thresholds.yml`` holds the defaults. Prometheus' own
templates, ``{{ $value }}`` and ``{{ $labels.x }}``, are left as they are. Two names are no thresholds and are given by
the caller: ``${runbooks_url}``, below which ``<Alert>.md`` is, and ``${dashboards_url}``, below which ``/d/<uid>`` is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml

Value = int | float | str
# libyaml's loader is ten times as fast; PyYAML has it where it was built with libyaml.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
REFERENCE = re.compile(r"\$\{([^}]*)\}")
# https://prometheus.io/docs/prometheus/latest/querying/basics/#float-literals-and-time-durations
DURATION = re.compile(r"(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
KEYS = {"value", "unit", "reason"}


def _kind(value: object) -> str | None:
    """``number`` or ``duration``, or None for what is neither and must not get into an expression."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return "number"
    if isinstance(value, str) and DURATION.fullmatch(value):
        return "duration"
    return None


def _shown(value: Value) -> str:
    """A number without an exponent, as both YAML and people read it."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f", did you mean {close[0]}?" if close else ""


def names_used(text: str) -> set[str]:
    """The names that a rule file refers to as ``${name}``."""
    return set(REFERENCE.findall(text))


def tradewatch_rules(text: str, thresholds: Mapping[str, Value], file: str = "rules") -> str:
    """A rule file's text with each ``${name}`` replaced by that threshold's value.

    Raises ValueError, which names ``file`` and what is wrong, for a name without a value and for a text that is not
    YAML afterwards.
    """
    unknown = sorted(names_used(text) - set(thresholds))
    if unknown:
        named = "; ".join(f"${{{name}}} has no value{_hint(name, thresholds)}" for name in unknown)
        raise ValueError(f"{file}: {named}")
    filled = REFERENCE.sub(lambda match: _shown(thresholds[match[1]]), text)
    try:
        yaml.load(filled, LOADER)  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    return filled


def tradewatch_rule_thresholds(
    table: Mapping[str, Mapping[str, Any]], texts: Iterable[str], overrides: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """The values of all thresholds: those of thresholds.yml, replaced by ``overrides`` where these name one.

    ``texts`` are all rule files: a threshold that none of them uses is an error, since whoever sets it believes that it
    does something. Raises ValueError with one line that names everything that is wrong.
    """
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ValueError("not a mapping of thresholds' names to values")
    problems = []
    for name, entry in table.items():
        if not isinstance(entry, Mapping) or set(entry) != KEYS:
            problems.append(f"threshold {name} does not have exactly value, unit and reason")
        elif _kind(entry["value"]) is None:
            problems.append(f"threshold {name}: {entry['value']!r} is neither a number nor a duration such as 5m")
    if problems:
        raise ValueError("; ".join(problems))
    values = {name: entry["value"] for name, entry in table.items()}
    used = set().union(*(names_used(text) for text in texts))
    problems += [f"threshold {name} is used by no rule" for name in sorted(set(values) - used)]
    for name, value in (overrides or {}).items():
        if name not in values:
            problems.append(f"there is no threshold {name}{_hint(name, values)}")
        elif _kind(value) != _kind(values[name]):
            problems.append(f"threshold {name}: {value!r} is not a {_kind(values[name])}, as {values[name]!r} is")
    if problems:
        raise ValueError("; ".join(problems))
    return values | dict(overrides or {})


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"tradewatch_rules": tradewatch_rules, "tradewatch_rule_thresholds": tradewatch_rule_thresholds}
