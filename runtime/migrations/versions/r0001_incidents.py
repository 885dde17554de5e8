"""Incidents, decisions, steps, approvals and effects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "watchkeeper_meta",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), nullable=False),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("alert", sa.Text(), nullable=False),
        sa.Column("alert_count", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.String(27), nullable=False),
        sa.Column("updated_at", sa.String(27), nullable=False),
        sa.Column("ended_at", sa.String(27)),
        sa.Column("summary", sa.Text(), nullable=False, server_default=""),
    )
    op.create_index("incidents_by_time", "incidents", ["opened_at"])
    live = sa.text("status NOT IN ('resolved', 'escalated', 'closed')")
    op.create_index(
        "one_live_incident_a_fingerprint",
        "incidents",
        ["fingerprint"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_table(
        "events",
        sa.Column("incident_id", sa.String(), sa.ForeignKey("incidents.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("call_key", sa.String()),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.UniqueConstraint("incident_id", "call_key"),
    )
    op.create_table(
        "evidence",
        sa.Column("incident_id", sa.String(), sa.ForeignKey("incidents.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("call_key", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.UniqueConstraint("incident_id", "call_key"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("incident_id", sa.String(), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("call_key", sa.String()),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.UniqueConstraint("incident_id", "number"),
        sa.UniqueConstraint("incident_id", "call_key"),
    )
    op.create_table(
        "steps",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("incident_id", sa.String(), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("call_key", sa.String()),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("updated_at", sa.String(27), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.UniqueConstraint("incident_id", "number"),
        sa.UniqueConstraint("incident_id", "call_key"),
    )
    op.create_table(
        "approvals",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("incident_id", sa.String(), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("step_id", sa.String(), sa.ForeignKey("steps.id"), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("diff", sa.Text(), nullable=False),
        sa.Column("requester", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("requested_at", sa.String(27), nullable=False),
        sa.Column("expires_at", sa.String(27), nullable=False),
        sa.Column("ttl_seconds", sa.Integer(), nullable=False),
        sa.Column("answer", sa.String()),
        sa.Column("decided_by", sa.String()),
        sa.Column("decided_at", sa.String(27)),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("self_approved", sa.Boolean(), nullable=False),
        sa.Column("use_by", sa.String(27)),
        sa.Column("used_at", sa.String(27)),
    )
    op.create_index("approvals_by_status", "approvals", ["status", "expires_at"])
    op.create_table(
        "effects",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("incident_id", sa.String(), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("step_id", sa.String(), sa.ForeignKey("steps.id"), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("approval_id", sa.String(), sa.ForeignKey("approvals.id"), unique=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("intended_at", sa.String(27), nullable=False),
        sa.Column("completed_at", sa.String(27)),
        sa.Column("settled_by", sa.String()),
        sa.Column("outcome", sa.Text()),
        sa.Column("rollback_intended_at", sa.String(27)),
        sa.Column("rollback_completed_at", sa.String(27)),
        sa.Column("rollback_attempts", sa.Integer(), nullable=False),
        sa.Column("rollback_outcome", sa.Text()),
    )
    op.create_index("effects_by_state", "effects", ["state"])
