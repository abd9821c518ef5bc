"""The JSON API helper: what comes in wrong is one line, what goes wrong is never a yes."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Literal
from uuid import UUID

import httpx
import pytest
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr
from tradewatch.common import tracing
from tradewatch.common.api import ApiError, Request, Unavailable, json_get, json_route
from tradewatch.common.http import HttpServer
from tradewatch.common.logging import get_logger
from tradewatch.common.service import Liveness

TOKEN = "a-token-nobody-guesses"
SECRET_MESSAGE = "password hunter2 refused"


class Order(Request):
    id: UUID
    size: Decimal
    confidence: float = 0.5
    how: Literal["fine", "refuse", "outage", "library", "bug"] = "fine"


class Done(BaseModel):
    size: Decimal


async def _order(order: Order) -> Done:
    match order.how:
        case "refuse":
            raise ApiError(409, "conflict", "not twice")
        case "outage":
            raise Unavailable("the database does not answer")
        case "library":
            raise OSError(SECRET_MESSAGE)
        case "bug":
            raise RuntimeError(SECRET_MESSAGE)
    return Done(size=order.size)


async def _read(request: web.Request) -> Done:
    get_logger("test").info("reading")
    return Done(size=Decimal(request.match_info["size"]))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    routes = [
        json_route("/orders", Order, _order, status=202, outages=(OSError,)),
        json_route("/guarded", Order, _order, token=SecretStr(TOKEN)),
        json_get("/sizes/{size}", _read),
    ]
    async with (
        HttpServer(0, CollectorRegistry(), Liveness(), [], routes) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as connected,
    ):
        yield connected


GOOD = {"id": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "size": "0.10"}


async def test_money_stays_text(client: httpx.AsyncClient) -> None:
    answer = await client.post("/orders", json=GOOD)
    assert (answer.status_code, answer.text) == (202, '{"size":"0.10"}')
    assert answer.headers["content-type"].startswith("application/json")
    assert (await client.get("/sizes/1.50")).json() == {"size": "1.50"}


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        (b"", 400, "invalid_json", "EOF"),
        (b"{", 400, "invalid_json", "EOF"),
        (b"\xff\xfe", 400, "invalid_json", "expected value"),
        (b"[" * 10_000, 400, "invalid_json", "recursion"),
        (b"[]", 422, "invalid_request", "object"),
        (b'{"size": "1"}', 422, "invalid_request", "id: "),
        (json.dumps(GOOD | {"size": "NaN"}).encode(), 422, "invalid_request", "size: "),
        (json.dumps(GOOD | {"confidence": float("nan")}).encode(), 422, "invalid_request", "confidence: "),
        (json.dumps(GOOD | {"confidence": "0.5"}).encode(), 422, "invalid_request", "confidence: "),
        (json.dumps(GOOD | {"szie": "1"}).encode(), 422, "invalid_request", "szie: "),
        (b" " * 100_000, 413, "too_large", "65536"),
    ],
)
async def test_a_bad_body_is_one_line_that_names_the_field(
    client: httpx.AsyncClient, body: bytes, status: int, code: str, says: str
) -> None:
    answer = await client.post("/orders", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert says in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("refuse", 409, "conflict"),
        ("outage", 503, "unavailable"),
        ("library", 503, "unavailable"),
        ("bug", 500, "internal"),
    ],
)
async def test_what_goes_wrong_has_a_code_and_shows_no_message_of_a_library(
    client: httpx.AsyncClient, how: str, status: int, code: str
) -> None:
    answer = await client.post("/orders", json=GOOD | {"how": how})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer \u00e9".encode("latin-1")},
    ],
)
async def test_without_the_token_nothing_is_read(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.post("/guarded", content=b"{", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


async def test_with_the_token(client: httpx.AsyncClient) -> None:
    answer = await client.post("/guarded", json=GOOD, headers={"Authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200


async def test_log_lines_of_a_request_carry_the_callers_trace_id(client: httpx.AsyncClient) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await client.get("/sizes/1", headers=tracing.headers(trace_id))
        await client.get("/sizes/1", headers={"traceparent": "nonsense"})
    assert [line.get("trace_id") for line in lines] == [trace_id, None]
