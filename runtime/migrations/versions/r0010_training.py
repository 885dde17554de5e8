"""Training jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the table of training jobs."""
    op.create_table(
        "training_jobs",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), unique=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("how", sa.String(), nullable=False, server_default=""),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("submitted_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("started_at", sa.String(27)),
        sa.Column("ended_at", sa.String(27)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False, server_default=""),
        sa.Column("unattended", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("incident_id", sa.String(), nullable=False, server_default=""),
    )
    op.create_index("training_jobs_by_status", "training_jobs", ["status", "created_at"])
