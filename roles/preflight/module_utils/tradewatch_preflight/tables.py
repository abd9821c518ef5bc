"""The tables of artifacts, namespaces and services."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from . import network, schema
from .inventory import NODE_ROLES
from .problem import Problem, did_you_mean, listed

Row = Mapping[str, Any]
# By name and namespace, what may be connected to: its ports, None where they are not known.
Peers = dict[tuple[str, Any], Sequence[int] | None]

_TEXT = {"type": "string", "minLength": 1}
_LABEL = {
    "type": "string",
    "pattern": r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
    "description": "use lowercase letters, digits and -, at most 63",
}
# Kubernetes' names of container ports are service names of RFC 6335, section 5.1, in lowercase.
_PORT_NAME = {
    "type": "string",
    "pattern": r"^(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$",
    "description": "use lowercase letters, digits and single - between them, at least one letter, at most 15 in all",
}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_NODE_PORT = {"type": "integer", "minimum": 30000, "maximum": 32767}

# What roles/services_table calls the port `port`, and where it mounts folders of its own.
_MAIN_PORT = "http"
_OWN_FOLDERS = ("/run/secrets/tradewatch", "/tmp")  # noqa: S108


@dataclass(frozen=True)
class Mountable:
    """What services may mount.

    Attributes:
        secrets: ``{secret, keys, namespaces}``, without ``namespaces`` wherever needed.
        config_maps: ``{config_map, namespaces}``.
    """

    secrets: Sequence[Row]
    config_maps: Sequence[Row]


def _mapping(properties: Mapping[str, Any], required: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items)}


# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITIES = {
    "type": "object",
    "additionalProperties": {
        "type": ["string", "number"],
        "pattern": r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$",
        "minimum": 0,
        "description": "write a quantity such as 500m, 4Gi or 50",
    },
}
_NAMESPACE = _mapping(
    {
        "name": _LABEL,
        "pod_security": {"enum": ["restricted", "baseline", "privileged"]},
        "node_role": _TEXT,
        "quota": _QUANTITIES,
        "limits": _mapping(dict.fromkeys(("default", "defaultRequest", "max", "min"), _QUANTITIES)),
    },
    ["name", "pod_security", "node_role"],
)
_PEER = _mapping(
    {"service": _TEXT, "namespace": _TEXT, "cidr": _TEXT, "except": _list(_TEXT), "port": _PORT},
    ["port"],
    oneOf=[
        {"required": ["service", "namespace"], "not": {"anyOf": [{"required": ["cidr"]}, {"required": ["except"]}]}},
        {"required": ["cidr"], "not": {"anyOf": [{"required": ["service"]}, {"required": ["namespace"]}]}},
    ],
    description="give service and namespace, or cidr",
)
_FILES = _mapping(
    {
        "path": {"type": "string", "pattern": "^/[^/]", "description": "write an absolute path"},
        "secret": _TEXT,
        "config_map": _TEXT,
    },
    ["path"],
    oneOf=[{"required": ["secret"]}, {"required": ["config_map"]}],
    description="give secret or config_map",
)
_SERVICE = _mapping(
    {
        "name": _LABEL,
        "namespace": _TEXT,
        "run": _TEXT,
        "node_role": _TEXT,
        "replicas": {"type": "integer", "minimum": 0},
        "strategy": {"enum": ["RollingUpdate", "Recreate"]},
        "port": _PORT,
        "ports": _list(_mapping({"name": _PORT_NAME, "port": _PORT, "node_port": _NODE_PORT}, ["name", "port"])),
        "environment": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "secrets": _list(_mapping({"name": _TEXT, "secret": _TEXT, "key": _TEXT}, ["name", "secret", "key"])),
        "files": _list(_FILES),
        "connects_to": _list(_PEER),
        "resources": _mapping({"requests": _QUANTITIES, "limits": _QUANTITIES}),
    },
    ["name", "namespace", "run", "node_role", "port", "resources"],
)
_SECRET = _mapping(
    {"name": _LABEL, "namespace": _TEXT, "values": {"type": "object", "minProperties": 1}},
    ["name", "namespace", "values"],
)
_ARTIFACT = _mapping(
    {
        "name": _TEXT,
        "kind": {"enum": ["binary", "images", "image"]},
        "version": _TEXT,
        "file": {"type": "string", "pattern": r"^[^/]+$", "description": "write a file name without /"},
        "mode": {"type": "string", "pattern": "^0[0-7]{3}$", "description": 'write it like "0755", in quotes'},
        "dest": {"type": "string", "pattern": "^/", "description": "write an absolute path"},
        "node_roles": _list(_TEXT),
        "upstream": _mapping(
            dict.fromkeys(("url", "checksum_url", "sha256", "image"), _TEXT),
            oneOf=[
                {"required": ["url"], "not": {"required": ["image"]}},
                {"required": ["image"], "maxProperties": 1},
            ],
            description="give image (docker://NAME@sha256:DIGEST to pin it), or url with checksum_url or sha256",
        ),
        "registries": _TEXT,
        "same_source_as": _TEXT,
        "optional": {"type": "boolean"},
    },
    ["name", "kind", "version", "file", "node_roles"],
)


def check_artifacts(table: Any) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The rows that can be looked for, and the table's problems."""
    rows, problems = schema.check(table, _ARTIFACT, "artifacts", "artifact")
    problems += _duplicate_names(rows, "artifact")
    # A row of the wrong shape still exists.
    names = {str(row.get("name")) for row in table if isinstance(row, dict)} if isinstance(table, list) else set()
    for row in rows:
        where = f"artifact {row['name']}"
        problems += _unknown(where, "node role", row["node_roles"], {*NODE_ROLES, "all"})
        problems += _unknown(where, "artifact", [row.get("same_source_as", row["name"])], names)
        needs = ("mode", "dest") if row["kind"] == "binary" and row["node_roles"] else ()
        problems += [Problem(where, f"is a binary without {key}", "add it") for key in needs if key not in row]
    return rows, problems


def check_namespaces(table: Any) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The well-formed rows, and the table's problems."""
    rows, problems = schema.check(table, _NAMESPACE, "tradewatch_namespaces", "namespace")
    problems += _duplicate_names(rows, "namespace")
    for row in rows:
        where = f"namespace {row['name']}"
        problems += _unknown(where, "node role", [row["node_role"]], NODE_ROLES)
        if row["name"] == "default" or row["name"].startswith("kube-"):
            # Its own pods would be cut off by default-deny.
            problems.append(Problem(where, "is Kubernetes' own", "give yours another name"))
    return rows, problems


def check_secrets(
    tables: Mapping[str, Any], namespaces: Iterable[Row] | None
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The Secrets that the tables (by variable, read as one) make, as ``check_services`` takes them; their problems."""
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for variable, table in tables.items():
        good, wrong = schema.check(table, _SECRET, variable, "Secret")
        rows += good
        problems += wrong
    for (name, namespace), count in Counter((row["name"], row["namespace"]) for row in rows).items():
        if count > 1:
            what = f"the table holds {count} of this name in {namespace}"
            problems.append(Problem(f"Secret {name}", what, "write all its values in one entry"))
    if namespaces is not None:
        spaces = {space["name"] for space in namespaces}
        for row in rows:
            problems += _unknown(f"Secret {row['name']}", "namespace", [row["namespace"]], spaces)
    made = [{"secret": row["name"], "keys": list(row["values"]), "namespaces": [row["namespace"]]} for row in rows]
    return made, problems


def check_services(
    tables: Mapping[str, Any],
    namespaces: Iterable[Row] | None,
    peers: Iterable[Row],
    mountable: Mountable,
    node_ports: Mapping[int, str],
) -> list[Problem]:
    """Problems of the services.

    Args:
        tables: the tables by variable, read as one.
        namespaces: the namespaces that there are, None when they are not known.
        peers: what a service may connect to beside the tables' services: ``{service, namespace, ports}``, without
            ``ports`` at any.
        mountable: the Secrets and ConfigMaps that there are.
        node_ports: node ports that something else uses, and what.
    """
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for name, table in tables.items():
        good, found = schema.check(table, _SERVICE, name, "service")
        rows += good
        problems += found
    # A row of the wrong shape is still a peer that exists.
    given = [row for table in tables.values() if isinstance(table, list) for row in table if isinstance(row, dict)]
    known: Peers = {(row["name"], row.get("namespace")): None for row in given if isinstance(row.get("name"), str)}
    known |= {(row["name"], row["namespace"]): _numbers(row) for row in rows}
    known |= {(peer["service"], peer["namespace"]): peer.get("ports") for peer in peers}
    problems += _duplicate_names(rows, "service")
    for row in rows:
        where = f"service {row['name']}"
        problems += _unknown(where, "node role", [row["node_role"]], NODE_ROLES)
        if namespaces is not None:
            problems += _unknown(where, "namespace", [row["namespace"]], {space["name"] for space in namespaces})
        problems += _ports(where, row)
        problems += _peers(where, row, known)
        problems += _secrets(where, row, mountable.secrets)
        problems += _files(where, row, mountable)
    return problems + _node_ports(rows, node_ports)


def _duplicate_names(rows: Iterable[Row], kind: str) -> list[Problem]:
    counted = Counter(str(row["name"]) for row in rows)
    return [
        Problem(f"{kind} {name}", f"the table holds {count} of this name", "give each a name of its own")
        for name, count in sorted(counted.items())
        if count > 1
    ]


def _unknown(where: str, kind: str, words: Iterable[str], known: Iterable[str]) -> list[Problem]:
    return [
        Problem(where, f"unknown {kind} {word}", did_you_mean(word, known)) for word in words if word not in set(known)
    ]


def _numbers(row: Row) -> list[int]:
    return [row["port"], *(port["port"] for port in row.get("ports", ()))]


def _ports(where: str, row: Row) -> list[Problem]:
    ports = row.get("ports", ())
    numbers = Counter(_numbers(row))
    names = Counter([_MAIN_PORT, *(port["name"] for port in ports)])
    problems = [
        Problem(where, f"port {port} is used {count} times", "give each of its ports a number of its own")
        for port, count in sorted(numbers.items())
        if count > 1
    ]
    for name, count in sorted(names.items()):
        if count > 1:
            used = "is that of the service's main port" if name == _MAIN_PORT else f"is used {count} times"
            problems.append(Problem(where, f"port name {name} {used}", "give each of its ports a name of its own"))
    return problems


def _node_ports(rows: Iterable[Row], used: Mapping[int, str]) -> list[Problem]:
    users: dict[int, list[str]] = {number: [user] for number, user in used.items()}
    for row in rows:
        for port in row.get("ports", ()):
            if "node_port" in port:
                users.setdefault(port["node_port"], []).append(f"{row['name']} ({port['name']})")
    return [
        Problem(f"node_port {number}", f"is used by {listed(names)}", "give each a number of its own")
        for number, names in sorted(users.items())
        if len(names) > 1
    ]


def _peers(where: str, row: Row, known: Peers) -> list[Problem]:
    problems = []
    where = f"{where} connects_to"
    for peer in row.get("connects_to", ()):
        if "service" in peer:
            problems += _peer(where, peer["service"], peer["namespace"], peer["port"], known)
            continue
        for text in (peer["cidr"], *peer.get("except", ())):
            try:
                network.parse(text)
            except ValueError as error:
                problems.append(Problem(where, f"{text!r} is not a network ({error})", "write it like 10.42.0.0/16"))
    return problems


def _peer(where: str, service: str, namespace: str, port: int, known: Peers) -> list[Problem]:
    if (service, namespace) in known:
        ports = known[service, namespace]
        if ports is None or port in ports:
            return []
        what = f"{service} in {namespace} has no port {port}"
        return [Problem(where, what, f"use one of {', '.join(map(str, sorted(ports)))}")]
    elsewhere = sorted(str(space) for name, space in known if name == service)
    if not elsewhere:
        return _unknown(where, "service", [service], {name for name, _ in known})
    return [Problem(where, f"there is no {service} in {namespace}", f"it is in {listed(elsewhere)}: write that")]


def _secrets(where: str, row: Row, known: Sequence[Row]) -> list[Problem]:
    problems = []
    for wanted in row.get("secrets", ()):
        name, key = wanted["secret"], wanted["key"]
        problems += _absent(f"{where} secrets", row, "secret", name, known)
        here = _here(row, "secret", name, known)
        keys = {one for secret in here for one in secret["keys"]}
        if here and key not in keys:
            problems.append(Problem(f"{where} secrets", f"Secret {name} has no key {key}", did_you_mean(key, keys)))
    return problems


def _files(where: str, row: Row, mountable: Mountable) -> list[Problem]:
    where = f"{where} files"
    problems = []
    taken = [PurePosixPath(path) for path in _OWN_FOLDERS]
    for folder in row.get("files", ()):
        kind, known = ("secret", mountable.secrets) if "secret" in folder else ("config_map", mountable.config_maps)
        problems += _absent(where, row, kind, folder[kind], known)
        path = PurePosixPath(folder["path"])
        for other in taken:
            if path.is_relative_to(other) or other.is_relative_to(path):
                what = f"{path} and {other} are one folder, or one lies in the other"
                problems.append(Problem(where, what, "give each a folder of its own"))
        taken.append(path)
    return problems


def _here(row: Row, kind: str, name: str, known: Sequence[Row]) -> list[Row]:
    """What of this name the service's pods can mount."""
    return [one for one in known if one[kind] == name and row["namespace"] in one.get("namespaces", [row["namespace"]])]


def _absent(where: str, row: Row, kind: str, name: str, known: Sequence[Row]) -> list[Problem]:
    """The problem of a Secret or ConfigMap that there is not, or not in the service's namespace."""
    made = [one for one in known if one[kind] == name]
    title = {"secret": "Secret", "config_map": "ConfigMap"}[kind]
    if not made:
        return _unknown(where, title, [name], {one[kind] for one in known})
    if _here(row, kind, name, known):
        return []
    spaces = listed({space for one in made for space in one["namespaces"]})
    what = f"there is no {title} {name} in {row['namespace']}"
    return [Problem(where, what, f"run the service where it is: in {spaces}")]
