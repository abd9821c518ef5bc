"""JSON over HTTP between the services: a pydantic model in, a pydantic model out, every error one line.

An error's body is `{"error": {"code", "message"}}`. 4xx is the caller's error and final, 503 an outage: who called may
try again, and must not take it for a yes (docs/trading.md). The caller's `traceparent` gives the log lines of a request
their `trace_id`.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from tradewatch.common import tracing
from tradewatch.common.logging import get_logger, trace

_log = get_logger("api")


class Request(BaseModel):
    """What a request's body is made from: no conversions, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ApiError(Exception):
    """An answer other than success: an HTTP status, a code for programs and one line for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unavailable(ApiError):
    """503: something that the answer depends on does not work now."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "unavailable", message)


RequestT = TypeVar("RequestT", bound=BaseModel)


def json_route(
    path: str,
    request_model: type[RequestT],
    handler: Callable[[RequestT], Awaitable[BaseModel]],
    *,
    status: int = 200,
    token: SecretStr | None = None,
    outages: Sequence[type[BaseException]] = (),
    invalid_status: int = 422,
    refused: Callable[[str], None] | None = None,
) -> web.RouteDef:
    """`POST path`: the body as `request_model` to `handler`, whose answer is sent with `status`.

    With `token`, only for who sends it as `Authorization: Bearer`. `outages` are exceptions of the handler that mean
    that a dependency does not work: they are answered with 503, and logged by their type alone, for messages of client
    libraries can hold addresses and credentials. Anything else that the handler raises but `ApiError` is answered
    with 500. JSON that is not of the model is answered with `invalid_status`. `refused` is told the code of every
    answer that is an error.
    """

    async def work(request: web.Request) -> BaseModel:
        return await handler(await _read(request, request_model, invalid_status))

    return web.post(path, _answering(work, status, token, tuple(outages), refused))


def json_get(
    path: str,
    handler: Callable[[web.Request], Awaitable[BaseModel]],
    *,
    token: SecretStr | None = None,
    outages: Sequence[type[BaseException]] = (),
) -> web.RouteDef:
    """`GET path`, otherwise as `json_route`; the handler takes path parameters from `request.match_info`."""
    return web.get(path, _answering(handler, 200, token, tuple(outages)))


def _answering(
    work: Callable[[web.Request], Awaitable[BaseModel]],
    status: int,
    token: SecretStr | None,
    outages: tuple[type[BaseException], ...],
    refused: Callable[[str], None] | None = None,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        trace_id = tracing.trace_id_of(request.headers)
        with trace(trace_id) if trace_id else nullcontext():
            return await respond(request)

    async def respond(request: web.Request) -> web.Response:
        try:
            _authorize(request, token)
            body = await work(request)
        except ApiError as error:
            return refuse(error)
        except web.HTTPRequestEntityTooLarge as error:
            return refuse(ApiError(413, "too_large", error.text or "the body is too large"))
        except outages as error:
            name = type(error).__name__
            _log.error("cannot answer", path=request.path, error=name)
            return refuse(Unavailable(f"a dependency failed: {name}"))
        except Exception as error:
            _log.exception("request failed", path=request.path)
            return refuse(ApiError(500, "internal", f"failed: {type(error).__name__}"))
        return web.Response(text=body.model_dump_json(), status=status, content_type="application/json")

    def refuse(error: ApiError) -> web.Response:
        if refused is not None:
            refused(error.code)
        return _error(error)

    return answer


def _authorize(request: web.Request, token: SecretStr | None) -> None:
    if token is None:
        return
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    # The comparison's time must not tell how much of the token was right.
    right = hmac.compare_digest(given.encode(errors="surrogateescape"), token.get_secret_value().encode())
    if kind.lower() != "bearer" or not right:
        raise ApiError(401, "unauthorized", "this needs the right token, as Authorization: Bearer")


async def _read(request: web.Request, model: type[RequestT], invalid_status: int) -> RequestT:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        line = describe(error)
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise ApiError(400, "invalid_json", line) from None
        raise ApiError(invalid_status, "invalid_request", line) from None


def describe(error: ValidationError) -> str:
    """The first problem of a validation as one line that names the field and does not repeat its value."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return " ".join(f"{where + ': ' if where else ''}{message}".split())


def _error(error: ApiError) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    body = {"error": {"code": error.code, "message": str(error)}}
    return web.json_response(body, status=error.status, headers=headers)
