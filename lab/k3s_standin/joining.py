"""Waiting for the cluster that a node is to join; a wrong token is said in the log, and never printed."""

from __future__ import annotations

import asyncio
import urllib.parse

from lab.k3s_standin.config import Config
from lab.k3s_standin.discovery import Cluster, discover
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log

RETRY_SECONDS = 3.0


def address_of(server: str) -> tuple[str, int]:
    """Host and port of a ``server`` URL; 6443 where it names no port."""
    parts = urllib.parse.urlsplit(server)
    return parts.hostname or "", parts.port or 6443


async def wait_for_cluster(config: Config) -> Cluster:
    """Try until the cluster answers and knows the token; every new reason for waiting is logged once a minute."""
    last, repeated = "", 0
    while True:
        try:
            return await asyncio.to_thread(discover, config.server, config.token)
        except StandinError as error:
            repeated = 0 if str(error) != last else repeated + 1
            last = str(error)
            if repeated % 20 == 0:
                log("error", f"cannot join: {last}; trying again every {RETRY_SECONDS:.0f} s")
        await asyncio.sleep(RETRY_SECONDS)
