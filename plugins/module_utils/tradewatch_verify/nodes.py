"""The nodes against the inventory."""

from __future__ import annotations

from collections.abc import Iterator

from .cluster import Cluster, ready

CONTROL_PLANE_TAINT = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


def nodes_are_the_inventory(cluster: Cluster) -> Iterator[str]:
    """Exactly the inventory's hosts, Ready, in the version that their k3s says it is."""
    wanted = cluster.parameters["nodes"]
    for name in sorted(set(wanted) - set(cluster.nodes)):
        yield f"{name} is in the inventory and no node"
    for name in sorted(set(cluster.nodes) - set(wanted)):
        yield f"{name} is a node and not in the inventory"
    for name in sorted(set(cluster.nodes) & set(wanted)):
        status = cluster.nodes[name]["status"]
        if not ready(cluster.nodes[name]):
            yield f"{name} is not Ready"
        version = status["nodeInfo"]["kubeletVersion"]
        if version != wanted[name]["version"]:
            yield f"{name}: kubelet says {version}, k3s on the host {wanted[name]['version'] or 'does not answer'}"
        addresses = [entry["address"] for entry in status.get("addresses") or []]
        if wanted[name]["address"] not in addresses:
            yield f"{name}: the inventory's address {wanted[name]['address']} is not among {', '.join(addresses)}"


def labels_and_taints(cluster: Cluster) -> Iterator[str]:
    """The role label of every node, and the taint of the control plane and of nobody else."""
    for name, wanted in sorted(cluster.parameters["nodes"].items()):
        node = cluster.nodes.get(name)
        if node is None:
            continue
        role = node["metadata"].get("labels", {}).get("tradewatch/role")
        if role != wanted["role"]:
            yield f"{name}: label tradewatch/role is {role}, the inventory says {wanted['role']}"
        taints = [taint for taint in node["spec"].get("taints") or [] if taint["key"] == CONTROL_PLANE_TAINT["key"]]
        expected = [CONTROL_PLANE_TAINT["effect"]] if wanted["role"] == "control-plane" else []
        if [taint["effect"] for taint in taints] != expected:
            yield f"{name}: taint {CONTROL_PLANE_TAINT['key']} is {'missing' if expected else 'there'}"
