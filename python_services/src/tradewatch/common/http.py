"""The HTTP server of every service: /metrics, /healthz and /readyz, plus routes of the service's own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from tradewatch.common.service import Liveness

# Above the time limits of the checks themselves; a check that takes longer counts as failed.
CHECK_SECONDS = 2.0
# A pod is reached by its own address; who may reach it is for NetworkPolicies to say.
ALL_INTERFACES = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True)
class CheckResult:
    """One readiness check's answer; `detail` is for the person who reads /readyz."""

    ok: bool
    detail: str


@dataclass(frozen=True)
class Check:
    """A named readiness check."""

    name: str
    run: Callable[[], Awaitable[CheckResult]]


class HttpServer:
    """Serves metrics and probes on the service's own event loop, so a blocked loop fails its probe.

    - `/metrics`: Prometheus text, or OpenMetrics with exemplars where the `Accept` header asks for it.
    - `/healthz`: 200 while every loop advances within the liveness limit, else 503.
    - `/readyz`: 200 when every check passes, else 503; 503 while stopping. Always a JSON body naming each check.

    `port` 0 takes any free port; `port` then holds the one taken. A request's body may have `max_body_bytes`.
    """

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        liveness: "Liveness",
        checks: Sequence[Check],
        routes: Iterable[web.AbstractRouteDef] = (),
        *,
        max_body_bytes: int = 64 * 1024,
    ) -> None:
        self.port = port
        self.stopping = False
        self._registry = registry
        self._liveness = liveness
        self._checks = checks
        application = web.Application(client_max_size=max_body_bytes)
        application.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                *routes,
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def __aenter__(self) -> "HttpServer":
        """Listen. Raises OSError when the port is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, ALL_INTERFACES, self.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening, letting requests in hand end."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _healthz(self, _: web.Request) -> web.Response:
        stuck = self._liveness.stuck()
        ages = {loop: round(age, 3) for loop, age in self._liveness.ages_seconds().items()}
        body = {"status": "stuck" if stuck else "ok", "stuck": stuck, "loop_age_seconds": ages}
        return web.json_response(body, status=503 if stuck else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        results = await asyncio.gather(*(_run_check(check) for check in self._checks))
        ready = all(result.ok for result in results) and not self.stopping
        body = {
            "status": "stopping" if self.stopping else "ready" if ready else "not_ready",
            "checks": {
                check.name: {"ok": result.ok, "detail": result.detail}
                for check, result in zip(self._checks, results, strict=True)
            },
        }
        return web.json_response(body, status=200 if ready else 503)


async def _run_check(check: Check) -> CheckResult:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check.run()
    except TimeoutError:
        return CheckResult(False, f"no answer within {CHECK_SECONDS:g} s")
    except Exception as error:
        # The type only: messages of client libraries can hold addresses and credentials.
        return CheckResult(False, f"failed: {type(error).__name__}")
