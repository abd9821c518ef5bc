"""What runs, and what the namespaces deny."""

from __future__ import annotations

from collections.abc import Iterator

from kubernetes import client

from .cluster import Cluster, ready


def pods_run(cluster: Cluster) -> Iterator[str]:
    """Every service has its replicas, ready, on nodes of its role."""
    for entry in cluster.services + cluster.parameters["infrastructure"]:
        title = f"{entry['namespace']}/{entry['name']}"
        pods = cluster.pods_of(entry)
        wanted = entry.get("replicas", 1)
        if len(pods) != wanted:
            yield f"{title}: {len(pods)} pods, expected {wanted}"
        for pod in pods:
            if not ready(pod):
                yield f"{title}: pod {pod['metadata']['name']} is not ready"
            node = cluster.nodes.get(pod["spec"].get("nodeName", ""), {})
            role = node.get("metadata", {}).get("labels", {}).get("tradewatch/role")
            if role != entry["node_role"]:
                where = f"a node of role {role}, not {entry['node_role']}"
                yield f"{title}: pod {pod['metadata']['name']} runs on {where}"


def default_deny(cluster: Cluster) -> Iterator[str]:
    """Every namespace refuses ingress and egress that no policy allows."""
    api = client.NetworkingV1Api(cluster.api_client)
    for namespace in cluster.namespaces:
        denied = {
            direction
            for policy in cluster.items(api.list_namespaced_network_policy, namespace)
            if not any((policy["spec"].get("podSelector") or {}).values())
            for direction in policy["spec"].get("policyTypes") or []
            if not policy["spec"].get(direction.lower())
        }
        for direction in sorted({"Ingress", "Egress"} - denied):
            yield f"{namespace}: no NetworkPolicy denies all {direction.lower()}"
