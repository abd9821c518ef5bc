"""When an alert was told last: Alertmanager tells of the end of no alert that is silenced or inhibited.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"

# The index is of those alone that are still told, few of a history that is kept for ever. What a repeat changes is not
# in it, so that a repeat writes no index.
STATEMENTS = (
    """
ALTER TABLE alerts
    ADD COLUMN seen_since timestamptz,
    ADD COLUMN last_seen timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN unseen timestamptz,
    ADD CHECK (unseen IS NULL OR status = 'firing')
""",
    "UPDATE alerts SET seen_since = received",
    "ALTER TABLE alerts ALTER COLUMN seen_since SET DEFAULT now(), ALTER COLUMN seen_since SET NOT NULL",
    "DROP INDEX alerts_unacknowledged",
    "CREATE INDEX alerts_seen ON alerts (severity) WHERE status = 'firing' AND unseen IS NULL",
)


def upgrade() -> None:
    """What was told before counts as seen now: what does not come again is marked by alert-notifier in its time."""
    for statement in STATEMENTS:
        op.execute(statement)
