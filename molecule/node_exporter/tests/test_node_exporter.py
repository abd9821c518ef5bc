"""node-exporter as Prometheus and strangers meet it: on every host, over TLS, with a password."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from lab_cluster import Cluster, eventually, samples
from testinfra.host import Host

NAMESPACE = "crypto-monitoring"
HOSTS = ["control-1", "collectors-1", "trading-1", "analytics-1"]
# They fail where a host has nothing of theirs.
MAY_HAVE_NOTHING = {"hwmon", "mdadm", "pressure"}


class Exporters:
    def __init__(self, lab_dir: Path) -> None:
        self.addresses: dict[str, str] = json.loads((lab_dir / "lab.json").read_text())["hosts"]
        self.password: str = json.loads((lab_dir / "secrets.json").read_text())["node_exporter_password"]
        self.trusting = ssl.create_default_context(cafile=str(lab_dir / "ca.crt"))

    def page(self, host: str, password: str | None, context: ssl.SSLContext | None = None) -> str:
        request = urllib.request.Request(f"https://{self.addresses[host]}:9100/metrics")
        if password is not None:
            credentials = base64.b64encode(f"prometheus:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context or self.trusting)
        )
        with opener.open(request, timeout=10) as response:
            return str(response.read().decode())


@pytest.fixture(scope="module")
def exporters(lab_dir: Path) -> Exporters:
    return Exporters(lab_dir)


def test_one_runs_on_every_node(cluster: Cluster) -> None:
    def all_run() -> bool:
        return {pod["spec"].get("nodeName") for pod in cluster.pods(NAMESPACE, "node-exporter")} == set(HOSTS)

    eventually(all_run, "a pod on every node", 60)
    status = cluster.get("daemonset", "node-exporter", "--namespace", NAMESPACE)["status"]
    assert status["numberReady"] == len(HOSTS)


@pytest.mark.parametrize("name", HOSTS)
def test_it_tells_of_its_host(exporters: Exporters, hosts: dict[str, Host], name: str) -> None:
    found = samples(exporters.page(name, exporters.password))
    assert any(series.startswith("node_uname_info{") and f'nodename="{name}"' in series for series in found)
    memory = int(hosts[name].check_output("grep MemTotal /proc/meminfo").split()[1]) * 1024
    assert found["node_memory_MemTotal_bytes"] == memory
    devices = {
        series.partition('device="')[2].partition('"')[0] for series in found if "network_receive_bytes" in series
    }
    assert "eth0" in devices
    assert not [device for device in devices if device.startswith(("veth", "kube-"))]
    assert {"node_load1", "node_nf_conntrack_entries", "node_timex_sync_status", "node_time_seconds"} <= found.keys()
    for collector in ("cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "conntrack", "timex"):
        assert found[f'node_scrape_collector_success{{collector="{collector}"}}'] == 1, collector
    failed = {
        series.partition('collector="')[2].partition('"')[0]
        for series, value in found.items()
        if series.startswith("node_scrape_collector_success") and value != 1
    }
    assert failed <= MAY_HAVE_NOTHING


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("password", [None, "", "wrong"])
def test_stranger_is_refused(exporters: Exporters, name: str, password: str | None) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        exporters.page(name, password)
    assert refused.value.code == 401


def test_certificate_is_the_platform_s_own(exporters: Exporters) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        exporters.page("control-1", exporters.password, ssl.create_default_context())


def test_it_listens_at_the_node_s_address_alone(exporters: Exporters, hosts: dict[str, Host]) -> None:
    listening = hosts["analytics-1"].check_output("ss --tcp --listening --numeric --no-header 'sport = :9100'").split()
    assert [word for word in listening if word.endswith(":9100")] == [f"{exporters.addresses['analytics-1']}:9100"]


def test_it_is_nobody_on_its_host(hosts: dict[str, Host], exporters: Exporters) -> None:
    host = hosts["control-1"]
    process = host.check_output("pgrep --exact --oldest node_exporter")
    status = dict(line.split(":\t", 1) for line in host.check_output(f"cat /proc/{process}/status").splitlines())
    assert status["Uid"].split() == ["10002"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    # Fields of mountinfo (proc(5)): the fifth is the mount point, the sixth its options.
    mounts = [line.split() for line in host.check_output(f"cat /proc/{process}/mountinfo").splitlines()]
    options = {fields[4]: fields[5].split(",") for fields in mounts}
    for mount_point in ("/", "/host/root", "/host/sys", "/etc/node-exporter"):
        assert "ro" in options[mount_point], mount_point


def test_password_stands_in_no_argument_environment_or_log(
    hosts: dict[str, Host], exporters: Exporters, cluster: Cluster
) -> None:
    host = hosts["control-1"]
    process = host.check_output("pgrep --exact --oldest node_exporter")
    seen = host.check_output(f"cat /proc/{process}/cmdline /proc/{process}/environ | tr '\\0' '\\n'")
    seen += cluster.text("get", "pods", "--namespace", NAMESPACE, "-o", "yaml")
    seen += cluster.text("logs", "daemonset/node-exporter", "--namespace", NAMESPACE)
    assert "node_exporter" in seen
    assert exporters.password not in seen
