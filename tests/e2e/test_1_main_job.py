"""`make lab` from zero, and what stands after it, seen from outside."""

from __future__ import annotations

import json
import re
import subprocess
import time

from tests import bench
from tests.e2e.faults import in_pod
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

ROLES = {"control-1": "control-plane", "collectors-1": "collectors", "trading-1": "trading", "analytics-1": "analytics"}
SECOND_RUN_SECONDS = 100
NAMESPACES = {"crypto-collectors": "restricted", "crypto-trading": "restricted"}


def test_make_lab_ends_with_the_table(lab: LabUnderTest) -> None:
    table = lab.output[lab.output.index("Tradewatch lab") :]
    for host in ROLES:
        assert host in table
    for word in ("Ready", "market-data-collector-coinbase", "prometheus", "site.yml", "verify.yml"):
        assert word in table


def test_a_second_make_lab_builds_and_changes_nothing(lab: LabUnderTest) -> None:
    started = time.monotonic()
    output = lab.make("lab")
    assert time.monotonic() - started < 480
    assert "go build" not in output
    assert "Debian" not in output
    changed = bench.recaps(output)[0]
    assert set(changed) >= {*ROLES, "localhost"}
    assert sum(changed.values()) == 0, (changed, re.findall(r"^changed: .*", output, re.MULTILINE))
    seconds: float = bench.stages(output)["site.yml"]
    if seconds >= SECOND_RUN_SECONDS:
        # Once more: something else may have kept the machine busy.
        seconds = lab.play("site.yml").seconds
    assert seconds < SECOND_RUN_SECONDS


def test_make_lab_writes_below_its_folders_only(lab: LabUnderTest) -> None:
    # The home directory of the lab's commands was empty, and the cache is given (tests/lab_under_test.py).
    assert [str(path) for path in lab.home.rglob("*")] == []
    assert lab.strays == set()


def test_nodes_are_the_inventory_s(lab: LabUnderTest) -> None:
    nodes = {node["metadata"]["name"]: node for node in lab.get("nodes")["items"]}
    assert {name: node["metadata"]["labels"].get("tradewatch/role") for name, node in nodes.items()} == ROLES
    for node in nodes.values():
        assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    taints = {name: [t["key"] for t in node["spec"].get("taints", [])] for name, node in nodes.items()}
    assert taints["control-1"] == ["node-role.kubernetes.io/control-plane"]
    assert not any(taints[name] for name in ROLES if name != "control-1")


def test_namespaces_are_closed_by_default(lab: LabUnderTest) -> None:
    for name, level in NAMESPACES.items():
        labels = lab.get("namespace", name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == level
    for name in (*NAMESPACES, "crypto-monitoring"):
        assert lab.get("resourcequota", "-n", name)["items"], name
        assert lab.get("limitrange", "-n", name)["items"], name
        denials = [p for p in lab.get("networkpolicy", "-n", name)["items"] if p["spec"]["podSelector"] == {}]
        closed = {t for p in denials if not p["spec"].get("ingress") for t in p["spec"]["policyTypes"]}
        assert closed >= {"Ingress", "Egress"}, name


def test_restricted_namespace_refuses_a_root_pod(lab: LabUnderTest) -> None:
    refused = lab.kubectl("-n", "crypto-trading", "run", "root", "--image=none", "--dry-run=server", code=1)
    assert "violates PodSecurity" in refused


def test_collector_is_a_target_because_its_service_is_annotated(lab: LabUnderTest) -> None:
    def up() -> list[str]:
        rows = lab.query('up{job="kubernetes-services-metrics", namespace="crypto-collectors"} == 1')
        return [row["metric"]["service"] for row in rows]

    wait(lambda: "market-data-collector-coinbase" in up(), "the collector's target")


def test_market_data_flows_for_every_product(lab: LabUnderTest) -> None:
    def flowing() -> bool:
        rows = lab.query("sum by (product_id) (rate(market_data_messages_total[1m])) > 0")
        return {row["metric"]["product_id"] for row in rows} >= {"BTC-USD", "ETH-USD"}

    wait(flowing, "messages for both products", 180)
    [age] = lab.query("max(time() - market_data_last_event_timestamp_seconds)")
    assert float(age["value"][1]) < 60


def test_events_are_on_the_stream(lab: LabUnderTest) -> None:
    # The password stays in the pod: the shell there reads it from its file into valkey-cli's environment.
    password = json.loads((lab.directory / "secrets.json").read_text())["valkey_password"]
    pod = lab.get("pod", "-n", "crypto-collectors", "-l", "app.kubernetes.io/name=valkey")["items"][0]
    assert password not in json.dumps(pod)
    command = [str(lab.directory / "bin/kubectl"), "--kubeconfig", str(lab.directory / "kubeconfig")]
    script = "read REDISCLI_AUTH; export REDISCLI_AUTH; valkey-cli XLEN market_data:coinbase:BTC-USD"
    name = pod["metadata"]["name"]
    result = subprocess.run(
        [*command, "-n", "crypto-collectors", "exec", "-i", name, "--", "sh", "-c", script],
        input=password + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert int(result.stdout.strip()) > 0, result.stderr


def test_nobody_is_called_while_nothing_is_wrong(lab: LabUnderTest) -> None:
    """No critical alert has fired for as long as a second `make lab` takes; a busy machine may well raise a warning."""
    fired = lab.query('count by (alertname) (last_over_time(ALERTS{alertstate="firing",severity="critical"}[3m]))')
    assert [series["metric"]["alertname"] for series in fired] == []


def test_prometheus_refuses_who_has_no_password(lab: LabUnderTest) -> None:
    endpoint = lab.endpoints()["prometheus"]
    code = subprocess.run(
        ["curl", "-s", "--cacert", endpoint["ca_file"], "-o", "/dev/null", "-w", "%{http_code}", endpoint["url"]],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert code.stdout == "401"


def test_a_command_in_a_pod_is_in_the_audit_log(lab: LabUnderTest) -> None:
    in_pod(lab, "market-data-collector-coinbase", "true", namespace="crypto-collectors")
    entry = '"resource":"pods","namespace":"crypto-collectors","name":"market-data-collector-coinbase'
    log = "/var/lib/rancher/k3s/server/logs/audit.log"
    found = lab.ssh("control-1", f'tail -n 2000 {log} | grep \'"subresource":"exec"\' || true')
    assert [line for line in found.splitlines() if entry in line]


def test_secrets_are_in_no_file_that_others_read(lab: LabUnderTest) -> None:
    values = json.loads((lab.directory / "secrets.json").read_text()).values()
    needles = [b"PRIVATE KEY", b"client-key-data", *(value.encode() for value in values)]
    for file in lab.directory.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.stat().st_mode & 0o077 and "bin" not in file.parts:
            content = file.read_bytes()
            found = [needle for needle in needles if needle in content]
            assert not found, f"{file} holds a secret and has mode {file.stat().st_mode & 0o777:o}"
