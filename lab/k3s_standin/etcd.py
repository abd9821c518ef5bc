"""Join the etcd of a cluster. kubeadm finds members through their static pods, of which a stand-in has none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from lab.k3s_standin import paths, payload, process
from lab.k3s_standin.errors import StandinError

PROMOTE_SECONDS = 60.0
POLL_SECONDS = 0.5
_CERTIFICATES = paths.TLS / "etcd"


def certificates_exist() -> bool:
    """Whether kubeadm has written all that a member and its clients need."""
    names = ("ca.crt", "server.crt", "peer.crt", "healthcheck-client.crt", "healthcheck-client.key")
    return all((_CERTIFICATES / name).exists() for name in names) and (paths.TLS / "apiserver-etcd-client.key").exists()


def client_command(addresses: Sequence[str]) -> list[str]:
    """etcdctl for the members at ``addresses``."""
    return [
        payload.program("etcdctl"),
        f"--endpoints={','.join(f'https://{address}:2379' for address in addresses)}",
        f"--cacert={_CERTIFICATES / 'ca.crt'}",
        f"--cert={_CERTIFICATES / 'healthcheck-client.crt'}",
        f"--key={_CERTIFICATES / 'healthcheck-client.key'}",
    ]


async def add_learner(addresses: Sequence[str], name: str, address: str) -> tuple[str, list[str]]:
    """Announce this node as a learner; returns its member id (hex) and the flags with which its etcd starts.

    A learner does not vote: a node that never comes up costs the cluster nothing. What an earlier attempt of this
    node left is removed first.

    Raises:
        StandinError: etcd refused.
    """
    etcdctl = client_command(addresses)
    peer = f"https://{address}:2380"
    for member in await _members(etcdctl):
        if peer in member["peerURLs"]:
            await process.run([*etcdctl, "member", "remove", f"{member['ID']:x}"])
    await process.run([*etcdctl, "member", "add", name, "--learner", f"--peer-urls={peer}"])
    members = await _members(etcdctl)
    identifier = next(f"{member['ID']:x}" for member in members if peer in member["peerURLs"])
    return identifier, [f"initial-cluster={initial_cluster(members, name, peer)}", "initial-cluster-state=existing"]


def initial_cluster(members: Sequence[dict[str, Any]], name: str, peer: str) -> str:
    """etcd's ``--initial-cluster``; the new member at ``peer`` has no name there before its first start."""
    pairs = [(name if url == peer else member.get("name", ""), url) for member in members for url in member["peerURLs"]]
    return ",".join(f"{member}={url}" for member, url in pairs)


async def promote(addresses: Sequence[str], identifier: str) -> None:
    """Make a learner a voting member as soon as it has caught up.

    Raises:
        StandinError: it did not within ``PROMOTE_SECONDS``.
    """
    deadline = asyncio.get_running_loop().time() + PROMOTE_SECONDS
    while True:
        try:
            await process.run([*client_command(addresses), "member", "promote", identifier])
            return
        except StandinError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise StandinError(f"etcd did not catch up in {PROMOTE_SECONDS:.0f} s: {error}") from None
        await asyncio.sleep(POLL_SECONDS)


async def _members(etcdctl: Sequence[str]) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = json.loads(await process.run([*etcdctl, "member", "list", "-w", "json"]))["members"]
    return members
