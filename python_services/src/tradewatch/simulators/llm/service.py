"""llm-simulator: wires the chat completions and their faults."""

import asyncio

from pydantic import Field, SecretStr

from tradewatch.common import service
from tradewatch.common.http import HttpServer
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import CommonSettings, duration
from tradewatch.simulators.llm.completions import ChatServer
from tradewatch.simulators.llm.metrics import LlmSimulatorMetrics

NAME = "llm-simulator"


class LlmSimulatorSettings(CommonSettings):
    """Settings of llm-simulator; durations in seconds."""

    llm_model: str = Field(default="simulated", min_length=1, max_length=100, description="the model's name")
    llm_api_key: SecretStr | None = Field(
        default=None, description="file that holds the key that clients must send; without it any will do"
    )
    latency_seconds: float = duration(0.2, 60, "how long an answer takes", least=0)


class LlmSimulator:
    """Has no loop of its own: answers are made when they are asked for."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        await stop.wait()


async def main(settings: LlmSimulatorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    chat = ChatServer(settings.llm_model, settings.llm_api_key, settings.latency_seconds, LlmSimulatorMetrics(registry))
    server = HttpServer(settings.http_port, registry, Liveness(), [], chat.routes())
    return await service.run(LlmSimulator(), server, settings.drain_seconds)
