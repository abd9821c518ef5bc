"""What follows from variables of the role prometheus: targets outside the cluster, the way to them, limits of jobs."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Entry = dict[str, Any]

KEYS = {"name", "targets", "labels", "scheme", "path", "cidrs"}
# Labels of these names say where a series is from; an entry must not claim another job or cluster.
TAKEN = {"cluster", "instance", "job", "service"}
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TARGET = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")


def tradewatch_external_problems(entries: Any) -> list[str]:
    """A line for everything that is wrong with a list of exporters outside the cluster."""
    if not isinstance(entries, list):
        return ["is not a list"]
    found = []
    named = Counter(str(entry["name"]) for entry in entries if isinstance(entry, dict) and entry.get("name"))
    found += [f"the name {name} is there {count} times" for name, count in named.items() if count > 1]
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            found.append(f"entry {number} is not a mapping")
            continue
        name = entry.get("name") or "an entry without a name"
        found += [f"{name}: {problem}" for problem in _problems(entry)]
    return found


def _problems(entry: Entry) -> Iterator[str]:
    for key in sorted(set(entry) - KEYS):
        close = difflib.get_close_matches(str(key), KEYS, 1)
        yield f"unknown key {key}" + (f", did you mean {close[0]}?" if close else "")
    if not entry.get("name") or not isinstance(entry.get("targets"), list) or not entry["targets"]:
        yield "name and targets are required"
        return
    cidrs = entry.get("cidrs") or []
    if not isinstance(cidrs, list):
        yield "cidrs is not a list"
        return
    for target in entry["targets"]:
        match = _TARGET.fullmatch(str(target))
        if match is None or not 0 < int(match["port"]) < 65536:
            yield f"{target!r} is not ADDRESS:PORT"
        elif not cidrs and _address(match["host"]) is None:
            yield f"{target} is a name, and there are no cidrs to let Prometheus reach it"
    if entry.get("scheme", "http") not in ("http", "https"):
        yield f"scheme {entry['scheme']!r} is neither http nor https"
    if not str(entry.get("path", "/metrics")).startswith("/"):
        yield f"path {entry['path']!r} does not begin with /"
    labels = entry.get("labels") or {}
    if not isinstance(labels, dict):
        yield "labels is not a mapping"
        return
    for label in labels:
        if not _LABEL.fullmatch(str(label)) or str(label).startswith("__") or label in TAKEN:
            yield f"{label!r} cannot be a label of its own"
    for cidr in cidrs:
        try:
            ipaddress.ip_network(str(cidr))
        except ValueError:
            yield f"{cidr!r} is not a network such as 192.0.2.0/24"


def _address(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def _checked(entries: Any) -> list[Entry]:
    problems = tradewatch_external_problems(entries)
    if problems:
        raise ValueError("prometheus_external_targets: " + "; ".join(problems))
    listed: list[Entry] = entries
    return listed


def tradewatch_external_targets(entries: Any) -> list[dict[str, Any]]:
    """The content of a file of targets (``file_sd_configs``), one group an entry.

    https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config

    Raises ValueError with one line that names everything that is wrong.
    """
    return [
        {
            "targets": list(entry["targets"]),
            "labels": {
                **{str(label): str(value) for label, value in (entry.get("labels") or {}).items()},
                "service": entry["name"],
                "__scheme__": entry.get("scheme", "http"),
                "__metrics_path__": entry.get("path", "/metrics"),
            },
        }
        for entry in _checked(entries)
    ]


def tradewatch_external_egress(entries: Any) -> list[dict[str, Any]]:
    """NetworkPolicy egress rules: the targets' addresses, or the networks that an entry names, and their ports.

    Raises ValueError with one line that names everything that is wrong.
    """
    rules = []
    for entry in _checked(entries):
        for target in entry["targets"]:
            host, port = str(target).rsplit(":", 1)
            address = _address(host)
            own = [f"{address}/{ipaddress.ip_address(address).max_prefixlen}"] if address else list(entry["cidrs"])
            rules.append(
                {
                    "to": [{"ipBlock": {"cidr": cidr}} for cidr in own],
                    "ports": [{"port": int(port), "protocol": "TCP"}],
                }
            )
    return rules


def tradewatch_job_limits(limits: Mapping[str, Entry], jobs: Iterable[str]) -> dict[str, Entry]:
    """The limits as they are, by job. Raises ValueError with one line that names the jobs that there are not."""
    unknown = sorted(set(limits) - set(jobs))
    if unknown:
        raise ValueError(f"prometheus_job_limits: there is no job {', '.join(unknown)}")
    return dict(limits)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "tradewatch_external_problems": tradewatch_external_problems,
            "tradewatch_external_targets": tradewatch_external_targets,
            "tradewatch_external_egress": tradewatch_external_egress,
            "tradewatch_job_limits": tradewatch_job_limits,
        }
