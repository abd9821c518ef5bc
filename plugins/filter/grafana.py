"""What follows from the list of further data sources: Grafana's provisioning, its Secret, and its ways out."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

Entry = dict[str, Any]

NEEDED = ("name", "uid", "type", "url", "connects_to")
# https://grafana.com/docs/grafana/v12.3/administration/provisioning/#data-sources
PASSED_ON = ("access", "user", "database", "basicAuth", "basicAuthUser", "withCredentials", "jsonData")
KEYS = (*NEEDED, *PASSED_ON, "secrets")
# The role's own, by name and by uid.
TAKEN = {"prometheus", "loki"}
_EXAMPLE_SECRET = "change-me"  # noqa: S105 - what vault.yml.example has
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SECRET = re.compile(r"[A-Za-z0-9]{1,60}")


def tradewatch_data_source_problems(entries: Any) -> list[str]:
    """A line for everything that is wrong with a list of data sources; no secret is in any."""
    if not isinstance(entries, list):
        return ["is not a list"]
    problems = []
    for key in ("name", "uid"):
        counted = Counter(str(entry[key]).lower() for entry in entries if isinstance(entry, dict) and entry.get(key))
        problems += [f"the {key} {word} is there {count} times" for word, count in counted.items() if count > 1]
        problems += [
            f"the {key} {word} is that of a data source that is always there" for word in counted if word in TAKEN
        ]
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            problems.append(f"entry {number} is not a mapping")
            continue
        name = entry.get("name") or f"entry {number}"
        problems += [f"{name}: {problem}" for problem in _problems(entry)]
    return problems


def _problems(entry: Entry) -> Iterator[str]:
    for key in sorted(set(entry) - set(KEYS)):
        if key == "secureJsonData":
            yield "what is secret goes below secrets, not secureJsonData"
            continue
        close = difflib.get_close_matches(str(key), KEYS, 1)
        yield f"unknown key {key}" + (f", did you mean {close[0]}?" if close else "")
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
    try:
        ipaddress.ip_network(str(peer["cidr"]))
    except ValueError:
        yield f"{peer['cidr']!r} is not a network such as 192.0.2.0/24"
    port = peer["port"]
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        yield f"{port!r} is not a port"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _checked(entries: Any) -> list[Entry]:
    problems = tradewatch_data_source_problems(entries)
    if problems:
        raise ValueError("grafana_data_sources: " + "; ".join(problems))
    listed: list[Entry] = entries
    return listed


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
        for entry in _checked(entries)
    ]


def tradewatch_data_source_secrets(entries: Any) -> dict[str, str]:
    """The content of those files by name. Raises ValueError with one line that names everything that is wrong."""
    return {
        _file(entry, secret): value for entry in _checked(entries) for secret, value in entry.get("secrets", {}).items()
    }


def tradewatch_data_source_egress(entries: Any) -> list[dict[str, Any]]:
    """NetworkPolicy egress rules to the data sources. Raises ValueError with one line that names everything wrong."""
    return [
        {"to": [{"ipBlock": {"cidr": peer["cidr"]}}], "ports": [{"port": peer["port"], "protocol": "TCP"}]}
        for entry in _checked(entries)
        for peer in entry["connects_to"]
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "tradewatch_data_source_problems": tradewatch_data_source_problems,
            "tradewatch_data_sources": tradewatch_data_sources,
            "tradewatch_data_source_secrets": tradewatch_data_source_secrets,
            "tradewatch_data_source_egress": tradewatch_data_source_egress,
        }
