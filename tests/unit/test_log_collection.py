"""Loki and Promtail as the roles configure them: the real programs, on log files as the container runtime writes them.

Discovery needs an API server, so the pods' job gets its targets from here; everything after that is the roles' own.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.bundle import parts
from plugins.modules import cluster_objects, endpoint_credentials
from tests.machines import wait
from tests.role_templates import render

NODE = "node-1"
MAX_LINE_BYTES = 262144
LOUD_LINES = 3000
BURST_LINES = 1000
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "/app/feed.py", line 7, in read',
    "    raise Stale(product)",
    "    ^^^^^^^^^^^^^^^^^^^^",
    "tradewatch.feeds.Stale: BTC-USD",
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Stack:
    """Loki and Promtail as processes, and what a node has for them to read."""

    folder: Path
    loki_port: int = field(default_factory=free_port)
    promtail_port: int = field(default_factory=free_port)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("pods", "data", "tls", "audit"):
            (self.folder / name).mkdir()
        names = {"directory": str(self.folder), "authority": "test", "valid_days": 9, "renew_before_days": 1}
        now = datetime.datetime.now(datetime.UTC)
        endpoint_credentials.ensure_certificate(
            {**names, "name": "loki", "subject_alt_names": ["localhost"]}, False, now
        )
        for suffix in ("crt", "key"):
            (self.folder / f"loki.{suffix}").rename(self.folder / f"tls/tls.{suffix}")
        self.trusting = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        self.configure_loki()
        self.configure_promtail()

    def configure_loki(self, **settings: Any) -> None:
        paths = {"_loki_data": str(self.folder / "loki"), "_loki_certificate": str(self.folder / "tls")}
        ports = {"_loki_port": self.loki_port, "_loki_grpc_port": free_port()}
        limits = {"loki_stream_rate_megabytes": 1, "loki_stream_burst_megabytes": 2}
        text = render("loki", "loki.yml.j2", self.folder, **{**paths, **ports, **limits, **settings})
        (self.folder / "loki.yml").write_text(text)

    def configure_promtail(self) -> None:
        settings = {
            "_promtail_port": self.promtail_port,
            "_promtail_configuration": str(self.folder),
            "promtail_loki_url": f"https://localhost:{self.loki_port}/loki/api/v1/push",
            "promtail_data_dir": str(self.folder / "data"),
            "promtail_audit_log": str(self.folder / "audit/audit.log"),
            "promtail_pod_lines_per_second": BURST_LINES // 10,
            "promtail_pod_burst_seconds": 10,
            "promtail_max_backoff": "1s",
        }
        config = yaml.safe_load(render("promtail", "promtail.yml.j2", self.folder, **settings))
        config["target_config"]["sync_period"] = "500ms"
        pods = next(job for job in config["scrape_configs"] if job["job_name"] == "kubernetes-pods")
        assert pods.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        del pods["relabel_configs"]
        pods["static_configs"] = [
            {
                "labels": {
                    **labels(name),
                    "limited": f"shop/{name}",
                    "node": "${HOSTNAME}",
                    "__path__": str(self.folder / f"pods/{name}/*.log"),
                }
            }
            for name in ("boot", "web", "odd", "text", "gap", "big", "bug", "loud", "calm", "outage", "restart", "bomb")
        ]
        (self.folder / "promtail.yml").write_text(yaml.safe_dump(config))

    def start(self, name: str) -> None:
        program = {"loki": parts.loki_binary, "promtail": parts.promtail_binary}[name]()
        expand = ["-config.expand-env=true"] if name == "promtail" else []
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [program, f"-config.file={self.folder / name}.yml", *expand],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "HOSTNAME": NODE},
            )
        wait(lambda: self.ready(name), f"{name} is ready", 60)

    def ready(self, name: str) -> bool:
        process = self.running[name]
        assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-2000:]
        port, scheme = (self.loki_port, "https") if name == "loki" else (self.promtail_port, "http")
        try:
            return bool(self.open(f"{scheme}://localhost:{port}/ready").status == 200)
        except OSError:
            return False

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        process = self.running.pop(name)
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def open(self, url: str, body: Any = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.trusting)]
        return urllib.request.build_opener(*handlers).open(request, timeout=10)

    def api(self, path: str, body: Any = None, method: str | None = None) -> bytes:
        with self.open(f"https://localhost:{self.loki_port}{path}", body, method) as response:
            return bytes(response.read())

    def streams(self, query: str, hours: int = 6) -> list[tuple[dict[str, str], str]]:
        """(labels and structured metadata, line) of what Loki has of the last hours."""
        start = time.time_ns() - hours * 3600 * 10**9
        words = {"query": query, "start": start, "limit": 5000, "direction": "forward"}
        found = json.loads(self.api(f"/loki/api/v1/query_range?{urllib.parse.urlencode(words)}"))["data"]["result"]
        return [(stream["stream"], line) for stream in found for _, line in stream["values"]]

    def lines(self, query: str) -> list[str]:
        return [line for _, line in self.streams(query)]

    def promtail_metric(self, name: str, *having: str) -> float:
        """The sum of a metric's samples whose labels hold these texts."""
        with self.open(f"http://localhost:{self.promtail_port}/metrics") as response:
            return total(response.read().decode(), name, having)

    def loki_metric(self, name: str, *having: str) -> float:
        """The same of Loki's."""
        return total(self.api("/metrics").decode(), name, having)

    def write(self, pod: str, *lines: str | bytes, stream: str = "stdout") -> None:
        """Lines as containerd writes them: those above 16 KiB in parts."""
        path = self.folder / f"pods/{pod}/0.log"
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as log:
            for line in lines:
                text = line if isinstance(line, bytes) else line.encode()
                pieces = [text[at : at + 16384] for at in range(0, len(text), 16384)] or [b""]
                for number, piece in enumerate(pieces, 1):
                    stamp = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "000Z")
                    flag = "F" if number == len(pieces) else "P"
                    log.write(f"{stamp} {stream} {flag} ".encode() + piece + b"\n")


def total(exposition: str, name: str, having: tuple[str, ...]) -> float:
    samples = [line for line in exposition.splitlines() if line.startswith((name + "{", name + " "))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in samples if all(word in line for word in having))


def labels(pod: str) -> dict[str, str]:
    return {"job": "kubernetes-pods", "namespace": "shop", "service": pod, "pod": pod, "container": "main"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("logs"))
    try:
        made.start("loki")
        # Promtail is ready once it follows a file.
        made.write("boot", '{"event": "started"}')
        made.start("promtail")
        yield made
    finally:
        for name in list(made.running):
            made.stop(name, signal.SIGKILL)


@pytest.mark.servers
def test_json_line_is_there_within_ten_seconds_by_its_labels_and_trace(stack: Stack) -> None:
    event = {"timestamp": "1999-01-01T00:00:00Z", "level": "WARNING", "event": "feed is late", "trace_id": "abc-1"}
    written = time.monotonic()
    stack.write("web", json.dumps(event), json.dumps({**event, "trace_id": "abc-2"}))
    query = '{namespace="shop"} | trace_id="abc-1"'
    [(found, line)] = wait(lambda: stack.streams(query), "the line", 10)
    assert time.monotonic() - written < 10
    assert json.loads(line) == event
    wanted = {**labels("web"), "cluster": "test", "node": NODE, "level": "warning"}
    assert found == {**wanted, "trace_id": "abc-1"}
    series = json.loads(stack.api('/loki/api/v1/series?match[]={service="web"}'))["data"]
    assert series == [wanted], "a trace id is a label, or there are others"


@pytest.mark.servers
def test_traceback_is_one_entry_and_what_follows_is_not_part_of_it(stack: Stack) -> None:
    stack.write("text", "INFO starting", *TRACEBACK, "plain words", "  indented", stream="stderr")
    stack.write("text", "E1123 10:00:00.000000 1 main.go:7] broken")
    wait(lambda: len(stack.lines('{service="text"}')) >= 4, "the entries")
    found = {line: stream["level"] for stream, line in stack.streams('{service="text"}')}
    assert found == {
        "INFO starting": "info",
        "\n".join(TRACEBACK): "error",
        "plain words\n  indented": "unknown",
        "E1123 10:00:00.000000 1 main.go:7] broken": "error",
    }


@pytest.mark.servers
def test_lines_that_go_on_after_a_pause_are_kept_as_they_are(stack: Stack) -> None:
    # An entry is sent after a second without another line, so what is written once it is found goes on after a pause.
    lines = [
        "waiting...",
        "  attempt 1",
        "  attempt 2",
        "  attempt 2",
        "",
        "tradewatch.feeds.Stale: gave up",
        "INFO done",
    ]
    for number, line in enumerate(lines, 1):
        stack.write("gap", line)
        wait(lambda number=number: len(stack.lines('{service="gap"}')) >= number, line)  # type: ignore[misc]
    found = stack.streams('{service="gap"}')
    assert [line for stream, line in found if stream["level"] == "unknown"] == [line or " " for line in lines[:-1]]
    assert [line for stream, line in found if stream["level"] == "info"] == lines[-1:]


@pytest.mark.servers
@pytest.mark.parametrize(
    ("pod", "block", "level"),
    [
        ("big", ["Settings:", *(["  a: 1", ""] * 124), "  last: 1"], "unknown"),
        ("bug", [TRACEBACK[0], *(f'  File "/app/{number}.py"' for number in range(449)), TRACEBACK[-1]], "error"),
    ],
)
def test_block_of_many_lines_is_cut_and_no_line_is_lost(stack: Stack, pod: str, block: list[str], level: str) -> None:
    stack.write(pod, *block, "INFO next")
    wait(lambda: stack.lines(f'{{service="{pod}"}} |= "INFO next"'), "what comes after it")
    found = stack.lines(f'{{service="{pod}", level="{level}"}}')
    assert [len(piece.split("\n")) for piece in found] == [200] * (len(block) // 200) + [len(block) % 200]
    assert "\n".join(found).split("\n") == block


@pytest.mark.servers
def test_hostile_lines_are_contained_and_counted(stack: Stack) -> None:
    five_megabytes = "x" * 5_000_000
    stack.write("odd", b"binary \x00\x01\xff\xfe end", five_megabytes, '{"level": "info", "broken', "", "the last")
    wait(lambda: "the last" in "".join(stack.lines('{service="odd"} |= "the last"')), "the line after them")
    found = stack.lines('{service="odd"}')
    assert "binary " + 4 * "\ufffd" + " end" in found
    [cut] = [line for line in found if line.startswith("xxx")]
    assert len(cut) == MAX_LINE_BYTES
    assert '{"level": "info", "broken' in found
    assert stack.promtail_metric("promtail_custom_binary_lines_total", 'service="odd"') == 1
    assert stack.promtail_metric("promtail_mutated_entries_total", "line_too_long") == 1


@pytest.mark.servers
def test_pod_cannot_make_labels_or_metadata_of_its_choosing(stack: Stack) -> None:
    values = [f"level-{number}" for number in range(50)]
    stack.write("bomb", *(json.dumps({"level": value, "trace_id": "x" * 65, "event": value}) for value in values))
    stack.write("bomb", json.dumps({"level": {"a": 1}, "trace_id": ["b"], "event": "last"}))
    wait(lambda: len(stack.lines('{service="bomb"}')) == 51, "the lines")
    assert {stream["level"] for stream, _ in stack.streams('{service="bomb"}')} == {"unknown"}
    assert all("trace_id" not in stream for stream, _ in stack.streams('{service="bomb"}'))


@pytest.mark.servers
def test_loud_pod_loses_what_is_too_much_and_no_other_pod_does(stack: Stack) -> None:
    stack.write("loud", *(f"line {number}" for number in range(LOUD_LINES)))
    stack.write("calm", *(f"calm {number}" for number in range(100)))
    assert wait(lambda: len(stack.lines('{service="calm"}')) == 100, "the calm pod's lines")
    dropped = 'label_value="shop/loud"'
    counted = wait(
        lambda: stack.promtail_metric("logentry_dropped_lines_by_label_total", dropped), "the loud one's loss", 10
    )
    assert LOUD_LINES - BURST_LINES * 2 < counted <= LOUD_LINES - BURST_LINES
    assert stack.promtail_metric("logentry_dropped_lines_by_label_total") == counted

    def bytes_are_told_by_pod() -> bool:
        sent = {name: sum(map(len, stack.lines(f'{{service="{name}"}}'))) for name in ("loud", "calm")}
        metric = "promtail_custom_log_bytes_total"
        return sent == {name: stack.promtail_metric(metric, 'namespace="shop"', f'pod="{name}"') for name in sent}

    wait(bytes_are_told_by_pod, "each pod's bytes are counted")


@pytest.mark.servers
def test_stream_over_its_rate_is_refused_alone(stack: Stack) -> None:
    now = time.time_ns()
    loud = [[str(now + number), "z" * 200_000] for number in range(20)]
    body = {"streams": [{"stream": {"service": "flood"}, "values": loud}]}
    body["streams"].append({"stream": {"service": "beside"}, "values": [[str(now), "heard"]]})

    def taken() -> bool:
        try:
            stack.api("/loki/api/v1/push", body)
        except urllib.error.HTTPError as error:
            # A busy Loki is asked again, as Promtail does.
            if error.code < 500:
                raise
            return False
        return True

    wait(taken, "the lines are taken", 60)
    assert stack.lines('{service="beside"}') == ["heard"]
    assert 0 < len(stack.lines('{service="flood"}')) < len(loud)
    assert stack.loki_metric("loki_discarded_samples_total", "per_stream_rate_limit") > 0


@pytest.mark.servers
def test_label_bomb_is_refused_and_named(stack: Stack) -> None:
    bomb = {f"label_{number}": "x" for number in range(13)}
    with pytest.raises(urllib.error.HTTPError) as refused:
        stack.api("/loki/api/v1/push", {"streams": [{"stream": bomb, "values": [[str(time.time_ns()), "x"]]}]})
    assert refused.value.code == 400
    assert stack.loki_metric("loki_discarded_samples_total", "max_label_names_per_series") == 1


@pytest.mark.servers
def test_retention_deletes_what_is_old_and_nothing_else(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    quick = {"loki_compaction_interval": "1s", "loki_retention_delete_delay": "1s"}

    def found() -> list[str]:
        return sorted(line for _, line in stack.streams('{job=~"old|fresh"}', hours=26))

    def chunks() -> int:
        return sum(path.is_file() for path in (tmp_path / "loki/chunks/fake").rglob("*"))

    def restart() -> None:
        """It writes chunks and index when it ends, and looks nowhere else for what is old."""
        stack.stop("loki")
        stack.start("loki")

    stack.configure_loki(**quick)
    stack.start("loki")
    try:
        for job, hours in (("old", 25), ("fresh", 0)):
            stamp = str(time.time_ns() - hours * 3600 * 10**9)
            stack.api("/loki/api/v1/push", {"streams": [{"stream": {"job": job}, "values": [[stamp, job]]}]})
        restart()
        wait(lambda: found() == ["fresh", "old"], "both lines, which are to be kept for two weeks")
        assert chunks() == 2
        # The least that Loki takes is a day.
        stack.configure_loki(loki_retention_hours=24, **quick)
        restart()
        # What is marked is deleted once a minute. Nothing is asked until then: an answer would be in its cache.
        wait(lambda: chunks() == 1, "a chunk is deleted", 100)
        assert found() == ["fresh"]
    finally:
        for name in list(stack.running):
            stack.stop(name, signal.SIGKILL)


@pytest.mark.servers
def test_nobody_deletes_by_the_api(stack: Stack) -> None:
    query = urllib.parse.urlencode({"query": '{service="web"}', "start": "1"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        stack.api(f"/loki/api/v1/delete?{query}", method="POST")
    assert refused.value.code in (400, 403)


@pytest.mark.servers
def test_journal_and_audit_log_are_streams_of_their_own(stack: Stack) -> None:
    now = datetime.datetime.now(datetime.UTC)
    entry = {"__REALTIME_TIMESTAMP": str(int(now.timestamp() * 10**6)), "PRIORITY": "6", "_SYSTEMD_UNIT": "k3s.service"}
    ended = {"PRIORITY": "4", "_SYSTEMD_UNIT": "init.scope", "UNIT": "k3s.service", "MESSAGE": "Main process exited"}
    entries = [
        {**entry, "MESSAGE": 'level=error component=kubelet msg="no space"'},
        {**entry, **ended},
        {**entry, "MESSAGE": [98, 255]},
    ]
    (stack.folder / "data/journal.log").write_text("".join(json.dumps(each) + "\n" for each in entries))
    stamp = now.isoformat().replace("+00:00", "Z")
    audit = {"level": "Request", "verb": "delete", "stageTimestamp": stamp, "user": {"username": "eve"}}
    events = [{**audit, "responseStatus": {"code": code}} for code in (200, 403, 500)]
    (stack.folder / "audit/audit.log").write_text("".join(json.dumps(each) + "\n" for each in events))

    wait(lambda: len(stack.lines('{job="journal"}')) == 3, "the journal")
    found = stack.streams('{job="journal"}')
    base = {"cluster": "test", "job": "journal", "node": NODE, "service": "k3s"}
    assert ({**base, "level": "error"}, 'level=error component=kubelet msg="no space"') in found
    assert ({**base, "level": "warning"}, "Main process exited") in found
    assert sum("[98,255]" in line for _, line in found) == 1

    wait(lambda: len(stack.lines('{job="audit"}')) == 3, "the audit log")
    found = stack.streams('{job="audit"} | json | user_username="eve"')
    assert {stream["level"] for stream, _ in stack.streams('{job="audit"}')} == {"info", "warning", "error"}
    assert len(found) == 3


@pytest.mark.servers
def test_outage_of_loki_loses_no_line_even_when_the_file_is_rotated(stack: Stack) -> None:
    stack.write("outage", '{"event": "before"}')
    wait(lambda: stack.lines('{service="outage"}'), "the line before")
    stack.stop("loki")
    stack.write("outage", *(json.dumps({"event": "away", "number": number}) for number in range(300)))
    wait(lambda: stack.promtail_metric("promtail_batch_retries_total") >= 2, "Promtail tries again")
    log = stack.folder / "pods/outage/0.log"
    log.rename(log.with_name("0.log.20261123-101010"))
    stack.write("outage", *(json.dumps({"event": "rotated", "number": number}) for number in range(300)))
    stack.start("loki")
    wait(lambda: len(stack.lines('{service="outage"} |= "rotated"')) >= 300, "what came after the rotation")
    found = [(item["event"], item.get("number")) for item in map(json.loads, stack.lines('{service="outage"}'))]
    wanted = [(event, number) for event in ("away", "rotated") for number in range(300)]
    assert sorted(found[1:]) == sorted(wanted)
    assert stack.promtail_metric("promtail_dropped_entries_total", "outage") == 0


@pytest.mark.servers
def test_promtail_goes_on_where_it_stopped(stack: Stack) -> None:
    stack.write("restart", '{"event": "first"}')
    wait(lambda: stack.lines('{service="restart"}'), "the line before")
    stack.stop("promtail")
    stack.write("restart", '{"event": "second"}')
    stack.start("promtail")
    wait(lambda: len(stack.lines('{service="restart"}')) == 2, "the line of meanwhile")
    assert stack.promtail_metric("promtail_sent_entries_total") == 1


@pytest.mark.parametrize("reader", ["journalctl", "native", "none"])
def test_promtail_s_objects_are_what_the_cluster_takes(tmp_path: Path, reader: str) -> None:
    manifest = render("promtail", "manifests.yml.j2", tmp_path, promtail_journal_reader=reader)
    objects = {item["kind"]: item for item in cluster_objects.parse(manifest, "promtail")}
    assert objects["ClusterRole"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    ]
    pod = objects["DaemonSet"]["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    names = ["promtail", "journal"] if reader == "journalctl" else ["promtail"]
    assert [each["name"] for each in pod["containers"]] == names
    for container in pod["containers"]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounts = {each["name"] for each in container["volumeMounts"]}
        assert mounts <= {each["name"] for each in pod["volumes"]}
    config = yaml.safe_load(objects["ConfigMap"]["data"]["promtail.yml"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert ("journal" in jobs) == (reader != "none")
    assert ("journal" in jobs.get("journal", {})) == (reader == "native")


def test_upstream_s_image_reads_the_journal_itself(tmp_path: Path) -> None:
    upstream = {"promtail": {"image": "docker.io/grafana/promtail:3.5.7"}}
    manifest = render("promtail", "manifests.yml.j2", tmp_path, artifacts_resolved=upstream)
    daemon_set = next(item for item in cluster_objects.parse(manifest, "promtail") if item["kind"] == "DaemonSet")
    assert [each["name"] for each in daemon_set["spec"]["template"]["spec"]["containers"]] == ["promtail"]


def test_loki_s_objects_let_in_whom_role_and_services_table_name(tmp_path: Path) -> None:
    to_loki = {"service": "loki", "namespace": "crypto-monitoring", "port": 3100}
    table = [
        {"name": "reader", "namespace": "crypto-research", "connects_to": [to_loki]},
        {"name": "other", "namespace": "crypto-research", "connects_to": [{**to_loki, "service": "prometheus"}]},
    ]
    manifest = render("loki", "manifests.yml.j2", tmp_path, loki_clients=["promtail"], tradewatch_services=table)
    objects = {item["kind"]: item for item in cluster_objects.parse(manifest, "loki")}
    rule, named_by_table = objects["NetworkPolicy"]["spec"]["ingress"]
    selector = {"key": "app.kubernetes.io/name", "operator": "In", "values": ["promtail"]}
    assert rule["from"] == [
        {"podSelector": {"matchExpressions": [selector]}},
        {"ipBlock": {"cidr": "192.0.2.1/32"}},
    ]
    reader = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "crypto-research"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "reader"}},
    }
    assert named_by_table == {"from": [reader], "ports": [{"port": 3100, "protocol": "TCP"}]}
    assert "egress" not in objects["NetworkPolicy"]["spec"]


FAKE_JOURNALCTL = """#!/bin/sh
# Three entries of which each call writes those behind the cursor.
for word; do case $word in --cursor-file=*) cursor=${word#--cursor-file=} ;; esac; done
echo "$@" >>"$CALLS"
from=$(cat "$cursor" 2>/dev/null || echo 0)
while [ "$from" -lt 3 ]; do from=$((from + 1)); echo "{\\"MESSAGE\\":\\"entry $from\\"}"; done
echo "$from" >"$cursor"
"""


def test_journal_is_copied_once_and_begins_a_new_file_at_its_limit(tmp_path: Path) -> None:
    program = tmp_path / "bin/journalctl"
    program.parent.mkdir()
    program.write_text(FAKE_JOURNALCTL)
    program.chmod(0o755)
    script = tmp_path / "journal.sh"
    settings = {"promtail_data_dir": str(tmp_path), "_promtail_journal_bytes": 40}
    script.write_text(render("promtail", "journal.sh.j2", tmp_path, **settings).replace("sleep 2", "sleep 0.05"))
    calls = tmp_path / "calls"
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "CALLS": str(calls)}
    running = subprocess.Popen(["/bin/sh", script], env=environment)
    try:
        wait(lambda: calls.exists() and len(calls.read_text().splitlines()) >= 3, "three calls")
    finally:
        running.kill()
        running.wait()
    old, new = tmp_path / "journal.log.1", tmp_path / "journal.log"
    assert [json.loads(line)["MESSAGE"] for line in old.read_text().splitlines()] == ["entry 1", "entry 2", "entry 3"]
    assert new.read_text() == ""
    first, second = (set(line.split()) for line in calls.read_text().splitlines()[:2])
    assert len(first - second) == 1, "the first call does not take the whole journal, the others go on"
    assert not second - first
    assert {"--unit=k3s.service", "--unit=k3s-agent.service"} <= second
