"""The server, seen from outside: its API, its files' modes, what it encrypts, logs and snapshots."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.machines import join_secrets


@pytest.fixture
def host(hosts: dict[str, Host]) -> Host:
    return hosts["control-1"]


def test_node_is_ready_with_label_and_taint(kubectl: Callable[..., Any]) -> None:
    node = kubectl("get", "node", "control-1")
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert node["metadata"]["labels"]["tradewatch/role"] == "control-plane"
    taints = [(t["key"], t["effect"]) for t in node["spec"]["taints"]]
    assert ("node-role.kubernetes.io/control-plane", "NoSchedule") in taints


def test_kubelet_reports_the_binary_s_version(host: Host, kubectl: Callable[..., Any]) -> None:
    printed = host.check_output("/usr/local/bin/k3s --version").split()[2]
    assert kubectl("get", "node", "control-1")["status"]["nodeInfo"]["kubeletVersion"] == printed


@pytest.mark.parametrize(
    "path", ["/etc/rancher/k3s/token", "/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/k3s.yaml"]
)
def test_secret_files_are_root_s_alone(host: Host, path: str) -> None:
    assert (host.file(path).mode, host.file(path).user) == (0o600, "root")


def test_kubeconfig_on_the_control_host_is_the_user_s_alone(lab_dir: Path) -> None:
    assert (lab_dir / "kubeconfig").stat().st_mode & 0o777 == 0o600


def test_token_is_in_no_unit_argument_or_journal(host: Host, lab_dir: Path) -> None:
    token = json.loads((lab_dir / "secrets.json").read_text())["k3s_token"]
    assert host.check_output("cat /etc/rancher/k3s/token") == token
    for command in ("systemctl cat k3s", "ps -eo args", "journalctl -u k3s --no-pager", "cat /proc/[0-9]*/environ"):
        printed = host.run(command).stdout
        for name, secret in join_secrets(token).items():
            assert secret not in printed, f"{name} stands in: {command}"


@pytest.mark.parametrize("path", ["/api", "/version", "/metrics", "/api/v1/namespaces"])
def test_anonymous_requests_are_refused(hosts: dict[str, Host], lab_dir: Path, path: str) -> None:
    address = json.loads((lab_dir / "lab.json").read_text())["hosts"]["control-1"]
    context = ssl._create_unverified_context()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"https://{address}:6443{path}", context=context, timeout=10)
    assert refused.value.code == 401


def test_a_change_is_in_the_audit_log(host: Host, kubectl: Callable[..., Any]) -> None:
    kubectl("create", "configmap", "audited", "--from-literal=a=b")
    try:
        log = "/var/lib/rancher/k3s/server/logs/audit.log"
        assert '"name":"audited"' in host.check_output(f"tail -n 400 {log} | grep configmaps || true")
        assert host.file(log).mode == 0o600
    finally:
        kubectl_delete(host, "configmap audited")


def kubectl_delete(host: Host, what: str) -> None:
    host.check_output(f"/usr/local/bin/k3s kubectl delete {what}")


def test_etcd_snapshot_can_be_taken_and_is_listed(host: Host) -> None:
    host.check_output("/usr/local/bin/k3s etcd-snapshot save --name molecule 2>&1")
    assert "molecule-control-1" in host.check_output("/usr/local/bin/k3s etcd-snapshot ls 2>/dev/null")
    config = host.check_output("cat /etc/rancher/k3s/config.yaml")
    assert "etcd-snapshot-schedule-cron: 0 */6 * * *" in config
