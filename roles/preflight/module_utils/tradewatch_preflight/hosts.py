"""What the probe of one host says about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .problem import Problem

_MARK = "@@tradewatch "


def sections(text: str) -> dict[str, str]:
    """The probe's output by section; ``roles/preflight/files/probe.sh`` writes the marks."""
    found: dict[str, str] = {}
    for part in text.replace("\r\n", "\n").split(_MARK)[1:]:
        name, _, body = part.partition("\n")
        found[name.strip()] = body.strip()
    return found


def check(host: str, probe: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Problem]:
    """The host's problems.

    Args:
        host: its name.
        probe: what the action ``preflight_probe`` returned.
        settings: the role's variables, without their prefix.
    """
    where = f"host {host}"
    if not probe["reachable"]:
        what = f"cannot be reached ({probe['reason']})"
        return [Problem(where, what, "check ansible_host, the network and the SSH key")]
    found = sections(probe["output"])
    if "end" not in found:
        what = f"the probe did not run to its end ({probe['reason'] or 'no output'})"
        return [Problem(where, what, "log in by SSH and see what the shell prints")]
    checks = (_python, _system, _machine, _root, _swap, _memory, _disk, _clock, _cluster)
    return [problem for one in checks for problem in one(where, found, probe, settings)]


def check_first_server(servers: Sequence[str], probes: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """A new first server would begin a cluster of its own, beside the one that the others are in.

    Args:
        servers: the group ``k3s_server``, in the inventory's order.
        probes: by host, what the action ``preflight_probe`` returned.
    """
    clusters = {host: probes[host]["cluster"] for host in servers if host in probes and probes[host]["root"]}
    standing = [host for host, cluster in clusters.items() if cluster == "own"]
    if not standing or clusters.get(servers[0]) != "none":
        return []
    what = f"is the first of control_plane and in no cluster, while {standing[0]} is in one"
    return [Problem(f"host {servers[0]}", what, f"list it below {standing[0]}, so that it joins that cluster")]


def check_parts(groups: Mapping[str, Sequence[str]], probes: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """A host is a server or an agent for as long as it is in the cluster: the other one would run beside it."""
    problems = []
    for part, other, unit in (("server", "agent", "k3s-agent.service"), ("agent", "server", "k3s.service")):
        for host in groups.get(f"k3s_{part}", ()):
            if host in probes and unit in sections(probes[host]["output"]).get("units", "").split():
                what = f"runs a k3s {other}, and its group makes it a k3s {part}"
                fix = "move its line back, or remove the host and add it anew (docs/operations.md)"
                problems.append(Problem(f"host {host}", what, fix))
    return problems


def check_networks(probes: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Any]) -> list[Problem]:
    """A standing cluster keeps its networks: nodes and Services have addresses of them."""
    return [
        Problem(
            f"host {host}",
            f"its cluster's {name} is {found}, which cannot be changed to {variables.get(name)}",
            f"put {name}: {found} back, or run playbooks/reset.yml to start anew",
        )
        for host, probe in sorted(probes.items())
        for name, found in sorted(probe.get("networks", {}).items())
        if found != variables.get(name)
    ]


def _python(
    where: str, found: Mapping[str, str], _probe: Mapping[str, Any], _settings: Mapping[str, Any]
) -> list[Problem]:
    if found.get("python", "").endswith("usable"):
        return []
    return [Problem(where, "has no Python 3.9 or newer", "run apt install python3 on it")]


def _system(
    where: str, found: Mapping[str, str], _probe: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Problem]:
    release = dict(re.findall(r"^(\w+)=\"?([^\"\n]*)\"?$", found.get("os", ""), re.MULTILINE))
    supported = settings["supported_systems"]
    name = " ".join(part for part in (release.get("ID"), release.get("VERSION_ID")) if part)
    if name in supported:
        return []
    what = f"runs {release.get('PRETTY_NAME') or name or 'an unknown system'}, which is not supported"
    return [Problem(where, what, f"install one of {', '.join(supported)}")]


def _machine(
    where: str, found: Mapping[str, str], _probe: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Problem]:
    machine = found.get("machine") or "of an unknown architecture"
    wanted = settings["machine"]
    if machine == wanted:
        return []
    return [Problem(where, f"is {machine}, the artifacts are for {wanted}", f"use a machine with {wanted}")]


def _root(
    where: str, found: Mapping[str, str], probe: Mapping[str, Any], _settings: Mapping[str, Any]
) -> list[Problem]:
    if probe["root"]:
        return []
    user = found.get("user", "an unknown user")
    if probe["become"]:
        what = f"{user} cannot become root ({probe['become_reason']})"
        return [Problem(where, what, f"allow {user} passwordless sudo, or set ansible_become_password in the vault")]
    return [Problem(where, f"Ansible logs in as {user}, not root", "set ansible_user: root, or ansible_become: true")]


def _swap(
    where: str, found: Mapping[str, str], _probe: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Problem]:
    devices = [line.split()[0] for line in found.get("swaps", "").splitlines()[1:] if line.strip()]
    if not devices or settings["allow_swap"]:
        return []
    what = f"has swap on ({', '.join(devices)})"
    return [Problem(where, what, "run swapoff -a on it and remove the swap lines from /etc/fstab")]


def _memory(
    where: str, found: Mapping[str, str], _probe: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Problem]:
    match = re.search(r"^MemTotal:\s+(\d+) kB", found.get("memory", ""), re.MULTILINE)
    have, need = int(match[1]) // 1024 if match else 0, int(settings["min_memory_mib"])
    if have >= need:
        return []
    return [
        Problem(
            where, f"has {have} MiB of memory, {need} are needed", "give it more, or lower preflight_min_memory_mib"
        )
    ]


def _disk(
    where: str, found: Mapping[str, str], _probe: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Problem]:
    lines = found.get("disk", "").splitlines()
    numbers = [int(word) // 1024 for word in (lines[-1].split() if lines else []) if word.isdigit()]
    size, _used, free = numbers[:3] if len(numbers) >= 3 else (0, 0, 0)
    problems = []
    for have, unit, name in ((size, "of disk", "min_disk_mib"), (free, "of disk free", "min_free_disk_mib")):
        if have < int(settings[name]):
            what = f"has {have} MiB {unit} at /var/lib, {settings[name]} are needed"
            problems.append(Problem(where, what, f"give it more, or lower preflight_{name}"))
    return problems


def _clock(
    where: str, _found: Mapping[str, str], probe: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Problem]:
    """The host read its clock between two readings of ours, so only what lies outside of the two is skew."""
    try:
        theirs = float(probe["time"])
    except ValueError:
        return [Problem(where, "its clock cannot be read", "see what `date +%s.%N` prints on it")]
    skew = max(theirs - probe["time_after"], probe["time_before"] - theirs)
    if skew <= float(settings["max_clock_skew_seconds"]):
        return []
    side = "ahead of" if theirs > probe["time_after"] else "behind"
    what = f"its clock is {skew:.0f} s {side} the control host's"
    return [Problem(where, what, "synchronise both with NTP (apt install systemd-timesyncd)")]


def _cluster(
    where: str, _found: Mapping[str, str], probe: Mapping[str, Any], _settings: Mapping[str, Any]
) -> list[Problem]:
    if probe["cluster"] != "foreign":
        return []
    what = "its cluster was made with another vault_k3s_token, which a run cannot change"
    return [Problem(where, what, "put the old one back in the vault, or run playbooks/reset.yml to start anew")]
