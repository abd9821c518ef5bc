"""Decisions in PostgreSQL: every move of one is a row's new version and a line of the audit, both or neither."""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tradewatch.common.events import Side
from tradewatch.common.streams import Signal
from tradewatch.store import audit
from tradewatch.store.database import Pool
from tradewatch.trading.orchestrator.machine import FINAL, State

ACTOR = "trade-orchestrator"

# Each is one statement, thus one round trip and a transaction of its own.
_ACCEPT = f"""
WITH signal AS (
    INSERT INTO signals (signal_id, trace_id, product_id, side, confidence, reference_price, model_version, rationale,
                         created, expires)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (signal_id) DO NOTHING RETURNING signal_id, trace_id, accepted
), decision AS (
    INSERT INTO decisions (decision_id, trace_id, state, received, updated)
    SELECT signal_id, trace_id, 'received', accepted, accepted FROM signal
), told AS (
    {audit.INSERT} SELECT '{ACTOR}', $11, trace_id, signal_id, $12 FROM signal
)
SELECT accepted FROM signal
"""  # noqa: S608
_SELECT = """
SELECT d.decision_id, d.state, d.version, d.received, d.updated, d.quote_size, d.limit_price,
       s.trace_id, s.product_id, s.side, s.confidence, s.reference_price, s.model_version, s.rationale,
       s.created, s.expires
FROM decisions d JOIN signals s ON s.signal_id = d.decision_id
"""
_UNFINISHED = """
WHERE d.finished IS NULL AND d.updated <= now() - make_interval(secs => $1)
ORDER BY d.received, d.decision_id LIMIT $2
"""
_MOVE = f"""
WITH moved AS (
    UPDATE decisions SET state = $3, reason = $4, version = version + 1, updated = clock_timestamp(),
        finished = CASE WHEN $5 THEN clock_timestamp() END,
        quote_size = coalesce($6, quote_size), limit_price = coalesce($7, limit_price)
    WHERE decision_id = $1 AND version = $2
    RETURNING decision_id, trace_id, updated
), told AS (
    {audit.INSERT} SELECT '{ACTOR}', $8, trace_id, decision_id,
        $9::jsonb || jsonb_build_object('seconds', extract(epoch FROM updated - $10)) FROM moved
)
SELECT updated FROM moved
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision as it is stored. `quote_size` and `limit_price`, in quote currency, are there from `executing` on."""

    signal: Signal
    state: State
    version: int
    received: datetime
    updated: datetime
    quote_size: Decimal | None = None
    limit_price: Decimal | None = None

    @property
    def decision_id(self) -> UUID:
        """The signal's id."""
        return self.signal.signal_id


class Conflict(Exception):
    """Somebody else has moved the decision, or an earlier attempt of one's own that seemed to fail has."""


class DecisionStore:
    """The tables `signals` and `decisions`. Every method raises what asyncpg raises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def accept(self, signal: Signal) -> Decision | None:
        """Store a signal and its decision; None where the signal is known already."""
        accepted = await self._pool.fetchval(
            _ACCEPT,
            signal.signal_id,
            signal.trace_id,
            signal.product_id,
            signal.side.value,
            signal.confidence,
            signal.reference_price,
            signal.model_version,
            signal.rationale,
            signal.created,
            signal.expires,
            _action(State.RECEIVED),
            {"state": State.RECEIVED, "version": 1, "product_id": signal.product_id, "side": signal.side},
        )
        return None if accepted is None else Decision(signal, State.RECEIVED, 1, accepted, accepted)

    async def load(self, decision_id: UUID) -> Decision:
        """A decision as it stands now."""
        return _decision(await self._pool.fetchrow(_SELECT + "WHERE d.decision_id = $1", decision_id))

    async def unfinished(self, idle_seconds: float, limit: int) -> list[Decision]:
        """The oldest decisions that nobody has moved for so long, in the order in which they came."""
        return [_decision(row) for row in await self._pool.fetch(_SELECT + _UNFINISHED, idle_seconds, limit)]

    async def move(
        self,
        decision: Decision,
        state: State,
        reason: str,
        *,
        quote_size: Decimal | None = None,
        limit_price: Decimal | None = None,
        details: dict[str, Any] | None = None,
    ) -> Decision:
        """Store a decision's next state; the decision as it then stands.

        Raises:
            Conflict: the stored version is not the given one.
        """
        told = {
            "from": decision.state,
            "state": state,
            "version": decision.version + 1,
            **({"reason": reason} if reason else {}),
            **(details or {}),
        }
        updated = await self._pool.fetchval(
            _MOVE,
            decision.decision_id,
            decision.version,
            state.value,
            reason,
            state in FINAL,
            quote_size,
            limit_price,
            _action(state),
            told,
            decision.updated,
        )
        if updated is None:
            raise Conflict
        return replace(
            decision,
            state=state,
            version=decision.version + 1,
            updated=updated,
            quote_size=quote_size or decision.quote_size,
            limit_price=limit_price or decision.limit_price,
        )


def _action(state: State) -> str:
    """What the audit calls the coming into a state."""
    return f"decision.{state}"


def _decision(row: Any) -> Decision:
    signal = Signal(
        signal_id=row["decision_id"],
        product_id=row["product_id"],
        side=Side(row["side"]),
        confidence=row["confidence"],
        reference_price=row["reference_price"],
        model_version=row["model_version"],
        created=row["created"],
        expires=row["expires"],
        rationale=row["rationale"],
        trace_id=row["trace_id"],
    )
    return Decision(
        signal,
        State(row["state"]),
        row["version"],
        row["received"],
        row["updated"],
        row["quote_size"],
        row["limit_price"],
    )
