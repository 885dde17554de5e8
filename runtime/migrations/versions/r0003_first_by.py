"""An approval of the top tier says who was the first of two."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("approvals", sa.Column("first_by", sa.String()))
