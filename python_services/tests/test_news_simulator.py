"""The news simulator as a feed reader would find it."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from prometheus_client import CollectorRegistry
from services_support import value
from tradewatch.collectors.sentiment import articles
from tradewatch.collectors.sentiment.articles import FeedError
from tradewatch.common.http import HttpServer
from tradewatch.common.service import Liveness
from tradewatch.simulators.news import headlines
from tradewatch.simulators.news.feeds import HEADLINES, FeedServer
from tradewatch.simulators.news.metrics import NewsSimulatorMetrics

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    return CollectorRegistry()


@pytest.fixture
async def client(registry: CollectorRegistry) -> AsyncIterator[httpx.AsyncClient]:
    feeds = FeedServer(1, 60.0, NewsSimulatorMetrics(registry))
    async with (
        HttpServer(0, registry, Liveness(), [], feeds.routes()) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as connected,
    ):
        yield connected


async def _fault(client: httpx.AsyncClient, **fault: object) -> None:
    answer = await client.post("/faults", json=fault)
    assert answer.status_code == 202, answer.text


def test_the_same_seed_gives_the_same_news_whatever_the_clock() -> None:
    early = list(headlines.recent(7, "coinpost", NOW, 60, 50))
    late = list(headlines.recent(7, "coinpost", NOW + timedelta(minutes=20), 60, 50))
    assert set(early) & set(late) >= set(early[:25])
    assert list(headlines.recent(8, "coinpost", NOW, 60, 50)) != early
    assert {headline.id for headline in early}.isdisjoint(
        headline.id for headline in headlines.recent(7, "chainwire", NOW, 60, 50)
    )
    times = [headline.published for headline in early]
    assert times == sorted(times, reverse=True)
    assert times[0] <= NOW


def test_news_are_of_every_tone_and_about_every_asset() -> None:
    titles = [headline.title for headline in headlines.recent(1, "coinpost", NOW, 60, 1000)]
    for words in ("rallies", "sideways", "plunges", "Stock markets"):
        assert any(words in title for title in titles)
    for name, ticker in headlines.ASSETS:
        assert any(name in title or ticker in title for title in titles)


@pytest.mark.parametrize("feed", ["coinpost", "chainwire"])
async def test_a_feed_is_read_by_a_feed_reader_and_again_only_when_it_changed(
    client: httpx.AsyncClient, registry: CollectorRegistry, feed: str
) -> None:
    answer = await client.get(f"/feeds/{feed}")
    assert answer.status_code == 200
    found = articles.parse(answer.content)
    assert len(found) == HEADLINES
    assert all(article.published is not None and article.published <= datetime.now(UTC) for article in found)
    await _fault(client, fault="frozen")
    answer = await client.get(f"/feeds/{feed}")
    for known in (
        {"If-None-Match": answer.headers["etag"]},
        {"If-Modified-Since": answer.headers["last-modified"]},
    ):
        again = await client.get(f"/feeds/{feed}", headers=known)
        assert (again.status_code, again.content) == (304, b"")
    for unknown in ({"If-None-Match": '"other"'}, {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}):
        assert (await client.get(f"/feeds/{feed}", headers=unknown)).status_code == 200
    assert value(registry, "news_simulator_requests_total", feed=feed, status="304") == 2


async def test_faults_break_one_feed_or_all_until_they_are_cleared(client: httpx.AsyncClient) -> None:
    await _fault(client, fault="error", status=502, feed="coinpost")
    assert (await client.get("/feeds/coinpost")).status_code == 502
    assert (await client.get("/feeds/chainwire")).status_code == 200
    await _fault(client, fault="error", status=429)
    assert (await client.get("/feeds/chainwire")).headers["retry-after"] == "1"
    assert len((await client.get("/faults")).json()["active"]) == 2
    assert (await client.delete("/faults")).json() == {"active": []}
    assert (await client.get("/feeds/coinpost")).status_code == 200


async def test_a_fault_ends_by_itself(client: httpx.AsyncClient) -> None:
    await _fault(client, fault="timeout", seconds=0.3)
    assert (await client.get("/feeds/coinpost")).status_code == 504
    assert (await client.get("/feeds/coinpost")).status_code == 200


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("truncated", "malformed"), ("not_xml", "malformed"), ("html", "not_a_feed"), ("entity_bomb", "malformed")],
)
async def test_a_malformed_feed_is_refused_by_the_reader(client: httpx.AsyncClient, kind: str, reason: str) -> None:
    await _fault(client, fault="malformed", kind=kind)
    with pytest.raises(FeedError) as refused:
        articles.parse((await client.get("/feeds/coinpost")).content)
    assert refused.value.reason == reason


async def test_extreme_and_injected_headlines_are_in_the_feed(client: httpx.AsyncClient) -> None:
    await _fault(client, fault="extreme", tone="negative", asset="ETH", count=3)
    await _fault(client, fault="injection", asset="BTC")
    titles = [article.title for article in articles.parse((await client.get("/feeds/blockbrief")).content)]
    assert sum("Ethereum collapses" in title for title in titles) == 3
    assert any("ignore all previous instructions" in title for title in titles)
    await _fault(client, fault="extreme", tone="negative", asset="ETH", count=3)
    titles = [article.title for article in articles.parse((await client.get("/feeds/blockbrief")).content)]
    assert len({title for title in titles if "Ethereum collapses" in title}) == 6


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({}, "fault"),
        ({"fault": "earthquake"}, "earthquake"),
        ({"fault": "error", "status": 200}, "status"),
        ({"fault": "frozen", "feed": "nobody"}, "feed"),
        ({"fault": "huge", "seconds": -1}, "seconds"),
    ],
)
async def test_a_bad_fault_is_one_line(client: httpx.AsyncClient, fault: dict[str, object], says: str) -> None:
    answer = await client.post("/faults", json=fault)
    assert answer.status_code == 422
    assert says in answer.json()["error"]["message"]


async def test_an_unknown_feed_is_told_the_known_ones(client: httpx.AsyncClient) -> None:
    answer = await client.get("/feeds/nobody")
    assert (answer.status_code, "coinpost" in answer.text) == (404, True)
