"""Range queries to Prometheus, bounded in time, size and number of series; every failure has a reason.

https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

import asyncio
import json
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import tradewatch
from tradewatch.common.fetching import BodyEncoded, BodyTooLarge, read_bounded
from tradewatch.monitoring.anomaly_detector.scores import Points

MAX_BODY_BYTES = 16 * 1024 * 1024


class QueryError(StrEnum):
    """Why a query gave no answer."""

    TIMEOUT = "timeout"
    CONNECT = "connect"
    UNAUTHORIZED = "unauthorized"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    TOO_LARGE = "too_large"
    INVALID_ANSWER = "invalid_answer"


class QueryFailed(Exception):
    """A query that was not answered; `detail` is one line for people, without credentials."""

    def __init__(self, reason: QueryError, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Window:
    """From `end - seconds` to `end`, both included, a point every `step` seconds."""

    end: int
    seconds: int
    step: int

    @property
    def start(self) -> int:
        """Time of the first point, a whole number of steps before the last."""
        return self.end - self.seconds // self.step * self.step

    @property
    def count(self) -> int:
        """Number of points."""
        return self.seconds // self.step + 1


@dataclass(frozen=True)
class Found:
    """One series of an answer: its labels, and its points on the window's grid.

    `ends_not_finite` where the newest point is there and is NaN or infinite; in `points` it is like one that is not.
    """

    labels: Mapping[str, str]
    points: Points
    ends_not_finite: bool


@dataclass(frozen=True)
class Answer:
    """A query's series, in the order of their labels; `truncated` where there are more than were asked for."""

    series: tuple[Found, ...]
    truncated: bool


def new_client(url: str, username: str, password: str | None, ca_file: Path | None) -> httpx.AsyncClient:
    """A client of one Prometheus. Raises OSError or ssl.SSLError when the certificate authority cannot be read."""
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    return httpx.AsyncClient(
        base_url=url,
        auth=httpx.BasicAuth(username, password) if password is not None else None,
        verify=context,
        trust_env=False,
        headers={"User-Agent": f"tradewatch/{tradewatch.__version__}", "Accept-Encoding": "identity"},
    )


async def query_range(
    client: httpx.AsyncClient, query: str, window: Window, *, max_series: int, timeout_seconds: float
) -> Answer:
    """The query's series in the window.

    Raises:
        QueryFailed: with its reason.
    """
    form = {
        "query": query,
        "start": str(window.start),
        "end": str(window.end),
        "step": str(window.step),
        "timeout": f"{timeout_seconds:g}s",
        "limit": str(max_series + 1),
    }
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            client.stream("POST", "api/v1/query_range", data=form, timeout=timeout_seconds) as response,
        ):
            body = await read_bounded(response, MAX_BODY_BYTES)
            status = response.status_code
    except (BodyEncoded, BodyTooLarge) as error:
        reason = QueryError.TOO_LARGE if isinstance(error, BodyTooLarge) else QueryError.INVALID_ANSWER
        raise QueryFailed(reason, str(error)) from None
    except (TimeoutError, httpx.TimeoutException):
        raise QueryFailed(QueryError.TIMEOUT, f"no answer within {timeout_seconds:g} s") from None
    except httpx.HTTPError as error:
        # Such as a certificate that is not the authority's; the text names neither user nor password.
        raise QueryFailed(QueryError.CONNECT, f"{type(error).__name__}: {str(error)[:200]}") from None
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise QueryFailed(QueryError.UNAUTHORIZED, f"HTTP {status}")
    # Megabytes of JSON, which the event loop must not wait for.
    return await asyncio.to_thread(_parse, status, body, window, max_series)


def _parse(status: int, body: bytes, window: Window, max_series: int) -> Answer:
    try:
        answer = json.loads(body)
        if status != httpx.codes.OK:
            raise QueryFailed(_reason_of(status), f"HTTP {status}: {str(answer['error'])[:200]}")
        result = answer["data"]["result"]
        if answer["status"] != "success" or answer["data"]["resultType"] != "matrix":
            raise ValueError("no matrix")
        found = [_found(entry, window) for entry in result[:max_series]]
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        reason = QueryError.INVALID_ANSWER if status == httpx.codes.OK else _reason_of(status)
        raise QueryFailed(reason, f"HTTP {status}, {len(body)} bytes that are no answer of Prometheus") from None
    found.sort(key=lambda series: sorted(series.labels.items()))
    return Answer(tuple(found), truncated=len(result) > max_series)


def _reason_of(status: int) -> QueryError:
    return QueryError.REJECTED if status // 100 == 4 else QueryError.UNAVAILABLE


def _labels(metric: Any) -> dict[str, str]:
    if not isinstance(metric, dict) or not all(isinstance(value, str) for value in metric.values()):
        raise TypeError("labels are not strings")
    return metric


def _found(entry: Any, window: Window) -> Found:
    values = np.full(window.count, np.nan)
    ends_not_finite = False
    for time, text in entry["values"]:
        index = round((float(time) - window.start) / window.step)
        value = float(text)
        if not 0 <= index < window.count:
            raise ValueError("a point outside the window")
        if math.isfinite(value):
            values[index] = value
        elif index == window.count - 1:
            ends_not_finite = True
    points = Points(float(window.start), float(window.step), values)
    return Found(_labels(entry["metric"]), points, ends_not_finite)
