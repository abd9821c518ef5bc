"""The scenarios' view of the cluster: kubectl, bounded waiting, and probe pods to ask from inside."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plugins.module_utils.tradewatch_verify.pods import restricted_pod
from tests.machines import run_kubectl, wait

# As the scenarios' tests call it.
eventually = wait
Object = dict[str, Any]

INVENTORY = Path(__file__).resolve().parents[1] / "inventory/lab/group_vars/all"

PROBE_LABEL = "tradewatch.io/probe"
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
except OSError as error:
    sys.exit(str(error))
"""


# Prints the page at a URL.
GET = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(sys.argv[1], timeout=5).read().decode())
"""


def samples(page: str) -> dict[str, float]:
    """The samples of a page of metrics, by the series as it is written."""
    lines = [line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#")]
    return {series: float(value) for series, value in lines}


def services() -> dict[str, Object]:
    """What the lab's tables deploy, by name, as it is written: templates are not resolved."""
    tables = {
        "services.yml": "tradewatch_services",
        "paper.yml": "paper_exchange",
        "simulators.yml": "other_simulators",
    }
    rows = [row for file, table in tables.items() for row in yaml.safe_load((INVENTORY / file).read_text())[table]]
    return {row["name"]: row for row in rows}


def policy(namespace: str, name: str, pods: dict[str, str], direction: str) -> Object:
    """A NetworkPolicy that lets these pods send anything (Egress) or receive anything (Ingress)."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": {PROBE_LABEL: "true"}},
        "spec": {"podSelector": {"matchLabels": pods}, "policyTypes": [direction], direction.lower(): [{}]},
    }


def pod(
    namespace: str, name: str, image: str, node_role: str, command: list[str], labels: dict[str, str] | None = None
) -> Object:
    """A pod as restricted as the services are."""
    metadata = {"name": name, "namespace": namespace, "labels": {PROBE_LABEL: name, **(labels or {})}}
    return restricted_pod(
        metadata,
        image,
        command,
        nodeSelector={"tradewatch/role": node_role},
        terminationGracePeriodSeconds=0,
        activeDeadlineSeconds=900,
    )


@dataclass
class Cluster:
    """kubectl with the administrator's kubeconfig; what it makes for a test, it removes after it."""

    lab_dir: Path
    made: list[tuple[str, str, str]] = field(default_factory=list)

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """One kubectl command, whatever it answers."""
        return run_kubectl(self.lab_dir, *arguments, stdin=stdin or "")

    def text(self, *arguments: str, stdin: str | None = None) -> str:
        """The output of a kubectl command that must succeed."""
        result = self.run(*arguments, stdin=stdin)
        assert result.returncode == 0, f"kubectl {' '.join(arguments[:6])}: {result.stderr}"
        return result.stdout

    def get(self, *arguments: str) -> Any:
        """``kubectl get``, parsed."""
        return json.loads(self.text("get", *arguments, "-o", "json"))

    def execute(self, namespace: str, pod: str, *command: str, stdin: str | None = None) -> Any:
        """A command in a pod's first container."""
        return self.run("exec", "--stdin", "--namespace", namespace, pod, "--", *command, stdin=stdin)

    def may(self, account: str, verb: str, what: str, namespace: str) -> bool:
        """Whether a service account (``namespace:name``) may do that to a resource, or a part of one: ``pods/log``."""
        resource, _, part = what.partition("/")
        words = ["auth", "can-i", verb, resource, "--as", f"system:serviceaccount:{account}", "--namespace", namespace]
        return self.run(*words, *(["--subresource", part] if part else [])).stdout.strip() == "yes"

    def refusal(self, item: Object) -> str:
        """Why the API server would refuse an object; empty where it would take it. Nothing is made."""
        return self.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(item)).stderr

    def make(self, *items: Object) -> None:
        """Make objects that are gone after the test."""
        for item in items:
            metadata = item["metadata"]
            self.made.append((item["kind"], metadata["namespace"], metadata["name"]))
            self.text("apply", "-f", "-", stdin=json.dumps(item))

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Remove one object now."""
        self.text("delete", kind, name, "--namespace", namespace, "--ignore-not-found", "--wait=true")

    def remove_made(self) -> None:
        """Remove what make() made and is still there."""
        while self.made:
            self.remove(*self.made.pop())

    def services_image(self) -> str:
        """The services' image, which holds a Python, as the nodes name it."""

        def find() -> str | None:
            for node in self.get("nodes")["items"]:
                for image in node["status"].get("images", []):
                    for name in image.get("names", []):
                        if re.search(r"(^|/)tradewatch:", name):
                            return str(name)
            return None

        return str(eventually(find, "a node reports the services' image"))

    def pods(self, namespace: str, name: str) -> list[Object]:
        """The pods of a service that are not being deleted."""
        items = self.get("pods", "--namespace", namespace, "--selector", f"app.kubernetes.io/name={name}")["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def ready_pod(self, namespace: str, name: str) -> Object:
        """A ready pod of a service."""

        def find() -> Object | None:
            for item in self.pods(namespace, name):
                conditions = {entry["type"]: entry["status"] for entry in item["status"].get("conditions", [])}
                if conditions.get("Ready") == "True":
                    return item
            return None

        found: Object = eventually(find, f"a pod of {name} is ready", 120)
        return found

    def start(self, item: Object) -> str:
        """Start a probe pod; its address once it runs."""
        self.make(item)
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]

        def running() -> str | None:
            status = self.get("pod", name, "--namespace", namespace)["status"]
            assert status["phase"] != "Failed", status
            return status.get("podIP") if status["phase"] == "Running" else None

        return str(eventually(running, f"{namespace}/{name} runs"))

    def probe(self, namespace: str, name: str, node_role: str, labels: dict[str, str] | None = None) -> str:
        """Start a pod that waits to be told what to try; its address."""
        wait = ["python3", "-c", "import signal; signal.pause()"]
        return self.start(pod(namespace, name, self.services_image(), node_role, wait, labels))

    def prometheus_probe(self) -> Callable[[str], dict[str, float]]:
        """Start a pod that the policies take for Prometheus: gives the samples of the page at a URL, waiting for it."""
        namespace, name = "crypto-monitoring", "probe-prometheus"
        self.make(policy(namespace, name, {PROBE_LABEL: name}, "Egress"))
        self.probe(namespace, name, "analytics", {"app.kubernetes.io/name": "prometheus"})

        def scrape(url: str) -> dict[str, float]:
            def page() -> str:
                result = self.execute(namespace, name, "python3", "-c", GET, url)
                if result.returncode != 0:
                    raise OSError(result.stderr.strip()[-300:])
                return str(result.stdout)

            return samples(eventually(page, f"{url} answers", 60, despite=(OSError,)))

        return scrape

    def connects(self, namespace: str, pod: str, host: str, port: int) -> bool:
        """Whether a TCP connection from a pod with a Python is made."""
        return bool(self.execute(namespace, pod, "python3", "-c", CONNECT, host, str(port)).returncode == 0)
