"""People review decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table of reviews."""
    op.create_table(
        "decision_reviews",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("decision_id", sa.String(), sa.ForeignKey("decisions.id"), nullable=False),
        sa.Column("incident_id", sa.String(), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("should_be", sa.Integer()),
        sa.Column("note", sa.Text(), nullable=False, server_default=""),
    )
    op.create_index("reviews_by_decision", "decision_reviews", ["decision_id"])
