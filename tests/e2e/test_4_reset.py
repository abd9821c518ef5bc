"""`reset.yml` leaves the hosts as they were found; on the empty hosts a check run does not fail."""

from __future__ import annotations

from lab import hosts, kernel
from tests.lab_under_test import LabUnderTest

HOSTS = ["control-1", "collectors-1", "trading-1", "analytics-1"]
# A host's own affair: its names and addresses, its keys and machine id, systemd's state, what Ansible keeps for itself.
OWN = "-not -path '/var/lib/systemd/*' -not -path '/root/.ansible*' -not -path '*/__pycache__*'"
# Volumes on the lab's hosts, which find does not enter from the folder above; of the logs most is the host's own.
MOUNTED = " ".join(folder for folder in hosts.VOLUMES if folder != "/var/log")
OWN_CONTENT = (
    "-not -name 'ssh_host_*' -not -name machine-id -not -name hostname -not -name hosts -not -name resolv.conf"
)
LISTING = (
    f"find /etc /usr /opt /root /var/lib {MOUNTED} -xdev {OWN} -printf '%p %y %m %l\\n';"
    " find /var/log/pods /var/log/containers 2>/dev/null;"
    f" find /etc /usr/local /opt -xdev -type f {OWN_CONTENT} -exec sha256sum {{}} +; ip rule; ipset list -name;"
    # Each host has its own network settings; the counter among them counts.
    " sysctl --all 2>/dev/null | grep -E '^net\\.' | grep -v nf_conntrack_count"
)


def test_reset_leaves_the_hosts_as_they_were_found(lab: LabUnderTest) -> None:
    fresh = lab.fresh_host_listing(LISTING)
    lab.play("playbooks/reset.yml")
    for host in HOSTS:
        listing = set(lab.ssh(host, LISTING).splitlines())
        assert not listing ^ fresh, f"{host}: {sorted(listing ^ fresh)[:20]}"
        assert lab.ssh(host, "pgrep -f 'containerd-shi[m]|kubele[t]|k3[s]' || true") == ""
        assert lab.ssh(host, "iptables-save | grep -c KUBE || true").strip() == "0"
        assert lab.ssh(host, "ip -brief link").count("\n") == 2, "links other than lo and eth0"
        assert "10.42." not in lab.ssh(host, "ip route show table all")
        assert lab.ssh(host, "systemctl --failed --no-legend") == ""
    # The other settings are the machine's. This one is raised by the lab itself, before the hosts are there; those that
    # the hosts' boot makes go back with the last lab.
    raised = "fs.inotify.max_user_instances"
    found = lab.kernel_found | {raised: str(max(int(lab.kernel_found[raised]), hosts.INOTIFY_INSTANCES))}
    now = kernel.values()
    for name in found.keys() - set(kernel.BOOT_SETTINGS):
        assert now[name] == found[name], name


def test_a_second_reset_changes_nothing(lab: LabUnderTest) -> None:
    assert sum(lab.play("playbooks/reset.yml").changed.values()) == 0


def test_check_on_empty_hosts_does_not_fail(lab: LabUnderTest) -> None:
    # Everything would be made anew, so this is the run whose diff shows the most.
    lab.assert_no_secret(lab.play("site.yml", "--check", "--diff").output)
    assert "k3s" not in lab.ssh("control-1", "ls /usr/local/bin /etc")
