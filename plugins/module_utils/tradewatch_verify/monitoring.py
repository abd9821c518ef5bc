"""Prometheus, and what it says of the services."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from .cluster import Cluster
from .prometheus import Prometheus


def _prometheus(cluster: Cluster) -> Prometheus:
    endpoint = json.loads(Path(cluster.parameters["endpoints_file"]).read_text())["prometheus"]
    if not endpoint:
        raise ValueError("endpoints.json names no Prometheus")
    return Prometheus(endpoint)


def targets_are_up(cluster: Cluster) -> Iterator[str]:
    """Every annotated Service is an up target, and every replica behind it one more."""
    annotated = {
        (namespace, service["metadata"]["name"])
        for namespace in cluster.namespaces
        for service in cluster.items(cluster.core.list_namespaced_service, namespace)
        if (service["metadata"].get("annotations") or {}).get("prometheus.io/scrape") == "true"
    }
    replicas = {(entry["namespace"], entry["name"]): entry.get("replicas", 1) for entry in cluster.services}
    for key in sorted(set(replicas) - annotated):
        yield f"{'/'.join(key)}: its Service is not annotated"
    prometheus = _prometheus(cluster)

    def problems() -> list[str]:
        services = prometheus.query('min by (namespace, service) (up{job="kubernetes-services-metrics"})')
        pods = prometheus.query('sum by (namespace, service) (up{job="kubernetes-pods-metrics"})')
        found = [f"{'/'.join(key)} is no up target" for key in sorted(annotated) if services.get(key) != 1]
        found += [
            f"{'/'.join(key)}: {pods.get(key, 0):.0f} replicas are up targets, expected {count}"
            for key, count in sorted(replicas.items())
            if pods.get(key) != count
        ]
        return found

    yield from cluster.poll(problems)


def prometheus_wants_its_password(cluster: Cluster) -> Iterator[str]:
    """Without credentials the answer is 401."""
    status = _prometheus(cluster).status_without_password()
    if status != 401:
        yield f"Prometheus answers {status} without a password, expected 401"


def market_data_flows(cluster: Cluster) -> Iterator[str]:
    """Messages arrive for every product of every collector."""
    prometheus = _prometheus(cluster)
    wanted = {
        (entry["environment"]["TRADEWATCH_EXCHANGE"], product)
        for entry in cluster.services
        if entry["run"] == "market-data-collector"
        for product in entry["environment"]["TRADEWATCH_PRODUCTS"].split(",")
    }

    def problems() -> list[str]:
        rates = prometheus.query("sum by (exchange, product_id) (rate(market_data_messages_total[1m]))")
        return [f"no messages from {'/'.join(key)}" for key in sorted(wanted) if not rates.get(key, 0) > 0]

    yield from cluster.poll(problems)
