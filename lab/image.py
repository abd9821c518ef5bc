"""The lab's host image: Debian 12 with systemd and sshd, as a bare server would be handed over."""

from __future__ import annotations

from lab.bundle.oci import debian_root
from lab.steps import run, step

# systemd >= 258 refuses cgroup v1, so the hosts are bookworm (systemd 252) on every machine.
SUITE = "bookworm"
PACKAGES = [
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt", "sudo", "ca-certificates", "curl"),
    *("iproute2", "iptables", "nftables", "ipset", "conntrack", "kmod", "procps", "zstd"),
    # What the k3s stand-in takes from its host.
    *("containerd", "runc", "containernetworking-plugins"),
]
# Each host makes SSH host keys of its own at its first boot.
HOOKS = [
    'rm -f "$1"/etc/ssh/ssh_host_*',
    'mkdir -p "$1"/etc/systemd/system/ssh.service.d',
    "printf '[Service]\\nExecStartPre=\\nExecStartPre=/usr/bin/ssh-keygen -A\\nExecStartPre=/usr/sbin/sshd -t\\n'"
    ' > "$1"/etc/systemd/system/ssh.service.d/host-keys.conf',
    'systemctl --root "$1" --quiet disable containerd.service',
    'rm -f "$1"/etc/machine-id && touch "$1"/etc/machine-id',
]


def host_image() -> str:
    """The reference of the host image in podman's storage, made or imported when it is not there."""
    root = debian_root(SUITE, PACKAGES, "minbase", HOOKS)
    reference = f"localhost/tradewatch/lab-host:{root.stem}"
    if run(["podman", "images", "--quiet", reference]).strip() == "":
        with step("import the host image"):
            changes = ["--change", 'CMD ["/sbin/init"]', "--change", "LABEL tradewatch.lab.image=1"]
            run(["podman", "import", "--quiet", *changes, root, reference])
    return reference
