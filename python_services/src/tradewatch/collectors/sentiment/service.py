"""sentiment-analyzer: what the news says of each asset, from RSS and Atom feeds, onto the bus."""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated

import httpx
from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from tradewatch.collectors.sentiment.articles import Article
from tradewatch.collectors.sentiment.assets import AssetFinder
from tradewatch.collectors.sentiment.feed import Feed, FetchFailed, FetchLimits, new_client
from tradewatch.collectors.sentiment.lexicon import ToneScorer
from tradewatch.collectors.sentiment.metrics import FetchError, SentimentMetrics
from tradewatch.collectors.sentiment.scores import MAX_AHEAD, Outcome, Scored, Scores
from tradewatch.common import bus, service
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import new_trace_id
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.logging import Throttle, get_logger, trace
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import HTTP, StreamWriterSettings, duration, require_url
from tradewatch.common.streams import Headline, Sentiment, encode, headlines_stream, sentiment_stream

NAME = "sentiment-analyzer"
MAX_FEEDS = 50
MAX_ASSETS = 50
# Loops beat at least so often, however long they wait.
BEAT_SECONDS = 5.0
RETRY_SECONDS = 5.0
MAX_RETRY_SECONDS = 900.0
# A tenth either way, so that feeds of one host are not asked all at once.
JITTER = 0.1

_FEED_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_ASSET = re.compile(r"[A-Z0-9]{1,16}")
_log = get_logger("sentiment")


def _parse_feeds(value: object) -> object:
    """Turn `name=url,name=url` into a mapping. A comma inside a URL must be written as %2C."""
    if not isinstance(value, str):
        return value
    feeds: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, _, url = part.partition("=")
        if not _FEED_NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is not a feed's name: lowercase letters, digits, - and _, then =URL")
        if name in feeds:
            raise ValueError(f"the feed {name} is named twice")
        try:
            require_url(url, HTTP, query=True)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        feeds[name] = url
    if not feeds:
        raise ValueError("name at least one feed, such as coindesk=https://www.coindesk.com/arc/outboundfeeds/rss/")
    if len(feeds) > MAX_FEEDS:
        raise ValueError(f"at most {MAX_FEEDS} feeds, got {len(feeds)}")
    return feeds


def _parse_assets(value: object) -> object:
    if not isinstance(value, str):
        return value
    assets = tuple(part.strip() for part in value.split(",") if part.strip())
    for asset in assets:
        if not _ASSET.fullmatch(asset):
            raise ValueError(f"{asset[:40]!r} is not an asset like BTC")
    if not assets or len(assets) > MAX_ASSETS or len(set(assets)) != len(assets):
        raise ValueError(f"name 1 to {MAX_ASSETS} assets, each once, such as BTC,ETH")
    return assets


class SentimentAnalyzerSettings(StreamWriterSettings):
    """Settings of sentiment-analyzer; durations in seconds."""

    feeds: Annotated[dict[str, str], NoDecode, BeforeValidator(_parse_feeds)] = Field(
        description="comma separated name=url of RSS and Atom feeds; the names are labels of metrics"
    )
    assets: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_assets)] = Field(
        default=("BTC", "ETH"), description="comma separated assets to score, by ticker"
    )
    poll_seconds: float = duration(60.0, 3600, "between two requests for a feed, about", least=1)
    publish_seconds: float = duration(30.0, 3600, "between two scores of an asset", least=1)
    half_life_seconds: float = duration(21_600.0, 604_800, "age at which an article counts half", least=60)
    article_max_age_seconds: float = duration(86_400.0, 2_592_000, "age above which an article is left out", least=60)
    feed_max_age_seconds: float = duration(
        21_600.0, 2_592_000, "age of its newest article above which a feed is stale", least=10
    )
    request_seconds: float = duration(10.0, 30, "bound of one request, its body included")
    max_feed_bytes: int = Field(default=2 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="largest feed taken")


class FeedState:
    """What is known of one feed: when it last answered well, and its newest article, in Unix seconds; 0 for never."""

    def __init__(self) -> None:
        self.answered = 0.0
        self.newest = 0.0

    def fresh(self, now: float, answered_within_seconds: float, max_age_seconds: float) -> bool:
        """Whether the feed answers and has something recent to say."""
        return now - self.answered <= answered_within_seconds and now - self.newest <= max_age_seconds


class SentimentAnalyzer:
    """Polls every feed in a loop of its own, and writes the assets' scores on a timer."""

    def __init__(
        self,
        settings: SentimentAnalyzerSettings,
        client: httpx.AsyncClient,
        writer: bus.StreamWriter,
        metrics: SentimentMetrics,
        liveness: Liveness,
        scores: Scores,
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._metrics = metrics
        self._liveness = liveness
        self._scores = scores
        limits = FetchLimits(settings.request_seconds, settings.max_feed_bytes)
        self._feeds = {name: Feed(client, url, limits) for name, url in settings.feeds.items()}
        self._states = {name: FeedState() for name in settings.feeds}
        self._rng = random.Random()  # noqa: S311
        self._throttle = Throttle()

    @property
    def states(self) -> Mapping[str, FeedState]:
        """The feeds' states by name."""
        return self._states

    async def run(self, stop: asyncio.Event) -> None:
        """Analyse until `stop` is set, then write out what is buffered."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._writer.run(stop), name="writer")
            tasks.create_task(service.until_stopped(stop, self._work()), name="sentiment")

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for name in self._feeds:
                tasks.create_task(self._poll(name), name=f"feed {name}")
            tasks.create_task(self._publish(), name="publish")

    async def _poll(self, name: str) -> None:
        interval = self._settings.poll_seconds
        backoff = Backoff(min(RETRY_SECONDS, interval), MAX_RETRY_SECONDS)
        while True:
            trace_id = new_trace_id()
            with trace(trace_id):
                try:
                    await self._fetch(name, trace_id)
                    backoff.reset()
                    delay = interval * self._rng.uniform(1 - JITTER, 1 + JITTER)
                except FetchFailed as failed:
                    self._metrics.errors[name, failed.reason].inc()
                    delay = max(backoff.next_seconds(), failed.retry_after_seconds)
                    if failed.reason is FetchError.HTTP_429:
                        delay = max(delay, interval)
                    _log.warning(
                        "feed failed",
                        feed=name,
                        reason=failed.reason.value,
                        detail=failed.detail,
                        delay_seconds=round(delay, 1),
                    )
            await self._wait(f"feed {name}", delay)

    async def _fetch(self, name: str, trace_id: str) -> None:
        self._liveness.beat(f"feed {name}")
        started = time.perf_counter()
        try:
            found = await self._feeds[name].fetch()
        finally:
            self._metrics.durations[name].observe(time.perf_counter() - started, {"trace_id": trace_id})
        for article in found or ():
            self._take(name, article, trace_id)
        state = self._states[name]
        state.answered = time.time()
        self._metrics.last_success[name].set(state.answered)

    def _take(self, name: str, article: Article, trace_id: str) -> None:
        now = datetime.now(UTC)
        taken = self._scores.add(name, article, now)
        if taken is None:
            return
        if not isinstance(taken, Scored):
            self._metrics.articles[name, taken].inc()
            self._note_newest(name, article.published, now)
            return
        self._metrics.articles[name, Outcome.SCORED].inc()
        self._note_newest(name, taken.published, now)
        for asset in sorted(taken.assets):
            headline = Headline(asset, taken.published, name, article.id, article.title, taken.tone, trace_id)
            self._writer.publish(headlines_stream(asset), encode(headline))

    def _note_newest(self, name: str, published: datetime | None, now: datetime) -> None:
        """Also of articles about nothing of ours: they show that the feed lives. Dates ahead show nothing."""
        state = self._states[name]
        if published is not None and published <= now + MAX_AHEAD and published.timestamp() > state.newest:
            state.newest = published.timestamp()
            self._metrics.newest_article[name].set(state.newest)

    async def _publish(self) -> None:
        while True:
            fresh = self._fresh()
            if fresh:
                self._write_scores(datetime.now(UTC))
            else:
                # Without news a score would fade to 0, which says "neutral" where nothing is known.
                held = self._throttle.admit("stale")
                if held is not None:
                    _log.warning("no feed is fresh, no score written", lines_held_back=held)
            # A service that just started has its first scores as soon as the first feed has answered.
            await self._wait("publish", self._settings.publish_seconds if fresh else 1.0)

    def _write_scores(self, now: datetime) -> None:
        for asset in self._settings.assets:
            found = self._scores.of(asset, now)
            entry = Sentiment(asset, now, found.score, found.articles, new_trace_id())
            self._writer.publish(sentiment_stream(asset), encode(entry))
            self._metrics.score[asset].set(found.score)
            self._metrics.score_articles[asset].set(found.articles)

    async def _wait(self, loop: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._liveness.beat(loop)
            await asyncio.sleep(min(left, BEAT_SECONDS))
        self._liveness.beat(loop)

    def _fresh(self) -> list[str]:
        now = time.time()
        # Two requests may fail before a feed that is polled counts as one that does not answer.
        answered_within = 3 * self._settings.poll_seconds + self._settings.request_seconds
        limit = self._settings.feed_max_age_seconds
        return [name for name, state in self._states.items() if state.fresh(now, answered_within, limit)]

    async def check_feeds(self) -> CheckResult:
        """Readiness: at least one feed answers and has recent news."""
        fresh = self._fresh()
        stale = sorted(set(self._states) - set(fresh))
        detail = f"fresh: {', '.join(fresh) or 'none'}; stale: {', '.join(stale) or 'none'}"
        return CheckResult(bool(fresh), detail)


async def main(settings: SentimentAnalyzerSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    liveness = Liveness()
    valkey = bus.connect_with(settings)
    try:
        async with new_client() as client:
            writer = bus.StreamWriter.of(settings, valkey, registry, liveness)
            scores = Scores(
                AssetFinder(settings.assets),
                ToneScorer(),
                half_life=timedelta(seconds=settings.half_life_seconds),
                max_age=timedelta(seconds=settings.article_max_age_seconds),
            )
            metrics = SentimentMetrics(registry, tuple(settings.feeds), settings.assets)
            analyzer = SentimentAnalyzer(settings, client, writer, metrics, liveness, scores)
            checks = [Check("feeds", analyzer.check_feeds), bus.check(valkey)]
            server = HttpServer(settings.http_port, registry, liveness, checks)
            return await service.run(analyzer, server, settings.drain_seconds)
    finally:
        await valkey.aclose()
