"""``k3s agent``: a node without a control plane, joined by kubeadm with the token."""

from __future__ import annotations

import asyncio
import contextlib
import re

from lab.k3s_standin import files, host, joining, kubeadm, node, paths
from lab.k3s_standin.api import ApiError
from lab.k3s_standin.balancer import ENDPOINT, Balancer
from lab.k3s_standin.config import Config
from lab.k3s_standin.discovery import Cluster, Unreachable, discover
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log
from lab.k3s_standin.notify import notify
from lab.k3s_standin.process import Group

URL = f"https://{ENDPOINT}"
POLL_SECONDS = 0.3
RETRY_SECONDS = 5.0
_CLUSTER = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"


class Agent:
    """One agent; ``run`` returns only by cancellation or an error."""

    def __init__(self, config: Config, group: Group) -> None:
        self._state = node.state()
        if self._state and self._state.get("role") != "agent":
            raise StandinError(f"this host was set up as {self._state.get('role')}: reset it to make it an agent")
        self._config = config
        self._address = host.node_ip(config)
        self._group = group
        self._node = node.Node(config, self._address, group)
        self._balancer = Balancer([joining.address_of(config.server)])

    async def run(self) -> None:
        """Join or start this agent, report readiness, and follow the cluster's servers.

        Raises:
            StandinError: a part of this host does not work.
        """
        await self._balancer.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._node.start_containerd()
                tasks.create_task(self._node.importer.follow())
                while not await self._joined():
                    await self._join()
                if not self._group.running("kubelet"):
                    self._node.start_kubelet()
                registered = await self._node.wait_until_registered(URL)
                client = self._node.client(URL)
                cluster_cidr, service_cidr = await self._cidrs()
                await self._node.start_network(cluster_cidr, service_cidr)
                tasks.create_task(self._node.refresh_proxy_rules())
                await self._node.reconcile_labels(registered, client, {})
                log("info", f"agent {self._config.node_name} is ready")
                notify("READY=1")
                tasks.create_task(self._balancer.follow(client))
        finally:
            await self._balancer.stop()

    async def _joined(self) -> bool:
        """Whether this host belongs to the cluster of its configuration, as far as that answers."""
        if not self._state:
            return False
        if self._group.running("kubelet"):
            return True
        try:
            cluster = await asyncio.to_thread(discover, self._config.server, self._config.token)
        except Unreachable as error:
            log("warning", f"{error}; starting as the node that this host was")
            return True
        except StandinError:
            # Says why in the log, and goes on once the token is right.
            cluster = await joining.wait_for_cluster(self._config)
        if cluster.ca_pem == paths.AGENT_CA.read_text():
            return True
        log("warning", f"{self._config.server} is another cluster than the one joined before; joining it anew")
        self._state = {}
        return False

    async def _join(self) -> None:
        kubeadm.forget()
        cluster = await joining.wait_for_cluster(self._config)
        try:
            await self._run_kubeadm(cluster)
        except StandinError as error:
            log("error", f"cannot join: {error}; trying again in {RETRY_SECONDS:.0f} s")
            await self._group.end("kubelet")
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._state = {"role": "agent"}
        node.save_state(self._state)

    async def _run_kubeadm(self, cluster: Cluster) -> None:
        files.write(paths.AGENT_CA, cluster.ca_pem, 0o644)
        setup = asyncio.create_task(kubeadm.join(self._config, self._address, cluster))
        try:
            while not setup.done():
                if not self._group.running("kubelet") and self._node.kubelet_ready_to_start():
                    self._node.start_kubelet()
                await asyncio.sleep(POLL_SECONDS)
            await setup
        finally:
            setup.cancel()

    async def _cidrs(self) -> tuple[str, str]:
        """The cluster's pod and service networks; remembered for a start while no server answers."""
        known = self._state.get("cidrs")
        while True:
            with contextlib.suppress(ApiError):
                text = (await self._node.client(URL).call("GET", _CLUSTER))["data"]["ClusterConfiguration"]
                found = [
                    re.search(rf"^\s*{name}: *(\S+)$", text, re.MULTILINE) for name in ("podSubnet", "serviceSubnet")
                ]
                if found[0] and found[1]:
                    self._state = {**self._state, "cidrs": [found[0][1], found[1][1]]}
                    node.save_state(self._state)
                    return found[0][1], found[1][1]
            if known:
                return str(known[0]), str(known[1])
            await asyncio.sleep(POLL_SECONDS)
