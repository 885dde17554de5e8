"""Retention: ended incidents that are old enough are removed from the store, and never anything live."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.errors import RetentionError
from watchkeeper.runtime.escalation_states import EscalationStatus
from watchkeeper.runtime.incidents import USED
from watchkeeper.runtime.jobs import JobStatus
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.limits import Limits
from watchkeeper.runtime.lookback import looked_back_at
from watchkeeper.runtime.steps import STEPS_AFTER
from watchkeeper.runtime.store import Store

BATCH = 20
"""Incidents that one transaction removes: others wait for no more than that."""

_IN_DOUBT = (EffectState.INTENDED.value, EffectState.ROLLING_BACK.value)
_CHECKPOINTS = (schema.checkpoint_writes, schema.checkpoints)
_CALLING = select(schema.escalations.c.incident_id).where(
    schema.escalations.c.status == EscalationStatus.WAITING.value
)


class Pruned(BaseModel):
    """What was removed.

    Attributes:
        incidents: Ended incidents that are gone.
        kept_in_doubt: Old ones that stay, since it is not known whether an effect of theirs took place.
        kept_for_limits: Old ones that stay, since limits may still count what was done.
        kept_for_calls: Old ones that stay, since people are still called about them.
        kept_live: Those that have not ended.
        kept_younger: Those that ended at the moment or after it.
        rows: Rows that are gone.
        rows_of: How many of them were of which table.
        reviews: Reviews of decisions among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    incidents: tuple[str, ...]
    kept_in_doubt: tuple[str, ...]
    kept_for_limits: tuple[str, ...]
    kept_for_calls: tuple[str, ...]
    kept_live: tuple[str, ...]
    kept_younger: tuple[str, ...]
    rows: int
    rows_of: dict[str, int]
    reviews: int


def prune_incidents(
    store: Store,
    audit: AuditLog,
    *,
    home: Path,
    before: datetime,
    by: str,
    limits: Limits,
    with_reviews: bool = False,
    now: Clock | None = None,
) -> Pruned:
    """Remove incidents that ended before a moment, with everything that the store holds of them.

    Their reports, and the audit log, stay. A crash leaves whole incidents, removed or not.

    Args:
        store: The store.
        audit: Where each batch is written before it is removed.
        home: Folder of the state.
        before: Incidents that ended at or after this moment stay, and those for which somebody is still
            being called; jobs that were done before it go, too.
        by: Who asks for it.
        limits: Those that hold: what they may still count stays, too.
        with_reviews: Remove reviewed decisions, too; they are what agents can be trained on.
        now: The time; by default the store's.

    Raises:
        RetentionError: If reviewed decisions would be removed unasked.
        AuditError: If the audit log cannot be written; what is not audited is not removed.
    """
    ended, doubtful = _old(store, before)
    counted = looked_back_at(store, limits, (now or store.now)())
    old = [name for name in ended if name not in counted]
    reviews = _count_reviews(store, old)
    if reviews and not with_reviews:
        raise RetentionError(
            f"{reviews} reviews of decisions would be removed: keep them first with `watchkeeper decisions "
            "export --reviewed FILE.jsonl`, and then say --with-reviews"
        )
    gone: list[str] = []
    rows: Counter[str] = Counter()
    for start in range(0, len(old), BATCH):
        batch = old[start : start + BATCH]
        with store.transaction() as connection:
            # What was taken up again meanwhile is not old any more.
            batch = [name for name in batch if name in _old_of(connection, before, batch)]
            rows.update(_remove(connection, batch))
            audit.append(
                "incidents-pruned", {"incidents": list(batch), "before": before.isoformat(), "by": by}
            )
        gone += batch
        for name in batch:
            for path in (home / "runs" / f"{name}.json", home / "locks" / f"{name}.lock"):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
    rows[schema.jobs.name] += _remove_jobs(store, before)
    left = _left(store, before)
    return Pruned(
        incidents=tuple(gone),
        kept_in_doubt=tuple(doubtful),
        kept_for_limits=tuple(name for name in ended if name in counted),
        kept_for_calls=tuple(left.calling),
        kept_live=tuple(left.live),
        kept_younger=tuple(left.younger),
        rows=rows.total(),
        rows_of={table: count for table, count in sorted(rows.items()) if count},
        reviews=reviews,
    )


class _Left(NamedTuple):
    """Incidents that were no candidates, by why."""

    live: list[str]
    younger: list[str]
    calling: list[str]


def _left(store: Store, before: datetime) -> _Left:
    table = schema.incidents
    left = _Left([], [], [])
    with store.reading() as connection:
        calling = set(connection.execute(_CALLING).scalars())
        query = select(table.c.id, table.c.status, table.c.ended_at).order_by(table.c.opened_at, table.c.id)
        for row in connection.execute(query):
            if row.status not in schema.ENDED:
                left.live.append(row.id)
            elif row.ended_at is None or row.ended_at >= before:
                left.younger.append(row.id)
            elif row.id in calling:
                left.calling.append(row.id)
    return left


def _old(store: Store, before: datetime) -> tuple[list[str], list[str]]:
    """Incidents that may go, and those that would but for an effect in doubt."""
    effects = schema.effects
    with store.reading() as connection:
        ended = _old_of(connection, before, None, in_doubt=True)
        doubtful = set(
            connection.execute(select(effects.c.incident_id).where(effects.c.state.in_(_IN_DOUBT))).scalars()
        )
    return [i for i in ended if i not in doubtful], [i for i in ended if i in doubtful]


def _old_of(
    connection: Connection, before: datetime, among: Sequence[str] | None, *, in_doubt: bool = False
) -> list[str]:
    table, effects = schema.incidents, schema.effects
    query = (
        select(table.c.id)
        .where(table.c.status.in_(schema.ENDED), table.c.ended_at < before)
        .order_by(table.c.ended_at, table.c.id)
    )
    if among is not None:
        query = query.where(table.c.id.in_(among))
    query = query.where(table.c.id.not_in(_CALLING))
    if not in_doubt:
        doubtful = select(effects.c.incident_id).where(effects.c.state.in_(_IN_DOUBT))
        query = query.where(table.c.id.not_in(doubtful))
    return list(connection.execute(query).scalars())


def _count_reviews(store: Store, incidents: Sequence[str]) -> int:
    table = schema.decision_reviews
    with store.reading() as connection:
        rows = connection.execute(
            select(table.c.incident_id, func.count()).group_by(table.c.incident_id)
        ).all()
    wanted = set(incidents)
    return sum(count for incident_id, count in rows if incident_id in wanted)


def _remove(connection: Connection, incidents: Sequence[str]) -> Counter[str]:
    """Remove every row that belongs to these incidents, what depends on others first; counts by table."""
    rows: Counter[str] = Counter()
    for table in reversed(schema.metadata.sorted_tables):
        condition = _belonging(table, incidents)
        if condition is not None:
            rows[table.name] += connection.execute(delete(table).where(condition)).rowcount
    for table in _CHECKPOINTS:
        gone = connection.execute(delete(table).where(table.c.thread_id.in_(incidents))).rowcount
        rows[table.name] += gone
    held = [f"incident:{name}" for name in incidents]
    connection.execute(delete(schema.leases).where(schema.leases.c.name.in_(held)))
    # A training job only names the incident that its last failure opened, and outlives it.
    jobs = schema.training_jobs
    connection.execute(update(jobs).where(jobs.c.incident_id.in_(incidents)).values(incident_id=""))
    # Folders, training jobs and moves of aliases that are not pruned go by these names.
    for name in incidents:
        connection.execute(schema.meta.insert().values(name=f"{USED}{name}", value=""))
    left = [f"{STEPS_AFTER}{name}" for name in incidents]
    connection.execute(delete(schema.meta).where(schema.meta.c.name.in_(left)))
    return rows


def _remove_jobs(store: Store, before: datetime) -> int:
    """Remove jobs that ended well; those that were put aside wait for a person."""
    table = schema.jobs
    ended = (JobStatus.DONE.value, JobStatus.CANCELLED.value)
    with store.transaction() as connection:
        removed: int = connection.execute(
            delete(table).where(table.c.status.in_(ended), table.c.ended_at < before)
        ).rowcount
        return removed


def _belonging(table: Table, incidents: Sequence[str]) -> ColumnElement[bool] | None:
    """The rows of a table that belong to incidents, by itself or by what it refers to; None for others."""
    if table is schema.incidents:
        return table.c.id.in_(incidents)
    if "incident_id" in table.c and table.c.incident_id.foreign_keys:
        return table.c.incident_id.in_(incidents)
    ways = []
    for key in table.foreign_keys:
        condition = _belonging(key.column.table, incidents)
        if condition is not None:
            ways.append(key.parent.in_(select(key.column).where(condition)))
    return or_(*ways) if ways else None
