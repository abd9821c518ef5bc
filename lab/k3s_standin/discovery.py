"""Find and trust a cluster with nothing but its address and the token, as kubeadm's discovery does."""

from __future__ import annotations

import base64
import hashlib
import re
import urllib.parse
from dataclasses import dataclass

from lab.k3s_standin import tokens
from lab.k3s_standin.api import ApiError, Client
from lab.k3s_standin.errors import StandinError

_CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
_SIGNATURE = "jws-kubeconfig-"


@dataclass(frozen=True)
class Cluster:
    """A cluster whose CA was checked against the token."""

    host: str
    port: int
    ca_pem: str

    @property
    def url(self) -> str:
        """The address of the server that was asked."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


class Unreachable(StandinError):
    """The server does not answer (yet)."""


def discover(server: str, token: str) -> Cluster:
    """Fetch the CA of the cluster at ``server`` and check it and the token against each other.

    Raises:
        Unreachable: no answer from the server.
        StandinError: the token is not this cluster's.
    """
    password, ca_digest = tokens.parse(token)
    parts = urllib.parse.urlsplit(server)
    host, port = parts.hostname or "", parts.port or 6443
    try:
        data = Client(server).request("GET", _CLUSTER_INFO)["data"]
    except ApiError as error:
        raise Unreachable(f"server {server} does not answer: {error}") from None
    kubeconfig = str(data.get("kubeconfig", ""))
    match = re.search(r"certificate-authority-data: *([A-Za-z0-9+/=]+)", kubeconfig)
    if match is None:
        raise Unreachable(f"server {server} does not publish its CA yet")
    ca = base64.b64decode(match[1])
    if ca_digest is not None and hashlib.sha256(ca).hexdigest() != ca_digest:
        raise StandinError(f"token: names another CA than that of {server}: it belongs to another cluster")
    if not any(key.startswith(_SIGNATURE) for key in data):
        raise Unreachable(f"server {server} has not signed its cluster-info yet")
    identifier, _ = tokens.bootstrap(password)
    if not tokens.signature_matches(password, kubeconfig, str(data.get(_SIGNATURE + identifier, ""))):
        raise StandinError(f"token: the cluster at {server} does not know it; this node will not join")
    return Cluster(host, port, ca.decode())
