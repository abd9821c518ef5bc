"""chat-simulator: wires the channels and their faults."""

import asyncio

from tradewatch.common import service
from tradewatch.common.http import HttpServer
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import CommonSettings
from tradewatch.simulators.chat.channels import ChatServer
from tradewatch.simulators.chat.metrics import ChatSimulatorMetrics

NAME = "chat-simulator"


class ChatSimulatorSettings(CommonSettings):
    """Settings of chat-simulator."""


class ChatSimulator:
    """Has no loop of its own: it waits for messages."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        await stop.wait()


async def main(settings: ChatSimulatorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    chat = ChatServer(ChatSimulatorMetrics(registry))
    server = HttpServer(settings.http_port, registry, Liveness(), [], chat.routes())
    return await service.run(ChatSimulator(), server, settings.drain_seconds)
