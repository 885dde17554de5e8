"""Jobs, leases and halts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make their tables."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String()),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("due_at", sa.String(27), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String()),
        sa.Column("lease_until", sa.String(27)),
        sa.Column("error", sa.Text(), nullable=False, server_default=""),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("ended_at", sa.String(27)),
    )
    op.create_index("jobs_by_due", "jobs", ["status", "due_at"])
    live = sa.text("status IN ('queued', 'running')")
    op.create_index(
        "one_live_job_a_key", "jobs", ["key"], unique=True, sqlite_where=live, postgresql_where=live
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("holder", sa.String()),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.String(27)),
    )
    op.create_table(
        "halts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("lifted_by", sa.String()),
        sa.Column("lifted_at", sa.String(27)),
    )
