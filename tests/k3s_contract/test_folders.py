from __future__ import annotations

import hashlib
import io
import json
import secrets
import tarfile
import time
from collections.abc import Iterator

import pytest

from tests.machines import Cluster, Host, wait

IMAGES = "/var/lib/rancher/k3s/agent/images"
MANIFESTS = "/var/lib/rancher/k3s/server/manifests"
SNAPSHOTS = "/var/lib/rancher/k3s/server/db/snapshots"
DROPIN = "/etc/rancher/k3s/config.yaml.d/90-contract.yaml"
# k3s looks at the folder of images every 15 seconds or less.
IMPORT_SECONDS = 30.0


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def docker_archive(reference: str) -> bytes:
    """An archive of one image with one file in it."""
    layer = _tar({"contract": reference.encode()})
    diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff]}}
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, "config.json": json.dumps(config).encode()}
    return _tar({**files, "manifest.json": json.dumps(manifest).encode()})


def test_images_are_imported_while_running(agent: Host) -> None:
    reference = f"localhost/contract/{secrets.token_hex(4)}:1"
    path = f"{IMAGES}/contract.tar"
    try:
        agent.write(path, docker_archive(reference), "0644")
        started = time.monotonic()
        wait(lambda: reference in agent.run("k3s ctr images ls -q"), f"{reference} imported", IMPORT_SECONDS)
        assert time.monotonic() - started < IMPORT_SECONDS
        changed = reference.replace(":1", ":2")
        agent.write(path, docker_archive(changed), "0644")
        wait(lambda: changed in agent.run("k3s ctr images ls -q"), f"{changed} imported", IMPORT_SECONDS)
    finally:
        agent.run(f"rm -f {path}; k3s ctr images rm $(k3s ctr images ls -q | grep localhost/contract/)", check=False)


def test_manifests_are_applied_and_applied_again_when_changed(cluster: Cluster, server: Host) -> None:
    path = f"{MANIFESTS}/contract.yaml"
    manifest = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: k3s-contract, namespace: default}\ndata: {value: %s}\n"
    )
    query = ["get", "configmap", "k3s-contract", "-n", "default", "--ignore-not-found", "-o", "jsonpath={.data.value}"]
    try:
        for value in ("first", "second"):
            server.write(path, manifest % value)
            wait(lambda value=value: cluster.kubectl(*query) == value, f"the ConfigMap holds {value}", 60)  # type: ignore[misc]
    finally:
        server.run(f"rm -f {path}")
        cluster.kubectl("delete", "configmap", "k3s-contract", "-n", "default", "--ignore-not-found")


def test_snapshot_on_demand_is_listed_and_deleted(server: Host) -> None:
    server.run("k3s etcd-snapshot save --name contract")
    names = server.run(f"ls {SNAPSHOTS} | grep ^contract-{server.name}-").split()
    assert len(names) == 1
    assert names[0] in server.run("k3s etcd-snapshot ls")
    server.run(f"k3s etcd-snapshot delete {names[0]}")
    assert names[0] not in server.run(f"ls {SNAPSHOTS}")


@pytest.fixture
def snapshots_every_minute(cluster: Cluster, server: Host) -> Iterator[Host]:
    server.write(DROPIN, 'etcd-snapshot-schedule-cron: "* * * * *"\netcd-snapshot-retention: 1\n')
    cluster.restart(server)
    yield server
    server.run(f"rm -f {DROPIN}")
    cluster.restart(server)


def test_scheduled_snapshots_are_taken_and_only_the_newest_kept(snapshots_every_minute: Host) -> None:
    def newest() -> str:
        return snapshots_every_minute.run(f"ls {SNAPSHOTS} | grep ^etcd-snapshot- || true").strip()

    before = newest()
    wait(lambda: newest() not in ("", before) and len(newest().split()) == 1, "a new and only scheduled snapshot", 150)


def test_pods_survive_a_restart_of_the_agent(cluster: Cluster, agent: Host) -> None:
    def containers() -> set[str]:
        return set(agent.run("k3s ctr tasks ls -q").split())

    before = containers()
    cluster.restart(agent)
    assert before <= containers()


def test_packaged_components_answer(cluster: Cluster) -> None:
    assert cluster.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"].endswith(".0.10")
    cluster.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=120s")
    annotations = cluster.get("storageclass", "local-path")["metadata"]["annotations"]
    assert annotations["storageclass.kubernetes.io/is-default-class"] == "true"
