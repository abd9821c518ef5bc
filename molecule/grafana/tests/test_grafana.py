"""Grafana as people reach it, where a source gives its image; else that its absence leaves nothing half made."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from lab_cluster import Cluster, eventually

NAMESPACE = "crypto-monitoring"
NODE_PORT = 30030


def objects(cluster: Cluster) -> list[str]:
    listed = cluster.text(
        "get",
        "statefulset,service,configmap,secret",
        "-n",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/name=grafana",
        "-o",
        "name",
    )
    return list(listed.split())


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> bool:
    return "statefulset.apps/grafana" in objects(cluster)


def test_left_out_it_leaves_nothing(cluster: Cluster, installed: bool, lab_dir: Path) -> None:
    if installed:
        pytest.skip("the artifact cache has Grafana's image")
    assert objects(cluster) == []
    assert not (lab_dir / "grafana.password").exists()


@pytest.fixture
def api(cluster: Cluster, installed: bool, lab_dir: Path) -> Any:
    if not installed:
        pytest.skip("no artifact source gives Grafana's image here")
    address = cluster.ready_pod(NAMESPACE, "grafana")["status"]["hostIP"]
    context = ssl.create_default_context(cafile=lab_dir / "ca.crt")
    password = (lab_dir / "grafana.password").read_text().strip()

    def ask(path: str, password: str | None = password) -> Any:
        request = urllib.request.Request(f"https://{address}:{NODE_PORT}{path}")
        if password is not None:
            request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return json.load(answer)

    return ask


def test_nobody_comes_in_without_the_password(api: Any) -> None:
    for password in (None, "guess"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            api("/api/search", password)


def test_data_sources_answer(api: Any) -> None:
    for uid in ("prometheus", "loki"):
        eventually(lambda: api(f"/api/datasources/uid/{uid}/health")["status"] == "OK", f"{uid} answers", 60)  # noqa: B023


def test_each_team_has_its_folders_and_its_home(api: Any) -> None:
    teams = {team["name"]: team["id"] for team in api("/api/teams/search")["teams"]}
    assert {"trading", "data", "devops", "management"} <= teams.keys()
    found = {entry["uid"] for entry in api("/api/search?type=dash-db")}
    for number in teams.values():
        assert api(f"/api/teams/{number}/preferences")["homeDashboardUID"] in found
    granted = api("/api/folders/trading/permissions")
    assert {entry["team"] for entry in granted if entry.get("teamId")} == teams.keys()
    assert not [entry for entry in granted if entry.get("role") in ("Viewer", "Editor")]
