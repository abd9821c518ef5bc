"""Faults on request: what `POST /faults` of the language model simulator takes."""

from typing import Annotated, Literal

from pydantic import Field, RootModel

from tradewatch.simulators.fault_routes import MAX_SECONDS, TimedFault


class Error(TimedFault):
    """Requests are answered with this status."""

    fault: Literal["error"]
    status: Literal[400, 403, 404, 429, 500, 502, 503] = 503


class Timeout(TimedFault):
    """Requests are not answered until the fault is over."""

    fault: Literal["timeout"]


class Slow(TimedFault):
    """Answers take so long."""

    fault: Literal["slow"]
    delay_seconds: float = Field(default=2.0, gt=0, le=MAX_SECONDS)


class InvalidJson(TimedFault):
    """The message, or the whole body of the answer, is not JSON."""

    fault: Literal["invalid_json"]
    where: Literal["message", "body"] = "message"


class SchemaViolation(TimedFault):
    """The message is JSON, but not of the schema."""

    fault: Literal["schema_violation"]
    kind: Literal[
        "missing_field", "extra_field", "wrong_type", "out_of_range", "unknown_decision", "control_characters"
    ] = "missing_field"


class Refusal(TimedFault):
    """The model declines to answer."""

    fault: Literal["refusal"]


class Length(TimedFault):
    """The answer ends where its token limit is: `finish_reason` is `length`."""

    fault: Literal["length"]


class Gullible(TimedFault):
    """The model obeys what the headlines tell it."""

    fault: Literal["gullible"]


Fault = Error | Timeout | Slow | InvalidJson | SchemaViolation | Refusal | Length | Gullible


class FaultRequest(RootModel[Annotated[Fault, Field(discriminator="fault")]]):
    """The body of `POST /faults`."""
