"""The trading system's tables (docs/trading.md).

Revision ID: 0001
"""

from alembic import context, op

revision = "0001"
down_revision = None

# Where a row has a life, the services may update these tables; everywhere else they only add.
UPDATED = ("decisions", "orders", "positions", "trading_state", "models")
PRUNED = ("feature_rows",)

TABLES = """
CREATE TABLE signals (
    signal_id uuid PRIMARY KEY,
    trace_id text NOT NULL,
    product_id text NOT NULL,
    side text NOT NULL CHECK (side IN ('BUY', 'SELL')),
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    reference_price numeric NOT NULL CHECK (reference_price > 0),
    model_version text NOT NULL,
    rationale text NOT NULL,
    created timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    accepted timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE decisions (
    decision_id uuid PRIMARY KEY REFERENCES signals (signal_id),
    trace_id text NOT NULL,
    state text NOT NULL CHECK (state IN (
        'received', 'risk_before', 'llm', 'risk_after', 'executing',
        'filled', 'partially_filled', 'cancelled', 'rejected', 'denied_risk', 'denied_llm', 'expired', 'failed')),
    reason text NOT NULL DEFAULT '',
    version integer NOT NULL DEFAULT 1,
    quote_size numeric CHECK (quote_size > 0),
    limit_price numeric CHECK (limit_price > 0),
    received timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    finished timestamptz,
    CHECK (state <> 'executing' OR (quote_size IS NOT NULL AND limit_price IS NOT NULL))
);
CREATE INDEX decisions_open ON decisions (updated) WHERE finished IS NULL;
CREATE INDEX decisions_trace ON decisions (trace_id);

CREATE TABLE risk_assessments (
    decision_id uuid NOT NULL,
    stage text NOT NULL CHECK (stage IN ('before_llm', 'before_execution')),
    trace_id text NOT NULL,
    product_id text NOT NULL,
    side text NOT NULL CHECK (side IN ('BUY', 'SELL')),
    decision text NOT NULL CHECK (decision IN ('approve', 'deny')),
    reason text NOT NULL,
    detail text NOT NULL,
    approved_quote_size numeric,
    limit_price numeric,
    risk_score double precision NOT NULL,
    assessed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (decision_id, stage),
    CHECK (decision = 'deny' OR (approved_quote_size > 0 AND limit_price > 0))
);

CREATE TABLE llm_validations (
    decision_id uuid PRIMARY KEY,
    trace_id text NOT NULL,
    decision text NOT NULL CHECK (decision IN ('approve', 'deny')),
    reason text NOT NULL,
    reasons jsonb NOT NULL,
    model text NOT NULL,
    prompt_tokens integer NOT NULL DEFAULT 0,
    completion_tokens integer NOT NULL DEFAULT 0,
    duration_seconds double precision NOT NULL,
    validated timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX llm_validations_validated ON llm_validations (validated);

CREATE TABLE orders (
    client_order_id uuid PRIMARY KEY,
    decision_id uuid NOT NULL UNIQUE,
    trace_id text NOT NULL,
    product_id text NOT NULL,
    side text NOT NULL CHECK (side IN ('BUY', 'SELL')),
    order_type text NOT NULL,
    quote_size numeric NOT NULL CHECK (quote_size > 0),
    base_size numeric CHECK (base_size > 0),
    limit_price numeric CHECK (limit_price > 0),
    status text NOT NULL CHECK (status IN (
        'pending', 'submitted', 'open', 'partially_filled', 'unknown', 'filled', 'cancelled', 'rejected', 'expired')),
    reason text NOT NULL DEFAULT '',
    exchange_order_id text UNIQUE,
    filled_size numeric NOT NULL DEFAULT 0 CHECK (filled_size >= 0),
    average_price numeric,
    fees numeric NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT now(),
    submitted timestamptz,
    updated timestamptz NOT NULL DEFAULT now(),
    finished timestamptz
);
CREATE INDEX orders_open ON orders (updated) WHERE finished IS NULL;

CREATE TABLE fills (
    trade_id text PRIMARY KEY,
    client_order_id uuid NOT NULL REFERENCES orders (client_order_id),
    product_id text NOT NULL,
    side text NOT NULL CHECK (side IN ('BUY', 'SELL')),
    price numeric NOT NULL CHECK (price > 0),
    size numeric NOT NULL CHECK (size > 0),
    fee numeric NOT NULL,
    liquidity text NOT NULL,
    traded timestamptz NOT NULL,
    stored timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX fills_order ON fills (client_order_id);

CREATE TABLE positions (
    product_id text PRIMARY KEY,
    quantity numeric NOT NULL,
    average_price numeric NOT NULL,
    realized_pnl numeric NOT NULL,
    fees numeric NOT NULL,
    last_loss timestamptz,
    updated timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE equity (
    at timestamptz PRIMARY KEY,
    cash numeric NOT NULL,
    holdings numeric NOT NULL,
    total numeric NOT NULL
);

CREATE TABLE trading_state (
    id integer PRIMARY KEY CHECK (id = 1),
    state text NOT NULL CHECK (state IN ('ACTIVE', 'REDUCING', 'HALTED')),
    kill_switch boolean NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    changed timestamptz NOT NULL DEFAULT now(),
    cancelled timestamptz,
    measured_from timestamptz NOT NULL DEFAULT now(),
    CHECK (NOT kill_switch OR state = 'HALTED')
);
INSERT INTO trading_state (id, state, kill_switch, reason, actor) VALUES (1, 'ACTIVE', false, 'initial', 'migration');

CREATE TABLE models (
    version text PRIMARY KEY,
    trained timestamptz NOT NULL,
    artifact bytea NOT NULL,
    artifact_sha256 text NOT NULL,
    metrics jsonb NOT NULL,
    active boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX models_active ON models (active) WHERE active;

CREATE TABLE feature_rows (
    product_id text NOT NULL,
    time timestamptz NOT NULL,
    price numeric NOT NULL CHECK (price > 0),
    features jsonb NOT NULL,
    trace_id text NOT NULL,
    PRIMARY KEY (product_id, time)
);

CREATE TABLE audit_log (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    trace_id text,
    decision_id uuid,
    step integer,
    actor text NOT NULL,
    action text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    UNIQUE (decision_id, step),
    CHECK ((decision_id IS NULL) = (step IS NULL))
);
CREATE INDEX audit_log_trace ON audit_log (trace_id);
"""

# Services write side by side, so the step is given here, under a lock on the decision, and has no hole.
NUMBER_STEPS = """
CREATE FUNCTION audit_log_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.decision_id IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(NEW.decision_id::text, 0));
        SELECT coalesce(max(step), 0) + 1 INTO NEW.step FROM audit_log WHERE decision_id = NEW.decision_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_log_number BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_log_number();
"""

REFUSE_CHANGES = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
"""

# A final state stays: what came to its end never comes to another.
KEEP_FINAL = """
CREATE FUNCTION keep_final() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    old_state text := to_jsonb(OLD) ->> TG_ARGV[0];
    new_state text := to_jsonb(NEW) ->> TG_ARGV[0];
BEGIN
    IF OLD.finished IS NOT NULL AND (new_state <> old_state OR NEW.finished IS NULL) THEN
        RAISE EXCEPTION '% is final in %: not %', old_state, TG_TABLE_NAME, new_state
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER decisions_keep_final BEFORE UPDATE ON decisions FOR EACH ROW EXECUTE FUNCTION keep_final('state');
CREATE TRIGGER orders_keep_final BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION keep_final('status');
"""

# When a product last lost money, whoever wrote the fill: risk-manager waits a while after it.
NOTE_LOSS = """
CREATE FUNCTION note_loss() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.realized_pnl < (CASE WHEN TG_OP = 'UPDATE' THEN OLD.realized_pnl ELSE 0 END) THEN
        NEW.last_loss := now();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER positions_note_loss BEFORE INSERT OR UPDATE ON positions FOR EACH ROW EXECUTE FUNCTION note_loss();
"""


def upgrade() -> None:
    """Make everything and say what the services' role may do."""
    for statements in (TABLES, NUMBER_STEPS, REFUSE_CHANGES, KEEP_FINAL, NOTE_LOSS):
        _run(statements)
    for table in ("audit_log", "fills"):
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    role = context.config.attributes["service_role"]
    op.execute(f'GRANT USAGE ON SCHEMA public TO "{role}"')
    op.execute(f'GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO "{role}"')
    op.execute(f'REVOKE INSERT ON alembic_version, trading_state FROM "{role}"')
    op.execute(f'GRANT UPDATE ON {", ".join(UPDATED)} TO "{role}"')
    op.execute(f'GRANT DELETE ON {", ".join(PRUNED)} TO "{role}"')


def _run(statements: str) -> None:
    """asyncpg prepares what it runs, one statement at a time; function bodies are one statement each."""
    for statement in _split(statements):
        op.execute(statement)


def _split(statements: str) -> list[str]:
    parts, inside = [""], False
    for line in statements.strip().splitlines():
        parts[-1] += line + "\n"
        inside ^= line.count("$$") % 2 == 1
        if line.rstrip().endswith(";") and not inside:
            parts.append("")
    return [part for part in parts if part.strip()]
