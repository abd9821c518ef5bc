"""The bodies of the HTTP calls between the trading services (docs/trading.md), for both ends of each."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator

from tradewatch.common import streams
from tradewatch.common.api import Request
from tradewatch.common.events import Side
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


class Stage(StrEnum):
    """When a decision's risk is assessed: before the language model is asked, and again before the order."""

    BEFORE_LLM = "before_llm"
    BEFORE_EXECUTION = "before_execution"


class AssessmentRequest(DecisionRequest):
    """The body of risk-manager's `POST /v1/assessments`."""

    stage: Annotated[Stage, Field(strict=False)]


class AssessmentAnswer(BaseModel):
    """risk-manager's answer. `reason` is a code; size and price, in quote currency, are there where it approves."""

    model_config = ConfigDict(frozen=True)

    decision: Literal["approve", "deny"]
    reason: str
    detail: str
    approved_quote_size: Decimal | None
    limit_price: Decimal | None
    risk_score: float


class TradingState(StrEnum):
    """What may be ordered: everything, only what reduces a position, nothing."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


class KillSwitchRequest(Request):
    """The body of risk-manager's `POST /v1/kill-switch`."""

    action: Literal["engage", "release"]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    actor: Annotated[str, Field(min_length=1, max_length=100)]


class StateAnswer(BaseModel):
    """What risk-manager says of the trading state.

    `cancelled` is when trade-executor confirmed that no order is open after the state became HALTED; None before that.
    """

    model_config = ConfigDict(frozen=True)

    state: TradingState
    kill_switch: bool
    reason: str
    actor: str
    changed: datetime
    cancelled: datetime | None


class KillSwitchAnswer(StateAnswer):
    """risk-manager's answer to `POST /v1/kill-switch`.

    `cancel_all` says how the call to trade-executor ended: it is `failed` with a reason while the call is being
    retried, and `not needed` after a release.
    """

    cancel_all: str


class OrderRequest(Request):
    """The body of trade-executor's `POST /v1/orders`: size and price in quote currency.

    After `expires` no order may come into being; one that is known already is answered as it stands.
    """

    decision_id: UUID
    trace_id: TraceId
    product_id: str
    side: Annotated[Side, Field(strict=False)]
    quote_size: Annotated[Decimal, Field(gt=0)]
    limit_price: Annotated[Decimal, Field(gt=0)]
    expires: AwareDatetime


class OrderStatus(StrEnum):
    """The states of an order (docs/trading.md)."""

    PENDING = "pending"
    SUBMITTED = "submitted"
    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    UNKNOWN = "unknown"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"


class OrderAnswer(BaseModel):
    """trade-executor's answer about an order: `filled_size` in base, the price and `fees` in quote currency.

    `final`: the order will not change any more.
    """

    model_config = ConfigDict(frozen=True)

    client_order_id: UUID
    status: OrderStatus
    filled_size: Decimal
    average_price: Decimal | None
    fees: Decimal
    final: bool
