"""Every host has what its node role needs, and nothing of another's."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

IMAGES = "/var/lib/rancher/k3s/agent/images"
EVERYWHERE = {"k3s-airgap-images-amd64", "node-exporter", "promtail"}
BY_HOST = {
    "control-1": set(),
    "collectors-1": {"valkey", "valkey-exporter", "tradewatch"},
    "trading-1": {"postgresql", "postgres-exporter", "tradewatch"},
    "analytics-1": {"alertmanager", "kube-state-metrics", "loki", "prometheus", "tradewatch"},
}


@pytest.mark.parametrize(("name", "images"), BY_HOST.items(), ids=BY_HOST)
def test_host_has_its_archives_and_no_other(hosts: dict[str, Host], name: str, images: set[str]) -> None:
    files = hosts[name].check_output(f"ls {IMAGES}").split()
    assert {file.partition(".tar")[0] for file in files} == EVERYWHERE | images
    placed = json.loads(hosts[name].file("/var/lib/rancher/k3s/agent/tradewatch-artifacts.json").content_string)
    assert sorted(placed) == sorted(f"{IMAGES}/{file}" for file in files)


@pytest.mark.parametrize("name", BY_HOST)
def test_k3s_runs_and_only_root_may_replace_it(hosts: dict[str, Host], name: str) -> None:
    binary = hosts[name].file("/usr/local/bin/k3s")
    assert (binary.user, binary.mode) == ("root", 0o755)
    assert hosts[name].check_output("/usr/local/bin/k3s --version").startswith("k3s version v1.34.4+")


@pytest.mark.parametrize("name", BY_HOST)
def test_archives_are_the_control_hosts_own(hosts: dict[str, Host], name: str) -> None:
    # An archive cut off on its way would still have the right name.
    for file in hosts[name].check_output(f"ls {IMAGES}").split():
        reader = {".gz": "gzip -dc", "zst": "zstd -dc"}.get(file[-3:], "cat")
        if reader != "zstd -dc" or hosts[name].exists("zstd"):
            hosts[name].check_output(f"{reader} {IMAGES}/{file} | tar -t > /dev/null")
