"""What was changed by hand is put back, what the inventory no longer names goes, and nothing else changes.

(That a second run changes nothing: test_1_main_job.py.)
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import yaml

from tests.commands import REPOSITORY
from tests.e2e.test_2_scaling import NAMESPACE
from tests.lab_under_test import LabUnderTest

BY_HAND = {
    "Hold the nodes' labels and taints to the inventory",
    "Write the configuration",
    "Apply the table's entries of these namespaces",
}
# These take away what test_2_scaling.py has added; node-exporter's certificate names the addresses of the hosts.
ADDED = {
    "Apply namespaces and their policies",
    "Apply Valkey",
    "Apply Prometheus",
    "Keep the certificate",
    "Apply node-exporter",
}

# In the order in which they are restarted.
AGENTS = ["collectors-1", "trading-1", "analytics-1"]
OVERRIDES = REPOSITORY / "inventory/lab/group_vars/all/overrides.yml"


def agents_with(folder: Path, argument: str, broken: str) -> list[str]:
    """The lab's inventory with one more argument for the agents' kubelets, and for one host what no kubelet takes."""
    config = yaml.safe_load(OVERRIDES.read_text())["k3s_node_extra_config"]
    wanted = {**config, "kubelet-arg": [*config["kubelet-arg"], argument]}
    refused = {**wanted, "kubelet-arg": [*wanted["kubelet-arg"], "no-such-flag=1"]}
    files = {
        "group_vars/k3s_agent.yml": {"k3s_node_extra_config": wanted},
        f"host_vars/{broken}.yml": {"k3s_node_extra_config": refused, "k3s_node_start_timeout_seconds": 10},
    }
    for name, variables in files.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(json.dumps(variables))
    (folder / "hosts.yml").write_text("k3s_agent:\n")
    return ["-i", "inventory/lab", "-i", str(folder / "hosts.yml")]


def shown(lab: LabUnderTest, host: str, name: str) -> str:
    """A property of the agent's unit."""
    return lab.ssh(host, f"systemctl show k3s-agent --timestamp=us+utc --property={name} --value").strip()


def moment(lab: LabUnderTest, host: str, name: str) -> datetime:
    """A property that is a time."""
    return datetime.strptime(shown(lab, host, name), "%a %Y-%m-%d %H:%M:%S.%f UTC")


def test_what_was_changed_by_hand_is_put_back_and_what_was_added_goes(lab: LabUnderTest) -> None:
    deployment = "market-data-collector-coinbase"
    lab.kubectl("label", "node", "trading-1", "tradewatch/role-", "--overwrite")
    lab.kubectl("-n", "crypto-collectors", "delete", "deployment", deployment)
    lab.ssh("analytics-1", "echo '# by hand' >> /etc/rancher/k3s/config.yaml")

    play = lab.play("site.yml", "--diff", "--extra-vars", '{"cluster_policy_delete_namespaces": true}')

    lab.assert_no_secret(play.output)
    changed = {host for host, count in play.changed.items() if count}
    assert changed == {"analytics-1", "localhost"}, (play.changed, play.changed_tasks())
    # k3s never read what was written by hand, so it is not restarted.
    assert play.changed_tasks() - ADDED == BY_HAND
    assert lab.get("node", "trading-1")["metadata"]["labels"]["tradewatch/role"] == "trading"
    assert lab.get("deployment", deployment, "-n", "crypto-collectors")["status"]["readyReplicas"] == 1
    assert "by hand" not in lab.ssh("analytics-1", "cat /etc/rancher/k3s/config.yaml")
    assert NAMESPACE not in lab.kubectl("get", "namespaces", "--output", "name")


def test_agents_are_restarted_one_at_a_time_until_one_does_not_come_back(lab: LabUnderTest, tmp_path: Path) -> None:
    good, broken, untouched = AGENTS
    before = shown(lab, untouched, "InvocationID")
    try:
        play = lab.play(*agents_with(tmp_path, "max-pods=97", broken), "playbooks/cluster.yml", code=2)
        assert f"k3s-agent on {broken} was not ready within 10 s" in play.output
        assert "no-such-flag" in play.output, "the end of its journal"
        assert moment(lab, good, "ActiveEnterTimestamp") < moment(lab, broken, "ActiveExitTimestamp")
        assert lab.cluster().configz(lab.host(good))["maxPods"] == 97
        assert shown(lab, untouched, "InvocationID") == before
    finally:
        play = lab.play("playbooks/cluster.yml")
    assert play.changed_tasks() == {"Write the configuration", "Restart k3s"}
    assert shown(lab, untouched, "InvocationID") == before, "k3s has never read the argument that is gone again"


def test_check_on_a_converged_cluster_reports_nothing(lab: LabUnderTest) -> None:
    play = lab.play("site.yml", "--check", "--diff")
    assert sum(play.changed.values()) == 0, (play.changed, play.changed_tasks())
