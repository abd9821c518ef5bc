"""What every check looks at: the API, and what the inventory and the hosts say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kubernetes import client, config

Object = dict[str, Any]

PROBE_LABEL = "tradewatch.io/verify"
PROBE_NAMESPACE = "crypto-collectors"


def ready(item: Object) -> bool:
    """Whether a node's or pod's condition Ready is true."""
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


class Cluster:
    """The cluster as it was found, and the parameters of the module platform_verify.

    Attributes:
        read_only: nothing may be made in the cluster.
        deadline: until when to wait for what takes time, on the monotonic clock.
        nodes: by name.
        pods: those of the platform's namespaces.
    """

    def __init__(self, parameters: Object, read_only: bool) -> None:
        self.parameters = parameters
        self.read_only = read_only
        self.deadline = time.monotonic() + parameters["timeout_seconds"]
        self.api_client = config.new_client_from_config(config_file=parameters["kubeconfig"])
        self.core = client.CoreV1Api(self.api_client)
        self.namespaces = [entry["name"] for entry in parameters["namespaces"]]
        self.services: list[Object] = parameters["services"]
        self.nodes = {node["metadata"]["name"]: node for node in self.items(self.core.list_node)}
        self.pods = [
            pod
            for namespace in self.namespaces
            for pod in self.items(self.core.list_namespaced_pod, namespace)
            if PROBE_LABEL not in pod["metadata"].get("labels", {})
        ]

    def streaming(self) -> client.CoreV1Api:
        """An API for one stream(), which replaces its client's way of sending requests while it opens."""
        return client.CoreV1Api(config.new_client_from_config(config_file=self.parameters["kubeconfig"]))

    def items(self, call: Callable[..., Any], *arguments: str) -> list[Object]:
        """What a list call of the client answers."""
        listed: Object = self.api_client.sanitize_for_serialization(call(*arguments, _request_timeout=(5, 60)))
        return listed["items"] or []

    def pods_of(self, entry: Object) -> list[Object]:
        """The pods of a service or of a part of the infrastructure that are not being deleted."""
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["namespace"] == entry["namespace"]
            and pod["metadata"].get("labels", {}).get("app.kubernetes.io/name") == entry["name"]
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def poll(self, problems: Callable[[], list[str]]) -> list[str]:
        """The problems, once there are none or the time is over."""
        while True:
            try:
                found = problems()
            except (OSError, ValueError, KeyError) as error:
                found = [f"no answer: {error}"]
            if not found or time.monotonic() >= self.deadline:
                return found
            time.sleep(2)
