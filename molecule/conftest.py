"""Fixtures of every scenario: the lab's hosts by testinfra over SSH, and the cluster by kubectl."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from lab_cluster import Cluster
from testinfra.host import Host

from tests.machines import run_kubectl


@pytest.fixture(scope="session")
def lab_dir() -> Path:
    return Path(os.environ["TRADEWATCH_LAB_DIR"])


@pytest.fixture(scope="session")
def hosts(lab_dir: Path) -> dict[str, Host]:
    """testinfra hosts by inventory name."""
    addresses = json.loads((lab_dir / "lab.json").read_text())["hosts"]
    options = f"-o UserKnownHostsFile={lab_dir}/ssh/known_hosts -o IdentitiesOnly=yes"
    return {
        name: testinfra.get_host(
            f"ssh://root@{address}", ssh_identity_file=str(lab_dir / "ssh" / "id_ed25519"), ssh_extra_args=options
        )
        for name, address in addresses.items()
    }


@pytest.fixture(scope="session")
def kubectl(lab_dir: Path) -> Callable[..., Any]:
    """``kubectl("get", "nodes")`` -> the parsed JSON answer."""

    def call(*arguments: str) -> Any:
        result = run_kubectl(lab_dir, *arguments, "-o", "json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return call


@pytest.fixture(scope="module")
def cluster(lab_dir: Path) -> Iterator[Cluster]:
    """The cluster; what a module's tests make in it is removed after the last of them."""
    found = Cluster(lab_dir)
    yield found
    found.remove_made()
