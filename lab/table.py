"""The one table that `make lab` ends with: hosts, nodes, what runs where, addresses, and how long each stage took."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab import paths
from lab.hosts import Lab
from lab.steps import run


def _get(kind: str) -> list[dict[str, Any]]:
    kubectl: list[str | Path] = [paths.lab_dir() / "bin" / "kubectl", "--kubeconfig", paths.lab_dir() / "kubeconfig"]
    items: list[dict[str, Any]] = json.loads(run([*kubectl, "get", kind, "--all-namespaces", "-o", "json"]))["items"]
    return items


def show(lab: Lab, endpoints: dict[str, Any], seconds: dict[str, float]) -> None:
    """Print the table to stdout."""
    running = defaultdict(list)
    for pod in _get("pods"):
        if pod["status"].get("phase") == "Running":
            running[pod["spec"].get("nodeName")].append(f"{pod['metadata']['namespace']}/{_workload(pod)}")
    nodes = {node["metadata"]["name"]: node for node in _get("nodes")}
    table = Table(title=f"Tradewatch lab {lab.name}", show_lines=True)
    for column in ("host", "address", "node", "role", "runs"):
        table.add_column(column, overflow="fold")
    for host, address in lab.hosts.items():
        node = nodes.get(host)
        if node is None:
            table.add_row(host, address, "not a node", "", "")
            continue
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
        version = node["status"]["nodeInfo"]["kubeletVersion"]
        role = node["metadata"]["labels"].get("tradewatch/role", "none")
        state = f"{'Ready' if ready else 'NotReady'} {version}"
        table.add_row(host, address, state, role, "\n".join(sorted(running[host])))
    for name, endpoint in endpoints.items():
        if endpoint:
            table.add_row(name, endpoint["url"], "", "", _login(endpoint))
    table.add_row("stages", "", "", "", "\n".join(f"{name}: {value:.0f} s" for name, value in seconds.items()))
    Console(width=160).print(table)


def _workload(pod: dict[str, Any]) -> str:
    """What a pod is of, without the parts of its name that change."""
    labels: dict[str, str] = pod["metadata"].get("labels", {})
    return labels.get("app.kubernetes.io/name") or labels.get("k8s-app") or str(pod["metadata"]["name"])


def _login(endpoint: dict[str, Any]) -> str:
    parts = {
        "user": endpoint.get("username"),
        "password in": endpoint.get("password_file"),
        "CA": endpoint.get("ca_file"),
    }
    return "\n".join(f"{name} {value}" for name, value in parts.items() if value)
