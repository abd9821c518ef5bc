"""The decision about a signal: what the model says, held against checks that do not listen to it.

Everything but a well-formed, confident approval in time that the sentiment does not contradict is a denial with a code.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.common import service
from tradewatch.common.events import Side
from tradewatch.common.logging import Throttle, get_logger, trace
from tradewatch.store.database import STORE_ERRORS
from tradewatch.trading.contracts import ValidationAnswer, ValidationRequest
from tradewatch.trading.llm import evidence as evidence_of
from tradewatch.trading.llm import prompt
from tradewatch.trading.llm.evidence import Evidence, NoEvidence
from tradewatch.trading.llm.metrics import LlmMetrics
from tradewatch.trading.llm.model import NO_USAGE, Model, ModelFailed, Usage
from tradewatch.trading.llm.reasons import Reason
from tradewatch.trading.llm.store import Validation, ValidationStore
from tradewatch.trading.llm.verdict import Verdict

MEASURE_SECONDS = 15.0

_log = get_logger("llm")


@dataclass(frozen=True)
class Limits:
    """`seconds` for evidence and model together; `tokens_per_hour` over all replicas.

    An approval needs `min_confidence`, and the sentiment's score must not speak against the side by `sentiment_veto` or
    more.
    """

    seconds: float
    tokens_per_hour: int
    sentiment_max_age_seconds: float
    min_confidence: float
    sentiment_veto: float


@dataclass(frozen=True)
class _Outcome:
    reason: Reason
    lines: tuple[str, ...]
    usage: Usage = NO_USAGE


@dataclass
class _Hold:
    """Tokens set aside for a validation that is not stored yet."""

    tokens: int = 0


class Validator:
    """Validates signals, each decision once: repeating a call gives the stored answer."""

    def __init__(
        self,
        model: Model,
        client: Valkey,
        store: ValidationStore,
        metrics: LlmMetrics,
        limits: Limits,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._model = model
        self._client = client
        self._store = store
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._throttle = Throttle()
        self._reserved = 0
        self._reserving = asyncio.Lock()
        self._running: dict[UUID, asyncio.Task[ValidationAnswer]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the budget until `stop` is set, then wait for the validations in hand."""
        await service.until_stopped(stop, self._measure())
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _measure(self) -> None:
        """The budget slides on while nobody asks."""
        while True:
            try:
                self._metrics.budget_remaining.set(max(0, await self._tokens_left()))
            except STORE_ERRORS as error:
                held = self._throttle.admit("measure")
                if held is not None:
                    _log.warning("the budget is not known", error=type(error).__name__, lines_held_back=held)
            await asyncio.sleep(MEASURE_SECONDS)

    async def _tokens_left(self) -> int:
        return self._limits.tokens_per_hour - await self._store.tokens_of_last_hour() - self._reserved

    async def validate(self, request: ValidationRequest) -> ValidationAnswer:
        """The answer to a request; calls about one decision at the same time share one.

        Raises what the store raises: without it there is no answer, neither a yes nor a no.
        """
        task = self._running.get(request.decision_id)
        if task is None:
            task = asyncio.create_task(self._validate(request), name=f"validation {request.decision_id}")
            self._running[request.decision_id] = task
            task.add_done_callback(lambda _: self._running.pop(request.decision_id, None))
        # Who called may give up; what was begun, and perhaps paid for, is finished and stored.
        return await asyncio.shield(task)

    async def _validate(self, request: ValidationRequest) -> ValidationAnswer:
        hold = _Hold()
        with trace(request.trace_id):
            stored = await self._store.find(request.decision_id)
            if stored is not None:
                return stored
            started = time.perf_counter()
            try:
                outcome = await self._judge(request, hold)
                answer = ValidationAnswer(
                    decision="approve" if outcome.reason is Reason.APPROVED else "deny",
                    reason=outcome.reason.value,
                    reasons=outcome.lines,
                    model=self._model.name,
                    tokens=outcome.usage.total,
                )
                seconds = time.perf_counter() - started
                standing = await self._store.add(
                    Validation(request.decision_id, request.trace_id, answer, outcome.usage, seconds)
                )
            finally:
                self._reserved -= hold.tokens
            self._metrics.count(answer.decision, outcome.reason, outcome.usage, seconds, request.trace_id)
            _log.info(
                "validated",
                decision_id=str(request.decision_id),
                product_id=request.signal.product_id,
                decision=standing.decision,
                reason=standing.reason,
                tokens=standing.tokens,
                seconds=round(seconds, 3),
            )
            return standing

    async def _judge(self, request: ValidationRequest, hold: _Hold) -> _Outcome:
        signal = request.signal
        now = self._clock()
        if signal.expires <= now:
            return _Outcome(Reason.EXPIRED, (f"the signal expired {(now - signal.expires).total_seconds():.1f} s ago",))
        deadline = asyncio.get_running_loop().time() + self._limits.seconds
        try:
            async with asyncio.timeout_at(deadline):
                found = await evidence_of.gather(self._client, signal, now, self._limits.sentiment_max_age_seconds)
        except NoEvidence as missing:
            return _Outcome(Reason.NO_SENTIMENT, (str(missing),))
        except (exceptions.ValkeyError, OSError, TimeoutError) as error:
            return _Outcome(Reason.BUS_UNAVAILABLE, (f"valkey does not answer: {type(error).__name__}",))
        messages = prompt.messages(found)
        most = self._model.most(messages)
        if not await self._reserve(most, hold):
            return _Outcome(Reason.BUDGET_EXHAUSTED, ("the tokens of this hour are used up",))
        try:
            async with asyncio.timeout_at(deadline):
                verdict, usage = await self._model.ask(messages)
        except TimeoutError:
            # What was cut off may have taken as much.
            return _Outcome(Reason.TIMEOUT, (f"no answer within {self._limits.seconds:g} s",), most)
        except ModelFailed as failed:
            _log.warning("no verdict", reason=failed.reason.value, detail=failed.detail)
            return _Outcome(failed.reason, (failed.detail,), failed.usage)
        return _Outcome(self._decide(found, verdict), verdict.lines(), usage)

    async def _reserve(self, most: Usage, hold: _Hold) -> bool:
        """Set tokens aside until the validation is stored, where the hour has so many left."""
        async with self._reserving:
            left = await self._tokens_left()
            self._metrics.budget_remaining.set(max(0, left))
            if left < most.total:
                return False
            hold.tokens = most.total
            self._reserved += hold.tokens
            return True

    def _decide(self, evidence: Evidence, verdict: Verdict) -> Reason:
        if verdict.decision == "deny":
            return Reason.DENIED_BY_MODEL
        if verdict.confidence < self._limits.min_confidence:
            return Reason.LOW_CONFIDENCE
        direction = 1.0 if evidence.signal.side is Side.BUY else -1.0
        # The score is made without the model, so no text can talk it out of this.
        if evidence.sentiment.score * direction <= -self._limits.sentiment_veto:
            return Reason.CONTRADICTS_SENTIMENT
        return Reason.APPROVED
