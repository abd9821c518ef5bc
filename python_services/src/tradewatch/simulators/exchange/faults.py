"""Faults on request: what `POST /faults` takes, and what is switched on now.

A fault of the feeds acts on the connections that are open when it is asked for; a client that reconnects finds a
healthy feed. A fault of requests acts on the next REST requests or orders, whoever sends them.
"""

from typing import Annotated, Literal, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from tradewatch.simulators.exchange.metrics import SimulatorMetrics

MAX_COUNT = 10_000
MAX_FREEZE_SECONDS = 600.0
MAX_SECONDS = 86_400.0

MalformedKind = Literal["not_json", "truncated", "wrong_types", "unknown_channel", "huge"]
Exchange = Literal["coinbase", "kraken"]
BadPrice = Literal["nan", "negative", "zero", "infinite", "text", "number"]


class _Fault(BaseModel):
    """`exchange` keeps a fault to the connections of one exchange's feed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    exchange: Exchange | None = None


class SequenceGap(_Fault):
    """The next `count` messages of each connection that a client can miss are never sent."""

    fault: Literal["sequence_gap"]
    count: int = Field(default=1, ge=1, le=MAX_COUNT)


class Close(_Fault):
    """Every connection is closed with this code."""

    fault: Literal["close"]
    code: Literal[1000, 1001, 1006, 1008, 1011, 1012, 1013] = 1001


class Freeze(_Fault):
    """Open connections stay open but carry nothing for this long."""

    fault: Literal["freeze"]
    seconds: float = Field(default=30.0, gt=0, le=MAX_FREEZE_SECONDS)


class Malformed(_Fault):
    """The next `count` messages of each connection arrive broken; `huge` is a frame of 10 MB."""

    fault: Literal["malformed"]
    kind: MalformedKind = "not_json"
    count: int = Field(default=1, ge=1, le=MAX_COUNT)


class BadPriceFault(_Fault):
    """The next `count` tickers of each connection carry an impossible price."""

    fault: Literal["bad_price"]
    value: BadPrice = "nan"
    count: int = Field(default=1, ge=1, le=MAX_COUNT)


FeedFault = SequenceGap | Close | Freeze | Malformed | BadPriceFault


class _RequestFault(BaseModel):
    """For the next `count` requests, or with `seconds` for so long; without either for one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    count: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    seconds: float | None = Field(default=None, gt=0, le=MAX_SECONDS)


class _PathFault(_RequestFault):
    """Only for requests of this method (any when left out) whose path matches the pattern (`*` is any text)."""

    method: Literal["GET", "POST"] | None = None
    path: str = Field(default="*", min_length=1, max_length=200)


class Timeout(_PathFault):
    """The request is carried out, its answer comes `delay_seconds` later, or never: then the connection ends."""

    fault: Literal["timeout"]
    delay_seconds: float = Field(default=30.0, ge=0, le=MAX_FREEZE_SECONDS)
    answer: bool = False


class Status(_PathFault):
    """The request is answered with this status; `accepted` has it carried out first."""

    fault: Literal["status"]
    status: Literal[400, 401, 403, 404, 408, 429, 500, 502, 503, 504] = 503
    accepted: bool = False
    retry_after_seconds: int | None = Field(default=None, ge=0, le=3600)


class Latency(_PathFault):
    """The request waits so long before it is carried out."""

    fault: Literal["latency"]
    delay_seconds: float = Field(default=1.0, gt=0, le=MAX_FREEZE_SECONDS)


class RateLimitFault(BaseModel):
    """A tighter rate limit on all REST requests."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    fault: Literal["rate_limit"]
    requests_per_second: float = Field(default=1.0, gt=0, le=10_000)
    seconds: float = Field(default=30.0, gt=0, le=MAX_SECONDS)


class PartialFill(_RequestFault):
    """The next orders take no more than this fraction of their size from the book at once."""

    fault: Literal["partial_fill"]
    fraction: float = Field(default=0.5, gt=0, lt=1)


class Reject(_RequestFault):
    """The next orders are refused; `as_order` has them accepted and then end as FAILED."""

    fault: Literal["reject"]
    reason: Literal["COMMANDER_REJECTED_NEW_ORDER", "ORDER_ENTRY_DISABLED", "INSUFFICIENT_FUND"] = (
        "COMMANDER_REJECTED_NEW_ORDER"
    )
    as_order: bool = False


RequestFault = Timeout | Status | Latency | RateLimitFault | PartialFill | Reject
Fault = Annotated[FeedFault | RequestFault, Field(discriminator="fault")]


class _FaultRequest(RootModel[Fault]):
    """The body of `POST /faults`."""


class FeedFaults(Protocol):
    """Who acts on faults of the feeds."""

    def apply(self, fault: FeedFault) -> int:
        """Switch a fault on. Returns for how many connections."""

    def active_faults(self) -> list[dict[str, object]]:
        """The faults of each connection."""

    def clear_faults(self) -> None:
        """Switch all off."""


class RequestFaults(Protocol):
    """Who acts on faults of requests."""

    def apply(self, fault: RequestFault) -> None:
        """Switch a fault on."""

    def active_faults(self) -> list[dict[str, object]]:
        """The faults that are on."""

    def clear_faults(self) -> None:
        """Switch all off."""


class FaultRoutes:
    """`POST /faults`, `GET /faults` and `DELETE /faults` (all faults off)."""

    def __init__(self, metrics: SimulatorMetrics, feeds: FeedFaults, requests: RequestFaults) -> None:
        self._metrics = metrics
        self._feeds = feeds
        self._requests = requests

    def routes(self) -> list[web.RouteDef]:
        """The routes for the HTTP server."""
        return [
            web.post("/faults", self._post),
            web.get("/faults", self._get),
            web.delete("/faults", self._delete),
        ]

    async def _post(self, request: web.Request) -> web.Response:
        try:
            fault = _FaultRequest.model_validate_json(await request.read()).root
        except ValidationError as error:
            return web.Response(status=400, text=_one_line(error))
        connections = 0
        if isinstance(fault, FeedFault):
            connections = self._feeds.apply(fault)
        else:
            self._requests.apply(fault)
        self._metrics.faults[fault.fault].inc()
        return web.json_response({"applied": fault.model_dump(), "connections": connections}, status=202)

    async def _get(self, _: web.Request) -> web.Response:
        return web.json_response(self._active())

    async def _delete(self, _: web.Request) -> web.Response:
        self._feeds.clear_faults()
        self._requests.clear_faults()
        return web.json_response(self._active())

    def _active(self) -> dict[str, object]:
        return {"connections": self._feeds.active_faults(), "requests": self._requests.active_faults()}


def _one_line(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return " ".join(f"{where + ': ' if where else ''}{problem['msg']}".split()) + "\n"
