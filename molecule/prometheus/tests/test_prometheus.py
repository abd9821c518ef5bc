"""Prometheus by its API, asked from the control host: who may ask, what it scrapes, what its settings are."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_cluster import Cluster, eventually, services
from testinfra.host import Host

NAMESPACE = "crypto-monitoring"
JOBS = {
    "kubernetes-services-metrics",
    "kubernetes-pods-metrics",
    "prometheus",
    "alertmanager",
    "loki",
    "promtail",
    "node-exporter",
    "kube-state-metrics",
    "kubelet",
    "cadvisor",
    "apiserver",
    "etcd",
    "coredns",
}
# A target a node, or a target a server.
NODE_JOBS = {"promtail", "node-exporter", "kubelet", "cadvisor"}
SERVER_JOBS = {"apiserver", "etcd"}
SERVICES = set(services())
REPOSITORY = Path(__file__).resolve().parents[3]


class Prometheus:
    def __init__(self, lab_dir: Path) -> None:
        self.address = json.loads((lab_dir / "lab.json").read_text())["hosts"]["analytics-1"]
        self.password = json.loads((lab_dir / "secrets.json").read_text())["prometheus_password"]
        self.trusting = ssl.create_default_context(cafile=str(lab_dir / "ca.crt"))

    def open(self, path: str, context: ssl.SSLContext, password: str | None) -> Any:
        request = urllib.request.Request(f"https://{self.address}:30090{path}")
        if password is not None:
            credentials = base64.b64encode(f"tradewatch:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        return opener.open(request, timeout=10)

    def data(self, path: str) -> Any:
        with self.open(f"/api/v1/{path}", self.trusting, self.password) as response:
            return json.load(response)["data"]

    def config(self) -> Any:
        return yaml.safe_load(self.data("status/config")["yaml"])


@pytest.fixture(scope="module")
def prometheus(lab_dir: Path) -> Prometheus:
    return Prometheus(lab_dir)


@pytest.mark.parametrize("password", [None, "", "wrong"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/query?query=up", "/-/healthy"])
def test_stranger_is_refused(prometheus: Prometheus, path: str, password: str | None) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        prometheus.open(path, prometheus.trusting, password)
    assert refused.value.code == 401


def test_certificate_is_the_platform_s_own(prometheus: Prometheus) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        prometheus.open("/", ssl.create_default_context(), prometheus.password)


def test_every_target_of_every_job_is_up(prometheus: Prometheus) -> None:
    def problems() -> list[str]:
        targets = prometheus.data("targets?state=active")["activeTargets"]
        found = [f"{t['scrapeUrl']}: {t['health']} {t['lastError']}" for t in targets if t["health"] != "up"]
        jobs = {target["labels"]["job"] for target in targets}
        seen = {t["labels"]["service"] for t in targets if t["labels"]["job"] == "kubernetes-services-metrics"}
        return found + [f"no target of {name}" for name in sorted((JOBS - jobs) | (SERVICES - seen))]

    last: list[str] = []

    def none_left() -> bool:
        last[:] = problems()
        return not last

    try:
        eventually(none_left, "all targets are up", 60)
    except AssertionError as error:
        raise AssertionError("\n".join(last)) from error


def test_service_of_several_ports_is_one_target(prometheus: Prometheus) -> None:
    targets = prometheus.data("targets?state=active")["activeTargets"]
    urls = [t["scrapeUrl"] for t in targets if t["labels"].get("service") == "exchange-simulator"]
    services = [url for url in urls if ".svc:" in url]
    assert services == ["http://exchange-simulator.crypto-collectors.svc:8080/metrics"]


def test_retention_is_bounded_by_time_and_size(prometheus: Prometheus) -> None:
    flags = prometheus.data("status/flags")
    assert flags["storage.tsdb.retention.time"] == "15d"
    assert flags["storage.tsdb.retention.size"] in {"8GB", "8GiB"}
    assert flags["web.enable-admin-api"] == flags["web.enable-lifecycle"] == "false"


def names(prometheus: Prometheus, query: str, label: str) -> list[str]:
    """The label's values; none while a Prometheus that was just rolled cannot be reached yet."""
    try:
        found = prometheus.data("query?" + urllib.parse.urlencode({"query": query}))["result"]
    except urllib.error.URLError:
        return []
    return sorted(series["metric"].get(label, "") for series in found)


def test_every_node_and_every_server_is_a_target(prometheus: Prometheus, cluster: Cluster) -> None:
    nodes = {item["metadata"]["name"]: item["metadata"]["labels"] for item in cluster.get("nodes")["items"]}
    servers = sorted(name for name, labels in nodes.items() if "node-role.kubernetes.io/control-plane" in labels)
    for job in sorted(NODE_JOBS | SERVER_JOBS):
        wanted = sorted(nodes) if job in NODE_JOBS else servers
        eventually(
            lambda job=job, wanted=wanted: names(prometheus, f'up{{job="{job}"}} == 1', "node") == wanted,  # type: ignore[misc]
            f"{job} has the nodes {wanted}",
            90,
        )


def test_every_replica_is_a_target(prometheus: Prometheus, cluster: Cluster) -> None:
    """Pods behind annotated Services, as the API tells of them, and no other."""

    def running() -> list[str]:
        found = []
        for namespace in ("crypto-collectors", "crypto-trading", "crypto-monitoring"):
            for service in cluster.get("services", "--namespace", namespace)["items"]:
                if service["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true":
                    name = service["spec"]["selector"]["app.kubernetes.io/name"]
                    found += [pod["metadata"]["name"] for pod in cluster.pods(namespace, name)]
        return sorted(found)

    eventually(
        lambda: names(prometheus, 'up{job="kubernetes-pods-metrics"} == 1', "pod") == running(),
        "every replica is up",
        90,
    )


@pytest.mark.parametrize(
    "query",
    [
        # k3s serves all components from one registry: each series is stored by one job.
        "count by (__name__) ({__name__=~'apiserver_request_total|kubelet_running_pods', job!~'apiserver|kubelet'})",
        "count by (job) ({__name__=~'apiserver_.*', job='kubelet'})",
        "count by (job) ({__name__=~'kubelet_.*', job='apiserver'})",
    ],
)
def test_a_component_is_stored_once(prometheus: Prometheus, query: str) -> None:
    assert names(prometheus, query, "job") == []


@pytest.mark.parametrize(
    "metric",
    [
        "apiserver_request_total",
        "etcd_server_has_leader",
        "kubelet_running_pods",
        'container_memory_working_set_bytes{container="prometheus"}',
        "coredns_dns_responses_total",
        "node_memory_MemAvailable_bytes",
        "kube_pod_status_ready",
        "loki_request_duration_seconds_count",
        "alertmanager_notifications_failed_total",
        "scrape_sample_limit",
    ],
)
def test_a_metric_of_the_rules_is_there(prometheus: Prometheus, metric: str) -> None:
    eventually(lambda: names(prometheus, f"count({metric})", "job"), f"{metric} is stored", 60)


def test_rules_are_loaded_and_well(prometheus: Prometheus) -> None:
    def unwell() -> list[str]:
        groups = prometheus.data("rules")["groups"]
        assert {"infrastructure", "kubernetes", "control_plane", "monitoring"} <= {group["name"] for group in groups}
        rules = [rule for group in groups for rule in group["rules"]]
        return [
            f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}" for rule in rules if rule["health"] != "ok"
        ]

    eventually(lambda: not unwell(), "every rule was evaluated without an error", 120)
    firing = 'ALERTS{alertstate="firing"}'
    eventually(lambda: "Watchdog" in names(prometheus, firing, "alertname"), "the Watchdog fires", 60)


def test_alerts_reach_alertmanager(prometheus: Prometheus) -> None:
    found = prometheus.data("alertmanagers")["activeAlertmanagers"]
    assert [entry["url"] for entry in found] == [f"https://alertmanager.{NAMESPACE}.svc:9093/api/v2/alerts"]
    eventually(lambda: names(prometheus, "prometheus_notifications_sent_total > 0", "job"), "an alert was sent", 120)
    assert names(prometheus, "prometheus_notifications_errors_total > 0", "job") == []


def test_a_rule_cannot_be_edited_by_hand(cluster: Cluster) -> None:
    (rules,) = [
        item["metadata"]["name"]
        for item in cluster.get("configmaps", "--namespace", NAMESPACE)["items"]
        if item["metadata"]["name"].startswith("prometheus-rules-")
    ]
    patch = json.dumps({"data": {"monitoring.yml": "groups: []"}})
    refused = cluster.run("patch", "configmap", rules, "--namespace", NAMESPACE, "--type=merge", "-p", patch)
    assert refused.returncode != 0
    assert "immutable" in refused.stderr


def test_configuration_has_the_jobs_and_the_cluster_s_name(prometheus: Prometheus) -> None:
    config = prometheus.config()
    assert {job["job_name"] for job in config["scrape_configs"]} == JOBS
    assert config["global"]["external_labels"] == {"cluster": "lab"}


@pytest.mark.parametrize("name", ["control-1", "collectors-1", "trading-1"])
def test_published_port_is_for_the_admins_alone(hosts: dict[str, Host], prometheus: Prometheus, name: str) -> None:
    reach = "timeout 3 bash -c '</dev/tcp/{}/{}'"
    assert hosts[name].run(reach.format(prometheus.address, 22)).rc == 0, "the host reaches nothing there"
    assert hosts[name].run(reach.format(prometheus.address, 30090)).rc != 0


def test_it_may_discover_and_nothing_else(cluster: Cluster) -> None:
    account = f"{NAMESPACE}:prometheus"
    assert cluster.may(account, "list", "endpointslices.discovery.k8s.io", "crypto-collectors")
    assert cluster.may(account, "get", "nodes/metrics", "default")
    for verb, what, namespace in [
        ("get", "secrets", "crypto-collectors"),
        ("get", "secrets", NAMESPACE),
        ("delete", "pods", "crypto-collectors"),
        ("get", "secrets", "kube-system"),
        ("list", "pods", "default"),
        ("get", "nodes/proxy", "default"),
        ("get", "nodes/log", "default"),
    ]:
        assert not cluster.may(account, verb, what, namespace), f"{verb} {what} in {namespace}"


def test_it_runs_as_nobody_on_a_file_system_it_cannot_write(hosts: dict[str, Host], cluster: Cluster) -> None:
    cluster.ready_pod(NAMESPACE, "prometheus")
    host = hosts["analytics-1"]
    # Seen from its node: the image may hold no shell.
    process = host.check_output("pgrep --exact --oldest prometheus")
    status = dict(line.split(":\t", 1) for line in host.check_output(f"cat /proc/{process}/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    # Fields of mountinfo (proc(5)): the fifth is the mount point, the sixth its options.
    mounts = [line.split() for line in host.check_output(f"cat /proc/{process}/mountinfo").splitlines()]
    writable = {fields[4] for fields in mounts if "rw" in fields[5].split(",") and not is_kernel_s(fields[4])}
    assert writable == {"/prometheus"}


def is_kernel_s(mount_point: str) -> bool:
    """Whether the container runtime mounts this in every container, writable or not."""
    return mount_point.startswith(("/proc", "/dev", "/sys")) or mount_point in {
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    }


def converge(*variables: str) -> None:
    """The role once more, with variables on top of the lab's."""
    command = ["ansible-playbook", str(REPOSITORY / "molecule/prometheus/converge.yml")]
    extra = [word for variable in variables for word in ("--extra-vars", variable)]
    subprocess.run(
        [*command, "--inventory", str(REPOSITORY / "inventory/lab"), *extra],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        check=True,
        timeout=240,
    )


# Pages that a program on a host serves, of which the cluster knows nothing, and what Prometheus says of each.
WRITE_PAGES = r"""
pages = {
    "calm": "outside_metric 7\n",
    "broken": "this is {not the format\n",
    "exploding": "".join('exploding{id="%d"} 1\n' % number for number in range(10001)),
    "label-bomb": 'bomb{text="%s"} 1\n' % ("x" * 3000),
    "many-labels": "many{%s} 1\n" % ",".join('l%d="1"' % number for number in range(80)),
}
for name, page in pages.items():
    with open(name, "w") as file:
        file.write(page)
"""
OUTSIDE = {
    "calm": "",
    "broken": 'while parsing: "this is"',
    "exploding": "sample limit exceeded",
    "label-bomb": "label_value_length_limit exceeded",
    "many-labels": "label_limit exceeded",
}


@pytest.fixture(scope="module")
def changed(cluster: Cluster, prometheus: Prometheus, hosts: dict[str, Host]) -> Iterator[dict[str, Any]]:
    """What was there before one run of the role with all the changes that the tests below look at: exporters outside,
    most of which misbehave, a limit that a job passes, and the interval.
    """
    host = hosts["collectors-1"]
    host.check_output("mkdir -p /run/outside && cd /run/outside && python3 -c %s", WRITE_PAGES)
    host.check_output("systemd-run --unit=outside --working-directory=/run/outside python3 -m http.server 9555")
    target = f"{host.check_output('hostname -I').split()[0]}:9555"
    before = {
        "uid": cluster.ready_pod(NAMESPACE, "prometheus")["metadata"]["uid"],
        "sample": eventually(lambda: prometheus.data("query?query=up")["result"], "a sample")[0]["value"][0],
        "interval": prometheus.config()["global"]["scrape_interval"],
        "target": target,
    }
    entries = [{"name": name, "path": f"/{name}", "targets": [target], "labels": {"site": "lab"}} for name in OUTSIDE]
    limits = {"loki": {"sample_limit": 10}}
    try:
        converge(
            json.dumps({"prometheus_external_targets": entries, "prometheus_job_limits": limits}),
            "prometheus_scrape_interval=10s",
        )
        eventually(prometheus.config, "the new pod answers", 30, despite=(urllib.error.URLError,))
        yield before
    finally:
        host.check_output("systemctl stop outside; rm -rf /run/outside")


def test_changed_configuration_rolls_it_and_keeps_its_data(
    cluster: Cluster, prometheus: Prometheus, changed: dict[str, Any]
) -> None:
    assert cluster.ready_pod(NAMESPACE, "prometheus")["metadata"]["uid"] != changed["uid"]
    assert prometheus.config()["global"]["scrape_interval"] == "10s" != changed["interval"]
    assert prometheus.data(f"query?query=up&time={changed['sample']}")["result"], "the samples of before are gone"


def test_an_exporter_outside_is_one_entry(prometheus: Prometheus, changed: dict[str, Any]) -> None:
    query = 'outside_metric{job="external", service="calm", site="lab"} == 7'
    eventually(lambda: names(prometheus, query, "instance") == [changed["target"]], "its metric is stored", 90)


def test_targets_that_misbehave_are_contained_and_named(prometheus: Prometheus, changed: dict[str, Any]) -> None:
    """Loki's own metrics stand in for a job that explodes: the limit of its job is what they pass."""
    wanted = {**OUTSIDE, "loki": "sample limit exceeded"}

    def errors() -> dict[str, str]:
        targets = prometheus.data("targets?state=active")["activeTargets"]
        pools = [target for target in targets if target["scrapePool"] in ("external", "loki")]
        return {t["labels"].get("service", t["scrapePool"]): t["lastError"] for t in pools if t["health"] != "unknown"}

    eventually(lambda: errors().keys() == wanted.keys(), "all were scraped", 90)
    said = errors()
    assert [name for name, error in wanted.items() if error not in said[name] or bool(error) != bool(said[name])] == []
    down = [name for name, error in wanted.items() if error and name != "loki"]
    eventually(lambda: names(prometheus, 'up{job="external"} == 0', "service") == sorted(down), "they are down", 30)
    eventually(lambda: names(prometheus, 'up{job="loki"} == 0', "job") == ["loki"], "its scrape is thrown away", 30)
    assert names(prometheus, "exploding or bomb or many", "service") == []
    for metric in (
        "prometheus_target_scrapes_exceeded_sample_limit_total",
        "prometheus_target_scrape_pool_exceeded_label_limits_total",
    ):
        eventually(lambda metric=metric: names(prometheus, f"{metric} > 0", "job"), f"{metric} is counted", 30)  # type: ignore[misc]
    named = 'ALERTS{alertname="TargetDown", job="external"}'
    # There are no ALERTS before a group's third evaluation: after two Prometheus has found out what fired before.
    eventually(lambda: names(prometheus, named, "service") == sorted(down), "an alert names each", 90)
    assert names(prometheus, 'up{job="alertmanager"} == 1', "job") == ["alertmanager"]
