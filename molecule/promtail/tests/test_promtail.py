"""Promtail by what is in Loki: every node's pods, the journal, the audit log, pods that misbehave, and an outage."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from lab_cluster import Cluster, Object, eventually, pod, samples
from loki_api import Loki
from testinfra.host import Host

NAMESPACE = "crypto-monitoring"
PROBE_NAMESPACE = "crypto-collectors"
NODES = {"control-1", "collectors-1", "trading-1", "analytics-1"}
PROBE_NODE = "collectors-1"
# Tells this run's pods and lines from those of a run before it.
RUN = str(time.time_ns())
TRACE = f"molecule-{RUN}"
# Ten lines a second, numbered, with their own time.
TICK = f"""
import itertools, json, time
for number in itertools.count():
    line = {{"level": "info", "event": "tick", "number": number, "trace_id": "{TRACE}", "at": time.time()}}
    print(json.dumps(line), flush=True)
    time.sleep(0.1)
"""
TRACEBACK = """
import signal, traceback
def read():
    raise ValueError('stale')
try:
    read()
except ValueError:
    traceback.print_exc()
signal.pause()
"""
# What is no text; then 5 MB without an end, in the middle of which it writes to the other stream.
LONG_BYTES = 5_000_000
BINARY = f"""
import os, signal
def write(stream, data):
    while data:
        data = data[os.write(stream, data):]
write(1, b"binary \\x00\\x01\\xff\\xfe end\\n")
write(1, b"x" * {LONG_BYTES // 2})
write(2, b"beside\\n")
write(1, b"x" * {LONG_BYTES // 2} + b"\\nthe last\\n")
signal.pause()
"""
# On a signal, lines of 200 bytes as fast as they are taken.
FLOOD_BYTES = 60_000_000
FLOOD = f"""
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("calm", flush=True)
signal.sigwait([signal.SIGUSR1])
block = (b"y" * 199 + b"\\n") * 320
left = {FLOOD_BYTES}
while left > 0:
    left -= os.write(1, block)
signal.pause()
"""
# roles/promtail: what a line is cut to, and how many of one pod's the scenario lets through at once.
MAX_LINE_BYTES = 262144
BURST_LINES = 60_000
# The pod's time to end.
GRACE_SECONDS = 30
# The kubelet's containerLogMaxSize.
ROTATED_BYTES = 10 * 2**20


@pytest.fixture(scope="module")
def loki(lab_dir: Path) -> Loki:
    return Loki(lab_dir)


def python_pod(cluster: Cluster, name: str, program: str) -> Object:
    """A pod that runs a Python program, named as a service of its own."""
    labels = {"app.kubernetes.io/name": name}
    return pod(
        PROBE_NAMESPACE, f"{name}-{RUN}", cluster.services_image(), "collectors", ["python3", "-c", program], labels
    )


@pytest.fixture(scope="module", autouse=True)
def probes(cluster: Cluster) -> None:
    """The pods that these tests watch: started together, they are known together."""
    programs = {"log-ticks": TICK, "log-traceback": TRACEBACK, "log-binary": BINARY}
    cluster.make(*(python_pod(cluster, name, program) for name, program in programs.items()))


@pytest.fixture(scope="module")
def ticks(loki: Loki) -> str:
    """The query for the ticking pod's lines, which are there."""
    query = f'{{service="log-ticks"}} | trace_id="{TRACE}"'
    eventually(lambda: loki.lines(query), "the first tick", 60)
    return query


def numbers(loki: Loki, query: str, since: float | None = None) -> list[int]:
    return sorted(json.loads(line)["number"] for line in loki.lines(query, since))


def newest_tick(loki: Loki, query: str) -> Object:
    return dict(json.loads(loki.newest(query)))


def none_is_missing(loki: Loki, query: str, first: Object) -> bool:
    """Whether every tick from the first to the newest is there, once: no more than a query gives."""
    newest = newest_tick(loki, query)["number"]
    found = numbers(loki, query, since=first["at"])
    assert found[-1] >= newest, "there are more ticks than a query gives"
    return found == list(range(first["number"], found[-1] + 1))


def promtail_of_the_probes(cluster: Cluster) -> Object:
    """The pod of Promtail on the probes' node."""
    (found,) = [item for item in cluster.pods(NAMESPACE, "promtail") if item["spec"]["nodeName"] == PROBE_NODE]
    return dict(found)


def promtail_metrics(cluster: Cluster, hosts: dict[str, Host]) -> dict[str, float]:
    """What Promtail of the probes' node exports, asked from that node."""
    address = promtail_of_the_probes(cluster)["status"]["podIP"]
    return samples(hosts[PROBE_NODE].check_output(f"curl --silent --fail --noproxy '*' http://{address}:9080/metrics"))


def test_it_runs_on_every_node(cluster: Cluster) -> None:
    def nodes() -> bool:
        return {item["spec"]["nodeName"] for item in cluster.pods(NAMESPACE, "promtail")} == NODES

    eventually(nodes, "a Promtail on every node", 60)


def test_line_with_a_trace_is_queryable_within_ten_seconds(loki: Loki, ticks: str) -> None:
    # The first lines of a new pod wait for its discovery; what counts is a line of a pod that is known.
    seen = set(numbers(loki, ticks))
    delays: list[float] = []
    while len(delays) < 30:
        for line in map(json.loads, loki.lines(ticks)):
            if line["number"] not in seen:
                seen.add(line["number"])
                delays.append(time.time() - line["at"])
        time.sleep(0.2)
    print(f"log line to query: {max(delays):.1f} s at most")
    assert max(delays) < 10
    labels, _ = loki.streams(ticks)[0]
    assert labels.pop("trace_id") == TRACE
    assert labels == {
        "job": "kubernetes-pods",
        "cluster": "lab",
        "namespace": PROBE_NAMESPACE,
        "service": "log-ticks",
        "pod": f"log-ticks-{RUN}",
        "container": labels["container"],
        "node": PROBE_NODE,
        "level": "info",
    }


def test_traceback_is_one_entry(loki: Loki) -> None:
    found = eventually(lambda: loki.streams(f'{{pod="log-traceback-{RUN}"}}'), "the traceback", 60)
    [(labels, entry)] = found
    assert labels["level"] == "error"
    assert entry.startswith("Traceback (most recent call last):")
    assert entry.endswith("ValueError: stale")


@pytest.mark.parametrize("node", sorted(NODES))
def test_pods_and_journal_of_every_node_are_there(loki: Loki, node: str) -> None:
    for job in ("kubernetes-pods", "journal"):
        eventually(lambda: loki.lines(f'{{job="{job}", node="{node}"}}'), f"{job} of {node}", 60)  # noqa: B023


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


def test_binary_and_endless_lines_are_contained_and_named(cluster: Cluster, hosts: dict[str, Host], loki: Loki) -> None:
    query = f'{{pod="log-binary-{RUN}"}}'
    eventually(lambda: "the last" in loki.lines(query), "the line after them", 60)
    found = loki.lines(query)
    assert sorted(line for line in found if not line.startswith("x")) == [
        "beside",
        "binary " + 4 * "\ufffd" + " end",
        "the last",
    ]
    assert [len(line) for line in found if line.startswith("x")] == [MAX_LINE_BYTES]
    counted = [
        value
        for series, value in promtail_metrics(cluster, hosts).items()
        if series.startswith("promtail_custom_binary_lines_total{")
        and f'namespace="{PROBE_NAMESPACE}",' in series
        and f'pod="log-binary-{RUN}",' in series
    ]
    assert counted == [1]


def test_flood_of_one_pod_is_contained_and_named_and_the_others_go_on(
    cluster: Cluster, hosts: dict[str, Host], loki: Loki, ticks: str
) -> None:
    metric = "logentry_dropped_lines_by_label_total{"

    def dropped() -> dict[str, float]:
        return {
            series: value for series, value in promtail_metrics(cluster, hosts).items() if series.startswith(metric)
        }

    name = f"log-flood-{RUN}"
    before, first = dropped(), newest_tick(loki, ticks)
    cluster.start(python_pod(cluster, "log-flood", FLOOD))
    # The kubelet renames a full file within seconds, with what Promtail has not begun to read.
    eventually(lambda: loki.lines(f'{{pod="{name}"}}'), "the pod's first line", 60)
    cluster.execute(PROBE_NAMESPACE, name, "python3", "-c", "import os, signal; os.kill(1, signal.SIGUSR1)")
    delays: list[float] = []
    sizes: list[int] = [-1]

    def over() -> bool:
        """Whether nothing is written any more, lines were dropped, and the kubelet has begun a new file."""
        delays.append(time.time() - newest_tick(loki, ticks)["at"])
        # Between the renaming of a full file and the making of the next there is none.
        file = f"/var/log/pods/{PROBE_NAMESPACE}_{name}_*/probe/0.log"
        sizes.append(int(hosts[PROBE_NODE].run(f"stat --format %s {file}").stdout.strip() or -1))
        return max(sizes) > ROTATED_BYTES > sizes[-1] == sizes[-2] >= 0 and dropped() != before

    try:
        # Lines are dropped once Promtail has read the burst, which takes a busy machine minutes.
        eventually(over, "the flood is over", 300)
    finally:
        cluster.remove("pod", PROBE_NAMESPACE, name)
    print(f"ticks during a flood to query: {max(delays):.1f} s at most; largest file {max(sizes)} bytes")
    assert max(delays) < 10
    counted = {series: value for series, value in dropped().items() if value != before.get(series)}
    assert [f'label_value="{PROBE_NAMESPACE}/{name}"' in series for series in counted] == [True], counted
    assert 0 < sum(counted.values()) <= FLOOD_BYTES // 200 + 320 - BURST_LINES
    assert none_is_missing(loki, ticks, first), "a line of a calm pod is missing"


def test_outage_of_a_minute_loses_no_line(cluster: Cluster, loki: Loki, ticks: str) -> None:
    scale = ("scale", "statefulset/loki", "--namespace", NAMESPACE)
    first = newest_tick(loki, ticks)
    cluster.text(*scale, "--replicas=0")
    try:
        eventually(lambda: not cluster.pods(NAMESPACE, "loki"), "Loki is gone", 90)
        gone = time.monotonic()
        while time.monotonic() - gone < 60:
            time.sleep(1)
    finally:
        cluster.text(*scale, "--replicas=1")
    back = time.time()

    def caught_up() -> bool:
        return float(json.loads(loki.newest(ticks) or '{"at": 0}')["at"]) > back

    eventually(caught_up, "a line of after the outage", 120, despite=(OSError,))
    assert none_is_missing(loki, ticks, first)


def test_pod_ends_when_it_is_told_to(cluster: Cluster) -> None:
    """Not when its time to end is over: an update takes that time for every pod."""
    name = promtail_of_the_probes(cluster)["metadata"]["name"]
    told = time.monotonic()
    cluster.text("delete", "pod", name, "--namespace", NAMESPACE)
    assert time.monotonic() - told < GRACE_SECONDS / 2


def test_it_may_read_pods_and_nothing_else(cluster: Cluster) -> None:
    account = f"{NAMESPACE}:promtail"
    assert cluster.may(account, "list", "pods", "crypto-trading")
    for verb, what in [("get", "secrets"), ("delete", "pods"), ("get", "pods/log"), ("create", "pods/exec")]:
        assert not cluster.may(account, verb, what, "crypto-trading"), f"{verb} {what}"
