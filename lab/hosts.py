"""The lab's hosts: privileged systemd containers on a bridge network of their own, reached by SSH.

The flags were measured on a kernel with cgroup v1 and without CAP_SYS_RESOURCE (docs/lab.md).
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import kernel, machine, paths, subnets
from lab.image import host_image
from lab.steps import LabError, run, say, step

LABEL = "tradewatch.lab"
LABEL_DIR = "tradewatch.lab.dir"
BOOT_TIMEOUT_SECONDS = 60.0
FIRST_HOST = 11
SSH_PORT = 22
# Four kubelets share one kernel: Debian's 128 inotify instances are too few.
INOTIFY_INSTANCES = 8192
VOLUMES = ("/var/lib/rancher", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/var/log")
# On cgroup v1 podman mounts the machine's whole name=systemd hierarchy over the container's own part of it, and the
# hosts' systemds and kubelets would remove each other's groups: take that mount (and the mask on it) away again.
INIT = """
hierarchy=/sys/fs/cgroup/systemd
if grep -q " /../.. $hierarchy " /proc/self/mountinfo; then
  umount $hierarchy/release_agent && umount $hierarchy || exit 1
fi
exec /sbin/init
"""
LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=20000:20000")


@dataclass(frozen=True)
class Lab:
    """What ``lab.json`` holds: podman's names and the hosts' addresses."""

    name: str
    network: str
    subnet: str
    gateway: str
    hosts: dict[str, str]


def container(lab: Lab, host: str) -> str:
    """Podman's name of a host."""
    return f"{lab.name}-{host}"


def load() -> Lab | None:
    """The lab of this checkout, or None when it has none."""
    file = paths.lab_dir() / "lab.json"
    return Lab(**json.loads(file.read_text())) if file.exists() else None


def up(names: list[str]) -> Lab:
    """Boot every host of ``names`` that is not running; running ones are left alone.

    Raises:
        LabError: a host does not come up within ``BOOT_TIMEOUT_SECONDS``.
    """
    with kernel.shared():
        remove_orphans()
        kernel.note()
        _raise_inotify_limit()
        lab = _network(load())
    image = host_image()
    addresses = dict(lab.hosts)
    for name in names:
        if name not in addresses:
            addresses[name] = _free_address(lab.subnet, addresses)
    lab = Lab(lab.name, lab.network, lab.subnet, lab.gateway, addresses)
    # Hosts of earlier calls too: lab.json speaks of all of them.
    names = list(addresses)
    _key()
    with step(f"boot {len(names)} hosts on {lab.subnet}"):
        for name in names:
            _boot(lab, name, image)
        for name in names:
            _wait_running(lab, name)
            _authorize(lab, name)
            _wait_answering(name, addresses[name])
    _write(lab)
    return lab


def down() -> None:
    """Remove this lab's containers, their volumes and network; after the last lab the host image, and what labs changed
    in the kernel.
    """
    with kernel.shared():
        _remove(paths.lab_name())
        if any_lab():
            return
        for reference in run(["podman", "images", "--quiet", "--filter", "label=tradewatch.lab.image=1"]).split():
            run(["podman", "rmi", "--force", reference])
        kernel.restore()


def any_lab() -> bool:
    """Whether this machine has a lab, of whichever checkout, or the remains of one."""
    return any(_names(*what, "--filter", f"label={LABEL}") for what in (("ps", "--all"), ("network", "ls")))


def remove_host(name: str) -> None:
    """Remove one host and its volumes.

    Raises:
        LabError: the lab has no such host.
    """
    lab = load()
    if lab is None or name not in lab.hosts:
        raise LabError(f"the lab has no host {name!r}")
    run(["podman", "rm", "--force", "--volumes", "--time", "2", container(lab, name)])
    _write(Lab(lab.name, lab.network, lab.subnet, lab.gateway, {k: v for k, v in lab.hosts.items() if k != name}))


def remove_orphans() -> None:
    """Remove what labs left whose directory is gone, so that a deleted checkout blocks nobody."""
    rows = json.loads(run(["podman", "ps", "--all", "--filter", f"label={LABEL}", "--format", "json"]) or "[]")
    rows += json.loads(run(["podman", "network", "ls", "--filter", f"label={LABEL}", "--format", "json"]) or "[]")
    gone = set()
    for row in rows:
        labels = row.get("Labels") or row.get("labels") or {}
        if not Path(labels.get(LABEL_DIR, "/")).is_dir():
            gone.add(labels[LABEL])
    for name in sorted(gone):
        say(f"  removing the remains of {name}, whose directory is gone")
        _remove(name)


def _remove(name: str) -> None:
    containers = _names("ps", "--all", "--filter", f"label={LABEL}={name}")
    if containers:
        run(["podman", "rm", "--force", "--volumes", "--time", "2", *containers])
    networks = _names("network", "ls", "--filter", f"label={LABEL}={name}")
    if networks:
        run(["podman", "network", "rm", "--force", *networks])


def _names(*command: str) -> list[str]:
    field = "{{.Name}}" if command[0] == "network" else "{{.ID}}"
    return run(["podman", *command, "--format", field]).split()


def _labels() -> list[str]:
    return ["--label", f"{LABEL}={paths.lab_name()}", "--label", f"{LABEL_DIR}={paths.lab_dir()}"]


def _network(known: Lab | None) -> Lab:
    name = paths.lab_name()
    if known and name in run(["podman", "network", "ls", "--format", "{{.Name}}"]).split():
        return known
    # Containers of a lost network cannot start again, and a network without its lab.json is the rest of a dead lab.
    _remove(name)
    text = subnets.free(_taken_networks())
    if text is None:
        raise LabError(f"{machine.NO_SUBNET}, or remove an unused network of podman's")
    gateway = str(ipaddress.ip_network(text).network_address + 1)
    run(["podman", "network", "create", "--subnet", text, "--gateway", gateway, *_labels(), name])
    return Lab(name, name, text, gateway, {})


def _taken_networks() -> list[str]:
    found = subnets.routed()
    for network in json.loads(run(["podman", "network", "ls", "--format", "json"])):
        found += [subnet["subnet"] for subnet in network.get("subnets", [])]
    return found


def _free_address(subnet: str, addresses: dict[str, str]) -> str:
    base = ipaddress.ip_network(subnet).network_address
    return next(str(base + n) for n in range(FIRST_HOST, 250) if str(base + n) not in addresses.values())


def _boot(lab: Lab, host: str, image: str) -> None:
    name = container(lab, host)
    state = run(["podman", "ps", "--all", "--filter", f"name=^{name}$", "--format", "{{.State}}"]).strip()
    if state == "running":
        return
    if state:
        run(["podman", "start", name])
        return
    volumes = [word for path in VOLUMES for word in ("--volume", path)]
    options = ["--privileged", "--cgroupns=private", "--systemd=always", *LIMITS, *volumes, *_labels()]
    network = ["--network", lab.network, "--ip", lab.hosts[host], "--hostname", host, "--name", name]
    run(["podman", "--runtime", "runc", "run", "--detach", *options, *network, image, "/bin/sh", "-c", INIT])


def _wait_running(lab: Lab, host: str) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT_SECONDS
    name = container(lab, host)
    state = ""
    while time.monotonic() < deadline:
        try:
            # Without --wait, which has no bound of its own: a start job may hang.
            state = run(["podman", "exec", name, "systemctl", "is-system-running"]).strip()
        except LabError as error:
            state = str(error).splitlines()[-1]
        if state == "running":
            return
        if state == "degraded":
            break
        time.sleep(0.5)
    try:
        failed, jobs = (
            run(["podman", "exec", name, "systemctl", what, "--no-legend"]) for what in ("--failed", "list-jobs")
        )
    except LabError as error:
        failed, jobs = str(error), ""
    raise LabError(
        f"host {host} is {state!r}, not running; failed units: {failed.strip() or 'none'}; "
        f"unfinished jobs: {jobs.strip() or 'none'}"
    )


def _wait_answering(host: str, address: str) -> None:
    """Wait until sshd is reached: an address that another host had leads nowhere until that one is forgotten."""
    deadline = time.monotonic() + BOOT_TIMEOUT_SECONDS
    while True:
        try:
            with socket.create_connection((address, SSH_PORT), timeout=2):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                why = error.strerror or type(error).__name__
                raise LabError(f"host {host} does not answer at {address} port {SSH_PORT}: {why}") from error
        time.sleep(0.2)


def _key() -> Path:
    key = paths.lab_dir() / "ssh" / "id_ed25519"
    key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tradewatch-lab", "-f", key])
    return key


def _authorize(lab: Lab, host: str) -> None:
    """Let the lab's key in; idempotent."""
    public = _key().with_suffix(".pub").read_text().strip()
    script = 'install -d -m 0700 /root/.ssh && printf "%s\\n" "$0" > /root/.ssh/authorized_keys'
    run(["podman", "exec", container(lab, host), "sh", "-c", script, public])


def _write(lab: Lab) -> None:
    """``lab.json``, and the hosts' keys as podman (not the network) tells them."""
    lines = []
    for host, address in lab.hosts.items():
        key = run(["podman", "exec", container(lab, host), "cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).split()
        lines.append(f"{address} {key[0]} {key[1]}\n")
    (paths.lab_dir() / "ssh" / "known_hosts").write_text("".join(lines))
    (paths.lab_dir() / "lab.json").write_text(json.dumps(asdict(lab), indent=2) + "\n")


def _raise_inotify_limit() -> None:
    file = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(file.read_text()) < INOTIFY_INSTANCES and os.access(file, os.W_OK):
        file.write_text(str(INOTIFY_INSTANCES))
