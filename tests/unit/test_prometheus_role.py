"""What the role prometheus renders, judged by promtool and read back: jobs, limits, rules, rights and ways out."""

from __future__ import annotations

import datetime
import json
import re
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from lab.bundle.parts import prometheus_binary
from plugins.modules import endpoint_credentials
from tests.commands import REPOSITORY, run
from tests.machines import wait
from tests.rules import RuleFolder

ROLE = REPOSITORY / "roles/prometheus"
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
    "grafana",
    "external",
}
GIVEN: dict[str, Any] = {
    "prometheus_state_dir": "/nonexistent",
    "prometheus_image": "prometheus:test",
    "prometheus_cluster_name": "test",
    "prometheus_password": "secret-1",
    "prometheus_alertmanager_password": "secret-2",
    "prometheus_node_exporter_password": "secret-3",
    "prometheus_scrape_namespaces": ["crypto-collectors", "crypto-monitoring"],
    "prometheus_admin_cidrs": ["192.0.2.1/32"],
    "prometheus_api_server_cidrs": ["192.0.2.11/32"],
    "prometheus_node_cidrs": ["192.0.2.11/32", "192.0.2.12/32"],
    "prometheus_grafana_enabled": True,
    "prometheus_rules_dir": str(REPOSITORY / "files/rules"),
    "prometheus_external_url": "https://prometheus.example:30090",
    "prometheus_runbooks_url": "https://runbooks.example",
    "prometheus_dashboards_url": "https://dashboards.example",
    "prometheus_external_targets": [{"name": "router", "targets": ["203.0.113.9:9100"], "labels": {"site": "main"}}],
    "prometheus_clients": [
        {
            "name": "watcher",
            "namespace": "crypto-research",
            "connects_to": [{"service": "prometheus", "namespace": "crypto-monitoring", "port": 9090}],
        }
    ],
    "prometheus_job_limits": {"loki": {"sample_limit": 77}},
    "prometheus_rule_thresholds": {"node_cpu_busy_ratio": 0.5},
}


def render(folder: Path, **changed: Any) -> list[dict[str, Any]]:
    """The role's objects as it would apply them."""
    (folder / "templates").symlink_to(ROLE / "templates")
    play = {
        "hosts": "localhost",
        "connection": "local",
        "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": [{"ansible.builtin.template": {"src": "manifests.yml.j2", "dest": str(folder / "out.yml")}}],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    (folder / "vars.json").write_text(json.dumps(GIVEN | changed))
    run("ansible-playbook", "-i", "localhost,", str(folder / "play.yml"), "-e", f"@{folder}/vars.json")
    return [item for item in yaml.safe_load_all((folder / "out.yml").read_text()) if item]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return render(tmp_path_factory.mktemp("prometheus"))


@pytest.mark.parametrize(("artifacts", "port"), [({"grafana": {}}, 30030), ({}, 30081)])
def test_alerts_lead_to_grafana_where_there_is_one(tmp_path: Path, artifacts: dict[str, Any], port: int) -> None:
    links = ["{{ prometheus_dashboards_url }}", "{{ prometheus_runbooks_url }}"]
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": [{"ansible.builtin.copy": {"dest": str(tmp_path / "out"), "content": " ".join(links)}}],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    given = json.dumps(
        {"artifacts_resolved": artifacts, "analytics_address": "192.0.2.4", "dashboards_node_port": 30081}
    )
    run("ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"), "-e", given)
    assert (tmp_path / "out").read_text() == f"https://192.0.2.4:{port} https://192.0.2.4:30081/runbooks"


def named(objects: list[dict[str, Any]], kind: str, prefix: str) -> dict[str, Any]:
    (found,) = (item for item in objects if item["kind"] == kind and item["metadata"]["name"].startswith(prefix))
    return found


@pytest.fixture(scope="module")
def config(objects: list[dict[str, Any]]) -> dict[str, Any]:
    files = [item for item in objects if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "prometheus"]
    loaded: dict[str, Any] = yaml.safe_load(files[0]["data"]["prometheus.yml"])
    return loaded


def test_promtool_takes_configuration_and_rules(objects: list[dict[str, Any]], tmp_path: Path) -> None:
    files = next(item for item in objects if item["kind"] == "ConfigMap" and "prometheus.yml" in item["data"])["data"]
    text = files["prometheus.yml"]
    for path in ("/etc/prometheus", "/var/run/secrets/kubernetes.io/serviceaccount"):
        text = text.replace(path, str(tmp_path))
    (tmp_path / "web").mkdir()
    (tmp_path / "rules").mkdir()
    authority = "-----BEGIN CERTIFICATE-----\n"  # promtool looks whether it is there, not what it says
    for name in (
        "web/password",
        "web/alertmanager-password",
        "web/node-exporter-password",
        "web/ca.crt",
        "ca.crt",
        "token",
    ):
        (tmp_path / name).write_text(authority)
    (tmp_path / "external.json").write_text(files["external.json"])
    (tmp_path / "prometheus.yml").write_text(text)
    for name, rules in named(objects, "ConfigMap", "prometheus-rules-")["data"].items():
        (tmp_path / "rules" / name).write_text(rules)
    program = prometheus_binary("promtool")
    checked = subprocess.run(
        [program, "check", "config", "--lint=all", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_job_is_there_and_bounded(config: dict[str, Any]) -> None:
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == JOBS
    for name, job in jobs.items():
        assert 0 < job["sample_limit"] <= 50000, name
        assert {"label_limit", "label_name_length_limit", "label_value_length_limit", "body_size_limit"} <= set(job), (
            name
        )
        assert not (job.get("tls_config") or {}).get("insecure_skip_verify"), f"{name} does not verify"
    assert jobs["loki"]["sample_limit"] == 77


def test_a_service_with_new_label_values_at_each_scrape_is_contained(config: dict[str, Any]) -> None:
    limits = {job["job_name"]: job["sample_limit"] for job in config["scrape_configs"]}
    assert config["global"]["scrape_interval"] == "15s"
    series_a_minute = 60 // 15 * (limits["kubernetes-services-metrics"] + limits["kubernetes-pods-metrics"])
    # So that an alert comes before its memory is full.
    assert series_a_minute <= 20000
    # Pages that grow with the cluster and not with one service.
    assert min(limits[job] for job in ("kube-state-metrics", "cadvisor", "apiserver")) >= 20000


@pytest.mark.parametrize(
    ("job", "metric", "kept"),
    [
        ("kubelet", "kubelet_running_pods", True),
        ("kubelet", "k3s_certificate_expiration_seconds", True),
        ("kubelet", "apiserver_request_total", False),
        ("kubelet", "kubelet_http_requests_duration_seconds_bucket", False),
        ("apiserver", "apiserver_request_total", True),
        ("apiserver", "k3s_certificate_expiration_seconds", False),
    ],
)
def test_a_component_s_metrics_are_kept_by_its_job(config: dict[str, Any], job: str, metric: str, kept: bool) -> None:
    rules = next(entry for entry in config["scrape_configs"] if entry["job_name"] == job)["metric_relabel_configs"]
    found = {
        rule["action"]: re.fullmatch(rule["regex"], metric) is not None
        for rule in rules
        if rule.get("source_labels") == ["__name__"]
    }
    assert (found["keep"] and not found["drop"]) == kept


def test_every_job_has_a_budget(objects: list[dict[str, Any]]) -> None:
    rules = yaml.safe_load(named(objects, "ConfigMap", "prometheus-rules-")["data"]["monitoring.yml"])
    budgets = {
        rule["labels"]["job"]: rule["labels"].get("optional")
        for group in rules["groups"]
        for rule in group["rules"]
        if rule.get("record") == "job:series_budget:limit"
    }
    assert set(budgets) == JOBS
    assert {job for job, optional in budgets.items() if optional} == {"grafana", "external"}


def test_optional_jobs_are_left_out(tmp_path: Path) -> None:
    rendered = render(tmp_path, prometheus_grafana_enabled=False, prometheus_external_targets=[])
    files = next(item for item in rendered if item["kind"] == "ConfigMap" and "prometheus.yml" in item["data"])
    jobs = {job["job_name"] for job in yaml.safe_load(files["data"]["prometheus.yml"])["scrape_configs"]}
    assert jobs == JOBS - {"grafana", "external"}


def test_rules_have_their_thresholds_and_cannot_be_edited(objects: list[dict[str, Any]]) -> None:
    rules = named(objects, "ConfigMap", "prometheus-rules-")
    assert rules["immutable"] is True
    assert {f"{area}.yml" for area in RuleFolder(REPOSITORY / "files/rules").areas} == set(rules["data"])
    text = rules["data"]["infrastructure.yml"]
    assert "> 0.5" in " ".join(text.split())
    assert "${" not in text
    assert "https://runbooks.example/NodeDown.md" in text
    pod = named(objects, "StatefulSet", "prometheus")["spec"]["template"]["spec"]
    mounted = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert mounted == {"prometheus", rules["metadata"]["name"]}


def test_an_external_target_is_reached_and_labelled(objects: list[dict[str, Any]]) -> None:
    files = next(item for item in objects if item["kind"] == "ConfigMap" and "external.json" in item["data"])["data"]
    (group,) = json.loads(files["external.json"])
    assert group["targets"] == ["203.0.113.9:9100"]
    assert group["labels"]["site"] == "main"
    assert "203.0.113.9/32:9100" in ways_out(objects)


def test_a_target_behind_https_is_verified_by_its_authority(tmp_path: Path, config: dict[str, Any]) -> None:
    def settings(loaded: dict[str, Any]) -> Any:
        (job,) = (job for job in loaded["scrape_configs"] if job["job_name"] == "external")
        return job.get("tls_config")

    _, certificate = endpoint_credentials.issue("room", None, [], 9, datetime.datetime.now(datetime.UTC))
    authority = certificate.public_bytes(serialization.Encoding.PEM).decode()
    entry = {"name": "room", "targets": ["203.0.113.9:9443"], "scheme": "https", "ca": authority}
    rendered = render(tmp_path, prometheus_external_targets=[entry])
    files = next(item for item in rendered if item["kind"] == "ConfigMap" and "external.json" in item["data"])["data"]
    assert settings(yaml.safe_load(files["prometheus.yml"])) == {"ca_file": "/etc/prometheus/external-ca.crt"}
    assert files["external-ca.crt"] == authority
    assert settings(config) is None


def test_its_namespace_admins_and_entries_that_name_it_may_ask_it(objects: list[dict[str, Any]]) -> None:
    ours, named_by_table = named(objects, "NetworkPolicy", "prometheus")["spec"]["ingress"]
    assert ours["from"] == [{"podSelector": {}}, {"ipBlock": {"cidr": "192.0.2.1/32"}}]
    (client,) = named_by_table["from"]
    assert client["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "crypto-research"}
    assert client["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "watcher"}
    assert named_by_table["ports"] == [{"port": 9090, "protocol": "TCP"}]


def ways_out(objects: list[dict[str, Any]]) -> set[str]:
    return {
        f"{peer['ipBlock']['cidr']}:{port['port']}"
        for rule in named(objects, "NetworkPolicy", "prometheus")["spec"]["egress"]
        for peer in rule["to"]
        if "ipBlock" in peer
        for port in rule["ports"]
    }


def test_nodes_are_reached_on_the_ports_of_metrics_alone(objects: list[dict[str, Any]]) -> None:
    assert ways_out(objects) == {
        "192.0.2.11/32:6443",
        "192.0.2.11/32:2381",
        "192.0.2.11/32:10250",
        "192.0.2.11/32:9100",
        "192.0.2.12/32:10250",
        "192.0.2.12/32:9100",
        "203.0.113.9/32:9100",
    }


def test_ports_and_users_of_other_roles_are_followed(tmp_path: Path) -> None:
    others = {"node_exporter_port": 9101, "node_exporter_username": "eyes", "alertmanager_username": "bell"}
    rendered = render(tmp_path, **others)
    assert {"192.0.2.11/32:9101", "192.0.2.12/32:9101"} <= ways_out(rendered)
    files = next(item for item in rendered if item["kind"] == "ConfigMap" and "prometheus.yml" in item["data"])["data"]
    loaded = yaml.safe_load(files["prometheus.yml"])
    jobs = {job["job_name"]: job for job in loaded["scrape_configs"]}
    assert jobs["node-exporter"]["relabel_configs"][0]["replacement"] == "$1:9101"
    assert jobs["node-exporter"]["basic_auth"]["username"] == "eyes"
    assert jobs["alertmanager"]["basic_auth"]["username"] == "bell"
    assert loaded["alerting"]["alertmanagers"][0]["basic_auth"]["username"] == "bell"


def test_its_rights_read_metrics_and_nothing_of_secrets(objects: list[dict[str, Any]]) -> None:
    verbs = set()
    resources = set()
    for item in objects:
        if item["kind"] in ("Role", "ClusterRole"):
            for rule in item["rules"]:
                verbs |= set(rule["verbs"])
                resources |= set(rule.get("resources", [])) | set(rule.get("nonResourceURLs", []))
    assert verbs == {"get", "list", "watch"}
    assert resources == {"services", "pods", "endpointslices", "nodes", "nodes/metrics", "/metrics"}


def test_passwords_are_in_the_secret_alone(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        text = json.dumps(item)
        assert item["kind"] == "Secret" or not any(f"secret-{n}" in text for n in (1, 2, 3))


# Answered as a file that the server knows no format of.
FORMATLESS = "/small"
PAGES = {
    "/calm": "calm 1\n",
    FORMATLESS: "small 1\n",
    "/exploding": "".join(f'exploding{{id="{number}"}} 1\n' for number in range(12000)),
    "/label-bomb": f'bomb{{text="{"x" * 3000}"}} 1\n',
    "/many-labels": "many{" + ",".join(f'l{number}="1"' for number in range(80)) + "} 1\n",
    "/broken": "this is {not the format\n",
}


@pytest.fixture
def exporter() -> Iterator[str]:
    """An exporter outside the cluster, with pages of several kinds; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            format_of = "application/octet-stream" if self.path == FORMATLESS else "text/plain; version=0.0.4"
            self.send_header("Content-Type", format_of)
            self.end_headers()
            self.wfile.write(PAGES[self.path].encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_target_over_a_limit_is_down_alone(config: dict[str, Any], exporter: str, tmp_path: Path) -> None:
    """A real Prometheus with the limits of the job `external`, and targets that pass them."""
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "external")
    limits = {key: value for key, value in job.items() if key.endswith(("_limit", "_protocol"))}
    jobs = [
        {"job_name": path[1:], "metrics_path": path, "static_configs": [{"targets": [exporter]}], **limits}
        for path in PAGES
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    itself = {"job_name": "prometheus", "static_configs": [{"targets": [address]}]}
    written = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [*jobs, itself]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(written))
    program = prometheus_binary("prometheus")
    features = "--enable-feature=exemplar-storage,extra-scrape-metrics"
    files = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([program, *files, features, f"--web.listen-address={address}"], stderr=log)
    try:

        def ask(query: str) -> dict[str, float]:
            url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
            return {series["metric"].get("job", ""): float(series["value"][1]) for series in found}

        def seen() -> dict[str, float] | None:
            try:
                up = ask("up")
            except OSError:
                return None
            return up if set(up) == {path[1:] for path in PAGES} | {"prometheus"} else None

        up = wait(seen, "every target was scraped", 60) or {}
        assert {job for job, value in up.items() if value == 1} == {"calm", "small", "prometheus"}
        assert ask("scrape_sample_limit")["calm"] == limits["sample_limit"]
        counted = {
            "sample": "prometheus_target_scrapes_exceeded_sample_limit_total",
            "label": "prometheus_target_scrape_pool_exceeded_label_limits_total",
        }
        for kind, metric in counted.items():
            wait(lambda metric=metric: ask(f"{metric} > 0"), f"the {kind} limit is counted")  # type: ignore[misc]
        assert not ask("exploding or bomb or many")
    finally:
        process.terminate()
        process.wait(30)
