"""What connects to what, tried out of the services' own containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from kubernetes.stream import stream

from .cluster import Cluster, Object, ready

# Namespace, name and port.
Listener = tuple[str, str, int]

SOURCES_AT_ONCE = 8
# Run in a service's own container: tries all targets at once and prints which could be reached.
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(target):
    try:
        socket.create_connection(tuple(target), timeout=3).close()
        return True
    except OSError:
        return False
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(pool.map(reached, targets))))
"""


@dataclass(frozen=True)
class Attempts:
    """What is tried out of one service's container.

    Attributes:
        entry: the service.
        source: a ready pod of it.
        targets: namespace, name and port of each listener, with the address of a pod of it.
        names: host names and ports of what is allowed.
        allowed: namespace, name and port of what is allowed.
    """

    entry: Object
    source: Object
    targets: list[tuple[Listener, str]]
    names: list[tuple[str, int]]
    allowed: set[Listener]


def flows(cluster: Cluster) -> Iterator[str]:
    """Out of each service's own container: what its entry allows connects, everything else does not."""
    listeners = [(entry, int(entry["port"])) for entry in cluster.services + cluster.parameters["infrastructure"]]
    for entry in cluster.services:
        listeners += [(entry, int(port["port"])) for port in entry.get("ports") or []]
    # What may be left out, such as Grafana, is in no table here; it is tried where it is there.
    present = {(peer["namespace"], peer["name"]) for peer, _ in listeners} | {
        (service["metadata"]["namespace"], service["metadata"]["name"])
        for namespace in cluster.namespaces
        for service in cluster.items(cluster.core.list_namespaced_service, namespace)
    }
    attempts = []
    for entry in cluster.services:
        source = next((pod for pod in cluster.pods_of(entry) if ready(pod)), None)
        if source is None:
            yield f"{entry['name']} has no ready pod to connect from"
        else:
            attempts.append(_attempts(cluster, entry, source, listeners, present))
    # A refused connection is seen only by its time being over: the services wait side by side.
    with ThreadPoolExecutor(SOURCES_AT_ONCE) as pool:
        for attempt, reached in zip(attempts, pool.map(partial(_connect, cluster), attempts), strict=True):
            yield from _differences(attempt, reached)


def _attempts(
    cluster: Cluster,
    entry: Object,
    source: Object,
    listeners: list[tuple[Object, int]],
    present: set[tuple[str, str]],
) -> Attempts:
    allowed = {
        (peer["namespace"], peer["service"], int(peer["port"]))
        for peer in entry.get("connects_to") or []
        if "service" in peer and (peer["namespace"], peer["service"]) in present
    }
    targets = [
        ((peer["namespace"], peer["name"], port), pod["status"]["podIP"])
        for peer, port in listeners
        for pod in cluster.pods_of(peer)[:1]
        if (peer["namespace"], peer["name"]) != (entry["namespace"], entry["name"]) and ready(pod)
    ]
    # What is allowed is tried by name too, as the service itself does it: DNS and the Service are part of it.
    names = [(f"{name}.{namespace}.svc", port) for namespace, name, port in sorted(allowed)]
    return Attempts(entry, source, targets, names, allowed)


def _differences(attempt: Attempts, reached: list[bool]) -> Iterator[str]:
    name = attempt.entry["name"]
    for (target, address), connected in zip(attempt.targets, reached, strict=False):
        if connected != (target in attempt.allowed):
            verb = "can connect to" if connected else "cannot connect to"
            rule = "no connects_to allows" if connected else "connects_to allows"
            namespace, peer, port = target
            yield f"{name} {verb} {namespace}/{peer}:{port} ({address}), which {rule}"
    for (host, port), connected in zip(attempt.names, reached[len(attempt.targets) :], strict=True):
        if not connected:
            yield f"{name} cannot connect to {host}:{port}, which connects_to allows"


def _connect(cluster: Cluster, attempt: Attempts) -> list[bool]:
    pod = attempt.source
    addresses = [(address, target[2]) for target, address in attempt.targets]
    answer = stream(
        cluster.streaming().connect_get_namespaced_pod_exec,
        pod["metadata"]["name"],
        pod["metadata"]["namespace"],
        container=pod["spec"]["containers"][0]["name"],
        command=["python3", "-c", CONNECT, json.dumps([*addresses, *attempt.names])],
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    answer.run_forever(timeout=60)
    output = answer.read_stdout() or ""
    if answer.returncode != 0:
        raise ValueError(f"{pod['metadata']['name']}: {(answer.read_stderr() or 'no answer').strip()}")
    reached: list[bool] = json.loads(output)
    return reached
