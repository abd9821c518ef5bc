"""Every check on one collection of data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import hosts, inventory, network, tables, variables, yaml_files
from .problem import Problem


def analyse(data: Mapping[str, Any]) -> tuple[list[Problem], list[dict[str, Any]]]:
    """All problems, files first and hosts last, and the artifacts that can be looked for.

    Args:
        data: ``sources`` (the inventory's paths), ``base`` (what paths are relative to), ``groups``, ``addresses``,
            ``address_failures``, ``values``, ``failures``, ``refusals`` ([{name, what, fix}]), ``secrets``,
            ``broken_files`` ([{file, message}]), ``probes`` (by host), ``settings`` (the role's variables
            without their prefix).
    """
    scan = yaml_files.scan(data["sources"], data["base"])
    unreadable = _unreadable(data, scan.broken)
    problems = [*scan.problems, *unreadable, *_inventory(data, scan)]
    # A vault that cannot be opened may hold any secret.
    excused = {*scan.names, *data["secrets"]} if unreadable else scan.names
    required = data["settings"]["required_variables"]
    problems += variables.check(data["values"], data["failures"], data["secrets"], excused, required)
    problems += variables.refused(data["refusals"], data["secrets"])
    rows, found = _tables(data)
    problems += found
    routes = {
        host: network.parse_routes(hosts.sections(probe["output"]).get("routes", ""))
        for host, probe in data["probes"].items()
    }
    problems += network.check(data["values"], data["addresses"], routes)
    for host, probe in sorted(data["probes"].items()):
        problems += hosts.check(host, probe, data["settings"])
    problems += hosts.check_parts(data["groups"], data["probes"])
    problems += hosts.check_networks(data["probes"], data["values"])
    problems += hosts.check_first_server(data["groups"].get("k3s_server", []), data["probes"])
    return list(dict.fromkeys(problems)), rows


def _unreadable(data: Mapping[str, Any], known: set[str]) -> list[Problem]:
    """Files that Ansible could not read although their YAML is well-formed, such as one with another vault password."""
    known_paths = {Path(path).resolve() for path in known}
    return [
        Problem(
            yaml_files.shown(Path(record["file"]), data["base"]),
            f"Ansible cannot read it ({record['message']})",
            "correct the file, or pass the vault password",
        )
        for record in data["broken_files"]
        if Path(record["file"]).resolve() not in known_paths
    ]


def _inventory(data: Mapping[str, Any], scan: yaml_files.Scan) -> list[Problem]:
    # Ansible drops a broken hosts file as a whole: what is said about its groups would be wrong.
    if scan.hosts_broken:
        return []
    settings = data["settings"]
    groups = data["groups"]
    problems = inventory.check(groups, data["addresses"], data["address_failures"], settings["extra_groups"])
    known = inventory.known_groups([*groups, *settings["extra_groups"]])
    return problems + yaml_files.unknown_vars_files(data["sources"], data["base"], known, set(data["addresses"]))


def _tables(data: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Problem]]:
    values, settings = data["values"], data["settings"]
    rows: list[dict[str, Any]] = []
    spaces: list[dict[str, Any]] | None = None
    problems: list[Problem] = []
    if values.get("artifacts") is not None:
        rows, found = tables.check_artifacts(values["artifacts"])
        problems += found
    if values.get("tradewatch_namespaces") is not None:
        spaces, found = tables.check_namespaces(values["tradewatch_namespaces"])
        problems += found
    services = _given(values, "tradewatch_services", "tradewatch_simulators")
    used = {int(entry["port"]): str(entry["user"]) for entry in settings["reserved_node_ports"]}
    secrets = list(settings["cluster_secrets"])
    made, found = tables.check_secrets(_given(values, "tradewatch_secrets", "tradewatch_simulator_secrets"), spaces)
    secrets += made
    problems += found
    mountable = tables.Mountable(secrets, settings["cluster_config_maps"])
    problems += tables.check_services(services, spaces, settings["peers"], mountable, used)
    return rows, problems


def _given(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if values.get(name) is not None}
