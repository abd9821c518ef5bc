"""Faults on request: what `POST /faults` of the chat simulator takes."""

from typing import Annotated, Literal

from pydantic import Field, RootModel

from tradewatch.simulators.fault_routes import MAX_SECONDS, TimedFault


class ChatFault(TimedFault):
    """A fault of one channel, or of all."""

    channel: str | None = None


class Error(ChatFault):
    """Messages are not taken: requests are answered with this status."""

    fault: Literal["error"]
    status: Literal[400, 401, 403, 404, 429, 500, 502, 503] = 503


class Timeout(ChatFault):
    """Messages are not taken and requests not answered until the fault is over."""

    fault: Literal["timeout"]


class Slow(ChatFault):
    """Messages are taken at once, but the answers take so long."""

    fault: Literal["slow"]
    delay_seconds: float = Field(default=2.0, gt=0, le=MAX_SECONDS)


Fault = Error | Timeout | Slow


class FaultRequest(RootModel[Annotated[Fault, Field(discriminator="fault")]]):
    """The body of `POST /faults`."""
