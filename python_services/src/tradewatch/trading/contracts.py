"""The bodies of the HTTP calls between the trading services (docs/trading.md), for both ends of each."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator

from tradewatch.common import streams
from tradewatch.common.api import Request
from tradewatch.common.streams import Signal

TraceId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def _signal(value: object) -> Signal:
    if isinstance(value, Signal):
        return value
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for item in value.items() for part in item):
        raise ValueError("must be an object of text fields, as in the stream of signals")
    return streams.decode(Signal, value)


# A signal as JSON: the fields of its stream entry, all text.
SignalFields = Annotated[Signal, PlainValidator(_signal), PlainSerializer(streams.encode)]


class DecisionRequest(Request):
    """What every call about a decision says: which one, the trace it belongs to, the signal it is about."""

    decision_id: UUID
    trace_id: TraceId
    signal: SignalFields

    @model_validator(mode="after")
    def _decision_is_of_signal(self) -> Self:
        if self.decision_id != self.signal.signal_id:
            raise ValueError("decision_id: is not the signal_id of the signal")
        return self


class ValidationRequest(DecisionRequest):
    """The body of llm-validator's `POST /v1/validations`."""


class ValidationAnswer(BaseModel):
    """llm-validator's answer. `reason` is a code, `reasons` are sentences, `tokens` what the model took in all."""

    model_config = ConfigDict(frozen=True)

    decision: Literal["approve", "deny"]
    reason: str
    reasons: tuple[str, ...]
    model: str
    tokens: int
