"""Whether the services that data depends on are ready, by asking each."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import httpx
from prometheus_client import CollectorRegistry
from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.collectors.health_monitor.components import Components
from tradewatch.collectors.health_monitor.metrics import DEPENDENCY_DURATION, DEPENDENCY_FAILURES, DEPENDENCY_READY
from tradewatch.common.service import Liveness

VALKEY = "valkey"
MAX_BODY_BYTES = 64 * 1024
MAX_FAILING_CHECKS = 10
_CHECK_NAME = re.compile(r"[a-z0-9_-]{1,40}")


class Reason(StrEnum):
    """Why a check did not find its dependency ready."""

    TIMEOUT = "timeout"
    REFUSED = "refused"
    NOT_READY = "not_ready"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found; `reason` is None when the dependency is ready."""

    reason: Reason | None
    detail: str


def new_client() -> httpx.AsyncClient:
    """A client for checks: no proxy of the environment, no redirects, and each check on a connection of its own.

    A kept connection would go on reaching the replica that it was made to, whoever serves new ones.
    """
    return httpx.AsyncClient(
        trust_env=False, limits=httpx.Limits(max_keepalive_connections=0), headers={"Accept-Encoding": "identity"}
    )


async def ask_service(client: httpx.AsyncClient, url: str) -> Verdict:
    """A service's own answer at `url`/readyz. Waits as long as the service lets it: who calls bounds it."""
    try:
        async with client.stream("GET", f"{url.rstrip('/')}/readyz", timeout=None) as response:
            if response.status_code == 200:
                return Verdict(None, "ready")
            if response.status_code != 503:
                return Verdict(Reason.ERROR, f"answers {response.status_code}")
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return Verdict(Reason.ERROR, "answers 503 and too much")
    except httpx.ConnectError as error:
        if _refused(error):
            return Verdict(Reason.REFUSED, "connection refused")
        return Verdict(Reason.ERROR, "cannot connect")
    except httpx.HTTPError as error:
        return Verdict(Reason.ERROR, type(error).__name__)
    failing = _failing_checks(body)
    return Verdict(Reason.NOT_READY, f"not ready: {', '.join(failing)}" if failing else "not ready")


async def ask_valkey(client: Valkey) -> Verdict:
    """Whether Valkey answers PING; bounded by the caller, as above."""
    try:
        await client.ping()
    except (exceptions.TimeoutError, TimeoutError):
        return Verdict(Reason.TIMEOUT, "no answer to PING in time")
    except (exceptions.AuthenticationError, exceptions.BusyLoadingError) as error:
        return Verdict(Reason.NOT_READY, f"refuses PING: {type(error).__name__}")
    except (exceptions.ConnectionError, OSError) as error:
        return Verdict(Reason.REFUSED, f"no connection: {type(error).__name__}")
    except exceptions.ValkeyError as error:
        return Verdict(Reason.ERROR, type(error).__name__)
    return Verdict(None, "answers PING")


def _refused(error: BaseException | None) -> bool:
    """Whether a refused connection is among the causes; httpx and anyio wrap it, sometimes in a group."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        if isinstance(error, BaseExceptionGroup) and any(_refused(inner) for inner in error.exceptions):
            return True
        error = error.__cause__ or error.__context__
    return False


def _failing_checks(body: bytes) -> list[str]:
    """The names of the checks that failed, as far as the body is what our services answer."""
    try:
        checks = json.loads(body)["checks"]
        failing = [name for name, check in checks.items() if not check["ok"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
    return [name for name in failing if _CHECK_NAME.fullmatch(name)][:MAX_FAILING_CHECKS]


class Dependencies:
    """Asks every dependency, each in a loop of its own, so that one that hangs delays no other."""

    def __init__(
        self,
        checks: Mapping[str, Callable[[], Awaitable[Verdict]]],
        registry: CollectorRegistry,
        liveness: Liveness,
        components: Components,
        *,
        interval_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._checks = checks
        self._liveness = liveness
        self._components = components
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        ready, failures = DEPENDENCY_READY.gauge(registry), DEPENDENCY_FAILURES.counter(registry)
        duration = DEPENDENCY_DURATION.histogram(registry)
        self._ready = {name: ready.labels(dependency=name) for name in checks}
        self._duration = {name: duration.labels(dependency=name) for name in checks}
        self._failures = {
            (name, reason): failures.labels(dependency=name, reason=reason.value)
            for name in checks
            for reason in Reason
        }

    async def poll(self, stop: asyncio.Event) -> None:
        """Ask until `stop` is set or it is cancelled; valkey-py can swallow a cancellation, so it takes both."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._checks:
                tasks.create_task(self._poll(name, stop), name=f"dependency:{name}")

    async def _poll(self, name: str, stop: asyncio.Event) -> None:
        while True:
            self._liveness.beat(f"dependency:{name}")
            started = time.perf_counter()
            verdict = await self._ask(name)
            self._duration[name].observe(time.perf_counter() - started)
            self._ready[name].set(verdict.reason is None)
            if verdict.reason is not None:
                self._failures[name, verdict.reason].inc()
            self._components.judge(name, verdict.reason is None, verdict.detail)
            if stop.is_set():
                return
            await asyncio.sleep(self._interval_seconds)

    async def _ask(self, name: str) -> Verdict:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._checks[name]()
        except TimeoutError:
            return Verdict(Reason.TIMEOUT, f"no answer within {self._timeout_seconds:g} s")
        except Exception as error:
            # Whatever is wrong with what is watched must not end the watching.
            return Verdict(Reason.ERROR, f"failed: {type(error).__name__}")
