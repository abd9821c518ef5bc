"""Asking risk-manager, llm-validator and trade-executor. Only a well-formed answer is an answer."""

from decimal import Decimal
from typing import TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from tradewatch.common import tracing
from tradewatch.common.http import Check, CheckResult
from tradewatch.trading.contracts import (
    AssessmentAnswer,
    AssessmentRequest,
    OrderAnswer,
    OrderRequest,
    ValidationAnswer,
    ValidationRequest,
)
from tradewatch.trading.orchestrator.metrics import Failure, OrchestratorMetrics, Peer

HEALTH_SECONDS = 1.0
_MAX_CODE_CHARACTERS = 60


class CallFailed(Exception):
    """A call brought no usable answer; `reason` is a code to store."""

    def __init__(self, peer: Peer, reason: str) -> None:
        self.reason = f"{peer.replace('-', '_')}_{reason}"
        super().__init__(self.reason)


class Outage(CallFailed):
    """No answer, or none that can be relied on: try again; it is never a yes."""


class Refused(CallFailed):
    """A 4xx: the call itself is wrong, and trying again would not help."""

    def __init__(self, peer: Peer, status: int, code: str) -> None:
        super().__init__(peer, f"refused_{code}")
        self.status = status
        self.code = code


AnswerT = TypeVar("AnswerT", bound=BaseModel)


class Peers:
    """The calls of docs/trading.md. Each raises Outage or Refused."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        metrics: OrchestratorMetrics,
        urls: dict[Peer, str],
        timeouts_seconds: dict[Peer, float],
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._urls = urls
        self._timeouts_seconds = timeouts_seconds

    async def assess(self, request: AssessmentRequest) -> AssessmentAnswer:
        """Ask risk-manager; an approval has a size and a price above zero."""
        answer = await self._post(Peer.RISK_MANAGER, "/v1/assessments", request, request.trace_id, AssessmentAnswer)
        if answer.decision == "approve" and not (
            _positive(answer.approved_quote_size) and _positive(answer.limit_price)
        ):
            raise self._outage(Peer.RISK_MANAGER, Failure.INVALID_ANSWER)
        return answer

    async def validate(self, request: ValidationRequest) -> ValidationAnswer:
        """Ask llm-validator."""
        return await self._post(Peer.LLM_VALIDATOR, "/v1/validations", request, request.trace_id, ValidationAnswer)

    async def order(self, request: OrderRequest) -> OrderAnswer:
        """Have trade-executor place the decision's order, or hear how the one that there is stands."""
        return await self._post(Peer.TRADE_EXECUTOR, "/v1/orders", request, request.trace_id, OrderAnswer)

    async def order_status(self, client_order_id: UUID, trace_id: str) -> OrderAnswer | None:
        """How an order stands; None where trade-executor says that there is none."""
        try:
            return await self._call(
                Peer.TRADE_EXECUTOR, "GET", f"/v1/orders/{client_order_id}", None, trace_id, OrderAnswer
            )
        except Refused as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def checks(self) -> list[Check]:
        """Readiness: each peer answers at all."""
        return [Check(peer.value, lambda peer=peer: self._alive(peer)) for peer in Peer]  # type: ignore[misc]

    async def _alive(self, peer: Peer) -> CheckResult:
        try:
            answer = await self._client.get(self._urls[peer] + "/healthz", timeout=HEALTH_SECONDS)
        except httpx.HTTPError as error:
            return CheckResult(False, f"no answer: {type(error).__name__}")
        return CheckResult(answer.is_success, f"answers {answer.status_code}")

    async def _post(self, peer: Peer, path: str, request: BaseModel, trace_id: str, model: type[AnswerT]) -> AnswerT:
        return await self._call(peer, "POST", path, request, trace_id, model)

    async def _call(
        self, peer: Peer, method: str, path: str, request: BaseModel | None, trace_id: str, model: type[AnswerT]
    ) -> AnswerT:
        try:
            response = await self._client.request(
                method,
                self._urls[peer] + path,
                content=request.model_dump_json() if request else None,
                headers={"Content-Type": "application/json", **tracing.headers(trace_id)},
                timeout=self._timeouts_seconds[peer],
            )
        except httpx.TimeoutException:
            raise self._outage(peer, Failure.TIMEOUT) from None
        except (httpx.HTTPError, OSError):
            raise self._outage(peer, Failure.UNREACHABLE) from None
        if response.is_success:
            try:
                return model.model_validate_json(response.content)
            except ValidationError:
                raise self._outage(peer, Failure.INVALID_ANSWER) from None
        if response.is_client_error:
            if response.status_code != httpx.codes.NOT_FOUND:
                self._metrics.failures[peer, Failure.REFUSED].inc()
            raise Refused(peer, response.status_code, _code(response))
        raise self._outage(peer, Failure.SERVER_ERROR)

    def _outage(self, peer: Peer, failure: Failure) -> Outage:
        self._metrics.failures[peer, failure].inc()
        return Outage(peer, failure)


def _positive(number: Decimal | None) -> bool:
    return number is not None and number.is_finite() and number > 0


def _code(response: httpx.Response) -> str:
    """The code in an error's body (`tradewatch.common.api`), or the status where there is none."""
    try:
        code = response.json()["error"]["code"]
    except (ValueError, LookupError, TypeError):
        return str(response.status_code)
    text = str(code)[:_MAX_CODE_CHARACTERS]
    return text if text.replace("_", "").isalnum() else str(response.status_code)
