"""Fetching one feed: conditional requests, bounded in time and size."""

import asyncio
from dataclasses import dataclass

import httpx

import tradewatch
from tradewatch.collectors.sentiment import articles
from tradewatch.collectors.sentiment.articles import Article, FeedError
from tradewatch.collectors.sentiment.metrics import FetchError
from tradewatch.common.fetching import BodyEncoded, BodyTooLarge, read_bounded, retry_after_seconds

MAX_REDIRECTS = 3
USER_AGENT = f"tradewatch/{tradewatch.__version__}"


class FetchFailed(Exception):
    """A feed could not be had; `retry_after_seconds` is how long the server asks to be left alone (0: it does not)."""

    def __init__(self, reason: FetchError, detail: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class FetchLimits:
    """`seconds` for a whole request with its body; `max_bytes` of the body."""

    seconds: float = 10.0
    max_bytes: int = 2 * 1024 * 1024


def new_client() -> httpx.AsyncClient:
    """A client for feeds. No proxy of the environment is used; a few redirects are followed, as feeds move."""
    return httpx.AsyncClient(
        trust_env=False,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )


class Feed:
    """One feed at a URL; remembers what the server needs to say that nothing changed (RFC 9110, 13)."""

    def __init__(self, client: httpx.AsyncClient, url: str, limits: FetchLimits) -> None:
        self._client = client
        self._url = url
        self._limits = limits
        self._validators: dict[str, str] = {}

    async def fetch(self) -> list[Article] | None:
        """The feed's articles, or None when it has not changed since the last time.

        Raises:
            FetchFailed: it could not be had, or is no feed.
        """
        try:
            async with asyncio.timeout(self._limits.seconds):
                async with self._client.stream(
                    "GET", self._url, headers=self._validators, timeout=self._limits.seconds
                ) as response:
                    if response.status_code == httpx.codes.NOT_MODIFIED:
                        return None
                    _check(response)
                    body = await read_bounded(response, self._limits.max_bytes)
        except BodyEncoded as error:
            raise FetchFailed(FetchError.ENCODED, str(error)) from None
        except BodyTooLarge as error:
            raise FetchFailed(FetchError.TOO_LARGE, str(error)) from None
        except (TimeoutError, httpx.TimeoutException):
            raise FetchFailed(FetchError.TIMEOUT, f"no answer within {self._limits.seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FetchFailed(FetchError.CONNECT, type(error).__name__) from None
        try:
            # Up to a second of work for the largest feeds, which the loop must not wait for.
            found = await asyncio.to_thread(articles.parse, body)
        except FeedError as error:
            raise FetchFailed(FetchError(error.reason), f"{len(body)} bytes") from None
        # Only now: a body that was not understood must be sent again.
        self._validators = {
            name: response.headers[source]
            for name, source in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified"))
            if source in response.headers
        }
        return found


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    if status == httpx.codes.TOO_MANY_REQUESTS:
        reason = FetchError.HTTP_429
    else:
        reason = {4: FetchError.HTTP_4XX, 5: FetchError.HTTP_5XX}.get(status // 100, FetchError.HTTP_OTHER)
    raise FetchFailed(reason, f"HTTP {status}", retry_after_seconds(response))
