"""The parts that every node has: containerd, images, kubelet, kube-proxy and kube-router."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from lab.k3s_standin import airgap, containerd, files, flags, host, paths, payload
from lab.k3s_standin.api import ApiError, Client
from lab.k3s_standin.config import Config
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log
from lab.k3s_standin.process import Group

CONTAINERD_SECONDS = 60.0
PROXY_SECONDS = 30.0
REFRESH_SECONDS = 30.0
POLL_SECONDS = 0.5
KUBELET_KUBECONFIG = paths.KUBERNETES / "kubelet.conf"
_CNI_FILE = paths.CNI_CONFIG / "10-kuberouter.conflist"
_CNI = {
    "cniVersion": "0.3.1",
    "name": "cbr0",
    "plugins": [
        {
            "type": "bridge",
            "name": "kubernetes",
            "bridge": "kube-bridge",
            "isDefaultGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local"},
        },
        {"type": "portmap", "capabilities": {"portMappings": True, "snat": True}},
    ],
}


class Node:
    """One node's own components; ``group`` keeps them running."""

    def __init__(self, config: Config, address: str, group: Group) -> None:
        self.config = config
        self.address = address
        self.importer = airgap.Importer()
        self._group = group
        self._systemd_cgroup = host.systemd_cgroup()

    async def start_containerd(self) -> None:
        """Start containerd and wait until it answers.

        Raises:
            StandinError: it does not within ``CONTAINERD_SECONDS``.
        """
        for folder in (paths.CONTAINERD_STATE, paths.CNI_CONFIG, paths.IMAGES, paths.POD_MANIFESTS):
            folder.mkdir(parents=True, exist_ok=True)
        containerd.write(self._systemd_cgroup)
        self._group.start("containerd", containerd.command())
        deadline = asyncio.get_running_loop().time() + CONTAINERD_SECONDS
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(str(paths.CONTAINERD_SOCKET))
                writer.close()
                return
            except OSError:
                if asyncio.get_running_loop().time() > deadline:
                    raise StandinError(f"containerd does not answer after {CONTAINERD_SECONDS:.0f} s") from None
                await asyncio.sleep(POLL_SECONDS / 5)

    def kubelet_ready_to_start(self) -> bool:
        """Whether kubeadm has written what the kubelet reads."""
        kubeconfigs = (KUBELET_KUBECONFIG, paths.KUBERNETES / "bootstrap-kubelet.conf")
        written = any(path.exists() for path in kubeconfigs) and (paths.KUBELET / "config.yaml").exists()
        return written and (paths.AGENT_CA.exists() or (paths.TLS / "ca.crt").exists())

    def start_kubelet(self) -> None:
        """Start the kubelet with kubeadm's configuration, k3s's defaults over it and the user's arguments over both."""
        if not paths.AGENT_CA.exists():
            files.write(paths.AGENT_CA, (paths.TLS / "ca.crt").read_bytes(), 0o644)
        files.write_json(paths.KUBELET_DROPINS / "00-k3s-defaults.conf", self._kubelet_defaults())
        bootstrap = paths.KUBERNETES / "bootstrap-kubelet.conf"
        own = [
            f"config={paths.KUBELET / 'config.yaml'}",
            f"config-dir={paths.KUBELET_DROPINS}",
            f"kubeconfig={KUBELET_KUBECONFIG}",
            f"hostname-override={self.config.node_name}",
            f"node-ip={self.address}",
            # As k3s: without it cAdvisor asks at containerd's usual place, and knows pods but not their containers.
            f"containerd={paths.CONTAINERD_SOCKET}",
            *([f"bootstrap-kubeconfig={bootstrap}"] if bootstrap.exists() else []),
            *([f"node-labels={','.join(self.config.node_labels)}"] if self.config.node_labels else []),
            *([f"register-with-taints={','.join(self.config.node_taints)}"] if self.config.node_taints else []),
            *(["v=4"] if self.config.debug else []),
        ]
        argv = flags.override([], own, self.config.component_arguments("kubelet"))
        self._group.start("kubelet", [payload.program("kubelet"), *argv])

    async def start_network(self, cluster_cidr: str, service_cidr: str) -> None:
        """Start kube-proxy, then kube-router, with the kubelet's identity.

        One after the other: kube-router puts back the whole filter table as it read it, without chains that
        kube-proxy makes meanwhile. kube-proxy's first sync then fails, and the next may be an hour away: until then
        no Service's address answers on the node.
        """
        proxy = [
            f"kubeconfig={KUBELET_KUBECONFIG}",
            f"hostname-override={self.config.node_name}",
            f"cluster-cidr={cluster_cidr}",
            "proxy-mode=iptables",
            # How often it looks for its canary, see refresh_proxy_rules.
            "iptables-sync-period=10s",
            "healthz-bind-address=127.0.0.1:10256",
            "metrics-bind-address=127.0.0.1:10249",
        ]
        argv = flags.override([], proxy, self.config.component_arguments("kube-proxy"))
        self._group.start("kube-proxy", [payload.program("kube-proxy"), *argv])
        if not await _proxy_synced():
            log("error", f"kube-proxy has not written its rules within {PROXY_SECONDS:.0f} s")
        if not _CNI_FILE.exists():
            files.write_json(_CNI_FILE, _CNI, 0o644)
        await _masquerade(cluster_cidr)
        router = [
            f"--kubeconfig={KUBELET_KUBECONFIG}",
            f"--hostname-override={self.config.node_name}",
            f"--service-cluster-ip-range={service_cidr}",
            "--run-router=true",
            "--run-firewall=true",
            "--run-service-proxy=false",
            # It goes by a list of the nodes that it renews every five minutes, see _masquerade.
            "--enable-pod-egress=false",
            # By default five minutes, for which pods stay shut out when one writing of the rules has failed.
            "--iptables-sync-period=30s",
            "--health-port=0",
            # An admin API of the BGP daemon, without authentication, on the node's address.
            "--gobgp-admin-port=0",
        ]
        environment = {"KUBE_ROUTER_CNI_CONF_FILE": str(_CNI_FILE), "NODE_NAME": self.config.node_name}
        self._group.start("kube-router", [payload.program("kube-router"), *router], environment)

    async def refresh_proxy_rules(self) -> None:
        """Have kube-proxy write all its rules again, for ever: it takes a table without its canary for a flushed one.

        kube-router's way with the filter table can also bring back what kube-proxy has just taken out of it, such as
        that a Service without pods refuses; until kube-proxy's next change, the Service goes on refusing.
        """
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            # kube-proxy looks at mangle, and goes on when the others are without one, too.
            for table in ("filter", "nat", "mangle"):
                delete = ("iptables", "-w", "5", "-t", table, "-X", "KUBE-PROXY-CANARY")
                process = await asyncio.create_subprocess_exec(*delete, stderr=asyncio.subprocess.DEVNULL)
                await process.wait()

    def client(self, url: str) -> Client:
        """The API as this node."""
        return Client(url, paths.AGENT_CA, paths.KUBELET_CLIENT)

    async def wait_until_registered(self, url: str) -> dict[str, Any]:
        """Wait until the node is in the API with a pod network, and its kubelet is healthy.

        Without a bound: whoever started the unit has one.
        """
        path = f"/api/v1/nodes/{self.config.node_name}"
        while True:
            if paths.KUBELET_CLIENT.exists() and await kubelet_healthy():
                with contextlib.suppress(ApiError, OSError):
                    node: dict[str, Any] = await self.client(url).call("GET", path)
                    if node["spec"].get("podCIDR"):
                        return node
            await asyncio.sleep(POLL_SECONDS)

    async def reconcile_labels(self, node: dict[str, Any], client: Client, extra: dict[str, str]) -> None:
        """Set the configuration's labels on a node that is registered already (the kubelet sets them only once)."""
        wanted = {**dict(label.split("=", 1) for label in self.config.node_labels), **extra}
        labels = node["metadata"].get("labels", {})
        changed = {key: value for key, value in wanted.items() if labels.get(key) != value}
        if changed:
            body = {"metadata": {"labels": changed}}
            path = f"/api/v1/nodes/{self.config.node_name}"
            try:
                await client.call("PATCH", path, body, "application/merge-patch+json")
            except ApiError as error:
                log("error", f"node-label: cannot set {', '.join(changed)}: {error}")

    def _kubelet_defaults(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(paths.AGENT_CA)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "systemd" if self._systemd_cgroup else "cgroupfs",
            "containerRuntimeEndpoint": f"unix://{paths.CONTAINERD_SOCKET}",
            "evictionHard": {"imagefs.available": "5%", "nodefs.available": "5%"},
            "evictionMinimumReclaim": {"imagefs.available": "10%", "nodefs.available": "10%"},
            "failSwapOn": False,
            # Imported images have no registry to come back from, and containerd 1.6 knows no pinned images.
            "imageGCHighThresholdPercent": 100,
            "protectKernelDefaults": self.config.protect_kernel_defaults,
            "resolvConf": host.resolv_conf(),
            "serverTLSBootstrap": True,
            "staticPodPath": str(paths.POD_MANIFESTS),
        }


async def kubelet_healthy() -> bool:
    """Whether the kubelet's local health port says ok."""
    return b" 200 " in (await _ask_locally(10248, "/healthz"))[:200]


async def _masquerade(cluster_cidr: str) -> None:
    """Send pods' traffic that leaves the pod network with the node's address, by the rule that flannel has in k3s.

    kube-router's own rule would do so to traffic for a node that has joined since it last looked, too, where policies
    then refuse the sender, for they know pods by their addresses.

    Raises:
        StandinError: the rule cannot be set.
    """
    leaving = ("-s", cluster_cidr, "!", "-d", cluster_cidr, "-m", "comment", "--comment", "flanneld masq")
    rule = ("POSTROUTING", *leaving, "-j", "MASQUERADE", "--random-fully")
    message = b""
    for verb in ("-C", "-A"):
        command = ("iptables", "-w", "5", "-t", "nat", verb, *rule)
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, message = await process.communicate()
        if process.returncode == 0:
            return
    raise StandinError(f"the pod network's masquerading cannot be set: iptables: {message.decode().strip()}")


async def _proxy_synced() -> bool:
    """Wait until kube-proxy's metrics tell of a successful sync; False at the bound."""
    deadline = asyncio.get_running_loop().time() + PROXY_SECONDS
    synced = b'\nkubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"}'
    while synced not in await _ask_locally(10249, "/metrics"):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS / 2)
    return True


async def _ask_locally(port: int, path: str) -> bytes:
    """What a component's local port answers, headers and all; nothing where it does not within two seconds."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        async with asyncio.timeout(2.0):
            answer = await reader.read()
        writer.close()
    except (OSError, TimeoutError):
        return b""
    return answer


def state() -> dict[str, Any]:
    """What was set up on this host; empty on a fresh one."""
    try:
        return files.read_json(paths.STATE)
    except json.JSONDecodeError:
        raise StandinError(f"{paths.STATE}: is damaged; reset this node") from None


def save_state(value: dict[str, Any]) -> None:
    """Remember what was set up."""
    files.write_json(Path(paths.STATE), value)
