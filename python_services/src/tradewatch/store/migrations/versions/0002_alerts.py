"""The history of alerts, and to whom each was told.

Revision ID: 0002
"""

from alembic import context, op

revision = "0002"
down_revision = "0001"

# `alerts` has a row for each change of state that Alertmanager told; what it repeats is the same row.
TABLES = (
    """
CREATE TABLE alerts (
    alert_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint text NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{16}$'),
    starts_at timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('firing', 'resolved')),
    ends_at timestamptz,
    name text NOT NULL,
    team text NOT NULL,
    severity text NOT NULL,
    labels jsonb NOT NULL,
    annotations jsonb NOT NULL,
    received timestamptz NOT NULL DEFAULT now(),
    acknowledged timestamptz,
    acknowledged_by text,
    escalated timestamptz,
    UNIQUE (fingerprint, starts_at, status),
    CHECK ((status = 'resolved') = (ends_at IS NOT NULL)),
    CHECK ((acknowledged IS NULL) = (acknowledged_by IS NULL))
)
""",
    """
CREATE INDEX alerts_unacknowledged ON alerts (severity, received)
WHERE status = 'firing' AND acknowledged IS NULL AND escalated IS NULL
""",
    "CREATE INDEX alerts_received ON alerts (received)",
    """
CREATE TABLE alert_notifications (
    notification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id bigint NOT NULL REFERENCES alerts (alert_id),
    fingerprint text NOT NULL,
    receiver text NOT NULL,
    reason text NOT NULL CHECK (reason IN ('route', 'escalation')),
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'given_up')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt timestamptz NOT NULL DEFAULT now(),
    created timestamptz NOT NULL DEFAULT now(),
    finished timestamptz,
    UNIQUE (alert_id, receiver, reason),
    CHECK ((status = 'pending') = (finished IS NULL))
)
""",
    """
CREATE INDEX alert_notifications_pending ON alert_notifications (receiver, fingerprint, notification_id)
WHERE status = 'pending'
""",
)


def upgrade() -> None:
    """Make both tables; the services' role adds rows and carries them through their life, and deletes none."""
    for statement in TABLES:
        op.execute(statement)
    role = context.config.attributes["service_role"]
    op.execute(f'GRANT SELECT, INSERT, UPDATE ON alerts, alert_notifications TO "{role}"')
