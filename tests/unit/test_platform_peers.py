"""The platform's own parts let in the services whose `connects_to` names them, as preflight promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.modules import cluster_objects
from tests.role_templates import render

MONITORING = "crypto-monitoring"


@pytest.mark.parametrize(("role", "port"), [("loki", 3100), ("alertmanager", 9093), ("grafana", 3000)])
def test_a_service_of_another_namespace_is_let_in(role: str, port: int, tmp_path: Path) -> None:
    row = {"connects_to": [{"service": role, "namespace": MONITORING, "port": port}]}
    table = [{"name": "reader", "namespace": "crypto-research", **row}]
    manifest = render(role, "manifests.yml.j2", tmp_path, tradewatch_services=table)
    [policy] = [item for item in cluster_objects.parse(manifest, role) if item["kind"] == "NetworkPolicy"]
    reader = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "crypto-research"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "reader"}},
    }
    assert policy["spec"]["ingress"][1:] == [{"from": [reader], "ports": [{"port": port, "protocol": "TCP"}]}]
