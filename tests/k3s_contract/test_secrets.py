from __future__ import annotations

import hashlib
import http.client
import re
import secrets
import ssl
import urllib.parse
from collections.abc import Iterator

import pytest

from tests.machines import Cluster, Host, join_secrets, wait

SERVER = "/var/lib/rancher/k3s/server"
UNIT = "k3s-contract-wrong-token"
CONFIG = "/run/k3s-contract/config.yaml"


@pytest.mark.parametrize("name", ["token", "node-token"])
def test_token_names_the_ca_and_is_readable_by_root_only(server: Host, name: str) -> None:
    assert server.run(f"stat -Lc '%a %U' {SERVER}/{name}").strip() == "600 root"
    match = re.fullmatch(r"K10([0-9a-f]{64})::server:\S+", server.run(f"cat {SERVER}/{name}").strip())
    assert match
    ca = server.run(f"cat {SERVER}/tls/server-ca.crt")
    assert match[1] == hashlib.sha256(ca.encode()).hexdigest()


def test_what_joins_nodes_is_in_no_journal(cluster: Cluster, server: Host) -> None:
    password = server.run(f"cat {SERVER}/token").strip().rpartition(":")[2]
    for host in cluster.hosts:
        journal = host.run("journalctl --no-pager --output cat")
        for name, secret in join_secrets(password).items():
            assert secret not in journal, f"{name} stands in the journal of {host.name}"


def test_admin_kubeconfig_is_for_root_and_points_at_this_server(server: Host) -> None:
    assert server.run("stat -c %a /etc/rancher/k3s/k3s.yaml").strip() == "600"
    assert "server: https://127.0.0.1:6443" in server.run("cat /etc/rancher/k3s/k3s.yaml")


@pytest.mark.parametrize("path", ["/api", "/version", "/metrics", "/api/v1/secrets", "/openapi/v2"])
def test_anonymous_requests_are_refused(cluster: Cluster, path: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = urllib.parse.urlsplit(cluster.url())
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context, timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == 401


def test_kubelet_refuses_anonymous_requests(agent: Host) -> None:
    answer = agent.run(f"curl -sk -o /dev/null -w '%{{http_code}}' https://{agent.address}:10250/pods")
    assert answer == "401"


def test_secrets_are_encrypted_in_etcd(cluster: Cluster, server: Host) -> None:
    name, marker = f"contract-{secrets.token_hex(4)}", secrets.token_hex(16)
    cluster.kubectl("create", "secret", "generic", name, "-n", "default", f"--from-literal=key={marker}")
    snapshot = ""
    try:
        server.run(f"k3s etcd-snapshot save --name {name}")
        snapshot = server.run(f"ls {SERVER}/db/snapshots | grep ^{name}-").strip()
        script = (
            f"data = open('{SERVER}/db/snapshots/{snapshot}', 'rb').read();"
            f"at = data.rindex(b'/registry/secrets/default/{name}');"
            f"print(b'k8s:enc:' in data[at:at + 200], b'{marker}' in data)"
        )
        assert server.run(f'python3 -c "{script}"').split() == ["True", "False"]
    finally:
        cluster.kubectl("delete", "secret", name, "-n", "default")
        if snapshot:
            server.run(f"k3s etcd-snapshot delete {snapshot}")


@pytest.fixture
def stopped_agent(cluster: Cluster, agent: Host) -> Iterator[Host]:
    agent.run("systemctl stop k3s-agent")
    yield agent
    agent.run(f"systemctl stop {UNIT}; systemctl reset-failed {UNIT}; rm -rf /run/k3s-contract", check=False)
    agent.run("timeout 150 systemctl start k3s-agent")
    wait(lambda: cluster.ready(agent), f"{agent.name} Ready again")


def test_wrong_token_never_joins_and_is_never_shown(cluster: Cluster, stopped_agent: Host) -> None:
    token = f"wrong{secrets.token_hex(12)}"
    config = stopped_agent.run("cat /etc/rancher/k3s/config.yaml")
    url = re.search(r"https://[^\s\"',]+:6443", config)
    assert url, "config.yaml of an agent names its server"
    stopped_agent.write(CONFIG, f'server: "{url[0]}"\ntoken: "{token}"\nnode-name: contract-wrong-token\n')
    stopped_agent.run(f"systemd-run --unit={UNIT} --property=Type=notify --no-block k3s agent --config {CONFIG}")
    journal = f"journalctl -u {UNIT} --no-pager -o cat"
    assert wait(lambda: "token" in stopped_agent.run(journal).lower(), "a line about the token in the journal", 60)
    processes = "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $p 2>/dev/null; done"
    assert token not in stopped_agent.run(processes)
    assert token not in stopped_agent.run("journalctl --no-pager -o cat --since -5min")
    assert stopped_agent.run(f"systemctl is-active {UNIT}", check=False).strip() != "active"
    names = {item["metadata"]["name"] for item in cluster.get("nodes")["items"]}
    assert "contract-wrong-token" not in names
