"""The monitoring itself, and what it says of the platform."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .cluster import Cluster
from .endpoints import Endpoint, Loki, Prometheus

PUBLISHED = TypeVar("PUBLISHED", bound=Endpoint)
LOG_SECONDS = 600
JOBS_OF_SERVICES = ("kubernetes-services-metrics", "kubernetes-pods-metrics", "external")


def _published(cluster: Cluster, kind: Callable[[dict[str, str | None]], PUBLISHED], name: str) -> PUBLISHED:
    endpoint = json.loads(Path(cluster.parameters["endpoints_file"]).read_text()).get(name)
    if not endpoint:
        raise ValueError(f"endpoints.json names no {name}")
    return kind(endpoint)


def _prometheus(cluster: Cluster) -> Prometheus:
    return _published(cluster, Prometheus, "prometheus")


def targets_are_up(cluster: Cluster) -> Iterator[str]:
    """Every annotated Service is an up target, every replica behind it one more, and no target of any job is down."""
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
    yield from cluster.poll(lambda: list(target_problems(prometheus.targets(), annotated, replicas)))


def target_problems(
    targets: list[dict[str, Any]], annotated: set[tuple[str, str]], replicas: dict[tuple[str, str], int]
) -> Iterator[str]:
    """What is wrong with Prometheus' targets; services are given as (namespace, name)."""

    def up(job: str) -> Counter[tuple[str, str]]:
        found = [target["labels"] for target in targets if target["health"] == "up" and target["labels"]["job"] == job]
        return Counter((labels["namespace"], labels["service"]) for labels in found)

    services, pods = up("kubernetes-services-metrics"), up("kubernetes-pods-metrics")
    yield from (f"{'/'.join(key)} is no up target" for key in sorted(annotated) if services[key] != 1)
    for key, count in sorted(replicas.items()):
        if pods[key] != count:
            yield f"{'/'.join(key)}: {pods[key]} replicas are up targets, expected {count}"
    # Those of the services are named above, and what is outside the cluster is nobody's to verify here.
    for target in targets:
        labels = target["labels"]
        if target["health"] == "down" and labels["job"] not in JOBS_OF_SERVICES:
            yield f"{labels['job']} {labels['instance']} is down: {target['lastError']}"


def passwords_are_wanted(cluster: Cluster) -> Iterator[str]:
    """Without credentials the answer is 401."""
    for name in ("prometheus", "alertmanager", "dashboards"):
        status = _published(cluster, Endpoint, name).status_without_password()
        if status != 401:
            yield f"{name} answers {status} without a password, expected 401"


def rules_are_evaluated(cluster: Cluster) -> Iterator[str]:
    """No rule fails, and the Watchdog, an alert that fires while people can be told, reaches Alertmanager."""
    prometheus = _prometheus(cluster)

    def problems() -> list[str]:
        found = prometheus.broken_rules()
        if not prometheus.query('sum(ALERTS{alertname="Watchdog", alertstate="firing"}) > 0'):
            found.append("the Watchdog does not fire: is alert-notifier up, and do its receivers take what it sends?")
        elif not prometheus.query("sum(alertmanager_alerts_received_total) > 0"):
            found.append("the Watchdog has not reached Alertmanager")
        return found

    yield from cluster.poll(problems)


def logs_are_kept(cluster: Cluster) -> Iterator[str]:
    """Loki has new lines of every namespace and of every node."""
    loki = _published(cluster, Loki, "loki")
    wanted = {"namespace": set(cluster.namespaces), "node": set(cluster.nodes)}

    def problems() -> list[str]:
        return [
            f"no line of {label} {value} in the last {LOG_SECONDS} s"
            for label, values in wanted.items()
            for value in sorted(values - loki.label_values(label, LOG_SECONDS))
        ]

    yield from cluster.poll(problems)


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
