"""Who gets to what: Secrets in etcd, anonymous callers of the API."""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.parse
from collections.abc import Iterator

from kubernetes import client

from .cluster import PROBE_LABEL, PROBE_NAMESPACE, Cluster
from .endpoints import direct


def secrets_are_encrypted(cluster: Cluster) -> Iterator[str]:
    """A Secret written now is written encrypted."""
    name = "tradewatch-verify"
    before = _encrypted_secret_writes(cluster)
    if cluster.read_only:
        if not before:
            yield "the API server has written no Secret encrypted since it started"
        return
    body = {"metadata": {"name": name, "labels": {PROBE_LABEL: "secret"}}, "stringData": {"probe": "verify"}}
    _delete_secret(cluster, name)
    cluster.core.create_namespaced_secret(PROBE_NAMESPACE, body, _request_timeout=(5, 60))
    _delete_secret(cluster, name)
    if _encrypted_secret_writes(cluster) <= before:
        yield "the API server wrote a new Secret without encrypting it"


def _encrypted_secret_writes(cluster: Cluster) -> float:
    response = cluster.api_client.call_api(
        "/metrics",
        "GET",
        auth_settings=["BearerToken"],
        response_type="object",
        _preload_content=False,
        _return_http_data_only=True,
        _request_timeout=(5, 60),
    )
    return encrypted_secret_writes(response.data.decode())


def encrypted_secret_writes(metrics: str) -> float:
    """How many Secrets the API server has written encrypted, out of its metrics."""
    count = 0.0
    for line in metrics.splitlines():
        if not line.startswith("apiserver_storage_transformation_operations_total{"):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        # An inner transformer (the key's name) counts the same write once more, without this prefix.
        if (
            labels.get("resource") == "secrets"
            and labels.get("transformation_type") == "to_storage"
            and labels.get("status") == "OK"
            and labels.get("transformer_prefix", "").startswith("k8s:enc:")
        ):
            count += float(line.rsplit(" ", 1)[1])
    return count


def _delete_secret(cluster: Cluster, name: str) -> None:
    try:
        cluster.core.delete_namespaced_secret(name, PROBE_NAMESPACE, _request_timeout=(5, 60))
    except client.ApiException as error:
        if error.status != 404:
            raise


def anonymous_is_refused(cluster: Cluster) -> Iterator[str]:
    """Each API server answers 401 to a caller without credentials."""
    # The certificate is not the question here; a wrong one would hide the answer.
    context = ssl._create_unverified_context()  # noqa: S323
    opener = direct(context)
    port = urllib.parse.urlparse(cluster.api_client.configuration.host).port or 443
    for name, node in sorted(cluster.parameters["nodes"].items()):
        if node["role"] != "control-plane":
            continue
        for path in ("/api", "/version", "/metrics"):
            url = f"https://{node['address']}:{port}{path}"
            try:
                with opener.open(url, timeout=10) as answer:
                    status = answer.status
            except urllib.error.HTTPError as error:
                status = error.code
            except OSError as error:
                yield f"{name}: {url} does not answer: {error}"
                break
            if status != 401:
                yield f"{name}: {url} answers {status} to anonymous, expected 401"
