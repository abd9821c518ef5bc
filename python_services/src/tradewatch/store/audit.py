"""The audit: what happened to a decision, in order, for ever."""

from typing import Any
from uuid import UUID

from tradewatch.store.database import Connection, Pool

# Where what the audit tells of is one statement: its rows' `actor`, `action`, `trace_id`, `decision_id`, `details`.
INSERT = "INSERT INTO audit_log (actor, action, trace_id, decision_id, details)"


async def append(
    connection: Connection | Pool,
    *,
    actor: str,
    action: str,
    trace_id: str | None = None,
    decision_id: UUID | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Add a row, in the caller's transaction where it has one, so that the audit and what it tells of stand together.

    The database numbers the steps of a decision itself. `details` must hold no secret.
    """
    await connection.execute(
        f"{INSERT} VALUES ($1, $2, $3, $4, $5)",
        actor,
        action,
        trace_id,
        decision_id,
        details or {},
    )
