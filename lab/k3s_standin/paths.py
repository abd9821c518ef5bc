"""Where the stand-in keeps things on a node: k3s's own folders, so that removing k3s's folders removes all of it."""

from __future__ import annotations

from pathlib import Path

CONFIG = Path("/etc/rancher/k3s/config.yaml")
ADMIN_KUBECONFIG = Path("/etc/rancher/k3s/k3s.yaml")

DATA = Path("/var/lib/rancher/k3s")
SERVER = DATA / "server"
AGENT = DATA / "agent"
# What no k3s has: kubeadm's files (they would be in /etc/kubernetes) and what was set up with which settings.
STANDIN = DATA / "standin"
KUBERNETES = STANDIN / "kubernetes"
KUBERNETES_MANIFESTS = KUBERNETES / "manifests"
STATE = STANDIN / "state.json"
IMPORTED = STANDIN / "imported-images.json"

TLS = SERVER / "tls"
ETCD_DATA = SERVER / "db" / "etcd"
SNAPSHOTS = SERVER / "db" / "snapshots"
MANIFESTS = SERVER / "manifests"
CREDENTIALS = SERVER / "cred"
ENCRYPTION_CONFIG = CREDENTIALS / "encryption-config.json"
AUTHENTICATION_CONFIG = SERVER / "etc" / "authentication-config.json"
TOKEN = SERVER / "token"
NODE_TOKEN = SERVER / "node-token"

IMAGES = AGENT / "images"
CONTAINERD_ROOT = AGENT / "containerd"
CONTAINERD_CONFIG = AGENT / "etc" / "containerd" / "config.toml"
CONTAINERD_DROPINS = AGENT / "etc" / "containerd" / "config-v3.toml.d"
CNI_CONFIG = AGENT / "etc" / "cni" / "net.d"
CNI_BINARIES = Path("/usr/lib/cni")
KUBELET_DROPINS = AGENT / "etc" / "kubelet.conf.d"
POD_MANIFESTS = AGENT / "pod-manifests"
LOAD_BALANCER = AGENT / "etc" / "k3s-agent-load-balancer.json"
AGENT_CA = AGENT / "server-ca.crt"

KUBELET = Path("/var/lib/kubelet")
KUBELET_CLIENT = KUBELET / "pki" / "kubelet-client-current.pem"

RUN = Path("/run/k3s")
INTERFACES = Path("/sys/class/net")
CONTAINERD_STATE = RUN / "containerd"
CONTAINERD_SOCKET = CONTAINERD_STATE / "containerd.sock"
