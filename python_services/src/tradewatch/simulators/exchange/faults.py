"""Faults on request: what `POST /faults` takes, and what is switched on now.

A fault acts on the connections that are open when it is asked for; a client that reconnects finds a healthy feed.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from tradewatch.simulators.exchange.metrics import SimulatorMetrics

MAX_COUNT = 10_000
MAX_FREEZE_SECONDS = 600.0

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


Fault = Annotated[SequenceGap | Close | Freeze | Malformed | BadPriceFault, Field(discriminator="fault")]


class _FaultRequest(RootModel[Fault]):
    """The body of `POST /faults`."""


class FaultRoutes:
    """`POST /faults`, `GET /faults` and `DELETE /faults` (all faults off)."""

    def __init__(
        self,
        metrics: SimulatorMetrics,
        apply: Callable[[Fault], int],
        active: Callable[[], list[dict[str, object]]],
        clear: Callable[[], None],
    ) -> None:
        self._metrics = metrics
        self._apply = apply
        self._active = active
        self._clear = clear

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
        connections = self._apply(fault)
        self._metrics.faults[fault.fault].inc()
        return web.json_response({"applied": fault.model_dump(), "connections": connections}, status=202)

    async def _get(self, _: web.Request) -> web.Response:
        return web.json_response({"connections": self._active()})

    async def _delete(self, _: web.Request) -> web.Response:
        self._clear()
        return web.json_response({"connections": self._active()})


def _one_line(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return " ".join(f"{where + ': ' if where else ''}{problem['msg']}".split()) + "\n"
