"""Promtail by what is in Loki: pods of every node, the journal, the audit log, and an outage that loses nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from lab_cluster import Cluster, eventually, pod
from loki_api import Loki

NAMESPACE = "crypto-monitoring"
PROBE_NAMESPACE = "crypto-collectors"
NODES = {"control-1", "collectors-1", "trading-1", "analytics-1"}
# A line a tick, numbered, with its own time.
COUNT = """
import json, time
for number in range({count}):
    line = {{"level": "info", "event": "tick", "number": number, "trace_id": "{trace}", "at": time.time()}}
    print(json.dumps(line), flush=True)
    time.sleep({pause})
time.sleep(600)
"""


@pytest.fixture(scope="module")
def loki(lab_dir: Path) -> Loki:
    return Loki(lab_dir)


def start(cluster: Cluster, name: str, program: str) -> None:
    """A pod that runs a Python program, named as a service of its own."""
    labels = {"app.kubernetes.io/name": name}
    command = ["python3", "-c", program]
    cluster.start(pod(PROBE_NAMESPACE, name, cluster.services_image(), "collectors", command, labels))


def test_it_runs_on_every_node(cluster: Cluster) -> None:
    def nodes() -> bool:
        return {item["spec"]["nodeName"] for item in cluster.pods(NAMESPACE, "promtail")} == NODES

    eventually(nodes, "a Promtail on every node", 60)


def test_line_with_a_trace_is_queryable_within_ten_seconds(cluster: Cluster, loki: Loki) -> None:
    trace = f"molecule-{time.time_ns()}"
    start(cluster, "log-probe", COUNT.format(count=30, pause=1, trace=trace))
    query = f'{{namespace="{PROBE_NAMESPACE}"}} | trace_id="{trace}"'
    # The first lines of a new pod wait for its discovery; what counts is a line of a pod that is known.
    eventually(lambda: loki.lines(query), "the first line", 60)
    seen = {json.loads(line)["number"] for line in loki.lines(query)}
    delays: list[float] = []
    while len(delays) < 5:
        for line in map(json.loads, loki.lines(query)):
            if line["number"] not in seen:
                seen.add(line["number"])
                delays.append(time.time() - line["at"])
        time.sleep(0.2)
    print(f"log line to query: {max(delays):.1f} s at most")
    assert max(delays) < 10
    labels, _ = loki.streams(query)[0]
    assert labels.pop("trace_id") == trace
    assert labels == {
        "job": "kubernetes-pods",
        "cluster": "lab",
        "namespace": PROBE_NAMESPACE,
        "service": "log-probe",
        "pod": "log-probe",
        "container": labels["container"],
        "node": "collectors-1",
        "level": "info",
    }


def test_traceback_is_one_entry(cluster: Cluster, loki: Loki) -> None:
    program = "import time\ndef read():\n    raise ValueError('stale')\ntry:\n    read()\nexcept ValueError:\n"
    start(cluster, "trace-probe", program + "    import traceback; traceback.print_exc()\ntime.sleep(600)")
    found = eventually(lambda: loki.streams('{service="trace-probe"}'), "the traceback", 60)
    [(labels, entry)] = found
    assert labels["level"] == "error"
    assert entry.startswith("Traceback (most recent call last):")
    assert entry.endswith("ValueError: stale")


@pytest.mark.parametrize("node", sorted(NODES))
def test_pods_and_journal_of_every_node_are_there(loki: Loki, node: str) -> None:
    for job in ("kubernetes-pods", "journal"):
        eventually(lambda job=job: loki.lines(f'{{job="{job}", node="{node}"}}'), f"{job} of {node}", 60)


def test_static_pods_of_the_control_plane_are_there(loki: Loki) -> None:
    eventually(lambda: loki.lines('{namespace="kube-system", node="control-1"}'), "lines of kube-system", 60)


def test_change_is_in_the_audit_stream(cluster: Cluster, loki: Loki) -> None:
    name = f"audited-{time.time_ns()}"
    cluster.text("create", "configmap", name, "--namespace", "default", "--from-literal=a=b")
    try:
        found = eventually(lambda: loki.streams(f'{{job="audit"}} |= "{name}"'), "the change", 30)
    finally:
        cluster.remove("configmap", "default", name)
    assert found[0][0]["node"] == "control-1"
    assert json.loads(found[0][1])["verb"] == "create"


def test_outage_of_a_minute_loses_no_line(cluster: Cluster, loki: Loki) -> None:
    trace = f"outage-{time.time_ns()}"
    count = 900
    start(cluster, "outage-probe", COUNT.format(count=count, pause=0.1, trace=trace))
    query = f'{{service="outage-probe"}} | trace_id="{trace}"'
    eventually(lambda: loki.lines(query), "the first line", 60)
    scale = ("scale", "statefulset/loki", "--namespace", NAMESPACE)
    cluster.text(*scale, "--replicas=0")
    try:
        eventually(lambda: not cluster.pods(NAMESPACE, "loki"), "Loki is gone", 90)
        gone = time.monotonic()
        while time.monotonic() - gone < 60:
            time.sleep(1)
    finally:
        cluster.text(*scale, "--replicas=1")
    cluster.ready_pod(NAMESPACE, "loki")

    def complete() -> bool:
        try:
            return len(loki.lines(query)) >= count
        except OSError:
            return False

    eventually(complete, "every line", 120)
    assert sorted(json.loads(line)["number"] for line in loki.lines(query)) == list(range(count))


def test_it_may_read_pods_and_nothing_else(cluster: Cluster) -> None:
    account = f"{NAMESPACE}:promtail"
    assert cluster.may(account, "list", "pods", "crypto-trading")
    for verb, what in [("get", "secrets"), ("delete", "pods"), ("get", "pods/log"), ("create", "pods/exec")]:
        assert not cluster.may(account, verb, what, "crypto-trading"), f"{verb} {what}"
