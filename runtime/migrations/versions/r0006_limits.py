"""Effects say what they did where, so that they can be counted; incidents say how long was worked on them."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns, tell of each effect what its step says, and make what counting needs."""
    for name in ("action", "host", "service"):
        op.add_column("effects", sa.Column(name, sa.String(), nullable=False, server_default=""))
    connection = op.get_bind()
    done = connection.execute(
        sa.text("SELECT effects.key, steps.body FROM effects JOIN steps ON steps.id = effects.step_id")
    ).all()
    for key, body in done:
        step = json.loads(body)
        connection.execute(
            sa.text("UPDATE effects SET action = :action, host = :host, service = :service WHERE key = :key"),
            {
                "key": key,
                "action": str(step.get("action", "")),
                "host": str(step.get("host", "")),
                "service": str(step.get("arguments", {}).get("service") or ""),
            },
        )
    op.add_column("incidents", sa.Column("worked_seconds", sa.Float(), nullable=False, server_default="0"))
    op.create_table(
        "breaker_resets",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("service", sa.String(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    op.create_index("breaker_resets_by_target", "breaker_resets", ["action", "host", "service", "at"])
    op.create_index("effects_by_incident", "effects", ["incident_id"])
    op.create_index("effects_by_time", "effects", ["intended_at"])
    op.create_index("effects_by_target", "effects", ["action", "host", "service", "intended_at"])
    op.create_index("incidents_by_fingerprint", "incidents", ["fingerprint", "opened_at"])
    op.create_index("approvals_by_incident", "approvals", ["incident_id", "requested_at"])
    op.create_index("approvals_by_step", "approvals", ["step_id"])
