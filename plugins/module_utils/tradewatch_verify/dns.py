"""DNS, asked from a pod on every node."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kubernetes import client

from .cluster import PROBE_LABEL, PROBE_NAMESPACE, Cluster, Object
from .pods import restricted_pod

POD_PREFIX = "verify-dns-"
DNS_NAME = "kubernetes.default.svc.cluster.local"
RESOLVE = f"""
import socket, time
for attempt in range(10):
    try:
        print(socket.getaddrinfo("{DNS_NAME}", 443)[0][4][0])
        break
    except OSError as error:
        print(error)
        time.sleep(1)
else:
    raise SystemExit(1)
"""


def probe_image(node: Object, services_image: str | None) -> tuple[str, list[str]] | None:
    """An image that the node holds already, and the command with which it asks the cluster's DNS."""
    names = [name for image in node["status"].get("images") or [] for name in image.get("names") or []]
    if services_image in names:
        return str(services_image), ["python3", "-c", RESOLVE]
    busybox = next((name for name in names if "busybox" in name and "@" not in name), None)
    return (busybox, ["busybox", "nslookup", DNS_NAME]) if busybox else None


class DnsProbes:
    """Short-lived pods; they are started before the other checks, so that nobody waits for them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pods: list[str] = []

    def start(self) -> Iterator[str]:
        """Start a pod on every node; answers() collects them."""
        self._delete()
        deployments = client.AppsV1Api(self._cluster.api_client)
        images = [
            item["spec"]["template"]["spec"]["containers"][0]["image"]
            for item in self._cluster.items(deployments.list_namespaced_deployment, PROBE_NAMESPACE)
        ]
        for name, node in sorted(self._cluster.nodes.items()):
            found = probe_image(node, images[0] if images else None)
            if found is None:
                yield f"{name} holds neither the services' image nor busybox, so nothing can ask from there"
                continue
            self._cluster.core.create_namespaced_pod(PROBE_NAMESPACE, _probe(name, *found), _request_timeout=(5, 60))
            self._pods.append(f"{POD_PREFIX}{name}")

    def answers(self) -> Iterator[str]:
        """A pod on every node resolves a name of the cluster."""
        pending = set(self._pods)
        while pending:
            # Before the pods are read, so that of each of them something is said in the last round.
            over = time.monotonic() >= self._cluster.deadline
            for pod in self._cluster.items(self._cluster.core.list_namespaced_pod, PROBE_NAMESPACE):
                name, status = pod["metadata"]["name"], pod.get("status") or {}
                if name not in pending:
                    continue
                if status.get("phase") == "Succeeded":
                    pending.discard(name)
                elif status.get("phase") == "Failed" or over:
                    pending.discard(name)
                    yield f"{pod['spec']['nodeName']}: a pod there cannot resolve {DNS_NAME}: {self._why(pod)}"
            if over:
                break
            time.sleep(0.5 if pending else 0)
        for name in sorted(pending):
            yield f"{name.removeprefix(POD_PREFIX)}: the pod that asks from there is gone, so nothing is known"
        self._delete()

    def _why(self, pod: Object) -> str:
        states = [entry.get("state", {}) for entry in (pod.get("status") or {}).get("containerStatuses") or []]
        for state in states:
            if "waiting" in state:
                return f"{state['waiting'].get('reason')} {state['waiting'].get('message', '')}"
        try:
            log = self._cluster.core.read_namespaced_pod_log(pod["metadata"]["name"], PROBE_NAMESPACE, tail_lines=3)
        except client.ApiException:
            return str((pod.get("status") or {}).get("reason") or "it did not start")
        return " ".join(str(log).split())

    def _delete(self) -> None:
        self._cluster.core.delete_collection_namespaced_pod(
            PROBE_NAMESPACE, label_selector=PROBE_LABEL, grace_period_seconds=0, _request_timeout=(5, 60)
        )


def _probe(node_name: str, image: str, command: list[str]) -> Object:
    metadata = {"name": f"{POD_PREFIX}{node_name}", "labels": {PROBE_LABEL: "dns"}}
    return restricted_pod(metadata, image, command, nodeName=node_name, activeDeadlineSeconds=120)
