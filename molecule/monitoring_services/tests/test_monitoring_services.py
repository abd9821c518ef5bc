"""The services of monitoring, running: what becomes of Alertmanager's calls, and who may make them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from lab_cluster import Cluster, eventually, services

NAMESPACE = "crypto-monitoring"
SERVICES = sorted(name for name, row in services().items() if row["namespace"] == NAMESPACE)
NOTIFIER, CHAT, NEXT = "alert-notifier", "chat-simulator", "escalation"
CALL = """
import json, sys, urllib.error, urllib.request
address, token, body = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"} if token else {}
request = urllib.request.Request(address, body.encode() or None, headers)
try:
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


def call(cluster: Cluster, service: str, path: str, token: str = "", body: object = None) -> tuple[int, Any]:
    """A request of a service's own container to itself: the status and the answer."""
    pod = cluster.ready_pod(NAMESPACE, service)["metadata"]["name"]
    text = "" if body is None else json.dumps(body)
    arguments = ("python3", "-c", CALL, f"http://127.0.0.1:8080{path}", token, text)
    status, _, answer = str(cluster.execute(NAMESPACE, pod, *arguments).stdout).partition(" ")
    return int(status), json.loads(answer)


def webhook(fingerprint: str, status: str = "firing", severity: str = "warning") -> dict[str, Any]:
    alert = {
        "status": status,
        "labels": {"alertname": "Scenario", "severity": severity, "team": "data"},
        "annotations": {"summary": f"of the scenario, {fingerprint}"},
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "2026-01-01T00:05:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
        "fingerprint": fingerprint,
    }
    return {"version": "4", "alerts": [alert]}


def told(cluster: Cluster, fingerprint: str, channel: str = "data") -> list[str]:
    _, answer = call(cluster, CHAT, f"/messages?channel={channel}")
    return [row["title"] for row in answer["messages"] if fingerprint in row["text"]]


@pytest.fixture(scope="module")
def token(lab_dir: Path) -> str:
    return str(json.loads((lab_dir / "secrets.json").read_text())["alert_webhook_token"])


def test_an_alert_is_told_once_and_its_end_too(cluster: Cluster, token: str) -> None:
    fingerprint = cluster.ready_pod(NAMESPACE, NOTIFIER)["metadata"]["uid"].replace("-", "")[:16]
    for _ in range(2):
        status, answer = call(cluster, NOTIFIER, "/v1/alerts", token, webhook(fingerprint))
        assert status == 200
        assert answer["stored"] + answer["repeated"] == 1
    eventually(lambda: told(cluster, fingerprint), "the chat is told", 30)
    assert call(cluster, NOTIFIER, "/v1/alerts", token, webhook(fingerprint, "resolved"))[0] == 200
    eventually(lambda: len(told(cluster, fingerprint)) == 2, "the chat is told of the end", 30)
    assert [title.split("]")[0] for title in told(cluster, fingerprint)] == ["[FIRING", "[RESOLVED"]


def test_only_what_nobody_acknowledged_is_told_to_the_next_level(cluster: Cluster, token: str) -> None:
    looked_after, left = uuid.uuid4().hex[:16], uuid.uuid4().hex[:16]
    assert call(cluster, NOTIFIER, "/v1/alerts", token, webhook(looked_after, severity="critical"))[0] == 200
    pod = cluster.ready_pod(NAMESPACE, NOTIFIER)["metadata"]["name"]
    said = cluster.execute(NAMESPACE, pod, "tradewatch", "alerts", "ack", looked_after, "--by", "scenario")
    assert said.returncode == 0, said.stderr
    # Told later than the other: when this one's time is over, the other's is too.
    assert call(cluster, NOTIFIER, "/v1/alerts", token, webhook(left, severity="critical"))[0] == 200

    def told_while_both_are_repeated() -> list[str]:
        for fingerprint in looked_after, left:
            call(cluster, NOTIFIER, "/v1/alerts", token, webhook(fingerprint, severity="critical"))
        return told(cluster, left, NEXT)

    eventually(told_while_both_are_repeated, "the next level is told", 60)
    for fingerprint in looked_after, left:
        assert call(cluster, NOTIFIER, "/v1/alerts", token, webhook(fingerprint, "resolved", "critical"))[0] == 200
    eventually(lambda: len(told(cluster, left, NEXT)) == 2, "the next level is told of the end", 30)
    assert [title.split("]")[0] for title in told(cluster, left, NEXT)] == ["[ESCALATED", "[RESOLVED"]
    assert told(cluster, looked_after, NEXT) == []


@pytest.mark.parametrize("wrong", ["", "wrong"])
def test_who_has_no_token_is_refused(cluster: Cluster, wrong: str) -> None:
    assert call(cluster, NOTIFIER, "/v1/alerts", wrong, webhook("f" * 16))[0] == 401


def test_what_is_malformed_is_refused_in_one_line(cluster: Cluster, token: str) -> None:
    status, answer = call(cluster, NOTIFIER, "/v1/alerts", token, {"version": "4", "alerts": []})
    assert status == 400
    assert answer["error"]["message"].startswith("alerts: ")


def test_no_service_of_another_namespace_reaches_them(cluster: Cluster) -> None:
    name = "market-data-aggregator"
    pod = cluster.ready_pod("crypto-collectors", name)["metadata"]["name"]
    for service in SERVICES:
        address = cluster.get("service", service, "--namespace", NAMESPACE)["spec"]["clusterIP"]
        assert not cluster.connects("crypto-collectors", pod, address, 8080)


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_is_in_the_environment_or_the_log(cluster: Cluster, lab_dir: Path, service: str) -> None:
    values = json.loads((lab_dir / "secrets.json").read_text()).values()
    pod = cluster.ready_pod(NAMESPACE, service)["metadata"]["name"]
    look = "print(open('/proc/1/environ').read(), open('/proc/1/cmdline').read())"
    seen = str(cluster.execute(NAMESPACE, pod, "python3", "-c", look).stdout)
    seen += str(cluster.run("logs", pod, "--namespace", NAMESPACE).stdout)
    assert not [value for value in values if value in seen]


def test_the_two_roles_of_the_table_leave_each_other_s_objects_alone(cluster: Cluster) -> None:
    owners = {
        (item["metadata"]["namespace"] == NAMESPACE, item["metadata"]["labels"]["tradewatch.io/role"])
        for owner in ("monitoring-services", "trading-services")
        for item in cluster.get("deployments", "--all-namespaces", "--selector", f"tradewatch.io/role={owner}")["items"]
    }
    assert owners == {(True, "monitoring-services"), (False, "trading-services")}
