"""Asking an exchange for past trades over REST, bounded in time and size."""

import asyncio
import time
from datetime import UTC, datetime

import httpx

import tradewatch
from tradewatch.collectors.exchanges.protocol import Exchange, ExchangeRefusal, FrameError, Hole, TradesPage
from tradewatch.collectors.metrics import BackFillFailure, CollectionMetrics, Endpoint, status_label
from tradewatch.common.fetching import BodyEncoded, BodyTooLarge, read_bounded, retry_after_seconds

MAX_BODY_BYTES = 2 * 1024 * 1024
REQUEST_SECONDS = 10.0
# Coinbase answers public requests from a cache of a second unless told not to.
_HEADERS = {
    "User-Agent": f"tradewatch/{tradewatch.__version__}",
    "Accept-Encoding": "identity",
    "Cache-Control": "no-cache",
}


class RequestFailed(Exception):
    """No page came of a request; `retry_after_seconds` is how long the exchange asks to be left alone, else 0."""

    def __init__(self, reason: BackFillFailure, detail: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class PastTrades:
    """One exchange's REST interface. Uses no proxy of the environment and follows no redirect."""

    def __init__(self, exchange: Exchange, url: str, metrics: CollectionMetrics) -> None:
        self._exchange = exchange
        self._url = url.rstrip("/")
        self._metrics = metrics
        verify = self._url.startswith("https:")
        self._client = httpx.AsyncClient(trust_env=False, headers=_HEADERS, timeout=REQUEST_SECONDS, verify=verify)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(self, hole: Hole, cursor: str | None, trace_id: str) -> TradesPage:
        """A page of the trades of a hole. Raises RequestFailed."""
        request = self._exchange.trades_request(hole, cursor)
        started = time.perf_counter()
        status = "error"
        try:
            async with (
                asyncio.timeout(REQUEST_SECONDS),
                self._client.stream("GET", self._url + request.path, params=request.params) as response,
            ):
                status = status_label(response.status_code)
                _check(response)
                body = await read_bounded(response, MAX_BODY_BYTES)
        except BodyEncoded as error:
            raise RequestFailed(BackFillFailure.ENCODED, str(error)) from None
        except BodyTooLarge as error:
            raise RequestFailed(BackFillFailure.TOO_LARGE, str(error)) from None
        except (TimeoutError, httpx.TimeoutException):
            status = "timeout"
            raise RequestFailed(BackFillFailure.TIMEOUT, f"no answer within {REQUEST_SECONDS:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            status = "error"
            raise RequestFailed(BackFillFailure.CONNECT, type(error).__name__) from None
        finally:
            self._metrics.observe_request(Endpoint.TRADES, time.perf_counter() - started, status, trace_id)
        try:
            # A full page takes some ten milliseconds, which live data must not wait for.
            return await asyncio.to_thread(self._exchange.parse_trades, body, hole, datetime.now(UTC))
        except ExchangeRefusal as refusal:
            reason = BackFillFailure.RATE_LIMITED if refusal.rate_limited else BackFillFailure.EXCHANGE_ERROR
            raise RequestFailed(reason, str(refusal)) from None
        except FrameError as error:
            raise RequestFailed(BackFillFailure.INVALID, error.reason.value) from None


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    if status == httpx.codes.TOO_MANY_REQUESTS:
        reason = BackFillFailure.RATE_LIMITED
    else:
        by_class = {4: BackFillFailure.HTTP_4XX, 5: BackFillFailure.HTTP_5XX}
        reason = by_class.get(status // 100, BackFillFailure.HTTP_OTHER)
    raise RequestFailed(reason, f"HTTP {status}", retry_after_seconds(response))
