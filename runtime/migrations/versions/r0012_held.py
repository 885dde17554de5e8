"""Which GPUs a training job holds, and on which cluster something of it may run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the columns."""
    for name in ("gpus", "cluster"):
        op.add_column("training_jobs", sa.Column(name, sa.String(), nullable=False, server_default=""))
