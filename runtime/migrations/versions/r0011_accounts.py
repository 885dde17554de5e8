"""Who asks and who says yes are kept with their system accounts, under which they may have come before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns."""
    op.add_column(
        "approvals", sa.Column("requester_accounts", sa.Text(), nullable=False, server_default="[]")
    )
    op.add_column("approval_votes", sa.Column("accounts", sa.Text(), nullable=False, server_default="[]"))
