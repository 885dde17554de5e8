"""Tables of the store.

A change of the tables is made in two places: here, for databases that are new, and in one further file of
``runtime/migrations/versions/``, for those that are there (Alembic; a test compares the two on each
database). The file is ``rNNNN_what_changes.py`` with the next free number; it sets ``revision = "NNNN"``
and ``down_revision`` to the one before, and its ``upgrade()`` says the change with ``alembic.op``, spelled
out in its own words, since tables go on changing here:

    def upgrade() -> None:
        op.create_table("jobs", sa.Column("id", sa.String(), primary_key=True), ...)
        op.create_index("jobs_by_state", "jobs", ["state"])

Where two changes took the same number, the later one is renumbered (file, ``revision``,
``down_revision``). A column of a table that SQLite cannot alter goes through ``op.batch_alter_table``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect


class UtcTime(TypeDecorator[datetime]):
    """A moment as fixed-width UTC text, which sorts and compares as time does."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write a moment.

        Raises:
            ValueError: If it has no time zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read a moment."""
        return None if value is None else datetime.fromisoformat(value)


metadata = MetaData()

meta = Table(
    "watchkeeper_meta",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

ENDED = ("resolved", "escalated", "closed")
"""Statuses in which Watchkeeper has no more work to do on an incident."""

incidents = Table(
    "incidents",
    metadata,
    Column("id", String, primary_key=True),
    Column("fingerprint", String, nullable=False),
    Column("status", String, nullable=False),
    Column("severity", String, nullable=False),
    Column("alert", Text, nullable=False),
    Column("alert_count", Integer, nullable=False),
    Column("opened_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("summary", Text, nullable=False, server_default=""),
    Column("worked_seconds", Float, nullable=False, server_default="0"),
    Index("incidents_by_time", "opened_at"),
    Index("incidents_by_fingerprint", "fingerprint", "opened_at"),
    Index(
        "one_live_incident_a_fingerprint",
        "fingerprint",
        unique=True,
        sqlite_where=text("status NOT IN ('resolved', 'escalated', 'closed')"),
        postgresql_where=text("status NOT IN ('resolved', 'escalated', 'closed')"),
    ),
)


def _incident() -> Column[str]:
    return Column("incident_id", String, ForeignKey("incidents.id"), nullable=False)


events = Table(
    "events",
    metadata,
    Column("incident_id", String, ForeignKey("incidents.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("call_key", String),
    Column("kind", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("incident_id", "call_key"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("incident_id", String, ForeignKey("incidents.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("call_key", String, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("incident_id", "call_key"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String, primary_key=True),
    _incident(),
    Column("number", Integer, nullable=False),
    Column("call_key", String),
    Column("role", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("incident_id", "number"),
    UniqueConstraint("incident_id", "call_key"),
)

decision_reviews = Table(
    "decision_reviews",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("decision_id", String, ForeignKey("decisions.id"), nullable=False),
    _incident(),
    Column("at", UtcTime, nullable=False),
    Column("by", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("should_be", Integer),
    Column("note", Text, nullable=False, server_default=""),
    Index("reviews_by_decision", "decision_id"),
)
"""What people say of decisions afterwards: rows are added, and none is ever changed."""

steps = Table(
    "steps",
    metadata,
    Column("id", String, primary_key=True),
    _incident(),
    Column("number", Integer, nullable=False),
    Column("call_key", String),
    Column("status", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("incident_id", "number"),
    UniqueConstraint("incident_id", "call_key"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", String, primary_key=True),
    _incident(),
    Column("step_id", String, ForeignKey("steps.id"), nullable=False),
    Column("kind", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("tier", Integer, nullable=False),
    Column("quorum", Integer, nullable=False, server_default="1"),
    Column("summary", Text, nullable=False),
    Column("diff", Text, nullable=False),
    Column("view", Text, nullable=False, server_default=""),
    Column("requester", String, nullable=False),
    Column("solo", Boolean, nullable=False, server_default="0"),
    Column("status", String, nullable=False),
    Column("requested_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("ttl_seconds", Integer, nullable=False),
    Column("answer", String),
    Column("decided_by", String),
    Column("decided_at", UtcTime),
    Column("reason", Text, nullable=False, server_default=""),
    Column("edited", Text),
    Column("self_approved", Boolean, nullable=False, default=False),
    Column("use_by", UtcTime),
    Column("used_at", UtcTime),
    Column("requester_accounts", Text, nullable=False, server_default="[]"),
    Index("approvals_by_status", "status", "expires_at"),
    Index("approvals_by_incident", "incident_id", "requested_at"),
    Index("approvals_by_step", "step_id"),
)

approval_votes = Table(
    "approval_votes",
    metadata,
    Column("approval_id", String, ForeignKey("approvals.id"), primary_key=True),
    Column("person", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("accounts", Text, nullable=False, server_default="[]"),
    UniqueConstraint("approval_id", "number"),
)
"""Who said yes to a question; a person is one person, however the name is written."""

effects = Table(
    "effects",
    metadata,
    Column("key", String, primary_key=True),
    _incident(),
    Column("step_id", String, ForeignKey("steps.id"), nullable=False),
    Column("digest", String, nullable=False),
    Column("approval_id", String, ForeignKey("approvals.id"), unique=True),
    Column("state", String, nullable=False),
    Column("intended_at", UtcTime, nullable=False),
    Column("completed_at", UtcTime),
    Column("settled_by", String),
    Column("outcome", Text),
    Column("rollback_intended_at", UtcTime),
    Column("rollback_completed_at", UtcTime),
    Column("rollback_attempts", Integer, nullable=False, default=0),
    Column("rollback_outcome", Text),
    Column("action", String, nullable=False, server_default=""),
    Column("host", String, nullable=False, server_default=""),
    Column("service", String, nullable=False, server_default=""),
    Index("effects_by_state", "state"),
    Index("effects_by_incident", "incident_id"),
    Index("effects_by_time", "intended_at"),
    Index("effects_by_target", "action", "host", "service", "intended_at"),
)

breaker_resets = Table(
    "breaker_resets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("action", String, nullable=False),
    Column("host", String, nullable=False),
    Column("service", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("person", String, nullable=False),
    Column("reason", Text, nullable=False),
    Index("breaker_resets_by_target", "action", "host", "service", "at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("key", String),
    Column("status", String, nullable=False),
    Column("due_at", UtcTime, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("worker", String),
    Column("lease_until", UtcTime),
    Column("error", Text, nullable=False, server_default=""),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Index("jobs_by_due", "status", "due_at"),
    Index(
        "one_live_job_a_key",
        "key",
        unique=True,
        sqlite_where=text("status IN ('queued', 'running')"),
        postgresql_where=text("status IN ('queued', 'running')"),
    ),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String),
    Column("fence", Integer, nullable=False),
    Column("expires_at", UtcTime),
)

halts = Table(
    "halts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("by", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("lifted_by", String),
    Column("lifted_at", UtcTime),
)


def _ordered() -> String:
    return String().with_variant(String(collation="C"), "postgresql")


checkpoints = Table(
    "checkpoints",
    metadata,
    Column("thread_id", String, primary_key=True),
    Column("checkpoint_ns", String, primary_key=True),
    Column("checkpoint_id", _ordered(), primary_key=True),
    Column("parent_checkpoint_id", String),
    Column("type", String, nullable=False),
    Column("checkpoint", LargeBinary, nullable=False),
    Column("metadata", Text, nullable=False),
)
"""Graph states, by thread (an incident); ids grow with time."""

checkpoint_writes = Table(
    "checkpoint_writes",
    metadata,
    Column("thread_id", String, primary_key=True),
    Column("checkpoint_ns", String, primary_key=True),
    Column("checkpoint_id", _ordered(), primary_key=True),
    Column("task_id", String, primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("task_path", String, nullable=False, server_default=""),
    Column("channel", String, nullable=False),
    Column("type", String, nullable=False),
    Column("value", LargeBinary),
)

escalations = Table(
    "escalations",
    metadata,
    Column("id", String, primary_key=True),
    _incident(),
    Column("key", String, nullable=False, unique=True),
    Column("status", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("body", Text, nullable=False),
    Index("escalations_by_status", "status", "started_at"),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", String, primary_key=True),
    Column("escalation_id", String, ForeignKey("escalations.id"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("recipient", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("status", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("leased_until", UtcTime),
    Column("updated_at", UtcTime, nullable=False),
    Column("detail", Text, nullable=False),
    Column("message", Text, nullable=False),
    UniqueConstraint("escalation_id", "step", "recipient", "channel"),
)

training_jobs = Table(
    "training_jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("key", String, unique=True),
    Column("name", String, nullable=False),
    Column("status", String, nullable=False),
    Column("how", String, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("spec", Text, nullable=False),
    Column("submitted_by", String, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("attempts", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("machine", String, nullable=False, server_default=""),
    Column("unattended", Integer, nullable=False, server_default="0"),
    Column("incident_id", String, nullable=False, server_default=""),
    Column("gpus", String, nullable=False, server_default=""),
    Column("cluster", String, nullable=False, server_default=""),
    Index("training_jobs_by_status", "status", "created_at"),
)
"""What people and agents had trained; the work itself is a job of the queue, the files are in its folder."""
