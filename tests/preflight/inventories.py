"""Inventories made of production.example's own files, with hosts that are this machine in namespaces of their own."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "inventory" / "production.example"
RUN_TIMEOUT_SECONDS = 120
TOKEN = "token-of-the-test"
EXCHANGE_KEY = base64.b64encode(b"seed of a key that nobody needs.").decode()
ALERT_RECEIVERS = '{"receivers": [{"name": "chat", "url": "json://hidden-secret-of-the-test/"}], "default": ["chat"]}'

# Faults of a host, as shell that makes them real inside its namespaces ($work is a folder of its own).
FAULTS = {
    "no_python": """
        for python in $(ls /usr/bin/python3 /usr/local/bin/python3 2>/dev/null); do
            mount --bind /dev/null "$(readlink -f "$python")"
        done
        PATH=/usr/bin:/bin""",
    "unsupported_system": """
        printf 'ID=alpine\\nVERSION_ID=3.22\\nPRETTY_NAME="Alpine Linux v3.22"\\n' > "$work/os-release"
        mount --bind "$work/os-release" /etc/os-release""",
    "not_root": "user=nobody",
    "swap": """
        printf 'Filename Type Size Used Priority\\n/dev/sda2 partition 1000 0 -2\\n' > "$work/swaps"
        mount --bind "$work/swaps" /proc/swaps""",
    "little_memory": """
        echo 'MemTotal: 524288 kB' > "$work/meminfo"
        mount --bind "$work/meminfo" /proc/meminfo""",
    "little_disk": "mount -t tmpfs -o size=64m tmpfs /var/lib",
    "clock_ahead": """
        cp "$(command -v date)" "$work/real-date"
        printf '#!/bin/sh\\nexec %s/real-date --date "90 seconds" "$@"\\n' "$work" > "$work/date"
        chmod +x "$work/date"
        mount --bind "$work/date" "$(command -v date)" """,
    "clock_behind": """
        cp "$(command -v date)" "$work/real-date"
        printf '#!/bin/sh\\nexec %s/real-date --date "90 seconds ago" "$@"\\n' "$work" > "$work/date"
        chmod +x "$work/date"
        mount --bind "$work/date" "$(command -v date)" """,
    "other_machine": """
        printf '#!/bin/sh\\necho aarch64\\n' > "$work/uname"
        chmod +x "$work/uname"
        mount --bind "$work/uname" "$(command -v uname)" """,
    "cluster_of_another_token": f"""
        mount -t tmpfs tmpfs /var/lib
        mkdir -p /var/lib/rancher/k3s/server
        echo "K10{"0" * 64}::server:another-token" > /var/lib/rancher/k3s/server/token""",
    "cluster_of_this_token": f"""
        mount -t tmpfs tmpfs /var/lib
        mkdir -p /var/lib/rancher/k3s/server
        echo "K10{"0" * 64}::server:{TOKEN}" > /var/lib/rancher/k3s/server/token
        mkdir "$work/upper" "$work/under"
        mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/upper,workdir=$work/under" /etc
        mkdir -p /etc/rancher/k3s
        printf 'cluster-cidr: 10.99.0.0/16\nservice-cidr: 10.43.0.0/16\n' > /etc/rancher/k3s/config.yaml
        sha256sum /etc/rancher/k3s/config.yaml /etc/os-release > /var/lib/rancher/k3s/started-with""",
    # After cluster_of_this_token.
    "configuration_edited": "echo '# by hand' >> /etc/rancher/k3s/config.yaml",
    "a_server": """
        mkdir "$work/upper" "$work/under"
        mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/upper,workdir=$work/under" /etc
        mkdir -p /etc/systemd/system
        touch /etc/systemd/system/k3s.service""",
    "pod_network_route": "ip link set lo up; ip route add 10.42.8.0/24 dev lo",
}

# What every host has, whatever this machine is: a supported system, no swap, enough of the rest.
COMMON = """
work=$(mktemp -d); mount -t tmpfs tmpfs "$work"
printf 'ID=debian\\nVERSION_ID="12"\\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\\n' > "$work/os"
mount --bind "$work/os" /etc/os-release
echo 'Filename Type Size Used Priority' > "$work/none"
mount --bind "$work/none" /proc/swaps
"""


@dataclass
class Run:
    """What one ansible-playbook printed."""

    status: int
    output: str
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = [line.rstrip() for line in self.output.splitlines()]

    @property
    def problems(self) -> int:
        """How many problems it says it found."""
        match = re.search(r"Preflight found (\d+) problem", self.output)
        return int(match[1]) if match else 0


class Inventory:
    """An inventory below ``root`` that is right until a test spoils it.

    Attributes:
        groups: role group to hosts to variables; written by ``write``.
        variables: what ``group_vars/all/test.yml`` sets, over production.example's files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "inventory"
        self.cache = root / "cache" / "artifacts"
        self.hosts_folder = root / "hosts"
        self._groups_all = self.root / "group_vars" / "all"
        for folder in (self._groups_all, self.cache, self.hosts_folder):
            folder.mkdir(parents=True)
        for name in ("main.yml", "artifacts.yml", "monitoring.yml", "paper.yml", "services.yml"):
            shutil.copy(EXAMPLE / "group_vars" / "all" / name, self._groups_all / name)
        (self.hosts_folder / "common").write_text(COMMON)
        self.groups: dict[str, dict[str, dict[str, Any]]] = {
            "control_plane": {"control-1": {"ansible_host": "198.51.100.1"}},
            "collectors": {"collectors-1": {"ansible_host": "198.51.100.2"}},
            "trading": {"trading-1": {"ansible_host": "198.51.100.3"}},
            "analytics": {"analytics-1": {"ansible_host": "198.51.100.4"}},
        }
        self.variables: dict[str, Any] = {
            "state_dir": str(root / "state"),
            "artifact_cache": str(root / "cache"),
            "artifact_sources": ["cache"],
            **dict.fromkeys(self.example("vault.yml.example"), "secret-of-the-test"),
            "vault_k3s_token": TOKEN,
            "vault_alert_receivers": ALERT_RECEIVERS,
            # Nobody watches from outside: no token is wanted.
            "vault_watchdog_token": "change-me",
            "vault_exchange_api_private_key": EXCHANGE_KEY,
            "ansible_ssh_executable": str(Path(__file__).with_name("fake_ssh")),
            # The machine under the test may be small; faults bring their own figures.
            "preflight_min_memory_mib": 1024,
            "preflight_min_disk_mib": 1024,
            "preflight_min_free_disk_mib": 128,
        }
        for row in self.example("artifacts.yml")["artifacts"]:
            (self.cache / row["file"]).write_bytes(row["name"].encode())

    def example(self, name: str) -> dict[str, Any]:
        """A file of production.example as data."""
        data: dict[str, Any] = yaml.safe_load((EXAMPLE / "group_vars" / "all" / name).read_text())
        return data

    def host(self, group: str, name: str, address: str, *faults: str, **variables: Any) -> None:
        """Add a host, with faults."""
        self.groups.setdefault(group, {})[name] = {"ansible_host": address, **variables}
        if faults:
            (self.hosts_folder / address).write_text("\n".join(FAULTS[fault] for fault in faults) + "\n")

    def file(self, name: str, text: str) -> Path:
        """Write a file of the inventory as it is."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def write(self) -> Inventory:
        """Write hosts.yml and the test's variables."""
        agents = ("collectors", "trading", "analytics")
        children: dict[str, Any] = {group: {"hosts": hosts} for group, hosts in self.groups.items()}
        children["k3s_server"] = {"children": {"control_plane": None}}
        children["k3s_agent"] = {"children": dict.fromkeys(agents)}
        self.file("hosts.yml", yaml.safe_dump({"all": {"children": children}}, sort_keys=False))
        self.file("group_vars/all/test.yml", yaml.safe_dump(self.variables))
        return self

    def snapshot(self) -> dict[str, str]:
        """Every file that a run could change on the control host."""
        files = [path for path in self.root.parent.rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def play(self, playbook: str = "playbooks/preflight.yml", *arguments: str) -> Run:
        """Run a playbook on this inventory."""
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "TRADEWATCH_FAKE_HOSTS": str(self.hosts_folder),
        }
        ansible = Path(sys.executable).with_name("ansible-playbook")
        done = subprocess.run(
            [str(ansible), "--inventory", str(self.root), *arguments, playbook],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_TIMEOUT_SECONDS,
            check=False,
        )
        return Run(done.returncode, done.stdout)
