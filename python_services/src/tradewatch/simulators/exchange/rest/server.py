"""The REST server: what every request passes on its way to an endpoint and back.

A request is counted, may be delayed or refused by a fault, must be within the rate limit and, unless its endpoint is
public, must carry a token. An endpoint's answer may then be held back by a fault, with the effect already there.
"""

import asyncio
import json
import math
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from tradewatch.common.http import ALL_INTERFACES
from tradewatch.common.logging import get_logger
from tradewatch.simulators.exchange.api_keys import ApiKeys, Unauthorized
from tradewatch.simulators.exchange.faults import Latency, Status, Timeout
from tradewatch.simulators.exchange.metrics import SimulatorMetrics
from tradewatch.simulators.exchange.order_entry import BadRequest
from tradewatch.simulators.exchange.rate_limit import RateLimit
from tradewatch.simulators.exchange.request_faults import ActiveRequestFaults

_log = get_logger("rest")

MAX_REQUEST_BYTES = 64 * 1024
BROKERAGE = "/api/v3/brokerage"
Handler = Callable[[web.Request], Awaitable[dict[str, Any]]]


class NotFound(Exception):
    """What the path names does not exist; its text says what."""


class Endpoint:
    """One method and path; `name` is what metrics call it, `public` means without a token."""

    def __init__(self, name: str, method: str, path: str, handler: Handler, public: bool = False) -> None:
        self.name = name
        self.method = method
        self.path = path
        self.handler = handler
        self.public = public


class RestServer:
    """Serves endpoints on one port, over TLS where a context is given. `port` 0 takes any free one."""

    def __init__(
        self,
        port: int,
        endpoints: Iterable[Endpoint],
        keys: ApiKeys,
        faults: ActiveRequestFaults,
        metrics: SimulatorMetrics,
        requests_per_second: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = port
        self.listening = False
        self._keys = keys
        self._faults = faults
        self._metrics = metrics
        self._limit = RateLimit(requests_per_second)
        self._tls = tls
        self._by_route: dict[tuple[str, str], Endpoint] = {}
        application = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[self._pass])
        for endpoint in endpoints:
            self._by_route[endpoint.method, endpoint.path] = endpoint
            application.router.add_route(endpoint.method, endpoint.path, _answer_of(endpoint))
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, ALL_INTERFACES, self.port, ssl_context=self._tls).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = int(self._runner.addresses[0][1])
        self.listening = True

    async def stop(self) -> None:
        """Stop listening."""
        self.listening = False
        await self._runner.cleanup()

    @web.middleware
    async def _pass(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        resource = request.match_info.route.resource
        endpoint = self._by_route.get((request.method, resource.canonical if resource else ""))
        name = endpoint.name if endpoint else "unknown"
        late = self._faults.for_request(Timeout, request.method, request.path)
        response = await self._answer(request, handler, endpoint)
        if late is not None:
            await asyncio.sleep(late.delay_seconds)
            if not late.answer:
                self._metrics.requests.labels(endpoint=name, status="none").inc()
                if request.transport is not None:
                    request.transport.abort()
                return response
        self._metrics.requests.labels(endpoint=name, status=str(response.status)).inc()
        return response

    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        endpoint: Endpoint | None,
    ) -> web.StreamResponse:
        slow = self._faults.for_request(Latency, request.method, request.path)
        if slow is not None:
            await asyncio.sleep(slow.delay_seconds)
        broken = self._faults.for_request(Status, request.method, request.path)
        if broken is not None and not broken.accepted:
            return _fault_response(broken)
        wait = max(self._limit.wait_seconds(), self._faults.rate_limit_wait_seconds())
        if wait:
            return _error(429, "RATE_LIMIT_EXCEEDED", "too many requests", {"Retry-After": str(math.ceil(wait))})
        if endpoint is None:
            return _error(404, "NOT_FOUND", f"no {request.method} {request.path} here")
        if not endpoint.public:
            try:
                self._authenticate(request)
            except Unauthorized as error:
                return web.Response(status=401, text=f"Unauthorized: {error}\n")
        response = await handler(request)
        return response if broken is None else _fault_response(broken)

    def _authenticate(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise Unauthorized("no bearer token")
        self._keys.verify(token, f"{request.method} {request.host}{request.path}")


async def read_body(request: web.Request) -> dict[str, Any]:
    """A request's JSON object. Raises BadRequest."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be an object")
    return body


def query_number(request: web.Request, name: str, default: int, maximum: int) -> int:
    """A whole number from 1 to `maximum` of the query. Raises BadRequest."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= maximum:
        raise BadRequest(f"{name} must be a whole number from 1 to {maximum}")
    return int(text)


def _answer_of(endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(await endpoint.handler(request))
        except BadRequest as error:
            return _error(400, "INVALID_ARGUMENT", str(error))
        except NotFound as error:
            return _error(404, "NOT_FOUND", str(error))
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "INVALID_ARGUMENT", f"the body is larger than {MAX_REQUEST_BYTES} bytes")

    return answer


def _error(status: int, code: str, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(
        {"error": code, "error_details": text, "message": text}, status=status, headers=headers or {}
    )


def _fault_response(fault: Status) -> web.Response:
    headers = {}
    if fault.retry_after_seconds is not None or fault.status in (429, 503):
        headers["Retry-After"] = str(1 if fault.retry_after_seconds is None else fault.retry_after_seconds)
    return _error(fault.status, "FAULT", "a fault that was asked for", headers)
