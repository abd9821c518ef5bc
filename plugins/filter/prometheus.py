"""What follows from variables of the role prometheus: targets outside the cluster, the way to them, limits of jobs."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Entry = dict[str, Any]

KEYS = {"name", "targets", "labels", "scheme", "path", "cidrs"}
# Labels of these names say where a series is from; an entry must not claim another job or cluster.
TAKEN = {"cluster", "instance", "job", "service"}
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TARGET = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")


def _problems(entries: list[Entry]) -> list[str]:
    found = []
    names = Counter(str(entry.get("name")) for entry in entries)
    found += [f"the name {name} is there {count} times" for name, count in names.items() if count > 1]
    for entry in entries:
        name = entry.get("name") or "an entry without a name"
        found += [f"{name}: unknown key {key}" for key in sorted(set(entry) - KEYS)]
        if not entry.get("name") or not isinstance(entry.get("targets"), list) or not entry["targets"]:
            found.append(f"{name}: name and targets are required")
            continue
        for target in entry["targets"]:
            match = _TARGET.fullmatch(str(target))
            if match is None or not 0 < int(match["port"]) < 65536:
                found.append(f"{name}: {target!r} is not ADDRESS:PORT")
            elif not entry.get("cidrs") and _address(match["host"]) is None:
                found.append(f"{name}: {target} is a name, and there are no cidrs to let Prometheus reach it")
        if entry.get("scheme", "http") not in ("http", "https"):
            found.append(f"{name}: scheme {entry['scheme']!r} is neither http nor https")
        if not str(entry.get("path", "/metrics")).startswith("/"):
            found.append(f"{name}: path {entry['path']!r} does not begin with /")
        for label in entry.get("labels") or {}:
            if not _LABEL.fullmatch(str(label)) or str(label).startswith("__") or label in TAKEN:
                found.append(f"{name}: {label!r} cannot be a label of its own")
        for cidr in entry.get("cidrs") or []:
            try:
                ipaddress.ip_network(cidr)
            except ValueError:
                found.append(f"{name}: {cidr!r} is not a network such as 192.0.2.0/24")
    return found


def _address(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def _checked(entries: Iterable[Entry]) -> list[Entry]:
    listed = list(entries)
    problems = _problems(listed)
    if problems:
        raise ValueError("prometheus_external_targets: " + "; ".join(problems))
    return listed


def tradewatch_external_targets(entries: Iterable[Entry]) -> list[dict[str, Any]]:
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


def tradewatch_external_egress(entries: Iterable[Entry]) -> list[dict[str, Any]]:
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
            "tradewatch_external_targets": tradewatch_external_targets,
            "tradewatch_external_egress": tradewatch_external_egress,
            "tradewatch_job_limits": tradewatch_job_limits,
        }
