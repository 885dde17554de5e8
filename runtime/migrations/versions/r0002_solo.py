"""An approval says whether its requester worked alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("approvals", sa.Column("solo", sa.Boolean(), nullable=False, server_default="0"))
