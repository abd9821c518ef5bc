"""Loki by its API, asked from the control host: who may ask, what it keeps and for how long, what it refuses."""

from __future__ import annotations

import ssl
import urllib.error
from pathlib import Path

import pytest
import yaml
from lab_cluster import Cluster, eventually
from loki_api import Loki
from testinfra.host import Host

NAMESPACE = "crypto-monitoring"


@pytest.fixture(scope="module")
def loki(lab_dir: Path) -> Loki:
    return Loki(lab_dir)


def test_certificate_is_the_platform_s_own(loki: Loki) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        loki.open("/ready", ssl.create_default_context())


def test_line_is_found_again_and_survives_a_new_pod(loki: Loki, cluster: Cluster) -> None:
    loki.push("kept", job="molecule")
    eventually(lambda: loki.lines('{job="molecule"}') == ["kept"], "the line is found", 10)
    before = cluster.ready_pod(NAMESPACE, "loki")["metadata"]
    cluster.remove("pod", NAMESPACE, before["name"])
    eventually(lambda: cluster.ready_pod(NAMESPACE, "loki")["metadata"]["uid"] != before["uid"], "a new pod", 120)
    eventually(lambda: loki.lines('{job="molecule"}') == ["kept"], "it is found again", 60, despite=(OSError,))


def test_retention_is_on_and_callers_delete_nothing(loki: Loki) -> None:
    config = yaml.safe_load(loki.config())
    assert config["compactor"]["retention_enabled"] is True
    assert config["compactor"]["delete_request_store"] == "filesystem"
    assert config["limits_config"]["retention_period"] == "2w"
    with pytest.raises(urllib.error.HTTPError) as refused:
        loki.open("/loki/api/v1/delete?query=%7Bjob%3D%22molecule%22%7D&start=1", method="POST")
    assert refused.value.code in (400, 403)


def test_it_reports_to_nobody(loki: Loki) -> None:
    assert yaml.safe_load(loki.config())["analytics"]["reporting_enabled"] is False


@pytest.mark.parametrize("name", ["control-1", "collectors-1", "trading-1"])
def test_published_port_is_for_the_admins_alone(hosts: dict[str, Host], loki: Loki, name: str) -> None:
    reach = "timeout 3 bash -c '</dev/tcp/{}/{}'"
    assert hosts[name].run(reach.format(loki.address, 22)).rc == 0, "the host reaches nothing there"
    assert hosts[name].run(reach.format(loki.address, 30100)).rc != 0


@pytest.mark.parametrize(("name", "may"), [("prometheus", True), ("grafana", True), ("alert-notifier", False)])
def test_only_its_clients_reach_it(cluster: Cluster, name: str, may: bool) -> None:
    labels = {"app.kubernetes.io/name": name}
    probe = f"probe-{name}"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": probe, "namespace": NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"probe": probe}}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    cluster.make(policy)
    cluster.probe(NAMESPACE, probe, "analytics", {**labels, "probe": probe})
    host = f"loki.{NAMESPACE}.svc"
    if may:
        eventually(lambda: cluster.connects(NAMESPACE, probe, host, 3100), "a client reaches it", 30)
    else:
        assert not cluster.connects(NAMESPACE, probe, host, 3100)


def test_it_runs_as_nobody_on_a_file_system_it_cannot_write(hosts: dict[str, Host], cluster: Cluster) -> None:
    cluster.ready_pod(NAMESPACE, "loki")
    host = hosts["analytics-1"]
    process = host.check_output("pgrep --exact --oldest loki")
    status = dict(line.split(":\t", 1) for line in host.check_output(f"cat /proc/{process}/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    mounts = [line.split() for line in host.check_output(f"cat /proc/{process}/mountinfo").splitlines()]
    assert [fields[5].split(",")[0] for fields in mounts if fields[4] == "/"] == ["ro"]
