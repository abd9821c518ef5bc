"""Which models were accepted, and the right to delete old ones.

Revision ID: 0003
"""

from alembic import context, op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Of the models stored before, only the active one is known to have been accepted."""
    op.execute("ALTER TABLE models ADD COLUMN accepted boolean NOT NULL DEFAULT false")
    op.execute("UPDATE models SET accepted = active")
    role = context.config.attributes["service_role"]
    op.execute(f'GRANT DELETE ON models TO "{role}"')
