"""``k3s server``: the control plane as children of this process, set up by kubeadm, and the node's own parts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets

from lab.k3s_standin import (
    addons,
    credentials,
    etcd,
    files,
    flags,
    host,
    joining,
    kubeadm,
    node,
    paths,
    payload,
    snapshots,
    tokens,
)
from lab.k3s_standin.api import ApiError, Client
from lab.k3s_standin.balancer import ENDPOINT_SLICES, Balancer, endpoints
from lab.k3s_standin.config import Config
from lab.k3s_standin.deploy import Deployer
from lab.k3s_standin.discovery import Cluster
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log
from lab.k3s_standin.notify import notify
from lab.k3s_standin.process import Group

LOCAL_URL = "https://127.0.0.1:6443"
POLL_SECONDS = 0.3
APPROVAL_SECONDS = 2.0
_ROLES = {"node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/etcd": "true"}
_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_PENDING = f"{_REQUESTS}?fieldSelector=spec.signerName%3Dkubernetes.io%2Fkubelet-serving"


class Server:
    """One server; ``run`` returns only by cancellation or an error."""

    def __init__(self, config: Config, group: Group) -> None:
        self._state = node.state()
        if self._state and self._state.get("role") != "server":
            raise StandinError(f"this host was set up as {self._state.get('role')}: reset it to make it a server")
        self._etcd_flags: list[str] = self._state.get("etcd_flags", [])
        self._config = dataclasses.replace(config, token=self._settle_token(config))
        self._address = host.node_ip(config)
        self._names = host.serving_names(config, self._address)
        self._group = group
        self._node = node.Node(self._config, self._address, group)
        seeds = [(self._address, 6443)]
        if config.joins:
            seeds.insert(0, joining.address_of(config.server))
        self._balancer = Balancer(seeds)

    async def run(self) -> None:
        """Set up or start this server, report readiness, and keep the cluster's own loops going.

        Raises:
            StandinError: it cannot be set up.
        """
        paths.SERVER.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._balancer.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._node.start_containerd()
                tasks.create_task(self._node.importer.follow())
                await (self._start() if self._state else self._set_up())
                await self._after_start(tasks)
        finally:
            await self._balancer.stop()

    def _settle_token(self, config: Config) -> str:
        stored = credentials.stored_password() if self._state else ""
        given = tokens.parse(config.token)[0] if config.token else ""
        if stored and given and not secrets.compare_digest(stored, given):
            raise StandinError("token: differs from the one that this cluster was set up with (server/token)")
        # A full token keeps its CA for the check when joining.
        return config.token or stored or tokens.generate()

    async def _set_up(self) -> None:
        kubeadm.forget()
        cluster: Cluster | None = None
        if self._config.joins:
            cluster = await joining.wait_for_cluster(self._config)
            log("info", f"joining the cluster at {self._config.server} as a server")
            files.write(paths.AGENT_CA, cluster.ca_pem, 0o644)
            work = kubeadm.join(self._config, self._address, cluster)
        else:
            work = kubeadm.init(self._config, self._address, self._names)
        self._write_settings(cluster)
        setup = asyncio.create_task(work)
        try:
            while not setup.done():
                if cluster is not None and not self._etcd_flags and etcd.certificates_exist():
                    await self._join_etcd(cluster)
                self._start_what_is_written()
                await asyncio.sleep(POLL_SECONDS)
            await setup
        finally:
            setup.cancel()
        self._start_what_is_written()
        if cluster is not None:
            await kubeadm.renew_serving_certificate(self._config, self._address, self._names)
        credentials.link_certificates()
        credentials.write_tokens(tokens.parse(self._config.token)[0])
        self._save_state()

    async def _join_etcd(self, cluster: Cluster) -> None:
        certificate = paths.TLS / "apiserver-kubelet-client.crt"
        client = Client(cluster.url, cluster.ca_pem, certificate, certificate.with_suffix(".key"))
        servers = [name for name, _ in endpoints(await client.call("GET", ENDPOINT_SLICES)) if name != self._address]
        identifier, self._etcd_flags = await etcd.add_learner(servers, self._config.node_name, self._address)
        await kubeadm.write_etcd_manifest(self._config, self._address, self._names)
        self._start_component("etcd")
        await etcd.promote(servers, identifier)

    async def _start(self) -> None:
        self._write_settings(None)
        if self._state.get("names") != self._names:
            await kubeadm.renew_serving_certificate(self._config, self._address, self._names)
            self._save_state()
        self._start_what_is_written()

    def _save_state(self) -> None:
        node.save_state({"role": "server", "names": self._names, "etcd_flags": self._etcd_flags})

    def _write_settings(self, cluster: Cluster | None) -> None:
        files.write_json(paths.AUTHENTICATION_CONFIG, credentials.authentication_config())
        credentials.ensure_encryption(self._config, cluster)

    def _start_what_is_written(self) -> None:
        for component in kubeadm.COMPONENTS:
            self._start_component(component)
        if not self._group.running("kubelet") and self._node.kubelet_ready_to_start():
            self._node.start_kubelet()

    def _start_component(self, component: str) -> None:
        base = kubeadm.component_command(component)
        if base is not None and not self._group.running(component):
            argv = flags.override(base, self._own_flags(component), self._user_flags(component))
            self._group.start(component, [payload.program(component), *argv])

    def _own_flags(self, component: str) -> list[str]:
        own = ["v=4"] if self._config.debug and component != "etcd" else []
        if component == "kube-apiserver":
            own.append("profiling=false")
            user = dict(flags.split(argument) for argument in self._config.component_arguments(component))
            if "authentication-config" not in user and user.get("anonymous-auth", "false") == "false":
                own.append(f"authentication-config={paths.AUTHENTICATION_CONFIG}")
            if paths.ENCRYPTION_CONFIG.exists():
                own.append(f"encryption-provider-config={paths.ENCRYPTION_CONFIG}")
            if self._config.bind_address:
                own.append(f"bind-address={self._config.bind_address}")
        elif component == "etcd":
            own += self._etcd_flags
            if self._config.etcd_expose_metrics:
                own.append(f"listen-metrics-urls=http://127.0.0.1:2381,http://{self._address}:2381")
        elif component in ("kube-controller-manager", "kube-scheduler"):
            own.append("profiling=false")
        return own

    def _user_flags(self, component: str) -> list[str]:
        user = self._config.component_arguments(component)
        # Already so through the authentication configuration; the API server refuses both together.
        return [argument for argument in user if flags.split(argument) != ("anonymous-auth", "false")]

    async def _after_start(self, tasks: asyncio.TaskGroup) -> None:
        certificate = paths.TLS / "apiserver-kubelet-client.crt"
        client = Client(LOCAL_URL, paths.TLS / "ca.crt", certificate, certificate.with_suffix(".key"))
        await _wait_until_ready(client)
        credentials.write_kubeconfig(self._config.kubeconfig_mode)
        deployer = Deployer(paths.ADMIN_KUBECONFIG)
        for name, content in addons.manifests(self._config).items():
            files.write(paths.MANIFESTS / name, content)
        await deployer.scan()
        tasks.create_task(self._approve(client))
        registered = await self._node.wait_until_registered(LOCAL_URL)
        await self._node.start_network(self._config.cluster_cidr, self._config.service_cidr)
        tasks.create_task(self._node.refresh_proxy_rules())
        await self._node.reconcile_labels(registered, client, _ROLES)
        with contextlib.suppress(ApiError):
            await credentials.share_encryption(client)
            await credentials.keep_uploaded_certificates(client)
        log("info", f"server {self._config.node_name} is ready")
        notify("READY=1")
        for name, content in addons.disabled_manifests(self._config).items():
            await deployer.remove(name, content)
        tasks.create_task(deployer.follow())
        tasks.create_task(self._balancer.follow(client))
        schedule, keep = self._config.snapshot_cron, self._config.snapshot_retention
        tasks.create_task(snapshots.follow(schedule, self._config.snapshot_dir, self._config.node_name, keep))

    async def _approve(self, client: Client) -> None:
        """Approve kubelets' serving certificates, so that the cluster's CA verifies port 10250 as it does with k3s."""
        while True:
            with contextlib.suppress(ApiError):
                for request in (await client.call("GET", _PENDING)).get("items", []):
                    approved = credentials.csr_approval(request)
                    if approved is not None:
                        await client.call("PUT", f"{_REQUESTS}/{request['metadata']['name']}/approval", approved)
            await asyncio.sleep(APPROVAL_SECONDS)


async def _wait_until_ready(client: Client) -> None:
    while True:
        with contextlib.suppress(ApiError, OSError):
            await client.call("GET", "/readyz")
            return
        await asyncio.sleep(POLL_SECONDS)
