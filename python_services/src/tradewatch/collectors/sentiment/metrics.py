"""The metrics of the sentiment analyzer."""

from enum import StrEnum

from prometheus_client import CollectorRegistry

from tradewatch.collectors.sentiment.scores import Outcome
from tradewatch.common.metrics import Metric


class FetchError(StrEnum):
    """Why a feed gave nothing that could be used."""

    TIMEOUT = "timeout"
    CONNECT = "connect"
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    HTTP_OTHER = "http_other"
    ENCODED = "encoded"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    NOT_A_FEED = "not_a_feed"


_FEED = "a configured feed's name"
_ASSET = "a configured asset"

LAST_SUCCESS = Metric(
    "feed_last_success_timestamp_seconds",
    "gauge",
    "When the feed last answered with a whole feed, or that it has not changed. 0 until then.",
    "Unix seconds",
    {"feed": _FEED},
)
NEWEST_ARTICLE = Metric(
    "feed_newest_article_timestamp_seconds",
    "gauge",
    "When the feed's newest article was published. 0 until the first; `time()` minus it is its age, which grows "
    "without end for a feed that answers but is dead.",
    "Unix seconds",
    {"feed": _FEED},
)
FEED_ERRORS = Metric(
    "feed_errors_total",
    "counter",
    "Attempts to fetch a feed that failed, by reason.",
    "attempts",
    {"feed": _FEED, "reason": ", ".join(f"`{reason.value}`" for reason in FetchError)},
)
FEED_DURATION = Metric(
    "feed_request_duration_seconds",
    "histogram",
    "Time of a request for a feed, its body included, whether it failed or not.",
    "seconds",
    {"feed": _FEED},
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
ARTICLES = Metric(
    "articles_total",
    "counter",
    "Articles seen for the first time, by what became of them.",
    "articles",
    {
        "feed": _FEED,
        "outcome": "`scored`, `no_asset` (names none of the assets), `repeated` (the same title came before), `old`, "
        "`future` (dated more than 5 minutes ahead), `undated`",
    },
)
SENTIMENT_SCORE = Metric(
    "sentiment_score", "gauge", "The asset's score as last written, -1 to 1.", "none", {"asset": _ASSET}
)
SENTIMENT_ARTICLES = Metric(
    "sentiment_articles", "gauge", "Articles that the asset's score rests on.", "articles", {"asset": _ASSET}
)
SENTIMENT_METRICS = (
    LAST_SUCCESS,
    NEWEST_ARTICLE,
    FEED_ERRORS,
    FEED_DURATION,
    ARTICLES,
    SENTIMENT_SCORE,
    SENTIMENT_ARTICLES,
)


class SentimentMetrics:
    """The metrics of the configured feeds and assets, every series present from the start."""

    def __init__(self, registry: CollectorRegistry, feeds: tuple[str, ...], assets: tuple[str, ...]) -> None:
        last_success = LAST_SUCCESS.gauge(registry)
        newest = NEWEST_ARTICLE.gauge(registry)
        errors = FEED_ERRORS.counter(registry)
        durations = FEED_DURATION.histogram(registry)
        articles = ARTICLES.counter(registry)
        score = SENTIMENT_SCORE.gauge(registry)
        counts = SENTIMENT_ARTICLES.gauge(registry)
        self.last_success = {feed: last_success.labels(feed=feed) for feed in feeds}
        self.newest_article = {feed: newest.labels(feed=feed) for feed in feeds}
        self.durations = {feed: durations.labels(feed=feed) for feed in feeds}
        self.errors = {
            (feed, reason): errors.labels(feed=feed, reason=reason.value) for feed in feeds for reason in FetchError
        }
        self.articles = {
            (feed, outcome): articles.labels(feed=feed, outcome=outcome.value) for feed in feeds for outcome in Outcome
        }
        self.score = {asset: score.labels(asset=asset) for asset in assets}
        self.score_articles = {asset: counts.labels(asset=asset) for asset in assets}
