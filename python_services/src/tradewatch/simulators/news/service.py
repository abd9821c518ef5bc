"""news-simulator: wires the feeds and their faults."""

import asyncio

from pydantic import Field

from tradewatch.common import service
from tradewatch.common.http import HttpServer
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import CommonSettings, duration
from tradewatch.simulators.news.feeds import FeedServer
from tradewatch.simulators.news.metrics import NewsSimulatorMetrics

NAME = "news-simulator"


class NewsSimulatorSettings(CommonSettings):
    """Settings of news-simulator; durations in seconds."""

    seed: int = Field(default=1, ge=0, le=2**63 - 1, description="the same seed gives the same headlines")
    headline_seconds: float = duration(60.0, 86_400, "between two headlines of a feed, on average", least=1)


class NewsSimulator:
    """Has no loop of its own: the feeds are made when they are asked for."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        await stop.wait()


async def main(settings: NewsSimulatorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    feeds = FeedServer(settings.seed, settings.headline_seconds, NewsSimulatorMetrics(registry))
    server = HttpServer(settings.http_port, registry, Liveness(), [], feeds.routes())
    return await service.run(NewsSimulator(), server, settings.drain_seconds)
