"""Tables of the store."""

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
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect

SCHEMA_VERSION = 7
"""Raised with every change of a table."""

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: ("ALTER TABLE approvals ADD COLUMN solo BOOLEAN NOT NULL DEFAULT 0",),
    2: ("ALTER TABLE approvals ADD COLUMN first_by VARCHAR",),
    3: (
        """CREATE TABLE jobs (
            id INTEGER NOT NULL, kind VARCHAR NOT NULL, "key" VARCHAR, status VARCHAR NOT NULL,
            due_at VARCHAR(27) NOT NULL, body TEXT NOT NULL, attempts INTEGER NOT NULL,
            fence INTEGER NOT NULL, worker VARCHAR, lease_until VARCHAR(27), error TEXT DEFAULT '' NOT NULL,
            created_at VARCHAR(27) NOT NULL, ended_at VARCHAR(27), PRIMARY KEY (id))""",
        "CREATE INDEX jobs_by_due ON jobs (status, due_at)",
        "CREATE UNIQUE INDEX one_live_job_a_key ON jobs (\"key\") WHERE status IN ('queued', 'running')",
        """CREATE TABLE leases (
            name VARCHAR NOT NULL, holder VARCHAR, fence INTEGER NOT NULL, expires_at VARCHAR(27),
            PRIMARY KEY (name))""",
        """CREATE TABLE halts (
            id INTEGER NOT NULL, "by" VARCHAR NOT NULL, at VARCHAR(27) NOT NULL, reason TEXT NOT NULL,
            lifted_by VARCHAR, lifted_at VARCHAR(27), PRIMARY KEY (id))""",
    ),
    4: (
        (
            "CREATE TABLE approval_votes (approval_id VARCHAR NOT NULL REFERENCES approvals (id), "
            "person VARCHAR NOT NULL, number INTEGER NOT NULL, name VARCHAR NOT NULL, "
            "at VARCHAR(27) NOT NULL, reason TEXT DEFAULT '' NOT NULL, "
            "PRIMARY KEY (approval_id, person), UNIQUE (approval_id, number))"
        ),
        (
            "INSERT INTO approval_votes (approval_id, person, number, name, at) SELECT id, "
            "lower(trim(first_by)), 1, first_by, requested_at FROM approvals WHERE first_by IS NOT NULL"
        ),
        "ALTER TABLE approvals DROP COLUMN first_by",
        "ALTER TABLE approvals ADD COLUMN quorum INTEGER DEFAULT '1' NOT NULL",
        "UPDATE approvals SET quorum = 2 WHERE tier >= 3 AND kind = 'action'",
        "ALTER TABLE approvals ADD COLUMN view TEXT DEFAULT '' NOT NULL",
        "ALTER TABLE approvals ADD COLUMN edited TEXT",
    ),
    5: (
        "ALTER TABLE effects ADD COLUMN action VARCHAR NOT NULL DEFAULT ''",
        "ALTER TABLE effects ADD COLUMN host VARCHAR NOT NULL DEFAULT ''",
        "ALTER TABLE effects ADD COLUMN service VARCHAR NOT NULL DEFAULT ''",
        (
            "UPDATE effects SET (action, host, service) = (SELECT json_extract(body, '$.action'), "
            "json_extract(body, '$.host'), coalesce(json_extract(body, '$.arguments.service'), '') "
            "FROM steps WHERE steps.id = effects.step_id)"
        ),
        "ALTER TABLE incidents ADD COLUMN worked_seconds FLOAT NOT NULL DEFAULT 0",
        "CREATE INDEX effects_by_incident ON effects (incident_id)",
        "CREATE INDEX effects_by_time ON effects (intended_at)",
        "CREATE INDEX effects_by_target ON effects (action, host, service, intended_at)",
        "CREATE INDEX incidents_by_fingerprint ON incidents (fingerprint, opened_at)",
        "CREATE INDEX approvals_by_incident ON approvals (incident_id, requested_at)",
        "CREATE INDEX approvals_by_step ON approvals (step_id)",
        (
            "CREATE TABLE breaker_resets (id INTEGER NOT NULL PRIMARY KEY, action VARCHAR NOT NULL, "
            "host VARCHAR NOT NULL, service VARCHAR NOT NULL, at VARCHAR(27) NOT NULL, "
            "person VARCHAR NOT NULL, reason TEXT NOT NULL)"
        ),
        "CREATE INDEX breaker_resets_by_target ON breaker_resets (action, host, service, at)",
    ),
    6: (
        (
            "CREATE TABLE decision_reviews (id INTEGER NOT NULL PRIMARY KEY, decision_id VARCHAR NOT NULL "
            "REFERENCES decisions (id), incident_id VARCHAR NOT NULL REFERENCES incidents (id), "
            'at VARCHAR(27) NOT NULL, "by" VARCHAR NOT NULL, verdict VARCHAR NOT NULL, should_be INTEGER, '
            "note TEXT DEFAULT '' NOT NULL)"
        ),
        "CREATE INDEX reviews_by_decision ON decision_reviews (decision_id)",
    ),
}
"""By the version that a database has: the statements that make it one of the next version."""


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
