"""The sentiment analyzer: from feeds on real sockets to scores in a real Valkey."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from services_support import PASSWORD, ValkeyServer, ends, eventually, free_port, value
from tradewatch.cli import main
from tradewatch.collectors.sentiment import articles
from tradewatch.collectors.sentiment.articles import MAX_TITLE_CHARACTERS, Article, FeedError
from tradewatch.collectors.sentiment.assets import AssetFinder
from tradewatch.collectors.sentiment.feed import Feed, FetchFailed, FetchLimits, new_client
from tradewatch.collectors.sentiment.lexicon import ToneScorer, crypto_lexicon
from tradewatch.collectors.sentiment.metrics import FetchError, SentimentMetrics
from tradewatch.collectors.sentiment.scores import Outcome, Scored, Scores
from tradewatch.collectors.sentiment.service import SentimentAnalyzer, SentimentAnalyzerSettings
from tradewatch.common import bus
from tradewatch.common.http import HttpServer
from tradewatch.common.service import Liveness
from tradewatch.common.streams import Headline, Sentiment, decode, headlines_stream, sentiment_stream
from tradewatch.simulators.news.feeds import FeedServer
from tradewatch.simulators.news.metrics import NewsSimulatorMetrics

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SCORER = ToneScorer()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Bitcoin rallies", {"BTC"}),
        ("BITCOIN's new high", {"BTC"}),
        ("$BTC and ETH/USD climb", {"BTC", "ETH"}),
        ("ETH-backed notes", {"ETH"}),
        ("Ether ETF", {"ETH"}),
        ("Bitcoin Cash forks", {"BCH"}),
        ("Ethereum-Classic attacked", {"ETC"}),
        ("Bitcoin Cash and Bitcoin part ways", {"BCH", "BTC"}),
        ("ETHical whether together", set()),
        ("a link to the solution, a dot", set()),
        ("Chainlink and LINK", {"LINK"}),
        ("Solana", {"SOL"}),
        ("WBTC wrapped", set()),
        ("PEPE jumps", {"PEPE"}),
    ],
)
def test_assets_are_found_as_whole_words(text: str, found: set[str]) -> None:
    finder = AssetFinder(("BTC", "ETH", "BCH", "ETC", "SOL", "LINK", "DOT", "PEPE"))
    assert finder.find(text) == found


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("Bitcoin surges on ETF inflows", "Bitcoin trades sideways"),
        ("Bitcoin trades sideways", "Bitcoin plunges as traders face liquidations"),
        ("Ethereum approval is a bullish breakout", "Ethereum bridge hacked, funds drained"),
        ("Grayscale Bitcoin Trust files report", "Grayscale sued over Bitcoin Trust"),
    ],
)
def test_the_lexicon_knows_the_words_of_the_trade(better: str, worse: str) -> None:
    assert SCORER.score(better) > SCORER.score(worse)
    assert -1 <= SCORER.score(worse) <= SCORER.score(better) <= 1


def test_words_that_only_name_things_have_no_tone() -> None:
    assert SCORER.score("Bitcoin Trust shares and blocks of treasury securities") == 0
    assert len(crypto_lexicon()) > 100


def _scores() -> Scores:
    return Scores(AssetFinder(("BTC", "ETH")), SCORER, half_life=timedelta(hours=6), max_age=timedelta(hours=24))


def _article(title: str, age: timedelta | None = timedelta(0), number: str = "1") -> Article:
    return Article(number, title, None if age is None else NOW - age)


def test_a_score_fades_with_age_to_nothing() -> None:
    scores = _scores()
    scores.add("a", _article("Bitcoin surges"), NOW)
    at = [scores.of("BTC", NOW + timedelta(hours=hours)).score for hours in (0, 6, 12, 24)]
    tone = SCORER.score("Bitcoin surges")
    assert at == pytest.approx([tone / 2, tone / 3, tone / 5, tone / 17])
    assert scores.of("BTC", NOW + timedelta(hours=24, seconds=1)) == scores.of("ETH", NOW)
    assert scores.of("ETH", NOW).articles == 0


def test_newer_news_weigh_more_than_older() -> None:
    scores = _scores()
    scores.add("a", _article("Bitcoin plunges", timedelta(hours=12), "1"), NOW)
    scores.add("a", _article("Bitcoin surges", timedelta(0), "2"), NOW)
    assert scores.of("BTC", NOW).score > 0.1
    assert scores.of("BTC", NOW).articles == 2


def test_an_article_counts_once() -> None:
    scores = _scores()
    assert isinstance(scores.add("a", _article("Bitcoin surges"), NOW), Scored)
    assert scores.add("a", _article("Bitcoin surges"), NOW) is None
    assert scores.add("b", _article("BITCOIN surges!", number="9"), NOW) is Outcome.REPEATED
    assert scores.of("BTC", NOW).articles == 1


@pytest.mark.parametrize(
    ("article", "outcome"),
    [
        (_article("Bitcoin surges", None), Outcome.UNDATED),
        (_article("Bitcoin surges", timedelta(minutes=-6)), Outcome.FUTURE),
        (_article("Bitcoin surges", timedelta(hours=25)), Outcome.OLD),
        (_article("Stocks surge"), Outcome.NO_ASSET),
    ],
)
def test_what_does_not_count_says_why(article: Article, outcome: Outcome) -> None:
    scores = _scores()
    assert scores.add("a", article, NOW) is outcome
    assert scores.of("BTC", NOW).articles == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Bitcoin soars", "Bitcoin collapses", "Bitcoin", "BTC win win win"]), st.floats(-5, 1500)
        ),
        max_size=40,
    )
)
def test_a_score_stays_within_its_bounds(told: list[tuple[str, float]]) -> None:
    scores = _scores()
    for number, (title, minutes) in enumerate(told):
        scores.add("a", _article(f"{title} {number}", timedelta(minutes=minutes), str(number)), NOW)
    assert -1 < scores.of("BTC", NOW).score < 1


@given(st.text(max_size=2000))
def test_a_title_is_one_line_of_bounded_plain_text(text: str) -> None:
    title = articles.clean(text)
    assert len(title) <= MAX_TITLE_CHARACTERS
    assert title.isprintable() or not any(character < " " for character in title)
    assert "\n" not in title


def test_markup_is_taken_off_a_title() -> None:
    assert articles.clean("A <b>bold</b>\n&amp;\u202e <script>x</script> title") == "A bold & x title"


@given(st.binary(max_size=400))
def test_any_bytes_are_a_feed_or_a_named_error(content: bytes) -> None:
    with contextlib.suppress(FeedError):
        assert isinstance(articles.parse(content), list)


def test_bytes_that_name_a_file_are_not_opened(tmp_path: Path) -> None:
    feed = tmp_path / "feed.xml"
    feed.write_text("<rss version='2.0'><channel><item><title>Bitcoin</title></item></channel></rss>")
    with pytest.raises(FeedError):
        articles.parse(str(feed).encode())


@asynccontextmanager
async def _serving(handler: web.RouteDef) -> AsyncIterator[str]:
    async with HttpServer(0, CollectorRegistry(), Liveness(), [], [handler]) as server:
        yield f"http://127.0.0.1:{server.port}"


async def test_a_compressed_answer_is_refused_unopened() -> None:
    async def bomb(_: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    async with _serving(web.get("/", bomb)) as url, new_client() as client:
        with pytest.raises(FetchFailed) as failed:
            await Feed(client, url, FetchLimits()).fetch()
    assert failed.value.reason is FetchError.ENCODED


async def test_a_body_that_was_not_understood_is_asked_for_again() -> None:
    bodies = [b"<rss", b"<rss version='2.0'><channel><item><title>Bitcoin</title></item></channel></rss>"]
    asked: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers.get("If-None-Match"))
        if asked[-1] == '"same"':
            return web.Response(status=304)
        return web.Response(body=bodies[min(len(asked), len(bodies)) - 1], headers={"ETag": '"same"'})

    async with _serving(web.get("/", answer)) as url, new_client() as client:
        feed = Feed(client, url, FetchLimits())
        with pytest.raises(FetchFailed):
            await feed.fetch()
        assert len(await feed.fetch() or []) == 1
        assert await feed.fetch() is None
    assert asked == [None, None, '"same"']


async def test_how_long_a_server_asks_to_be_left_alone_is_obeyed_within_bounds() -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": request.query["after"]})

    async with _serving(web.get("/", busy)) as url, new_client() as client:
        for text, seconds in (("7", 7.0), ("1e9", 3600.0), ("nan", 0.0), ("-3", 0.0), ("soon", 0.0)):
            with pytest.raises(FetchFailed) as failed:
                await Feed(client, f"{url}/?after={text}", FetchLimits()).fetch()
            assert (failed.value.reason, failed.value.retry_after_seconds) == (FetchError.HTTP_429, seconds)


@dataclass
class Running:
    """An analyzer that reads two feeds of a simulator."""

    analyzer: SentimentAnalyzer
    registry: CollectorRegistry
    simulator: httpx.AsyncClient
    valkey: ValkeyServer

    async def fault(self, **fault: object) -> None:
        (await self.simulator.post("/faults", json=fault)).raise_for_status()

    async def stored(self, stream: str) -> list[dict[bytes, bytes]]:
        client = bus.connect(self.valkey.url, PASSWORD)
        try:
            return [fields for _, fields in await client.xrange(stream)]
        finally:
            await client.aclose()

    async def sentiments(self, asset: str) -> list[Sentiment]:
        return [decode(Sentiment, fields) for fields in await self.stored(sentiment_stream(asset))]

    async def headlines(self, asset: str) -> list[Headline]:
        return [decode(Headline, fields) for fields in await self.stored(headlines_stream(asset))]

    def errors(self, feed: str, reason: str) -> float:
        return value(self.registry, "feed_errors_total", feed=feed, reason=reason)


@asynccontextmanager
async def analysing(valkey: ValkeyServer, simulator_port: int = 0, **changed: object) -> AsyncIterator[Running]:
    feeds = FeedServer(1, 60.0, NewsSimulatorMetrics(CollectorRegistry()))
    async with HttpServer(simulator_port, CollectorRegistry(), Liveness(), [], feeds.routes()) as server:
        url = f"http://127.0.0.1:{server.port}"
        settings = SentimentAnalyzerSettings(
            feeds={"post": f"{url}/feeds/coinpost", "wire": f"{url}/feeds/chainwire"},
            **{"poll_seconds": 1.0, "publish_seconds": 1.0, "request_seconds": 2.0, **changed},  # type: ignore[arg-type]
        )
        registry = CollectorRegistry()
        liveness = Liveness()
        client = bus.connect(valkey.url, PASSWORD)
        writer = bus.StreamWriter(client, registry, liveness, max_length=1000, buffer_entries=1000)
        metrics = SentimentMetrics(registry, tuple(settings.feeds), settings.assets)
        stop = asyncio.Event()
        async with new_client() as fetcher, httpx.AsyncClient(base_url=url) as simulator:
            analyzer = SentimentAnalyzer(settings, fetcher, writer, metrics, liveness, _scores())
            task = asyncio.create_task(analyzer.run(stop))
            try:
                yield Running(analyzer, registry, simulator, valkey)
            finally:
                stop.set()
                await ends(task)
                await client.aclose()


async def test_scores_and_headlines_reach_the_bus_and_move_with_the_news(valkey: ValkeyServer) -> None:
    async with analysing(valkey) as running:
        before = (await eventually(lambda: running.sentiments("BTC")))[-1]
        assert before.articles > 0
        await running.fault(fault="extreme", tone="negative", asset="BTC", count=20)
        after = await eventually(lambda: _last(running, lambda found: found.articles >= before.articles + 20))
        assert after.score < min(before.score, -0.5)
        assert value(running.registry, "sentiment_score", asset="BTC") == pytest.approx(after.score)
        assert any("collapses" in headline.title for headline in await running.headlines("BTC"))
        assert (await running.analyzer.check_feeds()).ok
        assert value(running.registry, "feed_newest_article_timestamp_seconds", feed="post") > 0


async def _last(running: Running, wanted: object) -> Sentiment | None:
    found = (await running.sentiments("BTC"))[-1]
    return found if callable(wanted) and wanted(found) else None


async def test_a_restart_rebuilds_the_scores_from_the_feeds(valkey: ValkeyServer) -> None:
    port = free_port()
    async with analysing(valkey, port) as running:
        before = (await eventually(lambda: running.sentiments("BTC")))[-1]
    async with analysing(valkey, port) as running:
        count = len(await running.sentiments("BTC"))
        again = (await eventually(lambda: _more(running, count)))[-1]
    assert again.articles == pytest.approx(before.articles, abs=2)


async def _more(running: Running, count: int) -> list[Sentiment]:
    found = await running.sentiments("BTC")
    return found if len(found) > count else []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"fault": "error", "status": 503}, "http_5xx"),
        ({"fault": "error", "status": 404}, "http_4xx"),
        ({"fault": "timeout"}, "timeout"),
        ({"fault": "malformed"}, "malformed"),
        ({"fault": "malformed", "kind": "html"}, "not_a_feed"),
        ({"fault": "huge"}, "too_large"),
    ],
)
async def test_a_broken_feed_is_counted_and_the_other_goes_on(
    valkey: ValkeyServer, fault: dict[str, object], reason: str
) -> None:
    async with analysing(valkey) as running:
        await running.fault(feed="chainwire", **fault)
        await eventually(lambda: running.errors("wire", reason) > 0)
        assert running.errors("post", reason) == 0
        count = len(await running.sentiments("BTC"))
        await eventually(lambda: _more(running, count))


async def test_when_no_feed_is_fresh_no_score_is_written(valkey: ValkeyServer) -> None:
    async with analysing(valkey, feed_max_age_seconds=3600.0) as running:
        await eventually(lambda: running.sentiments("BTC"))
        await running.fault(fault="frozen")
        for state in running.analyzer.states.values():
            state.newest -= 7200
        check = await running.analyzer.check_feeds()
        assert (check.ok, check.detail) == (False, "fresh: none; stale: post, wire")
        # What was under way when the news grew old may still arrive; after that nothing does.
        await asyncio.sleep(1.2)
        count = len(await running.sentiments("BTC"))
        await asyncio.sleep(2.5)
        assert len(await running.sentiments("BTC")) == count


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ("", "name at least one feed"),
        ("post", "post: must be"),
        ("Post=http://x", "'Post' is not a feed's name"),
        ("post=ftp://x", "http:// or https://"),
        ("post=http://u:hunter2@x", "must not hold credentials"),
        ("post=http://x,post=http://y", "named twice"),
        ("post=http://x:port", "is not a URL"),
    ],
)
def test_bad_feeds_are_one_line(
    feeds: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRADEWATCH_FEEDS", feeds)
    assert main(["run", "sentiment-analyzer"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tradewatch run sentiment-analyzer: TRADEWATCH_FEEDS: ")
    assert says in error
    assert "hunter2" not in error
    assert error.count("\n") == 1
