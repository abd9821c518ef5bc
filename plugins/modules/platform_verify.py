#!/usr/bin/python
"""Look at a running platform from outside, and say what is not as it should be."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from kubernetes import client, config
from kubernetes.stream import stream
from urllib3.exceptions import HTTPError

DOCUMENTATION = r"""
module: platform_verify
short_description: Check a running platform from outside
description:
  - Runs every check, then reports all that failed at once. Nothing that it makes outlives it.
  - In check mode only what reads is done; nothing is started in the cluster.
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  endpoints_file:
    description: The C(endpoints.json) that monitoring.yml wrote.
    type: path
    required: true
  nodes:
    description: Host name to C({address, role, version}), as the inventory and the host itself say.
    type: dict
    required: true
  host_files:
    description: Host name to a list of C({path, mode}), of the files that hold secrets.
    type: dict
    required: true
  snapshots:
    description: Server name to C({files, schedule}), the number of etcd snapshots and whether they are scheduled.
    type: dict
    required: true
  namespaces:
    description: The table C(tradewatch_namespaces).
    type: list
    elements: dict
    required: true
  services:
    description: The services table, simulators included.
    type: list
    elements: dict
    required: true
  infrastructure:
    description: What else is to run, as C({name, namespace, node_role, port}).
    type: list
    elements: dict
    required: true
  timeout_seconds:
    description: How long to wait for what takes time after a deployment - targets, rates, pods.
    type: int
    default: 120
author: Tradewatch
"""

EXAMPLES = r"""
- name: Check everything
  platform_verify:
    kubeconfig: "{{ kubeconfig_path }}"
    endpoints_file: "{{ state_dir }}/endpoints.json"
    nodes: {control-1: {address: 192.0.2.10, role: control-plane, version: v1.34.4+k3s1}}
    host_files: {}
    snapshots: {}
    namespaces: "{{ tradewatch_namespaces }}"
    services: "{{ tradewatch_services }}"
    infrastructure: []
"""

RETURN = r"""
summary:
  description: One line a check.
  type: list
  returned: always
"""

Object = dict[str, Any]
Check = Callable[[], Iterator[str]]

CONTROL_PLANE_TAINT = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
PROBE_LABEL = "tradewatch.io/verify"
PROBE_NAMESPACE = "crypto-collectors"
DNS_NAME = "kubernetes.default.svc.cluster.local"

# Run in a service's own container: tries all targets at once and prints which could be reached.
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(target):
    try:
        socket.create_connection(tuple(target), timeout=3).close()
        return True
    except OSError:
        return False
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(reached, targets))))
"""

RESOLVE = f"""
import socket, time
for attempt in range(10):
    try:
        print(socket.getaddrinfo("{DNS_NAME}", 443)[0][4][0])
        break
    except OSError as error:
        print(error)
        time.sleep(1)
else:
    raise SystemExit(1)
"""


def direct(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """Opens addresses of the platform itself, past any proxy that the environment names for the internet."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


class Prometheus:
    """Prometheus' API as somebody outside the cluster reaches it: TLS, its authority, its user."""

    def __init__(self, endpoint: dict[str, str | None]) -> None:
        self.url = str(endpoint["url"])
        self._opener = direct(ssl.create_default_context(cafile=endpoint["ca_file"]))
        password = Path(str(endpoint["password_file"])).read_text().strip()
        credentials = base64.b64encode(f"{endpoint['username']}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}"}

    def _get(self, path: str, headers: dict[str, str]) -> Any:
        # The address comes from endpoints.json, which monitoring.yml wrote.
        request = urllib.request.Request(self.url + path, headers=headers)  # noqa: S310
        with self._opener.open(request, timeout=10) as response:
            return json.load(response)

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """An instant vector: the values of its labels in the order of their names -> value."""
        answer = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}), self._headers)
        return {
            tuple(series["metric"][name] for name in sorted(series["metric"])): float(series["value"][1])
            for series in answer["data"]["result"]
        }

    def status_without_password(self) -> int:
        """The HTTP status that a caller without credentials gets."""
        try:
            self._get("/api/v1/status/buildinfo", {})
        except urllib.error.HTTPError as error:
            return error.code
        return 200


def ready(item: Object) -> bool:
    """Whether a node's or pod's condition Ready is true."""
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def encrypted_secret_writes(metrics: str) -> float:
    """How many Secrets the API server has written encrypted, out of its metrics."""
    count = 0.0
    for line in metrics.splitlines():
        if not line.startswith("apiserver_storage_transformation_operations_total{"):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        # An inner transformer (the key's name) counts the same write once more, without this prefix.
        if (
            labels.get("resource") == "secrets"
            and labels.get("transformation_type") == "to_storage"
            and labels.get("status") == "OK"
            and labels.get("transformer_prefix", "").startswith("k8s:enc:")
        ):
            count += float(line.rsplit(" ", 1)[1])
    return count


def probe_image(node: Object, services_image: str | None) -> tuple[str, list[str]] | None:
    """An image that the node holds already, and the command with which it asks the cluster's DNS."""
    names = [name for image in node["status"].get("images") or [] for name in image.get("names") or []]
    if services_image in names:
        return str(services_image), ["python3", "-c", RESOLVE]
    busybox = next((name for name in names if "busybox" in name and "@" not in name), None)
    return (busybox, ["busybox", "nslookup", DNS_NAME]) if busybox else None


def probe_pod(node_name: str, image: str, command: list[str]) -> Object:
    """A short-lived pod on one node, as restricted as the services are."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"verify-dns-{node_name}", "labels": {PROBE_LABEL: "dns"}},
        "spec": {
            "nodeName": node_name,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 120,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": command,
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


class Verification:
    """The checks. Each yields one line a problem; none is success."""

    def __init__(self, parameters: Object, read_only: bool) -> None:
        self.parameters = parameters
        self.read_only = read_only
        self.deadline = time.monotonic() + parameters["timeout_seconds"]
        self.api_client = config.new_client_from_config(config_file=parameters["kubeconfig"])
        self.core = client.CoreV1Api(self.api_client)
        # stream() replaces the client's way of sending requests, so it gets a client of its own.
        self.streaming = client.CoreV1Api(config.new_client_from_config(config_file=parameters["kubeconfig"]))
        self.namespaces = [entry["name"] for entry in parameters["namespaces"]]
        self.services: list[Object] = parameters["services"]
        self.nodes = {node["metadata"]["name"]: node for node in self._items(self.core.list_node)}
        self.pods = [
            pod
            for namespace in self.namespaces
            for pod in self._items(self.core.list_namespaced_pod, namespace)
            if PROBE_LABEL not in pod["metadata"].get("labels", {})
        ]
        self.probes: list[str] = []

    def _items(self, call: Callable[..., Any], *arguments: str) -> list[Object]:
        listed: Object = self.api_client.sanitize_for_serialization(call(*arguments, _request_timeout=(5, 60)))
        return listed["items"] or []

    def _pods_of(self, entry: Object) -> list[Object]:
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["namespace"] == entry["namespace"]
            and pod["metadata"].get("labels", {}).get("app.kubernetes.io/name") == entry["name"]
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def _poll(self, problems: Callable[[], list[str]]) -> list[str]:
        """The problems, once there are none or the time is over."""
        while True:
            try:
                found = problems()
            except (OSError, ValueError, KeyError) as error:
                found = [f"no answer: {error}"]
            if not found or time.monotonic() >= self.deadline:
                return found
            time.sleep(2)

    def _prometheus(self) -> Prometheus:
        endpoint = json.loads(Path(self.parameters["endpoints_file"]).read_text())["prometheus"]
        if not endpoint:
            raise ValueError("endpoints.json names no Prometheus")
        return Prometheus(endpoint)

    def nodes_are_the_inventory(self) -> Iterator[str]:
        """Exactly the inventory's hosts, Ready, in the version that their k3s says it is."""
        wanted = self.parameters["nodes"]
        for name in sorted(set(wanted) - set(self.nodes)):
            yield f"{name} is in the inventory and no node"
        for name in sorted(set(self.nodes) - set(wanted)):
            yield f"{name} is a node and not in the inventory"
        for name in sorted(set(self.nodes) & set(wanted)):
            status = self.nodes[name]["status"]
            if not ready(self.nodes[name]):
                yield f"{name} is not Ready"
            version = status["nodeInfo"]["kubeletVersion"]
            if version != wanted[name]["version"]:
                yield f"{name}: kubelet says {version}, k3s on the host {wanted[name]['version'] or 'does not answer'}"
            addresses = [entry["address"] for entry in status.get("addresses") or []]
            if wanted[name]["address"] not in addresses:
                yield f"{name}: the inventory's address {wanted[name]['address']} is not among {', '.join(addresses)}"

    def labels_and_taints(self) -> Iterator[str]:
        """The role label of every node, and the taint of the control plane and of nobody else."""
        for name, wanted in sorted(self.parameters["nodes"].items()):
            node = self.nodes.get(name)
            if node is None:
                continue
            role = node["metadata"].get("labels", {}).get("tradewatch/role")
            if role != wanted["role"]:
                yield f"{name}: label tradewatch/role is {role}, the inventory says {wanted['role']}"
            taints = [taint for taint in node["spec"].get("taints") or [] if taint["key"] == CONTROL_PLANE_TAINT["key"]]
            expected = [CONTROL_PLANE_TAINT["effect"]] if wanted["role"] == "control-plane" else []
            if [taint["effect"] for taint in taints] != expected:
                yield f"{name}: taint {CONTROL_PLANE_TAINT['key']} is {'missing' if expected else 'there'}"

    def pods_run(self) -> Iterator[str]:
        """Every service has its replicas, ready, on nodes of its role."""
        for entry in self.services + self.parameters["infrastructure"]:
            title = f"{entry['namespace']}/{entry['name']}"
            pods = self._pods_of(entry)
            wanted = entry.get("replicas", 1)
            if len(pods) != wanted:
                yield f"{title}: {len(pods)} pods, expected {wanted}"
            for pod in pods:
                if not ready(pod):
                    yield f"{title}: pod {pod['metadata']['name']} is not ready"
                node = self.nodes.get(pod["spec"].get("nodeName", ""), {})
                role = node.get("metadata", {}).get("labels", {}).get("tradewatch/role")
                if role != entry["node_role"]:
                    where = f"a node of role {role}, not {entry['node_role']}"
                    yield f"{title}: pod {pod['metadata']['name']} runs on {where}"

    def default_deny(self) -> Iterator[str]:
        """Every namespace refuses ingress and egress that no policy allows."""
        api = client.NetworkingV1Api(self.api_client)
        for namespace in self.namespaces:
            denied = {
                direction
                for policy in self._items(api.list_namespaced_network_policy, namespace)
                if not any((policy["spec"].get("podSelector") or {}).values())
                for direction in policy["spec"].get("policyTypes") or []
                if not policy["spec"].get(direction.lower())
            }
            for direction in sorted({"Ingress", "Egress"} - denied):
                yield f"{namespace}: no NetworkPolicy denies all {direction.lower()}"

    def secrets_are_encrypted(self) -> Iterator[str]:
        """A Secret written now is written encrypted."""
        name = "tradewatch-verify"
        before = self._encrypted_secret_writes()
        if self.read_only:
            if not before:
                yield "the API server has written no Secret encrypted since it started"
            return
        body = {"metadata": {"name": name, "labels": {PROBE_LABEL: "secret"}}, "stringData": {"probe": "verify"}}
        self._delete_secret(name)
        self.core.create_namespaced_secret(PROBE_NAMESPACE, body, _request_timeout=(5, 60))
        self._delete_secret(name)
        if self._encrypted_secret_writes() <= before:
            yield "the API server wrote a new Secret without encrypting it"

    def _encrypted_secret_writes(self) -> float:
        response = self.api_client.call_api(
            "/metrics",
            "GET",
            auth_settings=["BearerToken"],
            response_type="object",
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=(5, 60),
        )
        return encrypted_secret_writes(response.data.decode())

    def _delete_secret(self, name: str) -> None:
        try:
            self.core.delete_namespaced_secret(name, PROBE_NAMESPACE, _request_timeout=(5, 60))
        except client.ApiException as error:
            if error.status != 404:
                raise

    def anonymous_is_refused(self) -> Iterator[str]:
        """Each API server answers 401 to a caller without credentials."""
        # The certificate is not the question here; a wrong one would hide the answer.
        context = ssl._create_unverified_context()  # noqa: S323
        opener = direct(context)
        port = urllib.parse.urlparse(self.api_client.configuration.host).port or 443
        for name, node in sorted(self.parameters["nodes"].items()):
            if node["role"] != "control-plane":
                continue
            for path in ("/api", "/version", "/metrics"):
                url = f"https://{node['address']}:{port}{path}"
                try:
                    with opener.open(url, timeout=10) as answer:
                        status = answer.status
                except urllib.error.HTTPError as error:
                    status = error.code
                except OSError as error:
                    yield f"{name}: {url} does not answer: {error}"
                    break
                if status != 401:
                    yield f"{name}: {url} answers {status} to anonymous, expected 401"

    def host_files_are_private(self) -> Iterator[str]:
        """Tokens and kubeconfigs on the hosts are for root alone."""
        for name, node in sorted(self.parameters["nodes"].items()):
            files = self.parameters["host_files"].get(name) or []
            if not files:
                yield f"{name}: no token file was found" if node["version"] else f"{name}: the host was not reached"
            for file in files:
                if int(file["mode"], 8) & 0o077:
                    yield f"{name}: {file['path']} has mode {file['mode']}, expected 0600"

    def etcd_is_saved(self) -> Iterator[str]:
        """Every server has etcd snapshots or has them scheduled."""
        for name, state in sorted(self.parameters["snapshots"].items()):
            if not state["files"] and not state["schedule"]:
                yield f"{name}: no etcd snapshot, and none scheduled"

    def start_dns_probes(self) -> Iterator[str]:
        """Start a pod on every node; dns_answers() collects them."""
        self._delete_probes()
        deployments = client.AppsV1Api(self.api_client)
        images = [
            item["spec"]["template"]["spec"]["containers"][0]["image"]
            for item in self._items(deployments.list_namespaced_deployment, PROBE_NAMESPACE)
        ]
        for name, node in sorted(self.nodes.items()):
            found = probe_image(node, images[0] if images else None)
            if found is None:
                yield f"{name} holds neither the services' image nor busybox, so nothing can ask from there"
                continue
            self.core.create_namespaced_pod(PROBE_NAMESPACE, probe_pod(name, *found), _request_timeout=(5, 60))
            self.probes.append(f"verify-dns-{name}")

    def dns_answers(self) -> Iterator[str]:
        """A pod on every node resolves a name of the cluster."""
        pending = set(self.probes)
        while pending:
            for pod in self._items(self.core.list_namespaced_pod, PROBE_NAMESPACE):
                name, status = pod["metadata"]["name"], pod.get("status") or {}
                if name not in pending:
                    continue
                if status.get("phase") == "Succeeded":
                    pending.discard(name)
                elif status.get("phase") == "Failed" or time.monotonic() >= self.deadline:
                    pending.discard(name)
                    yield f"{pod['spec']['nodeName']}: a pod there cannot resolve {DNS_NAME}: {self._why(pod)}"
            if time.monotonic() >= self.deadline:
                break
            time.sleep(0.5 if pending else 0)
        self._delete_probes()

    def _why(self, pod: Object) -> str:
        states = [entry.get("state", {}) for entry in (pod.get("status") or {}).get("containerStatuses") or []]
        for state in states:
            if "waiting" in state:
                return f"{state['waiting'].get('reason')} {state['waiting'].get('message', '')}"
        try:
            log = self.core.read_namespaced_pod_log(pod["metadata"]["name"], PROBE_NAMESPACE, tail_lines=3)
        except client.ApiException:
            return str((pod.get("status") or {}).get("reason") or "it did not start")
        return " ".join(str(log).split())

    def _delete_probes(self) -> None:
        self.core.delete_collection_namespaced_pod(
            PROBE_NAMESPACE, label_selector=PROBE_LABEL, grace_period_seconds=0, _request_timeout=(5, 60)
        )

    def flows(self) -> Iterator[str]:
        """Out of each service's own container: what its entry allows connects, everything else does not."""
        listeners = [(entry, int(entry["port"])) for entry in self.services + self.parameters["infrastructure"]]
        for entry in self.services:
            listeners += [(entry, int(port["port"])) for port in entry.get("ports") or []]
        for entry in self.services:
            source = next((pod for pod in self._pods_of(entry) if ready(pod)), None)
            if source is None:
                yield f"{entry['name']} has no ready pod to connect from"
                continue
            allowed = {
                (peer["namespace"], peer["service"], int(peer["port"]))
                for peer in entry.get("connects_to") or []
                if "service" in peer
            }
            targets = [
                ((peer["namespace"], peer["name"], port), pod["status"]["podIP"])
                for peer, port in listeners
                for pod in self._pods_of(peer)[:1]
                if (peer["namespace"], peer["name"]) != (entry["namespace"], entry["name"]) and ready(pod)
            ]
            addresses = [(address, target[2]) for target, address in targets]
            # What is allowed is tried by name too, as the service itself does it: DNS and the Service are part of it.
            names = [(f"{name}.{namespace}.svc", port) for namespace, name, port in sorted(allowed)]
            reached = self._connect(source, [*addresses, *names])
            for (target, address), connected in zip(targets, reached, strict=False):
                namespace, name, port = target
                if connected != (target in allowed):
                    verb = "can connect to" if connected else "cannot connect to"
                    rule = "no connects_to allows" if connected else "connects_to allows"
                    yield f"{entry['name']} {verb} {namespace}/{name}:{port} ({address}), which {rule}"
            for (name, port), connected in zip(names, reached[len(addresses) :], strict=True):
                if not connected:
                    yield f"{entry['name']} cannot connect to {name}:{port}, which connects_to allows"

    def _connect(self, pod: Object, targets: list[tuple[str, int]]) -> list[bool]:
        answer = stream(
            self.streaming.connect_get_namespaced_pod_exec,
            pod["metadata"]["name"],
            pod["metadata"]["namespace"],
            container=pod["spec"]["containers"][0]["name"],
            command=["python3", "-c", CONNECT, json.dumps(targets)],
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
        answer.run_forever(timeout=60)
        output = answer.read_stdout() or ""
        if answer.returncode != 0:
            raise ValueError(f"{pod['metadata']['name']}: {(answer.read_stderr() or 'no answer').strip()}")
        reached: list[bool] = json.loads(output)
        return reached

    def targets_are_up(self) -> Iterator[str]:
        """Every annotated Service is an up target, and every replica behind it one more."""
        annotated = {
            (namespace, service["metadata"]["name"])
            for namespace in self.namespaces
            for service in self._items(self.core.list_namespaced_service, namespace)
            if (service["metadata"].get("annotations") or {}).get("prometheus.io/scrape") == "true"
        }
        replicas = {(entry["namespace"], entry["name"]): entry.get("replicas", 1) for entry in self.services}
        for key in sorted(set(replicas) - annotated):
            yield f"{'/'.join(key)}: its Service is not annotated"
        prometheus = self._prometheus()

        def problems() -> list[str]:
            services = prometheus.query('min by (namespace, service) (up{job="kubernetes-services-metrics"})')
            pods = prometheus.query('sum by (namespace, service) (up{job="kubernetes-pods-metrics"})')
            found = [f"{'/'.join(key)} is no up target" for key in sorted(annotated) if services.get(key) != 1]
            found += [
                f"{'/'.join(key)}: {pods.get(key, 0):.0f} replicas are up targets, expected {count}"
                for key, count in sorted(replicas.items())
                if pods.get(key) != count
            ]
            return found

        yield from self._poll(problems)

    def prometheus_wants_its_password(self) -> Iterator[str]:
        """Without credentials the answer is 401."""
        status = self._prometheus().status_without_password()
        if status != 401:
            yield f"Prometheus answers {status} without a password, expected 401"

    def market_data_flows(self) -> Iterator[str]:
        """Messages arrive for every product of every collector."""
        prometheus = self._prometheus()
        wanted = {
            (entry["environment"]["TRADEWATCH_EXCHANGE"], product)
            for entry in self.services
            if entry["run"] == "market-data-collector"
            for product in entry["environment"]["TRADEWATCH_PRODUCTS"].split(",")
        }

        def problems() -> list[str]:
            rates = prometheus.query("sum by (exchange, product_id) (rate(market_data_messages_total[1m]))")
            return [f"no messages from {'/'.join(key)}" for key in sorted(wanted) if not rates.get(key, 0) > 0]

        yield from self._poll(problems)


def run(verification: Verification) -> tuple[list[str], list[str]]:
    """All checks; returns the summary's lines and the failures."""
    checks: list[tuple[str, Check]] = [
        ("nodes are the inventory's hosts, Ready, of the hosts' version", verification.nodes_are_the_inventory),
        ("labels and taints are the inventory's", verification.labels_and_taints),
        ("pods are ready, on nodes of their role", verification.pods_run),
        ("namespaces deny by default", verification.default_deny),
        ("Secrets are stored encrypted", verification.secrets_are_encrypted),
        ("anonymous callers of the API get 401", verification.anonymous_is_refused),
        ("tokens and kubeconfigs on the hosts are 0600", verification.host_files_are_private),
        ("etcd has snapshots or a schedule for them", verification.etcd_is_saved),
        ("allowed flows connect, all others do not", verification.flows),
        ("DNS answers pods on every node", verification.dns_answers),
        ("Prometheus refuses callers without a password", verification.prometheus_wants_its_password),
        ("annotated Services are up targets", verification.targets_are_up),
        ("market data flows for every product", verification.market_data_flows),
    ]
    summary: list[str] = []
    failures: list[str] = []
    in_cluster = (verification.flows, verification.dns_answers)
    early = [] if verification.read_only else attempt(verification.start_dns_probes)
    for title, check in checks:
        if verification.read_only and check in in_cluster:
            summary.append(f"skip  {title} (check mode)")
            continue
        problems = attempt(check)
        if check == verification.dns_answers:
            problems = early + problems
        summary.append(f"{'FAIL' if problems else 'ok  '}  {title}")
        summary += [f"        {problem}" for problem in problems]
        failures += [f"{title}: {problem}" for problem in problems]
    return summary, failures


def attempt(check: Check) -> list[str]:
    """A check's problems; an unexpected error is one of them, so that the other checks still run."""
    problems: list[str] = []
    try:
        problems.extend(check())
    except client.ApiException as error:
        problems.append(f"the API refused: {error.status} {error.reason} {error.body or ''}".strip())
    except (HTTPError, OSError, ValueError, KeyError) as error:
        problems.append(f"{type(error).__name__}: {error}")
    return problems


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "endpoints_file": {"type": "path", "required": True},
            "nodes": {"type": "dict", "required": True},
            "host_files": {"type": "dict", "required": True},
            "snapshots": {"type": "dict", "required": True},
            "namespaces": {"type": "list", "elements": "dict", "required": True},
            "services": {"type": "list", "elements": "dict", "required": True},
            "infrastructure": {"type": "list", "elements": "dict", "required": True},
            "timeout_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    try:
        verification = Verification(module.params, module.check_mode)
    except (client.ApiException, config.ConfigException, HTTPError, OSError) as error:
        module.fail_json(msg=f"the cluster cannot be asked: {error}", summary=[])
    summary, failures = run(verification)
    if failures:
        module.fail_json(msg="\n".join([f"{len(failures)} problems:", *failures]), summary=summary)
    module.exit_json(changed=False, summary=summary)


if __name__ == "__main__":
    main()
