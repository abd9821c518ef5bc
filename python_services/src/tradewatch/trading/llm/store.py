"""The validations in PostgreSQL: each decision has one, and it stays."""

from dataclasses import dataclass
from uuid import UUID

from tradewatch.store import audit
from tradewatch.store.database import Pool
from tradewatch.trading.contracts import ValidationAnswer
from tradewatch.trading.llm.model import Usage

ACTOR = "llm-validator"


@dataclass(frozen=True)
class Validation:
    """A validation to keep; `duration_seconds` is the time it took in all."""

    decision_id: UUID
    trace_id: str
    answer: ValidationAnswer
    usage: Usage
    duration_seconds: float


class ValidationStore:
    """Reads and writes `llm_validations`; raises what asyncpg raises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, decision_id: UUID) -> ValidationAnswer | None:
        """The answer given for a decision."""
        row = await self._pool.fetchrow(
            "SELECT decision, reason, reasons, model, prompt_tokens + completion_tokens AS tokens"
            " FROM llm_validations WHERE decision_id = $1",
            decision_id,
        )
        return ValidationAnswer(**dict(row)) if row else None

    async def add(self, validation: Validation) -> ValidationAnswer:
        """Keep a validation and tell the audit, in one transaction. Returns the answer that stands.

        That is another one where another replica was faster.
        """
        answer = validation.answer
        async with self._pool.acquire() as connection, connection.transaction():
            added = await connection.fetchval(
                "INSERT INTO llm_validations (decision_id, trace_id, decision, reason, reasons, model, prompt_tokens,"
                " completion_tokens, duration_seconds) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
                " ON CONFLICT (decision_id) DO NOTHING RETURNING decision_id",
                validation.decision_id,
                validation.trace_id,
                answer.decision,
                answer.reason,
                list(answer.reasons),
                answer.model,
                validation.usage.prompt,
                validation.usage.completion,
                validation.duration_seconds,
            )
            if added is not None:
                await audit.append(
                    connection,
                    actor=ACTOR,
                    action="llm_validated",
                    trace_id=validation.trace_id,
                    decision_id=validation.decision_id,
                    details={
                        "decision": answer.decision,
                        "reason": answer.reason,
                        "reasons": list(answer.reasons),
                        "model": answer.model,
                        "tokens": answer.tokens,
                    },
                )
                return answer
        standing = await self.find(validation.decision_id)
        if standing is None:
            raise RuntimeError("a validation that was there is gone")
        return standing

    async def tokens_of_last_hour(self) -> int:
        """Tokens that the validations of the last hour took, of all replicas and over restarts."""
        used: int = await self._pool.fetchval(
            "SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM llm_validations"
            " WHERE validated > now() - interval '1 hour'"
        )
        return used
