"""Files of a server about who may do what: tokens, the administrator's kubeconfig, encryption at rest, anonymity."""

from __future__ import annotations

import base64
import json
import re
import secrets
from typing import Any

from lab.k3s_standin import files, paths, tokens
from lab.k3s_standin.api import ApiError, Client
from lab.k3s_standin.config import Config
from lab.k3s_standin.discovery import Cluster
from lab.k3s_standin.errors import StandinError

ENCRYPTION_SECRET = "k3s-standin-encryption"  # noqa: S105 - a name
_SECRETS = "/api/v1/namespaces/kube-system/secrets"
# k3s answers nobody anonymously. kubeadm's discovery needs the one public ConfigMap, health checks need no identity.
_ANONYMOUS_PATHS = (
    "/livez",
    "/readyz",
    "/healthz",
    "/api/v1/namespaces/kube-public/configmaps/cluster-info",
)
_KUBECONFIG = """apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: https://127.0.0.1:6443
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {{}}
users:
- name: default
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"""


def authentication_config() -> dict[str, Any]:
    """kube-apiserver's AuthenticationConfiguration: anonymous requests only where they must be."""
    conditions = [{"path": path} for path in _ANONYMOUS_PATHS]
    return {
        "apiVersion": "apiserver.config.k8s.io/v1beta1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": True, "conditions": conditions},
    }


def encryption_config() -> dict[str, Any]:
    """A new EncryptionConfiguration: Secrets with AES-CBC under a random key of 256 bits, old plain ones still read."""
    key = {"name": "aescbckey", "secret": base64.b64encode(secrets.token_bytes(32)).decode()}
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"aescbc": {"keys": [key]}}, {"identity": {}}]}],
    }


def ensure_encryption(config: Config, cluster: Cluster | None) -> None:
    """Have the encryption configuration on disk when it is switched on: a new one, or the cluster's when joining.

    Raises:
        StandinError: the cluster that is joined has none, or does not give it.
    """
    if not config.secrets_encryption or paths.ENCRYPTION_CONFIG.exists():
        return
    if cluster is None:
        files.write_json(paths.ENCRYPTION_CONFIG, encryption_config())
        return
    token = ".".join(tokens.bootstrap(tokens.parse(config.token)[0]))
    try:
        secret = Client(cluster.url, cluster.ca_pem, token=token).request("GET", f"{_SECRETS}/{ENCRYPTION_SECRET}")
    except ApiError as error:
        raise StandinError(f"secrets-encryption: cannot fetch the cluster's key: {error}") from None
    files.write(paths.ENCRYPTION_CONFIG, base64.b64decode(secret["data"]["config"]))


async def share_encryption(client: Client) -> None:
    """Keep the encryption configuration in the cluster for servers that join later.

    Raises:
        ApiError: the API refused.
    """
    if not paths.ENCRYPTION_CONFIG.exists():
        return
    data = {"config": base64.b64encode(paths.ENCRYPTION_CONFIG.read_bytes()).decode()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": ENCRYPTION_SECRET}, "data": data}
    try:
        await client.call("POST", _SECRETS, body)
    except ApiError as error:
        if error.status != 409:
            raise


async def keep_uploaded_certificates(client: Client) -> None:
    """Let kubeadm's uploaded certificates live as long as the cluster: a server may join on any day.

    They are encrypted under the key derived from the token, and kubeadm would have them deleted after two hours.

    Raises:
        ApiError: the API refused.
    """
    body = {"metadata": {"ownerReferences": None}}
    await client.call("PATCH", f"{_SECRETS}/kubeadm-certs", body, "application/merge-patch+json")


def write_tokens(password: str) -> None:
    """server/token and server/node-token in k3s's full form."""
    text = tokens.full(password, (paths.TLS / "ca.crt").read_bytes()) + "\n"
    files.write(paths.TOKEN, text)
    paths.NODE_TOKEN.unlink(missing_ok=True)
    paths.NODE_TOKEN.symlink_to(paths.TOKEN.name)


def stored_password() -> str:
    """The password of the token of a server that was set up; empty on a fresh host."""
    try:
        return tokens.parse(paths.TOKEN.read_text())[0]
    except FileNotFoundError:
        return ""


def write_kubeconfig(mode: int) -> None:
    """/etc/rancher/k3s/k3s.yaml from kubeadm's administrator, in the form that k3s gives it."""
    text = (paths.KUBERNETES / "admin.conf").read_text()
    values = {}
    for name, field in (("certificate", "client-certificate-data"), ("key", "client-key-data")):
        match = re.search(rf"^\s*{field}: *(\S+)$", text, re.MULTILINE)
        if match is None:
            raise StandinError(f"{paths.KUBERNETES / 'admin.conf'}: holds no {field}")
        values[name] = match[1]
    ca = base64.b64encode((paths.TLS / "ca.crt").read_bytes()).decode()
    files.write(paths.ADMIN_KUBECONFIG, _KUBECONFIG.format(ca=ca, **values), mode)


def link_certificates() -> None:
    """The names under which k3s keeps the certificates that people and checks use."""
    links = {
        "server-ca.crt": "ca.crt",
        "client-ca.crt": "ca.crt",
        "etcd/server-ca.crt": "ca.crt",
        "etcd/client.crt": "../apiserver-etcd-client.crt",
        "etcd/client.key": "../apiserver-etcd-client.key",
    }
    for name, target in links.items():
        link = paths.TLS / name
        if not link.is_symlink():
            link.symlink_to(target)


def csr_approval(request: dict[str, Any]) -> dict[str, Any] | None:
    """The approval of a kubelet's serving certificate request; None for any other request or a decided one."""
    spec = request["spec"]
    if request.get("status", {}).get("conditions") or spec["signerName"] != "kubernetes.io/kubelet-serving":
        return None
    if not spec["username"].startswith("system:node:") or "system:nodes" not in spec.get("groups", []):
        return None
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "StandinApproved",
        "message": "serving certificate of a kubelet that is a node of the cluster",
    }
    approved: dict[str, Any] = json.loads(json.dumps(request))
    approved.setdefault("status", {})["conditions"] = [condition]
    return approved
