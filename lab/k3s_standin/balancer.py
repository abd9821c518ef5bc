"""The load balancer that every node has at 127.0.0.1:6444, as k3s's agents do: no node depends on one server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from lab.k3s_standin import files, paths
from lab.k3s_standin.api import ApiError, Client
from lab.k3s_standin.log import log

PORT = 6444
ENDPOINT = f"127.0.0.1:{PORT}"
CONNECT_SECONDS = 2.0
REFRESH_SECONDS = 15.0
_CHUNK = 1 << 16
ENDPOINT_SLICES = (
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    "?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes"
)

Address = tuple[str, int]


class Balancer:
    """Forwards TCP connections to the first API server that takes them, the last good one first."""

    def __init__(self, seeds: Sequence[Address]) -> None:
        stored = files.read_json(paths.LOAD_BALANCER).get("servers", [])
        self._servers: list[Address] = list(dict.fromkeys([*seeds, *((host, port) for host, port in stored)]))
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on the loopback address."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", PORT)

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()

    def update(self, servers: Sequence[Address]) -> None:
        """Replace the list; it is kept on disk, for a start while the server of the configuration is down."""
        if servers and set(servers) != set(self._servers):
            log("info", f"load balancer: servers are {', '.join(f'{host}:{port}' for host, port in servers)}")
            self._servers = list(servers)
            files.write_json(paths.LOAD_BALANCER, {"servers": [list(server) for server in servers]})

    async def follow(self, client: Client) -> None:
        """Keep the list equal to the endpoints of the service ``kubernetes``."""
        while True:
            with contextlib.suppress(ApiError):
                self.update(endpoints(await client.call("GET", ENDPOINT_SLICES)))
            await asyncio.sleep(REFRESH_SECONDS)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await self._connect()
            if upstream is None:
                return
            try:
                pipes = [_pipe(reader, upstream[1]), _pipe(upstream[0], writer)]
                tasks = [asyncio.create_task(pipe) for pipe in pipes]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
            finally:
                upstream[1].close()
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for server in list(self._servers):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await asyncio.open_connection(*server)
            except (OSError, TimeoutError):
                continue
            if server in self._servers:
                self._servers.remove(server)
                self._servers.insert(0, server)
            return connection
        return None


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


def endpoints(slices: Any) -> list[Address]:
    """The ready addresses in a list of EndpointSlices."""
    result: list[Address] = []
    for item in slices.get("items", []):
        ports = [int(port["port"]) for port in item.get("ports") or []]
        for endpoint in item.get("endpoints") or []:
            if endpoint.get("conditions", {}).get("ready", True):
                result += [(str(address), port) for address in endpoint["addresses"] for port in ports]
    return sorted(set(result))
