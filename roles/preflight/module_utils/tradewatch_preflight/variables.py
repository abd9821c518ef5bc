"""Variables and secrets that must be set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .problem import Problem, did_you_mean

SOURCES = ("cache", "upstream", "registries")
LOG_COLLECTORS = ("promtail", "none")
_SET_IT = "set it in group_vars/all/main.yml of the inventory"


def check(
    values: Mapping[str, Any],
    failures: Mapping[str, str],
    secrets: Mapping[str, str],
    excused: Iterable[str],
    required: Iterable[str],
) -> list[Problem]:
    """Problems of variables; the value of no secret is known here.

    Args:
        values: what is set.
        failures: variables whose template fails, and why.
        secrets: secret to ``set``, ``missing``, ``empty``, ``example`` or ``type``.
        excused: names that a broken file sets.
        required: the variables that must be set.
    """
    missing = [name for name in required if values.get(name) in (None, "") and name not in {*failures, *excused}]
    return [
        *[_failing(name, why) for name, why in failures.items() if name not in secrets],
        *[Problem(f"variable {name}", "is not set", _SET_IT) for name in missing],
        *_secrets(secrets, failures, set(excused)),
        *_sources(values),
        *_log_collector(values),
    ]


def check_extensions(found: Mapping[str, Iterable[str]]) -> list[Problem]:
    """The problems that the filters of the roles found in the lists that users add to, by variable."""
    return [
        Problem(f"variable {name}", line, "write it as docs/extending.md shows")
        for name, lines in found.items()
        for line in lines
    ]


def refused(refusals: Mapping[str, Mapping[str, str]], secrets: Iterable[str]) -> list[Problem]:
    """Problems of variables that a program would refuse: by name why, and where to read how they should be."""
    return [
        Problem(f"{'secret' if name in secrets else 'variable'} {name}", f"is malformed ({row['why']})", row["fix"])
        for name, row in refusals.items()
    ]


def _failing(name: str, why: str) -> Problem:
    return Problem(f"variable {name}", f"cannot be evaluated ({why})", "correct the expression, or set what it needs")


def _secrets(secrets: Mapping[str, str], failures: Mapping[str, str], excused: set[str]) -> list[Problem]:
    words = {
        "missing": "is not set",
        "empty": "is empty",
        "example": "still has the example's value",
        "type": "is not a text",
    }
    problems = []
    for name, state in sorted(secrets.items()):
        if name in failures:
            problems.append(_failing(name, failures[name]))
        elif state in words and name not in excused:
            fix = "set it in the inventory's vault (group_vars/all/vault.yml.example shows how)"
            problems.append(Problem(f"secret {name}", words[state], fix))
    return problems


def _sources(values: Mapping[str, Any]) -> list[Problem]:
    sources = values.get("artifact_sources")
    if sources in (None, ""):
        return []
    if not isinstance(sources, list) or not sources:
        return [Problem("variable artifact_sources", "is not a list of sources", f"list some of {', '.join(SOURCES)}")]
    unknown = [str(source) for source in sources if source not in SOURCES]
    return [
        Problem("variable artifact_sources", f"unknown source {one}", did_you_mean(one, SOURCES)) for one in unknown
    ]


def _log_collector(values: Mapping[str, Any]) -> list[Problem]:
    collector = values.get("log_collector")
    if collector in (None, "", *LOG_COLLECTORS):
        return []
    fix = did_you_mean(str(collector), LOG_COLLECTORS)
    return [Problem("variable log_collector", f"unknown collector {collector}", fix)]
