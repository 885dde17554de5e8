"""Every yes is a row of its own, any number of people may have to say it, and an answer may edit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table of votes and move the first yes of two into it."""
    op.create_table(
        "approval_votes",
        sa.Column("approval_id", sa.String(), sa.ForeignKey("approvals.id"), primary_key=True),
        sa.Column("person", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.UniqueConstraint("approval_id", "number"),
    )
    op.execute(
        "INSERT INTO approval_votes (approval_id, person, number, name, at)"
        " SELECT id, lower(trim(first_by)), 1, first_by, requested_at FROM approvals"
        " WHERE first_by IS NOT NULL"
    )
    op.drop_column("approvals", "first_by")
    op.add_column("approvals", sa.Column("quorum", sa.Integer(), nullable=False, server_default="1"))
    op.execute("UPDATE approvals SET quorum = 2 WHERE tier >= 3 AND kind = 'action'")
    op.add_column("approvals", sa.Column("view", sa.Text(), nullable=False, server_default=""))
    op.add_column("approvals", sa.Column("edited", sa.Text()))
