"""What is asked of Prometheus and Loki: bounded in number, time and size, and asked once for many viewers."""

import asyncio
import json
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from tradewatch.common.fetching import BodyEncoded, BodyTooLarge, read_bounded
from tradewatch.monitoring.dashboard_report.metrics import DashboardReportMetrics

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_CACHE_BYTES = 48 * 1024 * 1024
MAX_CACHED = 2000
MAX_LINE = 240
CONNECT_SECONDS = 3.0
# Longer than between two refreshes of the page: no new TLS handshakes for each.
KEEP_ALIVE_SECONDS = 60.0
# A datasource that is back is seen soon.
MAX_FAILURE_SECONDS = 5.0
NAMES = {"prometheus": "Prometheus", "loki": "Loki"}


class QueryError(Exception):
    """Why a query has no result: one line for people, without addresses and credentials."""

    def __init__(self, outcome: str, line: str) -> None:
        super().__init__(line)
        self.outcome = outcome


@dataclass(frozen=True)
class Access:
    """How one datasource is reached. Without `url` there is none of its kind."""

    url: str | None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None


@dataclass(frozen=True)
class Limits:
    """Durations in seconds; `concurrency` counts requests under way to one datasource."""

    timeout_seconds: float = 10.0
    concurrency: int = 6
    cache_seconds: float = 30.0


def one_line(text: object) -> str:
    """Text as one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}…"


@dataclass
class _Answer:
    """What is or will be known: the body or the error. Bodies stay bytes: parsed they are ten times as large."""

    task: "asyncio.Task[bytes]"
    expires: float = float("inf")
    size: int = 0


class Source:
    """One datasource's HTTP interface.

    Answers are kept for `cache_seconds`, failures at most MAX_FAILURE_SECONDS, and who asks for what is under way waits
    for that: ten viewers of a dashboard cost as much as one. At most `concurrency` requests are under way.
    """

    def __init__(
        self,
        name: str,
        access: Access,
        limits: Limits,
        metrics: DashboardReportMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._title = NAMES[name]
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._answers: OrderedDict[tuple[str, tuple[tuple[str, str], ...]], _Answer] = OrderedDict()
        self._bytes = 0
        self._client = _client(access, limits)

    async def __aenter__(self) -> "Source":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up what is under way and close the connections."""
        tasks = [answer.task for answer in self._answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def get(self, path: str, parameters: Mapping[str, str]) -> Any:
        """The `data` of an answer of the Prometheus kind. Raises QueryError."""
        if self._client is None:
            raise QueryError("unreachable", f"{self._title} is not configured")
        key = (path, tuple(sorted(parameters.items())))
        answer = self._answers.get(key)
        if answer is None or self._clock() >= answer.expires:
            answer = self._ask(key)
        else:
            self._count("cached")
        # A viewer that goes away must not end what others wait for.
        body = await asyncio.shield(answer.task)
        return json.loads(body)["data"]

    def _ask(self, key: tuple[str, tuple[tuple[str, str], ...]]) -> _Answer:
        self._drop(key)
        answer = _Answer(asyncio.create_task(self._fetch(key[0], dict(key[1]))))
        self._answers[key] = answer

        def done(task: "asyncio.Task[bytes]") -> None:
            if task.cancelled() or self._answers.get(key) is not answer:
                return
            kept, failed = self._limits.cache_seconds, task.exception() is not None
            answer.expires = self._clock() + (min(kept, MAX_FAILURE_SECONDS) if failed else kept)
            answer.size = 0 if failed else len(task.result())
            self._bytes += answer.size
            self._tidy()

        answer.task.add_done_callback(done)
        return answer

    def _tidy(self) -> None:
        """Forget what is old, and the oldest beyond the bounds; what is under way stays."""
        now = self._clock()
        for key, answer in list(self._answers.items()):
            over = self._bytes > MAX_CACHE_BYTES or len(self._answers) > MAX_CACHED
            if answer.task.done() and (over or now >= answer.expires):
                self._drop(key)

    def _drop(self, key: tuple[str, tuple[tuple[str, str], ...]]) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._bytes -= answer.size

    def _count(self, outcome: str) -> None:
        self._metrics.queries[self.name, outcome].inc()

    async def _fetch(self, path: str, parameters: dict[str, str]) -> bytes:
        try:
            async with self._slots:
                started = self._clock()
                try:
                    async with asyncio.timeout(self._limits.timeout_seconds):
                        body = await self._read(path, parameters)
                finally:
                    self._metrics.duration[self.name].observe(self._clock() - started)
        except TimeoutError:
            self._count("unreachable")
            raise self._error("unreachable", f"no answer within {self._limits.timeout_seconds:g} s") from None
        except QueryError as error:
            self._count(error.outcome)
            raise
        self._count("ok")
        return body

    async def _read(self, path: str, parameters: dict[str, str]) -> bytes:
        """The body of an answer whose shape was checked. Raises QueryError or TimeoutError."""
        assert self._client is not None
        try:
            async with self._client.stream("GET", path, params=parameters) as response:
                body = await read_bounded(response, MAX_BODY_BYTES)
        except httpx.TimeoutException:
            raise TimeoutError from None
        except BodyTooLarge:
            raise self._error("refused", f"the answer is larger than {MAX_BODY_BYTES // 1024**2} MiB") from None
        except BodyEncoded:
            raise self._error("nonsense", "the answer is compressed although asked not to") from None
        except httpx.HTTPError as error:
            # The type only: messages can hold addresses.
            raise self._error("unreachable", f"does not answer ({type(error).__name__})") from None
        if response.status_code in (401, 403):
            raise self._error("refused", f"refused the login ({response.status_code})")
        try:
            document = json.loads(body)
            good = document["status"] == "success" and "data" in document
            problem = "" if good else document.get("error") or document["status"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if response.is_success:
                raise self._error("nonsense", "the answer is not of the expected shape") from None
            # Loki's errors are plain text.
            said = body[: 4 * MAX_LINE].decode(errors="replace") if response.status_code < 500 else ""
            good, problem = False, f"status {response.status_code} {said}"
        if not good or not response.is_success:
            raise self._error("refused", problem)
        return body

    def _error(self, outcome: str, what: object) -> QueryError:
        return QueryError(outcome, one_line(f"{self._title}: {what}"))


def _client(access: Access, limits: Limits) -> httpx.AsyncClient | None:
    if access.url is None:
        return None
    verify = ssl.create_default_context(cafile=access.ca_file) if access.ca_file else True
    auth = None
    if access.username and access.password:
        auth = httpx.BasicAuth(access.username, access.password.get_secret_value())
    return httpx.AsyncClient(
        base_url=access.url.rstrip("/") + "/",
        auth=auth,
        verify=verify,
        trust_env=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "tradewatch-dashboard-report"},
        timeout=httpx.Timeout(limits.timeout_seconds, connect=min(CONNECT_SECONDS, limits.timeout_seconds)),
        limits=httpx.Limits(max_connections=limits.concurrency, keepalive_expiry=KEEP_ALIVE_SECONDS),
    )
