"""What the module decides without an API server: parsing, content, the diff, rollouts."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from plugins.modules import cluster_objects

SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: n}
stringData: {password: hunter2}
"""


def secret(**data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"}, "data": encoded}


def test_parse_labels_orders_and_encodes() -> None:
    manifest = SECRET + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n---\n"
    namespace, parsed = cluster_objects.parse(manifest, "valkey")
    assert namespace["kind"] == "Namespace"
    assert namespace["metadata"]["labels"] == {"tradewatch.io/role": "valkey"}
    assert parsed["data"] == secret(password="hunter2")["data"]
    assert "stringData" not in parsed


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("kind: Toaster\napiVersion: v1\nmetadata: {name: a}", "Toaster"),
        ("kind: Service\napiVersion: v2\nmetadata: {name: a, namespace: n}", "apiVersion is v2"),
        ("kind: Service\napiVersion: v1\nmetadata: {name: a}", "needs a namespace"),
        ("kind: Namespace\napiVersion: v1\nmetadata: {name: a, namespace: b}", "cannot have a namespace"),
        (SECRET + "---" + SECRET, "rendered twice"),
        ("just a text", "not an object"),
    ],
)
def test_parse_refuses(manifest: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        cluster_objects.parse(manifest, "role")


def test_content_ignores_what_the_server_keeps() -> None:
    live = secret(a="1")
    live["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": [{}], "creationTimestamp": "t"}
    assert cluster_objects.content(live | {"status": {"x": 1}}) == secret(a="1")


def test_the_diff_of_a_secret_shows_which_keys_changed_and_no_value() -> None:
    diff = cluster_objects.shown(secret(same="hunter1", changed="hunter2"), secret(same="hunter1", changed="hunter3"))
    text = str(diff)
    for value in ("hunter1", "hunter2", "hunter3"):
        assert value not in text
        assert base64.b64encode(value.encode()).decode() not in text
    assert "changed: (hidden, changed)" in diff["after"]
    assert "same: (hidden)\n" in diff["after"]


def test_checksums_follow_the_data_alone() -> None:
    key = ("Secret", "n", "s")
    first = cluster_objects.checksum(key, secret(a="1"))
    assert first == cluster_objects.checksum(key, secret(a="1") | {"metadata": {"resourceVersion": "9"}})
    assert first != cluster_objects.checksum(key, secret(a="2"))
    assert cluster_objects.checksum(key, None) == cluster_objects.checksum(key, secret())


def test_references_are_found_in_plain_and_projected_volumes() -> None:
    pod = {
        "volumes": [
            {"name": "a", "secret": {"secretName": "one"}},
            {"name": "b", "configMap": {"name": "two"}},
            {"name": "c", "projected": {"sources": [{"secret": {"name": "three"}}, {"serviceAccountToken": {}}]}},
            {"name": "d", "emptyDir": {}},
        ]
    }
    found = list(cluster_objects.configuration_references(pod))
    assert found == [("Secret", "one"), ("ConfigMap", "two"), ("Secret", "three")]


def workload(kind: str, **status: int) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}


@pytest.mark.parametrize(
    ("item", "done"),
    [
        (workload("Deployment", observedGeneration=2, replicas=2, updatedReplicas=2, availableReplicas=2), True),
        (workload("Deployment", observedGeneration=1, replicas=2, updatedReplicas=2, availableReplicas=2), False),
        # A surge: the old replica is still there.
        (workload("Deployment", observedGeneration=2, replicas=3, updatedReplicas=2, availableReplicas=2), False),
        (workload("Deployment", observedGeneration=2, replicas=2, updatedReplicas=1, availableReplicas=2), False),
        (workload("StatefulSet", observedGeneration=2, replicas=2, updatedReplicas=2, availableReplicas=1), False),
        (workload("DaemonSet", observedGeneration=2, desiredNumberScheduled=3, numberReady=2), False),
        (
            workload(
                "DaemonSet", observedGeneration=2, desiredNumberScheduled=3, numberReady=3, updatedNumberScheduled=3
            ),
            True,
        ),
        (workload("Job", active=1), False),
        (workload("Job", succeeded=1), True),
    ],
)
def test_rolled_out(item: dict[str, Any], done: bool) -> None:
    assert cluster_objects.rolled_out(item) is done


@pytest.mark.parametrize("kind", ["Failed", "Complete"])
@pytest.mark.parametrize("status", ["True", "False"])
def test_a_job_that_gave_up_is_told_from_one_that_did_not(kind: str, status: str) -> None:
    job = {"kind": "Job", "status": {"conditions": [{"type": kind, "status": status}]}}
    assert cluster_objects.failed(job) is (kind == "Failed" and status == "True")


JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "schema", "namespace": "n"},
    "spec": {"template": {"spec": {}}},
}
FAILED_STATUS = {"conditions": [{"type": "Failed", "status": "True"}]}


class FakeApi(cluster_objects.Api):
    """Answers with one object, whatever is asked for, and lists none; keeps the queries of its lists."""

    def __init__(self, found: dict[str, Any] | None) -> None:
        self.found = found
        self.listed: list[tuple[str, list[tuple[str, str]]]] = []

    def get(self, path: str, query: Iterable[tuple[str, str]] = ()) -> dict[str, Any] | None:
        return self.found

    def items(self, path: str, query: Iterable[tuple[str, str]] = ()) -> list[dict[str, Any]]:
        self.listed.append((path, list(query)))
        return []


def test_a_job_that_failed_is_not_waited_for() -> None:
    live = JOB | {"status": FAILED_STATUS}
    work = cluster_objects.ObjectSet(FakeApi(live), "role", dry_run=False)
    began = time.monotonic()
    assert work.wait_rolled_out([JOB], 5) == [live]
    assert time.monotonic() - began < 1


def test_a_job_that_is_gone_is_reported_by_the_label_of_its_pods() -> None:
    api = FakeApi(None)
    work = cluster_objects.ObjectSet(api, "role", dry_run=False)
    [unready] = work.wait_rolled_out([JOB], 0)
    assert work.report(unready) == ["Job n/schema: 0 of 1 done"]
    assert ("/api/v1/namespaces/n/pods", [("labelSelector", "batch.kubernetes.io/job-name=schema")]) in api.listed


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (workload("Deployment", readyReplicas=1), "1 of 2 ready"),
        ({"kind": "StatefulSet", "spec": {}}, "0 of 1 ready"),
        (workload("DaemonSet", desiredNumberScheduled=3, numberReady=2), "2 of 3 ready"),
        (workload("Job"), "0 of 1 done"),
        (JOB | {"status": FAILED_STATUS}, "0 of 1 done, failed"),
    ],
)
def test_progress(item: dict[str, Any], said: str) -> None:
    assert cluster_objects.progress(item) == said


@pytest.mark.parametrize(
    ("state", "said"),
    [("present", "would apply 1 objects: Secret n/s"), ("absent", "what would be removed is not known")],
)
def test_a_check_without_a_cluster_warns_of_what_it_cannot_look_up(state: str, said: str, tmp_path: Path) -> None:
    warnings: list[str] = []
    kubeconfig = str(tmp_path / "none")
    parameters = {"kubeconfig": kubeconfig, "role": "r", "manifest": SECRET, "state": state}
    assert cluster_objects.run(parameters, True, warnings.append)["changed"] is (state == "present")
    assert warnings == [f"{kubeconfig} does not exist; {said}"]


def test_warnings_of_the_api_are_read_one_by_one() -> None:
    header = '299 - "would violate \\"restricted\\"", 299 - "deprecated, use v2"'
    assert cluster_objects.api_warnings(header) == ['would violate "restricted"', "deprecated, use v2"]
