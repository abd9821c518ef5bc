"""Prometheus by its API, asked from the control host: who may ask, what it scrapes, what its settings are."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_cluster import Cluster, eventually, services
from testinfra.host import Host

NAMESPACE = "crypto-monitoring"
JOBS = {"kubernetes-services-metrics", "kubernetes-pods-metrics", "prometheus"}
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

    def answers(self) -> bool:
        """Whether it can be reached: the node's proxy learns of a new pod a moment after the pod is ready."""
        try:
            self.config()
        except urllib.error.URLError:
            return False
        return True


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
    account = f"system:serviceaccount:{NAMESPACE}:prometheus"

    def may(verb: str, what: str, namespace: str) -> bool:
        return (
            cluster.run("auth", "can-i", verb, what, "--as", account, "--namespace", namespace).stdout.strip() == "yes"
        )

    assert may("list", "endpointslices.discovery.k8s.io", "crypto-collectors")
    for verb, what, namespace in [
        ("get", "secrets", "crypto-collectors"),
        ("get", "secrets", NAMESPACE),
        ("delete", "pods", "crypto-collectors"),
        ("list", "pods", "kube-system"),
    ]:
        assert not may(verb, what, namespace), f"{verb} {what} in {namespace}"


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


def test_changed_configuration_rolls_it_and_keeps_its_data(
    cluster: Cluster, prometheus: Prometheus, lab_dir: Path
) -> None:
    before = cluster.ready_pod(NAMESPACE, "prometheus")["metadata"]["uid"]
    block = eventually(lambda: prometheus.data("query?query=up")["result"], "a sample")[0]["value"][0]
    interval = prometheus.config()["global"]["scrape_interval"]
    command = ["ansible-playbook", str(REPOSITORY / "molecule/prometheus/converge.yml")]
    subprocess.run(
        [*command, "--inventory", str(REPOSITORY / "inventory/lab"), "--extra-vars", "prometheus_scrape_interval=14s"],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        check=True,
        timeout=240,
    )
    assert cluster.ready_pod(NAMESPACE, "prometheus")["metadata"]["uid"] != before
    assert interval != "14s"
    eventually(prometheus.answers, "the new pod answers", 30)
    assert prometheus.config()["global"]["scrape_interval"] == "14s"
    assert prometheus.data(f"query?query=up&time={block}")["result"], "the samples of before are gone"
