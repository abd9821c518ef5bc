"""Run kubeadm: its configuration (with the secrets, so only in files below /run), and the manifests that it writes.

kubeadm insists on /etc/kubernetes. It runs in a mount namespace of its own where that is our folder, so that nothing
of it stays outside k3s's folders.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.k3s_standin import balancer, files, flags, paths, payload, process, tokens
from lab.k3s_standin.config import Config
from lab.k3s_standin.discovery import Cluster
from lab.k3s_standin.errors import StandinError

ETC = Path("/etc/kubernetes")
API = "kubeadm.k8s.io/v1beta4"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# We start every component ourselves and bring CoreDNS and kube-proxy; k3s marks its servers in its own way.
_INIT_SKIP = ["preflight", "addon", "mark-control-plane", "show-join-command"]
# Its output goes to the journal, and from there to Loki: kubeadm would print there what joins nodes and servers.
_SILENT = ("--skip-token-print", "--skip-certificate-key-print")
_JOIN_SKIP = ["preflight", "check-etcd", "etcd-join", "control-plane-join/mark-control-plane"]
_MOUNT = f'mount --bind "$0" {ETC} && exec "$@"'


def init_documents(config: Config, node_ip: str, version: str, sans: Sequence[str]) -> list[dict[str, Any]]:
    """kubeadm's configuration for the first server of a cluster."""
    identifier, secret = tokens.bootstrap(tokens.parse(config.token)[0])
    cluster: dict[str, Any] = {
        "apiVersion": API,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": version,
        "clusterName": "default",
        "certificatesDir": str(paths.TLS),
        "controlPlaneEndpoint": balancer.ENDPOINT,
        "networking": {
            "podSubnet": config.cluster_cidr,
            "serviceSubnet": config.service_cidr,
            "dnsDomain": config.cluster_domain,
        },
        "apiServer": {"certSANs": list(sans)},
        "etcd": {"local": {"dataDir": str(paths.ETCD_DATA)}},
    }
    init = {
        "apiVersion": API,
        "kind": "InitConfiguration",
        "bootstrapTokens": [{"token": f"{identifier}.{secret}", "ttl": "0s", "description": "derived from the token"}],
        "certificateKey": tokens.certificate_key(tokens.parse(config.token)[0]),
        "localAPIEndpoint": {"advertiseAddress": config.advertise_address or node_ip, "bindPort": 6443},
        "nodeRegistration": _registration(config),
        "skipPhases": _INIT_SKIP,
    }
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "clusterDNS": [config.cluster_dns],
    }
    return [init, cluster, kubelet]


def join_documents(config: Config, node_ip: str, discovery_file: Path) -> list[dict[str, Any]]:
    """kubeadm's configuration for a node that joins, as a further server or as an agent."""
    password = tokens.parse(config.token)[0]
    join: dict[str, Any] = {
        "apiVersion": API,
        "kind": "JoinConfiguration",
        "caCertPath": str(paths.AGENT_CA),
        "discovery": {
            "file": {"kubeConfigPath": str(discovery_file)},
            "tlsBootstrapToken": ".".join(tokens.bootstrap(password)),
        },
        "nodeRegistration": _registration(config),
        "skipPhases": _JOIN_SKIP if config.command == "server" else ["preflight"],
    }
    if config.command == "server":
        join["controlPlane"] = {
            "localAPIEndpoint": {"advertiseAddress": config.advertise_address or node_ip, "bindPort": 6443},
            "certificateKey": tokens.certificate_key(password),
        }
    return [join]


def discovery_kubeconfig(cluster: Cluster) -> dict[str, Any]:
    """A kubeconfig without a user: where the cluster is, and its CA, which was checked against the token."""
    ca = base64.b64encode(cluster.ca_pem.encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "", "cluster": {"server": f"https://{balancer.ENDPOINT}", "certificate-authority-data": ca}}
        ],
        "contexts": [],
        "users": [],
        "preferences": {},
    }


async def init(config: Config, node_ip: str, sans: Sequence[str]) -> None:
    """``kubeadm init``.

    Raises:
        StandinError: it failed; its output is in the log.
    """
    with tempfile.TemporaryDirectory(prefix="standin-", dir=paths.RUN) as folder:
        file = Path(folder) / "kubeadm.json"
        _write(file, init_documents(config, node_ip, payload.about().version.partition("+")[0], sans))
        await _kubeadm("init", "--upload-certs", *_SILENT, "--config", str(file))


async def join(config: Config, node_ip: str, cluster: Cluster) -> None:
    """``kubeadm join``.

    Raises:
        StandinError: it failed; its output is in the log.
    """
    with tempfile.TemporaryDirectory(prefix="standin-", dir=paths.RUN) as folder:
        discovery_file = Path(folder) / "discovery.conf"
        files.write_json(discovery_file, discovery_kubeconfig(cluster))
        file = Path(folder) / "kubeadm.json"
        _write(file, join_documents(config, node_ip, discovery_file))
        await _kubeadm("join", "--config", str(file))


async def renew_serving_certificate(config: Config, node_ip: str, sans: Sequence[str]) -> None:
    """Make the API server's certificate again, for other names."""
    for suffix in ("crt", "key"):
        (paths.TLS / f"apiserver.{suffix}").unlink(missing_ok=True)
    await _phase(config, node_ip, sans, "certs", "apiserver")


async def write_etcd_manifest(config: Config, node_ip: str, sans: Sequence[str]) -> None:
    """The manifest of a member on this node, as kubeadm would write it for a cluster of one."""
    await _phase(config, node_ip, sans, "etcd", "local")


async def _phase(config: Config, node_ip: str, sans: Sequence[str], *phase: str) -> None:
    with tempfile.TemporaryDirectory(prefix="standin-", dir=paths.RUN) as folder:
        file = Path(folder) / "kubeadm.json"
        _write(file, init_documents(config, node_ip, payload.about().version.partition("+")[0], sans))
        await _kubeadm("init", "phase", *phase, "--config", str(file))


def component_command(component: str) -> list[str] | None:
    """The flags of a control plane component from its manifest; None while kubeadm has not written that."""
    try:
        words = flags.command_of((paths.KUBERNETES_MANIFESTS / f"{component}.yaml").read_text())
    except FileNotFoundError:
        return None
    return [word.replace(f"{ETC}/", f"{paths.KUBERNETES}/") for word in words[1:]] or None


def forget() -> None:
    """Remove what an unfinished or outdated kubeadm run left, so that the next one starts clean."""
    for folder in (paths.STANDIN, paths.TLS, paths.ETCD_DATA, paths.KUBELET / "pki"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("config.yaml", "kubeadm-flags.env", "instance-config.yaml"):
        (paths.KUBELET / name).unlink(missing_ok=True)
    for file in (paths.AGENT_CA, paths.LOAD_BALANCER):
        file.unlink(missing_ok=True)


def _registration(config: Config) -> dict[str, Any]:
    return {
        "name": config.node_name,
        "criSocket": f"unix://{paths.CONTAINERD_SOCKET}",
        "taints": [],
        "imagePullPolicy": "Never",
    }


def _write(path: Path, documents: Sequence[dict[str, Any]]) -> None:
    files.write(path, "---\n".join(json.dumps(document) + "\n" for document in documents))


async def _kubeadm(*arguments: str) -> None:
    paths.KUBERNETES_MANIFESTS.mkdir(parents=True, exist_ok=True)
    made = not ETC.exists()
    ETC.mkdir(exist_ok=True)
    try:
        kubeadm = [payload.program("kubeadm"), *arguments]
        isolated = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, str(paths.KUBERNETES)]
        try:
            await process.run([*isolated, *kubeadm], component="kubeadm")
        except StandinError:
            raise StandinError(f"kubeadm {arguments[0]} failed; see its lines above") from None
    finally:
        if made:
            ETC.rmdir()
