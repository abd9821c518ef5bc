"""What connects to what, tried out of the services' own containers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kubernetes.stream import stream

from .cluster import Cluster, Object, ready

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
with ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(reached, targets))))
"""


def flows(cluster: Cluster) -> Iterator[str]:
    """Out of each service's own container: what its entry allows connects, everything else does not."""
    listeners = [(entry, int(entry["port"])) for entry in cluster.services + cluster.parameters["infrastructure"]]
    for entry in cluster.services:
        listeners += [(entry, int(port["port"])) for port in entry.get("ports") or []]
    for entry in cluster.services:
        source = next((pod for pod in cluster.pods_of(entry) if ready(pod)), None)
        if source is None:
            yield f"{entry['name']} has no ready pod to connect from"
            continue
        allowed = {
            (peer["namespace"], peer["service"], int(peer["port"]))
            for peer in entry.get("connects_to") or []
            if "service" in peer
        }
        targets = [
            ((peer["namespace"], peer["name"], port), pod["status"]["podIP"])
            for peer, port in listeners
            for pod in cluster.pods_of(peer)[:1]
            if (peer["namespace"], peer["name"]) != (entry["namespace"], entry["name"]) and ready(pod)
        ]
        addresses = [(address, target[2]) for target, address in targets]
        # What is allowed is tried by name too, as the service itself does it: DNS and the Service are part of it.
        names = [(f"{name}.{namespace}.svc", port) for namespace, name, port in sorted(allowed)]
        reached = _connect(cluster, source, [*addresses, *names])
        for (target, address), connected in zip(targets, reached, strict=False):
            namespace, name, port = target
            if connected != (target in allowed):
                verb = "can connect to" if connected else "cannot connect to"
                rule = "no connects_to allows" if connected else "connects_to allows"
                yield f"{entry['name']} {verb} {namespace}/{name}:{port} ({address}), which {rule}"
        for (name, port), connected in zip(names, reached[len(addresses) :], strict=True):
            if not connected:
                yield f"{entry['name']} cannot connect to {name}:{port}, which connects_to allows"


def _connect(cluster: Cluster, pod: Object, targets: list[tuple[str, int]]) -> list[bool]:
    answer = stream(
        cluster.streaming.connect_get_namespaced_pod_exec,
        pod["metadata"]["name"],
        pod["metadata"]["namespace"],
        container=pod["spec"]["containers"][0]["name"],
        command=["python3", "-c", CONNECT, json.dumps(targets)],
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
