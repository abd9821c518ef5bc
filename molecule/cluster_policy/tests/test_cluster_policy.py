"""The policies by what they refuse: too much, too privileged, not allowed to connect; and what they let pass."""

from __future__ import annotations

from typing import Any

import pytest
from lab_cluster import GET, PROBE_LABEL, Cluster, eventually, pod, policy
from testinfra.host import Host

ROLES = {
    "control-1": "control-plane",
    "collectors-1": "collectors",
    "trading-1": "trading",
    "analytics-1": "analytics",
}
NAMESPACES = {"crypto-collectors": "collectors", "crypto-trading": "trading", "crypto-monitoring": "analytics"}
RESTRICTED = ["crypto-collectors", "crypto-trading"]
# Answers with the caller's address.
ECHO = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def candidate(namespace: str) -> dict[str, Any]:
    return pod(namespace, "candidate", "example.invalid/candidate", NAMESPACES[namespace], ["true"])


@pytest.mark.parametrize(("node", "role"), ROLES.items(), ids=ROLES)
def test_node_has_its_role_and_only_the_control_plane_a_taint(cluster: Cluster, node: str, role: str) -> None:
    found = cluster.get("node", node)
    assert found["metadata"]["labels"]["tradewatch/role"] == role
    taints = [(taint["key"], taint["effect"]) for taint in found["spec"].get("taints", [])]
    assert taints == ([("node-role.kubernetes.io/control-plane", "NoSchedule")] if role == "control-plane" else [])


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_modest_pod_is_taken_and_gets_the_default_limits(cluster: Cluster, namespace: str) -> None:
    item = candidate(namespace)
    assert cluster.refusal(item) == ""
    del item["spec"]["containers"][0]["resources"]
    assert cluster.refusal(item) == "", "without the LimitRange the quota refuses a pod that states no resources"


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_quota_refuses_too_much(cluster: Cluster, namespace: str) -> None:
    item = candidate(namespace)
    item["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": "10m", "memory": "9Gi"},
        "limits": {"memory": "9Gi"},
    }
    eventually(lambda: "exceeded quota: tradewatch" in cluster.refusal(item), "the quota counts", 30)


@pytest.mark.parametrize("namespace", RESTRICTED)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"securityContext": {"privileged": True}}, "privileged"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation"),
        ({"securityContext": {"allowPrivilegeEscalation": False, "runAsUser": 0}}, "runAsUser=0"),
    ],
    ids=["privileged", "escalation", "root"],
)
def test_restricted_namespace_refuses(cluster: Cluster, namespace: str, change: dict[str, Any], reason: str) -> None:
    item = candidate(namespace)
    item["spec"]["containers"][0] |= change
    refusal = cluster.refusal(item)
    assert 'violates PodSecurity "restricted' in refusal
    assert reason in refusal


def test_monitoring_may_read_the_hosts_files(cluster: Cluster) -> None:
    item = candidate("crypto-monitoring")
    item["spec"]["volumes"] = [{"name": "host", "hostPath": {"path": "/"}}]
    # What is warned about is on stderr too, so the answer is whether the API server took it.
    assert "Error" not in cluster.refusal(item)


def test_nothing_connects_until_both_sides_allow_it(cluster: Cluster) -> None:
    server, client = "crypto-trading", "crypto-collectors"
    serve = ["python3", "-c", "import http.server as h; h.test(h.BaseHTTPRequestHandler, port=8080)"]
    address = cluster.start(pod(server, "server", cluster.services_image(), "trading", serve))
    cluster.probe(client, "client", "collectors")
    receive = policy(server, "probe", {PROBE_LABEL: "server"}, "Ingress")
    send = policy(client, "probe", {PROBE_LABEL: "client"}, "Egress")

    def connects() -> bool:
        return cluster.connects(client, "client", address, 8080)

    eventually(lambda: not connects(), "the default is to deny", 30)
    cluster.make(receive, send)
    eventually(connects, "both sides allow it", 30)
    cluster.remove("networkpolicy", server, "probe")
    eventually(lambda: not connects(), "the receiver's default is to deny", 30)
    cluster.make(receive)
    eventually(connects, "both sides allow it again", 30)
    cluster.remove("networkpolicy", client, "probe")
    eventually(lambda: not connects(), "the sender's default is to deny", 30)


def test_a_pod_is_known_by_its_address_on_a_node_that_its_own_does_not_know_yet(
    cluster: Cluster, hosts: dict[str, Host]
) -> None:
    # Policies go by addresses: a pod whose node sent its traffic as its own would be refused where it is allowed.
    server, client = "crypto-trading", "crypto-collectors"
    address = cluster.start(pod(server, "echo", cluster.services_image(), "trading", ["python3", "-c", ECHO]))
    own = cluster.probe(client, "caller", "collectors")
    cluster.make(
        policy(server, "echo", {PROBE_LABEL: "echo"}, "Ingress"),
        policy(client, "caller", {PROBE_LABEL: "caller"}, "Egress"),
    )

    def seen() -> str:
        command = ("python3", "-c", GET, f"http://{address}:8080/")
        return str(cluster.execute(client, "caller", *command).stdout).strip()

    eventually(seen, "the policies let it pass", 30)
    # What kube-router knows of the other node, where the pod network is its; it looks again within five minutes.
    subnet = cluster.get("node", "trading-1")["spec"]["podCIDR"]
    hosts["collectors-1"].run(f"ipset del kube-router-pod-subnets {subnet}")
    assert seen() == own


def test_pods_may_ask_the_cluster_s_dns(cluster: Cluster) -> None:
    cluster.probe("crypto-trading", "resolver", "trading")
    ask = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"

    def answer() -> str:
        return str(cluster.execute("crypto-trading", "resolver", "python3", "-c", ask).stdout).strip()

    assert eventually(answer, "DNS answers", 30) == cluster.get("service", "kubernetes")["spec"]["clusterIP"]
