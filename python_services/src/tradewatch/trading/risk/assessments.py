"""The rows of assessments: one for each decision and stage, for ever as it was first answered."""

from tradewatch.common.api import ApiError
from tradewatch.store import audit
from tradewatch.store.database import Connection, Pool
from tradewatch.trading.contracts import AssessmentAnswer, AssessmentRequest
from tradewatch.trading.risk.decision import Assessment

ACTOR = "risk-manager"

_FIND = """
SELECT product_id, side, decision, reason, detail, approved_quote_size, limit_price, risk_score
FROM risk_assessments WHERE decision_id = $1 AND stage = $2
"""
_INSERT = f"""
WITH added AS (
    INSERT INTO risk_assessments (decision_id, stage, trace_id, product_id, side, decision, reason, detail,
                                  approved_quote_size, limit_price, risk_score)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING RETURNING trace_id, decision_id
), told AS (
    {audit.INSERT} SELECT '{ACTOR}', $12, trace_id, decision_id, $13 FROM added
)
SELECT true FROM added
"""  # noqa: S608


async def find(connection: Connection | Pool, request: AssessmentRequest) -> AssessmentAnswer | None:
    """The stored answer to this request.

    Raises:
        ApiError: 409, the decision was about another product or side.
    """
    row = await connection.fetchrow(_FIND, request.decision_id, request.stage.value)
    if row is None:
        return None
    if (row["product_id"], row["side"]) != (request.signal.product_id, request.signal.side):
        stored = f"{row['side']} {row['product_id']}"
        raise ApiError(409, "conflict", f"decision_id: {request.decision_id} was assessed before, for {stored}")
    fields = {name: row[name] for name in AssessmentAnswer.model_fields}
    return AssessmentAnswer(**fields)


async def store(connection: Connection, request: AssessmentRequest, assessment: Assessment) -> bool:
    """Store the answer and its audit row, in the caller's transaction. False where another one was stored before."""
    answer = answer_of(assessment)
    added = await connection.fetchval(
        _INSERT,
        request.decision_id,
        request.stage.value,
        request.trace_id,
        request.signal.product_id,
        request.signal.side.value,
        answer.decision,
        answer.reason,
        answer.detail,
        answer.approved_quote_size,
        answer.limit_price,
        answer.risk_score,
        f"risk_{request.stage.value}_{answer.decision}",
        {"stage": request.stage.value, **answer.model_dump(exclude={"decision"}, exclude_none=True)},
    )
    return added is not None


def answer_of(assessment: Assessment) -> AssessmentAnswer:
    """What the caller is told."""
    return AssessmentAnswer(
        decision="approve" if assessment.approved else "deny",
        reason=assessment.reason.value,
        detail=assessment.detail,
        approved_quote_size=assessment.size,
        limit_price=assessment.limit_price,
        risk_score=assessment.risk_score,
    )
