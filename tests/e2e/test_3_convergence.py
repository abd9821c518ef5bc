"""What was changed by hand is put back, what the inventory no longer names goes, and nothing else changes.

(That a second run changes nothing: test_1_main_job.py.)
"""

from __future__ import annotations

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


def test_check_on_a_converged_cluster_reports_nothing(lab: LabUnderTest) -> None:
    play = lab.play("site.yml", "--check", "--diff")
    assert sum(play.changed.values()) == 0, (play.changed, play.changed_tasks())
