"""`tradewatch trace ID`: the whole story of one decision, by its id or by its trace id."""

import json
import re
from argparse import Namespace
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from rich.table import Table
from rich.text import Text

from tradewatch.cli.reading import EXIT_BAD_CONFIGURATION, EXIT_NOT_FOUND, EXIT_OK, console, fail, plain, with_store
from tradewatch.store.database import Pool

_TRACE_ID = re.compile(r"[0-9a-f]{32}")

# Each gives `at`, `what` and the rest as details, for the decisions of $1 or the trace $2.
_STEPS = {
    "signal": """
SELECT created AS at, 'signal of ' || model_version AS what, product_id, side, confidence, reference_price, rationale,
       expires
FROM signals WHERE signal_id = ANY($1) OR trace_id = $2""",
    "decision": """
SELECT received AS at, 'taken up' AS what, state, reason, finished FROM decisions
WHERE decision_id = ANY($1) OR trace_id = $2""",
    "risk": """
SELECT assessed AS at, stage || ': ' || decision AS what, reason, detail, approved_quote_size, limit_price, risk_score
FROM risk_assessments WHERE decision_id = ANY($1) OR trace_id = $2""",
    "llm": """
SELECT validated AS at, decision AS what, reason, reasons, model, duration_seconds,
       prompt_tokens + completion_tokens AS tokens
FROM llm_validations WHERE decision_id = ANY($1) OR trace_id = $2""",
    "order": """
SELECT created AS at, order_type || ': ' || status AS what, product_id, side, quote_size, limit_price, filled_size,
       average_price, fees, reason, client_order_id, exchange_order_id, finished
FROM orders WHERE decision_id = ANY($1) OR trace_id = $2""",
    "fill": """
SELECT f.traded AS at, f.liquidity AS what, f.side, f.size, f.price, f.fee, f.trade_id
FROM fills AS f JOIN orders AS o USING (client_order_id) WHERE o.decision_id = ANY($1) OR o.trace_id = $2""",
    "audit": """
SELECT at, action || ' by ' || actor AS what, step, details FROM audit_log
WHERE decision_id = ANY($1) OR trace_id = $2""",
}
_DECISIONS = """
SELECT signal_id AS id, trace_id FROM signals WHERE signal_id = $1 OR trace_id = $2
UNION SELECT decision_id, trace_id FROM risk_assessments WHERE decision_id = $1 OR trace_id = $2
UNION SELECT decision_id, trace_id FROM audit_log
      WHERE decision_id IS NOT NULL AND (decision_id = $1 OR trace_id = $2)
"""


@dataclass(frozen=True)
class _Step:
    at: datetime
    source: str
    what: str
    details: dict[str, Any]


def run(options: Namespace) -> int:
    """The command. Returns the exit code: 3 where nothing is known of the id."""
    if _parse(options.id) is None:
        problem = f"{options.id[:60]!r} is neither a decision's id (UUID) nor a trace id (32 hexadecimal digits)"
        return fail("trace", problem, EXIT_BAD_CONFIGURATION)
    return with_store("trace", options, _trace)


def _parse(text: str) -> tuple[UUID | None, str | None] | None:
    """32 digits without dashes may be either."""
    lowered = text.strip().lower()
    trace_id = lowered if _TRACE_ID.fullmatch(lowered) else None
    try:
        return UUID(lowered), trace_id
    except ValueError:
        return None


async def _trace(pool: Pool, options: Namespace) -> int:
    parsed = _parse(options.id)
    found = await pool.fetch(_DECISIONS, *(parsed or (None, None)))
    decisions = sorted({row["id"] for row in found})
    steps = await _steps(pool, decisions, parsed[1] if parsed else None)
    if not steps:
        return fail("trace", f"nothing is known of {options.id}", EXIT_NOT_FOUND)
    traces = sorted({row["trace_id"] for row in found if row["trace_id"]})
    if options.json:
        story = {
            "decision_ids": [str(decision) for decision in decisions],
            "trace_ids": traces,
            "steps": [
                {"at": plain(step.at), "source": step.source, "what": step.what, "details": step.details}
                for step in steps
            ],
        }
        print(json.dumps(story, default=plain, indent=2))
        return EXIT_OK
    title = f"Decision {', '.join(map(str, decisions)) or '-'}, trace {', '.join(traces) or '-'}"
    console().print(_table(title, steps), soft_wrap=False)
    return EXIT_OK


async def _steps(pool: Pool, decisions: list[UUID], trace_id: str | None) -> list[_Step]:
    steps = []
    for source, query in _STEPS.items():
        for row in await pool.fetch(query, decisions, trace_id):
            details = {name: value for name, value in row.items() if name not in ("at", "what") and value is not None}
            steps.append(_Step(row["at"], source, row["what"], details))
    order = list(_STEPS)
    return sorted(steps, key=lambda step: (step.at, order.index(step.source), step.details.get("step", 0)))


def _table(title: str, steps: list[_Step]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", show_lines=True)
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("after, s", justify="right", no_wrap=True)
    for column in ("source", "what", "details"):
        table.add_column(column, overflow="fold")
    for step in steps:
        after = f"{(step.at - steps[0].at).total_seconds():.3f}"
        # As text: a rationale or a reason is not markup.
        table.add_row(
            step.at.strftime("%H:%M:%S.%f")[:-3], after, step.source, Text(step.what), Text(plain(step.details))
        )
    return table
