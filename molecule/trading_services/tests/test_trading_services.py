"""The services of the table, running: what they measure and deliver, how they are confined, who reaches them."""

from __future__ import annotations

import base64
import json
import re
import socket
from pathlib import Path

import pytest
from lab_cluster import Cluster, eventually, services
from testinfra.host import Host

TABLE = {name: row for name, row in services().items() if row["namespace"] != "crypto-monitoring"}
COLLECTOR = "market-data-collector-coinbase"
SIMULATOR = "exchange-simulator"
SERVICES = sorted(TABLE)
NODE_PORT = 30081
METRICS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/metrics', timeout=5).read().decode())"
WRITE = """
import os, sys
print(os.getuid(), os.getgid())
for folder in sys.argv[1:]:
    try:
        open(f"{folder}/written", "w").close()
        print(folder, "written")
    except OSError as error:
        print(folder, error.strerror)
"""


def namespace(service: str) -> str:
    return str(TABLE[service]["namespace"])


def pod_name(cluster: Cluster, service: str) -> str:
    return str(cluster.ready_pod(namespace(service), service)["metadata"]["name"])


def python(cluster: Cluster, service: str, code: str, *arguments: str) -> str:
    """The output of a program in a service's container."""
    command = ("python3", "-c", code, *arguments)
    return str(cluster.execute(namespace(service), pod_name(cluster, service), *command).stdout)


def metric(cluster: Cluster, service: str, name: str) -> float:
    """The sum of a metric's series, 0 where there is none."""
    text = python(cluster, service, METRICS)
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE))


def test_collector_s_counters_rise_with_the_feed(cluster: Cluster) -> None:
    first = eventually(lambda: metric(cluster, COLLECTOR, "market_data_messages_total"), "the first events")
    eventually(lambda: metric(cluster, COLLECTOR, "market_data_messages_total") > first, "more events")
    assert metric(cluster, COLLECTOR, "market_data_sequence_gaps_total") == 0
    assert metric(cluster, SIMULATOR, "exchange_simulator_connections") >= 1


def test_events_arrive_in_the_stream(cluster: Cluster) -> None:
    read = (
        'VALKEYCLI_AUTH="$(cat /run/secrets/valkey-client/password)"; export VALKEYCLI_AUTH;'
        ' REDISCLI_AUTH="$VALKEYCLI_AUTH" valkey-cli XREVRANGE market_data:coinbase:BTC-USD + - COUNT 1'
    )

    def newest() -> list[str]:
        return str(cluster.execute("crypto-collectors", "valkey-0", "sh", "-c", read).stdout).split()

    first = eventually(newest, "an entry of the stream")
    eventually(lambda: newest()[0] != first[0], "the next entry")
    assert {"price", "BTC-USD"} & set(first), first


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_nobody_and_writes_nowhere_but_tmp(cluster: Cluster, service: str) -> None:
    folders = ["/", "/usr/local/lib/tradewatch", "/etc", "/var/tmp", "/tmp"]
    tried = python(cluster, service, WRITE, *folders).splitlines()
    assert tried[0] == "10001 10001"
    assert tried[-1] == "/tmp written"
    assert {line.partition(" ")[2] for line in tried[1:-1]} <= {"Read-only file system", "No such file or directory"}


@pytest.mark.parametrize("service", SERVICES)
def test_container_has_no_capability_and_a_seccomp_filter(cluster: Cluster, service: str) -> None:
    read = "print(open('/proc/1/status').read())"
    status = python(cluster, service, read)
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


@pytest.mark.parametrize("service", SERVICES)
def test_a_secret_is_a_file_for_who_needs_it_and_nothing_else(cluster: Cluster, lab_dir: Path, service: str) -> None:
    values = json.loads((lab_dir / "secrets.json").read_text()).values()
    look = (
        "import glob, os; files = sorted(glob.glob('/run/secrets/tradewatch/*'));"
        "print([(f, oct(os.stat(f).st_mode)[-3:]) for f in files]);"
        "print(open('/proc/1/environ').read(), open('/proc/1/cmdline').read())"
    )
    seen = python(cluster, service, look)
    files = [
        (f"/run/secrets/tradewatch/{name}", "440") for name in sorted(s["name"] for s in TABLE[service]["secrets"])
    ]
    assert seen.splitlines()[0] == str(files)
    assert not [value for value in values if value in seen]


def test_nothing_is_compiled_when_a_service_starts(cluster: Cluster) -> None:
    """The image brings it compiled; else a start costs seconds of a core."""
    command = ("python3", "-v", "-c", "import tradewatch.trading.risk.service")
    said = cluster.execute("crypto-trading", pod_name(cluster, "risk-manager"), *command).stderr
    loaded = re.findall(r"^# code object from '?([^'\n]+)'?$", said, re.MULTILINE)
    assert len(loaded) > 100
    assert [path for path in loaded if not path.endswith(".pyc")] == []


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_announced_to_prometheus(cluster: Cluster, service: str) -> None:
    annotations = cluster.get("service", service, "--namespace", namespace(service))["metadata"]["annotations"]
    announced = {key: value for key, value in annotations.items() if key.startswith("prometheus.io/")}
    assert announced == {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}


@pytest.mark.parametrize("service", SERVICES)
def test_one_disruption_at_a_time_is_allowed(cluster: Cluster, service: str) -> None:
    def allowed() -> bool:
        status = cluster.get("poddisruptionbudget", service, "--namespace", namespace(service))["status"]
        return (status["expectedPods"], status["disruptionsAllowed"]) == (1, 1)

    eventually(allowed, "the budget counts the pod")


def handshake(address: str) -> str:
    """The status line of a WebSocket handshake; what went wrong where there is none."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    request = (
        f"GET / HTTP/1.1\r\nHost: {address}:{NODE_PORT}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    try:
        with socket.create_connection((address, NODE_PORT), timeout=5) as connection:
            connection.sendall(request.encode())
            return connection.makefile("rb").readline().decode().strip()
    except OSError as error:
        return str(error)


def test_simulator_is_published_to_the_control_host(lab_dir: Path) -> None:
    address = json.loads((lab_dir / "lab.json").read_text())["hosts"]["collectors-1"]
    eventually(lambda: handshake(address) == "HTTP/1.1 101 Switching Protocols", "a handshake", 30)


@pytest.mark.parametrize("name", ["control-1", "trading-1", "analytics-1"])
def test_simulator_is_published_to_no_other_host(hosts: dict[str, Host], lab_dir: Path, name: str) -> None:
    address = json.loads((lab_dir / "lab.json").read_text())["hosts"]["collectors-1"]
    assert handshake(address).startswith("HTTP/1.1 101"), "it answers nobody, which proves nothing"
    reach = "timeout 3 bash -c '</dev/tcp/{}/{}'"
    assert hosts[name].run(reach.format(address, 22)).rc == 0, "the host reaches nothing there"
    assert hosts[name].run(reach.format(address, NODE_PORT)).rc != 0


def test_collector_reaches_nothing_but_its_peers(cluster: Cluster) -> None:
    name = pod_name(cluster, COLLECTOR)
    simulator = cluster.get("service", SIMULATOR, "--namespace", namespace(SIMULATOR))["spec"]["clusterIP"]
    assert cluster.connects(namespace(COLLECTOR), name, simulator, 8081)
    assert not cluster.connects(namespace(COLLECTOR), name, simulator, 8080), "the simulator's other port"
    api = cluster.get("service", "kubernetes")["spec"]["clusterIP"]
    assert not cluster.connects(namespace(COLLECTOR), name, api, 443), "the API server"
