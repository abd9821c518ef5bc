"""Alertmanager by its API, asked from the control host: who may ask, and what becomes of alerts."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from lab_cluster import Cluster, eventually, samples
from testinfra.host import Host

NAMESPACE = "crypto-monitoring"
METRICS = "http://127.0.0.1:8095/metrics"
READ = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/messages', timeout=5).read().decode())"


class Alertmanager:
    def __init__(self, lab_dir: Path) -> None:
        self.address = json.loads((lab_dir / "lab.json").read_text())["hosts"]["analytics-1"]
        self.password = json.loads((lab_dir / "secrets.json").read_text())["alertmanager_password"]
        self.trusting = ssl.create_default_context(cafile=str(lab_dir / "ca.crt"))

    def open(self, path: str, password: str | None, body: object = None, context: ssl.SSLContext | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"https://{self.address}:30093{path}", content)
        request.add_header("Content-Type", "application/json")
        if password is not None:
            credentials = base64.b64encode(f"tradewatch:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        handler = urllib.request.HTTPSHandler(context=context or self.trusting)
        return urllib.request.build_opener(urllib.request.ProxyHandler({}), handler).open(request, timeout=10)

    def post(self, minutes: float, *alerts: dict[str, str]) -> None:
        """Alerts that end in so many minutes; in the past: that are over."""
        now = datetime.now(UTC)
        starts, ends = (now - timedelta(minutes=5)).isoformat(), (now + timedelta(minutes=minutes)).isoformat()
        body = [{"labels": labels, "annotations": {}, "startsAt": starts, "endsAt": ends} for labels in alerts]
        with self.open("/api/v2/alerts", self.password, body) as answer:
            assert answer.status == 200

    def state(self, run: str) -> dict[str, str]:
        """The state of this run's alerts, by the label `what`."""
        with self.open(f"/api/v2/alerts?filter=run%3D%22{run}%22", self.password) as answer:
            return {alert["labels"]["what"]: alert["status"]["state"] for alert in json.load(answer)}


@pytest.fixture(scope="module")
def alertmanager(lab_dir: Path) -> Alertmanager:
    return Alertmanager(lab_dir)


@pytest.fixture
def run() -> str:
    """A label of the alerts of one test."""
    return uuid.uuid4().hex[:12]


def told(cluster: Cluster, run: str) -> list[tuple[str, str]]:
    """Channel and title of what the chat was told in a test."""
    pod = cluster.ready_pod(NAMESPACE, "chat-simulator")["metadata"]["name"]
    answer = json.loads(str(cluster.execute(NAMESPACE, pod, "python3", "-c", READ).stdout))
    return [(row["channel"], row["title"]) for row in answer["messages"] if f"run={run}" in row["text"]]


@pytest.mark.parametrize("password", [None, "", "wrong"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v2/alerts", "/-/healthy"])
def test_stranger_is_refused(alertmanager: Alertmanager, path: str, password: str | None) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        alertmanager.open(path, password)
    assert refused.value.code == 401


def test_certificate_is_the_platform_s_own(alertmanager: Alertmanager) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        alertmanager.open("/", alertmanager.password, context=ssl.create_default_context())


def test_an_alert_reaches_its_team_s_chat_and_so_does_its_end(
    cluster: Cluster, alertmanager: Alertmanager, run: str
) -> None:
    labels = {"alertname": "Scenario", "severity": "critical", "team": "trading", "run": run, "what": "one"}
    alertmanager.post(10, labels)
    eventually(lambda: len(told(cluster, run)) == 2, "pager and chat are told", 60)
    assert {channel for channel, _ in told(cluster, run)} == {"pager", "trading"}
    alertmanager.post(-1, labels)
    eventually(lambda: len(told(cluster, run)) == 4, "pager and chat are told of the end", 120)
    assert {title.split("]")[0] for _, title in told(cluster, run)} == {"[FIRING", "[RESOLVED"}


def test_a_dead_node_silences_what_ran_on_it(cluster: Cluster, alertmanager: Alertmanager, run: str) -> None:
    node = {"node": f"node-{run}", "run": run}
    alertmanager.post(10, {"alertname": "NodeDown", "severity": "critical", "team": "devops", "what": "node", **node})
    eventually(lambda: told(cluster, run), "the node's alert is told", 60)
    alertmanager.post(
        10,
        {"alertname": "KubePodCrashLooping", "severity": "critical", "team": "trading", "what": "on it", **node},
        {"alertname": "KubePodCrashLooping", "severity": "critical", "team": "data", "what": "elsewhere", "run": run},
    )
    eventually(
        lambda: ("data", "[FIRING] critical: KubePodCrashLooping") in told(cluster, run), "the other's is told", 60
    )
    assert alertmanager.state(run) == {"node": "active", "on it": "suppressed", "elsewhere": "active"}
    assert {channel for channel, _ in told(cluster, run)} == {"devops", "data"}


@pytest.mark.parametrize("name", ["control-1", "collectors-1", "trading-1"])
def test_published_port_is_for_the_admins_alone(hosts: dict[str, Host], alertmanager: Alertmanager, name: str) -> None:
    reach = "timeout 3 bash -c '</dev/tcp/{}/{}'"
    assert hosts[name].run(reach.format(alertmanager.address, 22)).rc == 0, "the host reaches nothing there"
    assert hosts[name].run(reach.format(alertmanager.address, 30093)).rc != 0


class Outside:
    """watchdog-receiver on the machine of the tests, where it survives the cluster, and the channel that it tells."""

    SILENT_AFTER_SECONDS = 6
    COMMAND = (sys.executable, "-m", "tradewatch", "run", "watchdog-receiver")

    def __init__(self, folder: Path, token: str) -> None:
        self.titles: list[str] = []
        titles = self.titles

        class Channel(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                titles.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["title"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: pytest shows the titles."""

        self.channel = ThreadingHTTPServer(("127.0.0.1", 0), Channel)
        self.thread = threading.Thread(target=self.channel.serve_forever)
        receivers = {"receivers": [{"name": "own", "url": f"json://127.0.0.1:{self.channel.server_port}/"}]}
        (folder / "token").write_text(token)
        (folder / "receivers").write_text(json.dumps(receivers))
        self.log = folder / "log"
        self.environment = {
            "PATH": os.environ["PATH"],
            # The port of converge.yml.
            "TRADEWATCH_HTTP_PORT": "8095",
            "TRADEWATCH_ALERT_WEBHOOK_TOKEN_FILE": str(folder / "token"),
            "TRADEWATCH_WATCHDOG_RECEIVERS_FILE": str(folder / "receivers"),
            "TRADEWATCH_WATCHDOG_CLUSTER": "the scenario",
            "TRADEWATCH_SILENT_AFTER_SECONDS": str(self.SILENT_AFTER_SECONDS),
        }

    def __enter__(self) -> Outside:
        self.thread.start()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.COMMAND, env=self.environment, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.channel.shutdown()
        self.thread.join()
        self.channel.server_close()

    def hears(self) -> bool:
        """Whether the cluster's Watchdog has come since the start."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(METRICS, timeout=5) as answer:
                return samples(answer.read().decode())["watchdog_last_seen_timestamp_seconds"] > 0
        except OSError:
            return False


@pytest.fixture
def outside(lab_dir: Path, tmp_path: Path) -> Iterator[Outside]:
    with Outside(tmp_path, json.loads((lab_dir / "secrets.json").read_text())["watchdog_token"]) as running:
        yield running


def test_its_silence_is_told_outside_and_it_keeps_its_silences(
    cluster: Cluster, alertmanager: Alertmanager, outside: Outside, run: str
) -> None:
    now = datetime.now(UTC)
    silence = {
        "matchers": [{"name": "run", "value": run, "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(minutes=10)).isoformat(),
        "createdBy": "scenario",
        "comment": "scenario",
    }
    with alertmanager.open("/api/v2/silences", alertmanager.password, silence) as answer:
        made = json.load(answer)["silenceID"]
    watchdog = {"alertname": "Watchdog", "severity": "none", "team": "devops"}
    alertmanager.post(10, watchdog)
    eventually(outside.hears, "the Watchdog comes", 60)
    cluster.text("scale", "statefulset", "alertmanager", "--namespace", NAMESPACE, "--replicas=0")
    try:
        eventually(lambda: outside.titles, "the silence is told", 60)
    finally:
        cluster.text("scale", "statefulset", "alertmanager", "--namespace", NAMESPACE, "--replicas=1")
    assert outside.titles == ["[FIRING] critical: the scenario is silent"]
    eventually(lambda: cluster.ready_pod(NAMESPACE, "alertmanager"), "a new pod", 120)

    def kept() -> bool:
        with alertmanager.open(f"/api/v2/silence/{made}", alertmanager.password) as answer:
            return bool(json.load(answer)["status"]["state"] == "active")

    eventually(kept, "the silence is there", 30, despite=(OSError,))
    # As Prometheus does within a minute.
    alertmanager.post(10, watchdog)
    eventually(lambda: len(outside.titles) == 2, "the end is told", 30)
    assert outside.titles[1] == "[RESOLVED] critical: the scenario is silent"
