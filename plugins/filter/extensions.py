"""What users add to the monitoring, exporters outside, data sources, limits: what follows from it and what is wrong."""

from __future__ import annotations

import difflib
import ipaddress
import re
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

Entry = dict[str, Any]

TARGET_KEYS = {"name", "targets", "labels", "scheme", "path", "cidrs", "ca"}
# Labels of these names say where a series is from; an entry must not claim another job or cluster.
TAKEN_LABELS = {"cluster", "instance", "job", "service"}
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TARGET = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")

NEEDED = ("name", "uid", "type", "url", "connects_to")
# https://grafana.com/docs/grafana/v12.3/administration/provisioning/#data-sources
PASSED_ON = ("access", "user", "database", "basicAuth", "basicAuthUser", "withCredentials", "jsonData")
SOURCE_KEYS = (*NEEDED, *PASSED_ON, "secrets")
# The role's own, by name and by uid.
TAKEN_SOURCES = {"prometheus", "loki"}
_EXAMPLE_SECRET = "change-me"  # noqa: S105 - what vault.yml.example has
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SECRET = re.compile(r"[A-Za-z0-9]{1,60}")


def _unknown_keys(entry: Entry, known: Collection[str]) -> Iterator[str]:
    for key in sorted(set(entry) - set(known)):
        close = difflib.get_close_matches(str(key), known, 1)
        yield f"unknown key {key}" + (f", did you mean {close[0]}?" if close else "")


def _network_problem(cidr: Any) -> Iterator[str]:
    """A line for what a NetworkPolicy does not take: it wants the length of the prefix, as a number."""
    try:
        ipaddress.ip_network(str(cidr))
    except ValueError:
        right = False
    else:
        right = str(cidr).partition("/")[2].isdigit()
    if not right:
        yield f"{cidr!r} is not a network such as 192.0.2.0/24"


def _checked(variable: str, entries: Any, problems: list[str]) -> list[Entry]:
    if problems:
        raise ValueError(f"{variable}: " + "; ".join(problems))
    listed: list[Entry] = entries
    return listed


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
        found += [f"{name}: {problem}" for problem in _target_problems(entry)]
    return found


def _target_problems(entry: Entry) -> Iterator[str]:
    yield from _unknown_keys(entry, TARGET_KEYS)
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
    yield from _authority_problems(entry)
    if not str(entry.get("path", "/metrics")).startswith("/"):
        yield f"path {entry['path']!r} does not begin with /"
    labels = entry.get("labels") or {}
    if not isinstance(labels, dict):
        yield "labels is not a mapping"
        return
    for label in labels:
        if not _LABEL.fullmatch(str(label)) or str(label).startswith("__") or label in TAKEN_LABELS:
            yield f"{label!r} cannot be a label of its own"
    for cidr in cidrs:
        yield from _network_problem(cidr)


def _authority_problems(entry: Entry) -> Iterator[str]:
    authority = entry.get("ca")
    if entry.get("scheme") != "https":
        if authority is not None:
            yield "ca is for scheme https alone"
    elif authority is None:
        yield "https needs ca, the certificate of the authority that signed the targets', as PEM text"
    elif "PRIVATE KEY" in str(authority):
        yield "ca holds a private key: only certificates belong there"
    elif not isinstance(authority, str) or not _holds_certificates(authority):
        yield "ca is not a certificate as PEM text"


def _holds_certificates(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, TypeError, ValueError):
        return False
    return True


def _address(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def _targets(entries: Any) -> list[Entry]:
    return _checked("prometheus_external_targets", entries, tradewatch_external_problems(entries))


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
        for entry in _targets(entries)
    ]


def tradewatch_external_authorities(entries: Any) -> str:
    """The certificates, as PEM text, that the entries' targets are verified with; empty where none answers over https.

    Raises ValueError with one line that names everything that is wrong.
    """
    return "".join(entry["ca"].strip() + "\n" for entry in _targets(entries) if "ca" in entry)


def tradewatch_external_egress(entries: Any) -> list[dict[str, Any]]:
    """NetworkPolicy egress rules: the targets' addresses, or the networks that an entry names, and their ports.

    Raises ValueError with one line that names everything that is wrong.
    """
    rules = []
    for entry in _targets(entries):
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


def tradewatch_data_source_problems(entries: Any) -> list[str]:
    """A line for everything that is wrong with a list of data sources; no secret is in any."""
    if not isinstance(entries, list):
        return ["is not a list"]
    problems = []
    for key in ("name", "uid"):
        counted = Counter(str(entry[key]).lower() for entry in entries if isinstance(entry, dict) and entry.get(key))
        problems += [f"the {key} {word} is there {count} times" for word, count in counted.items() if count > 1]
        problems += [
            f"the {key} {word} is that of a data source that is always there"
            for word in counted
            if word in TAKEN_SOURCES
        ]
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            problems.append(f"entry {number} is not a mapping")
            continue
        name = entry.get("name") or f"entry {number}"
        problems += [f"{name}: {problem}" for problem in _source_problems(entry)]
    return problems


def _source_problems(entry: Entry) -> Iterator[str]:
    if "secureJsonData" in entry:
        yield "what is secret goes below secrets, not secureJsonData"
    yield from _unknown_keys(entry, (*SOURCE_KEYS, "secureJsonData"))
    yield from (f"lacks {key}" for key in NEEDED if key not in entry)
    yield from (f"{key} is not a text" for key in NEEDED[:4] if key in entry and not _is_text(entry[key]))
    if _is_text(entry.get("uid")) and not _UID.fullmatch(entry["uid"]):
        yield f"uid {entry['uid']!r} is not 1 to 40 letters, digits, '-' and '_'"
    if _is_text(entry.get("url")):
        yield from _url_problems(entry["url"])
    if not isinstance(entry.get("jsonData", {}), dict):
        yield "jsonData is not a mapping"
    secrets = entry.get("secrets", {})
    if isinstance(secrets, dict):
        yield from _secret_problems(secrets)
    else:
        yield "secrets is not a mapping"
    connections = entry.get("connects_to", [])
    if not isinstance(connections, list):
        yield "connects_to is not a list"
        return
    for peer in connections:
        yield from _peer_problems(peer)


def _url_problems(url: str) -> Iterator[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        yield "url is not an address"
        return
    if password:
        yield "its url holds a password: write it below secrets"


def _secret_problems(secrets: dict[str, Any]) -> Iterator[str]:
    for key, value in secrets.items():
        if not _SECRET.fullmatch(str(key)):
            yield f"the secret {key!r} is not named by letters and digits"
        if not _is_text(value) or not value.strip():
            yield f"the secret {key} is empty, or not a text"
        elif value == _EXAMPLE_SECRET:
            yield f"the secret {key} still has the example's value"


def _peer_problems(peer: Any) -> Iterator[str]:
    if not isinstance(peer, dict) or set(peer) != {"cidr", "port"}:
        yield "connects_to has entries of cidr and port, nothing else"
        return
    yield from _network_problem(peer["cidr"])
    port = peer["port"]
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        yield f"{port!r} is not a port"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _sources(entries: Any) -> list[Entry]:
    return _checked("grafana_data_sources", entries, tradewatch_data_source_problems(entries))


def _file(entry: Entry, secret: str) -> str:
    return f"data-source-{entry['uid']}-{secret}"


def _literal(value: Any) -> Any:
    """The value as provisioning reads it back: it takes ``$`` for the begin of a variable, ``$$`` for a ``$``."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_literal(item) for item in value]
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    return value


def tradewatch_data_sources(entries: Any, folder: str) -> list[Entry]:
    """The entries as Grafana's provisioning has them; their secrets are files in ``folder``.

    Raises ValueError with one line that names everything that is wrong.
    """
    return [
        {
            "access": "proxy",
            "editable": False,
            **{key: _literal(entry[key]) for key in (*NEEDED[:4], *PASSED_ON) if key in entry},
            "secureJsonData": {
                secret: f"$__file{{{folder}/{_file(entry, secret)}}}" for secret in entry.get("secrets", {})
            },
        }
        for entry in _sources(entries)
    ]


def tradewatch_data_source_secrets(entries: Any) -> dict[str, str]:
    """The content of those files by name. Raises ValueError with one line that names everything that is wrong."""
    return {
        _file(entry, secret): value for entry in _sources(entries) for secret, value in entry.get("secrets", {}).items()
    }


def tradewatch_data_source_egress(entries: Any) -> list[dict[str, Any]]:
    """NetworkPolicy egress rules to the data sources. Raises ValueError with one line that names everything wrong."""
    return [
        {"to": [{"ipBlock": {"cidr": peer["cidr"]}}], "ports": [{"port": peer["port"], "protocol": "TCP"}]}
        for entry in _sources(entries)
        for peer in entry["connects_to"]
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "tradewatch_external_problems": tradewatch_external_problems,
            "tradewatch_external_targets": tradewatch_external_targets,
            "tradewatch_external_authorities": tradewatch_external_authorities,
            "tradewatch_external_egress": tradewatch_external_egress,
            "tradewatch_job_limits": tradewatch_job_limits,
            "tradewatch_data_source_problems": tradewatch_data_source_problems,
            "tradewatch_data_sources": tradewatch_data_sources,
            "tradewatch_data_source_secrets": tradewatch_data_source_secrets,
            "tradewatch_data_source_egress": tradewatch_data_source_egress,
        }
