"""What follows from the services table: a connection, like the need for a Secret, is stated once, by who has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

Entry = dict[str, Any]
Rule = dict[str, Any]


def _pods(namespace: str, name: str) -> Rule:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
    }


def _port(number: int) -> Rule:
    return {"port": int(number), "protocol": "TCP"}


def tradewatch_egress(entry: Entry) -> list[Rule]:
    """The egress rules of one entry's pods, from its ``connects_to``."""
    rules = []
    for peer in entry.get("connects_to") or []:
        if "cidr" in peer:
            block = {"cidr": peer["cidr"]}
            if peer.get("except"):
                block["except"] = list(peer["except"])
            target: Rule = {"ipBlock": block}
        else:
            target = _pods(peer["namespace"], peer["service"])
        rules.append({"to": [target], "ports": [_port(peer["port"])]})
    return rules


def tradewatch_ingress(entries: Iterable[Entry], name: str, namespace: str) -> list[Rule]:
    """The ingress rules of a service's pods: for each port, the entries whose ``connects_to`` names it."""
    clients: dict[int, list[tuple[str, str]]] = {}
    for entry in entries:
        for peer in entry.get("connects_to") or []:
            if peer.get("service") == name and peer.get("namespace") == namespace:
                clients.setdefault(int(peer["port"]), []).append((entry["namespace"], entry["name"]))
    return [
        {"from": [_pods(*client) for client in sorted(set(found))], "ports": [_port(port)]}
        for port, found in sorted(clients.items())
    ]


def tradewatch_secret_namespaces(entries: Iterable[Entry], secret: str) -> list[str]:
    """The namespaces, sorted, in which entries read a Secret of this name."""
    return sorted(
        {
            entry["namespace"]
            for entry in entries
            if any(wanted.get("secret") == secret for wanted in entry.get("secrets") or [])
        }
    )


def tradewatch_url_port(url: str) -> int:
    """The port that a URL means. Raises ValueError for one that is no http or https URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL with a host")
    return parts.port or (443 if parts.scheme == "https" else 80)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "tradewatch_egress": tradewatch_egress,
            "tradewatch_ingress": tradewatch_ingress,
            "tradewatch_secret_namespaces": tradewatch_secret_namespaces,
            "tradewatch_url_port": tradewatch_url_port,
        }
