"""Variables and secrets that must be set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from . import network
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
        *_watchdog(values),
    ]


def refused(refusals: Iterable[Mapping[str, str]], secrets: Iterable[str]) -> list[Problem]:
    """Problems that the roles' own filters found: ``{name, what, fix}`` of a variable each."""
    return [
        Problem(f"{'secret' if row['name'] in secrets else 'variable'} {row['name']}", row["what"], row["fix"])
        for row in refusals
    ]


def _failing(name: str, why: str) -> Problem:
    return Problem(f"variable {name}", f"cannot be evaluated ({why})", "correct the expression, or set what it needs")


def _secrets(secrets: Mapping[str, str], failures: Mapping[str, str], excused: set[str]) -> list[Problem]:
    words = {
        "missing": "is not set",
        "empty": "is empty",
        "example": "still has the example's value",
        "type": "is not a string",
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


def _watchdog(values: Mapping[str, Any]) -> list[Problem]:
    """Where the dead man's switch is, and whether Alertmanager may connect to it; its address may hold a secret."""
    problems = []
    where = "variable alertmanager_watchdog_cidrs"
    url, cidrs = values.get("alertmanager_watchdog_url"), values.get("alertmanager_watchdog_cidrs", [])
    if not isinstance(cidrs, list):
        problems.append(Problem(where, f"{cidrs!r} is not a list", "write a list of networks: [192.0.2.50/32]"))
    elif url and not cidrs:
        what = "is empty, and alertmanager_watchdog_url is set: Alertmanager may not connect to it"
        problems.append(Problem(where, what, "list the networks that it is in, such as [192.0.2.50/32]"))
    for cidr in cidrs if isinstance(cidrs, list) else ():
        try:
            network.parse(cidr)
        except ValueError as error:
            problems.append(Problem(where, f"{cidr!r} is not a network ({error})", "write it like 192.0.2.50/32"))
    if url and not _is_url(url):
        what = "is not an http:// or https:// URL with a host"
        fix = "write it like http://192.0.2.50:8095/v1/watchdog"
        problems.append(Problem("variable alertmanager_watchdog_url", what, fix))
    return problems


def _is_url(text: object) -> bool:
    try:
        parts = urlsplit(str(text))
        # Reading the port judges it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
