"""`POST /faults`, `GET /faults` and `DELETE /faults` of a simulator of HTTP, and the faults that are on for a while."""

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, RootModel

from tradewatch.common.api import Request, json_get, json_route

MAX_SECONDS = 86_400.0


class TimedFault(Request):
    """A fault that is on for `seconds`."""

    seconds: float = Field(default=60.0, gt=0, le=MAX_SECONDS)


FaultT = TypeVar("FaultT", bound=TimedFault)


class Switchboard(Generic[FaultT]):
    """The faults that are on, the newest first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._on: list[tuple[float, FaultT]] = []

    def switch_on(self, fault: FaultT) -> None:
        """Have the fault from now, for its `seconds`."""
        self._on.insert(0, (self._clock() + fault.seconds, fault))

    def active(self) -> list[FaultT]:
        """What is on now."""
        now = self._clock()
        self._on = [(until, fault) for until, fault in self._on if until > now]
        return [fault for _, fault in self._on]

    def clear(self) -> None:
        """Switch all off."""
        self._on.clear()


class Faults(BaseModel):
    """The answer of `GET /faults`."""

    active: list[dict[str, Any]]


def fault_routes(
    request_model: type[RootModel[FaultT]],
    apply: Callable[[FaultT], None],
    active: Callable[[], Faults],
    clear: Callable[[], None],
) -> list[web.RouteDef]:
    """The three routes. `POST` is answered with 202 and what is on after it."""

    async def post(request: RootModel[FaultT]) -> Faults:
        apply(request.root)
        return active()

    async def get(_: web.Request) -> Faults:
        return active()

    async def delete(_: web.Request) -> web.Response:
        clear()
        return web.json_response(active().model_dump())

    return [
        json_route("/faults", request_model, post, status=202),
        json_get("/faults", get),
        web.delete("/faults", delete),
    ]
