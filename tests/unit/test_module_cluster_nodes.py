"""What a node lacks, and what of it is not ours to touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.modules import cluster_nodes

LABELS = ["tradewatch/role"]
TAINTS = ["node-role.kubernetes.io/control-plane"]
OURS = {"key": TAINTS[0], "effect": "NoSchedule"}
THEIRS = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}


def node(labels: dict[str, str], *taints: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"labels": labels, "resourceVersion": "7"}, "spec": {"taints": list(taints)}}


def difference(live: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = cluster_nodes.difference(live, wanted, LABELS, TAINTS)
    return patch


def test_a_node_as_wanted_is_left_alone() -> None:
    live = node({"tradewatch/role": "trading", "other": "x"}, THEIRS)
    assert difference(live, {"labels": {"tradewatch/role": "trading"}}) == {}


def test_a_host_that_moved_gets_its_new_label_and_loses_the_taint() -> None:
    live = node({"tradewatch/role": "control-plane"}, OURS, THEIRS)
    assert difference(live, {"labels": {"tradewatch/role": "trading"}}) == {
        "metadata": {"labels": {"tradewatch/role": "trading"}, "resourceVersion": "7"},
        "spec": {"taints": [THEIRS]},
    }


def test_a_taint_without_its_empty_value_is_the_same_taint() -> None:
    live = node({}, OURS | {"value": ""})
    assert difference(live, {"taints": [OURS]}) == {}


def test_a_label_alone_needs_no_version() -> None:
    assert difference(node({}), {"labels": {"tradewatch/role": "trading"}}) == {
        "metadata": {"labels": {"tradewatch/role": "trading"}}
    }


def test_a_node_that_the_inventory_no_longer_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch()
    known = {"labels": {"tradewatch/role": "trading"}}
    live = {name: node(known["labels"]) for name in ("trading-1", "gone-1")}
    monkeypatch.setattr("kubernetes.config.new_client_from_config", lambda **_: None)
    monkeypatch.setattr(cluster_nodes, "list_nodes", lambda _: live)
    warnings: list[str] = []
    given = {"nodes": {"trading-1": known}, "labels": LABELS, "taints": TAINTS, "wait_timeout_seconds": 0}
    result = cluster_nodes.run({"kubeconfig": str(kubeconfig), **given}, False, warnings.append)
    assert result["changed"] is False
    assert warnings == ["node gone-1 is not in the inventory: docs/operations.md says how to remove a host"]
