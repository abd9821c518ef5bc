"""Valkey as its clients meet it: who gets through to it, with which password, and what outlives its pod."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_cluster import Cluster, eventually, policy

NAMESPACE = "crypto-collectors"
METRICS_PORT = 9121
# An entry of the services table whose connects_to names Valkey.
CLIENT = {"app.kubernetes.io/name": "market-data-collector-coinbase"}
# Sends the lines of stdin as commands and prints each reply's first line; the password is in no argument. While the
# Service has no endpoint, what answers need not be Valkey: somebody beyond the hosts may take the connection.
ASK = """
import socket, sys
with socket.create_connection(("valkey.crypto-collectors.svc.cluster.local", 6379), timeout=5) as connection:
    replies = connection.makefile("rb")
    for line in sys.stdin:
        connection.sendall(line.strip().encode() + b"\\r\\n")
        reply = replies.readline().decode().strip()
        if reply[:1] not in tuple("+-:$*"):
            sys.exit(f"no reply of Valkey: {reply!r}")
        if reply.startswith("$") and reply != "$-1":
            reply = replies.readline().decode().strip()
        print(reply)
"""

Ask = Callable[..., list[str]]


@pytest.fixture(scope="module")
def ask(cluster: Cluster) -> Ask:
    """Commands from a pod that the services table lets connect -> the replies."""
    cluster.make(policy(NAMESPACE, "probe-client", {"tradewatch.io/probe": "client"}, "Egress"))
    cluster.probe(NAMESPACE, "client", "collectors", CLIENT)

    def call(*commands: str) -> list[str]:
        last = ""

        def replies() -> list[str]:
            nonlocal last
            result = cluster.execute(
                NAMESPACE, "client", "python3", "-c", ASK, stdin="".join(f"{c}\n" for c in commands)
            )
            last = result.stderr
            return str(result.stdout).splitlines() if result.returncode == 0 else []

        try:
            return list(eventually(replies, "Valkey answers", 60))
        except AssertionError as error:
            raise AssertionError(f"{error}: {last[-300:]}") from error

    return call


@pytest.fixture(scope="module")
def login(lab_dir: Path) -> str:
    return "AUTH default " + str(json.loads((lab_dir / "secrets.json").read_text())["valkey_password"])


def test_stranger_is_refused(ask: Ask) -> None:
    assert ask("PING")[0].startswith("-NOAUTH")
    assert ask("AUTH default wrong", "PING")[0].startswith("-WRONGPASS")


def test_password_opens_it_but_not_what_is_dangerous(ask: Ask, login: str) -> None:
    replies = ask(login, "PING", "FLUSHALL", "CONFIG SET appendonly no", "CONFIG GET maxmemory-policy")
    assert replies[:2] == ["+OK", "+PONG"]
    assert [reply.split()[0] for reply in replies[2:4]] == ["-NOPERM", "-NOPERM"]
    assert replies[4] == "*2"


def test_data_outlives_the_pod(cluster: Cluster, ask: Ask, login: str) -> None:
    assert ask(login, "SET molecule kept")[1] == "+OK"
    before = cluster.ready_pod(NAMESPACE, "valkey")["metadata"]["uid"]
    cluster.text("delete", "pod", "valkey-0", "--namespace", NAMESPACE, "--wait=true")
    assert cluster.ready_pod(NAMESPACE, "valkey")["metadata"]["uid"] != before
    assert ask(login, "GET molecule", "DEL molecule")[1:] == ["kept", ":1"]


def test_only_those_in_the_table_reach_it(cluster: Cluster, ask: Ask) -> None:
    ask("PING")
    address = cluster.get("service", "valkey", "--namespace", NAMESPACE)["spec"]["clusterIP"]
    dns = cluster.get("service", "kube-dns", "--namespace", "kube-system")["spec"]["clusterIP"]
    # No policy holds back what a pod of the namespace default sends: it reaches other Services.
    cluster.probe("default", "stranger", "trading")
    eventually(lambda: cluster.connects("default", "stranger", dns, 53), "the probe reaches the DNS", 30)
    eventually(lambda: not cluster.connects("default", "stranger", address, 6379), "a stranger is kept out", 30)
    # Nor does it suffice to be a neighbour.
    cluster.make(policy(NAMESPACE, "probe-neighbour", {"tradewatch.io/probe": "neighbour"}, "Egress"))
    cluster.probe(NAMESPACE, "neighbour", "collectors")
    eventually(lambda: cluster.connects(NAMESPACE, "neighbour", dns, 53), "the neighbour reaches the DNS", 30)
    for port in (6379, METRICS_PORT):
        refused = f"a neighbour is kept out of {port}"
        eventually(lambda: not cluster.connects(NAMESPACE, "neighbour", address, port), refused, 30)  # noqa: B023


def test_it_runs_as_nobody_on_a_file_system_it_cannot_write(cluster: Cluster) -> None:
    assert cluster.execute(NAMESPACE, "valkey-0", "id", "-u").stdout.strip() == "10001"
    for folder in ("/", "/etc/valkey", "/run/secrets/valkey"):
        refused = cluster.execute(NAMESPACE, "valkey-0", "sh", "-c", f"echo > {folder}/written")
        assert "Read-only file system" in refused.stderr, folder


def test_password_is_where_the_table_needs_it_and_nowhere_else(cluster: Cluster, login: str) -> None:
    secrets = cluster.get("secrets", "--all-namespaces", "--selector", "tradewatch.io/role=valkey")["items"]
    found = {(item["metadata"]["namespace"], item["metadata"]["name"]): item["data"] for item in secrets}
    password = {"password": base64.b64encode(login.split()[2].encode()).decode()}
    assert found.pop((NAMESPACE, "valkey-users")).keys() == {"users.acl"}
    assert found.pop((NAMESPACE, "valkey-exporter")).keys() == {"passwords.json"}
    assert found == {(NAMESPACE, "valkey"): password, ("crypto-trading", "valkey"): password}


def test_password_stands_in_no_argument_or_environment(cluster: Cluster, login: str, lab_dir: Path) -> None:
    seen = cluster.execute(NAMESPACE, "valkey-0", "sh", "-c", "cat /proc/1/cmdline /proc/1/environ").stdout
    assert seen.startswith("valkey-server")
    assert login.split()[2] not in seen
    shown = cluster.text("get", "pod", "valkey-0", "--namespace", NAMESPACE, "-o", "yaml")
    shown += cluster.text("logs", "valkey-0", "--namespace", NAMESPACE, "--container", "exporter")
    assert login.split()[2] not in shown
    assert json.loads((lab_dir / "secrets.json").read_text())["valkey_exporter_password"] not in shown


def test_prometheus_reads_its_figures(cluster: Cluster) -> None:
    annotations = cluster.get("service", "valkey", "--namespace", NAMESPACE)["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    scrape = cluster.prometheus_probe()
    url = f"http://valkey.{NAMESPACE}.svc:{annotations['prometheus.io/port']}{annotations['prometheus.io/path']}"
    found: dict[str, float] = {}

    def is_up() -> bool:
        found.update(scrape(url))
        return found["redis_up"] == 1

    eventually(is_up, "the exporter reaches Valkey", 60)
    assert found["redis_memory_max_bytes"] == 768 * 1024**2
    assert {"redis_connected_clients", "redis_evicted_keys_total", "redis_aof_last_write_status"} <= found.keys()


def test_the_exporter_reads_no_data(ask: Ask, lab_dir: Path) -> None:
    password = json.loads((lab_dir / "secrets.json").read_text())["valkey_exporter_password"]
    replies = ask(f"AUTH exporter {password}", "PING", "GET molecule", "KEYS *", "XREAD STREAMS x 0", "CONFIG SET hz 1")
    assert replies[:2] == ["+OK", "+PONG"]
    assert {reply.split()[0] for reply in replies[2:]} == {"-NOPERM"}
    # What the exporter itself asks for, it may ask for.
    log = ask("AUTH exporter " + password, "SLOWLOG LEN", "LATENCY LATEST", "CLIENT SETNAME redis_exporter")
    assert not [reply for reply in log if reply.startswith("-")]
