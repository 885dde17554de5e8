"""Records that cannot be: what no run and no crash leaves in a store, and what waits for people."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, exists, func, inspect, select, text

from watchkeeper.runtime import schema
from watchkeeper.runtime.approvals import ApprovalKind, ApprovalStatus
from watchkeeper.runtime.escalation_states import Escalation, EscalationStatus
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.jobs import JobStatus
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.steps import StepStatus
from watchkeeper.runtime.store import Store

_AHEAD = timedelta(minutes=5)
_BEGUN = (
    StepStatus.APPLIED.value,
    StepStatus.VERIFIED.value,
    StepStatus.ROLLED_BACK.value,
    StepStatus.IN_DOUBT.value,
)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A record that is not as it should be.

    Attributes:
        gravity: How bad it is.
        area: What was looked at.
        place: Which record; empty where it is about all of them.
        what: What is found.
        advice: What to do.
    """

    gravity: Literal["error", "warning", "note"]
    area: str
    place: str
    what: str
    advice: str


def examine_records(store: Store, now: datetime, *, locks: Path) -> tuple[Suspicion, ...]:
    """Look at what the records of a sound database say together.

    Args:
        store: The store.
        now: The time.
        locks: Folder of the locks of incidents that run on this machine.

    Raises:
        StoreError: If it cannot be read.
    """
    with store.reading() as connection:
        running = _leased(connection, now) if store.shared else _running(locks)
        return (
            *_effects(connection, running),
            *_approvals(connection, now),
            *_incidents(connection, running),
            *_jobs(connection),
            *_calls(connection, now),
            *_times(connection, now),
        )


def _effects(connection: Connection, running: set[str]) -> Iterator[Suspicion]:
    effects, steps, asked = schema.effects, schema.steps, schema.approvals
    doubtful = (EffectState.INTENDED.value, EffectState.ROLLING_BACK.value)
    open_ = (
        select(func.max(asked.c.id))
        .where(
            asked.c.step_id == effects.c.step_id,
            asked.c.kind == ApprovalKind.IN_DOUBT.value,
            asked.c.status == ApprovalStatus.PENDING.value,
        )
        .scalar_subquery()
    )
    query = select(effects, open_.label("question")).where(effects.c.state.in_(doubtful))
    for row in connection.execute(query):
        if row.incident_id in running:
            continue
        what = f"was begun at {row.intended_at:%Y-%m-%d %H:%M} UTC, and whether it took place is not known"
        advice = f"watchkeeper run --resume {row.incident_id}: it looks, and asks where it cannot tell"
        if row.question is not None:
            advice = f"say what happened: watchkeeper approvals done (or not-done) {row.question}"
        yield Suspicion("warning", "effect in doubt", f"step {row.step_id}", what, advice)
    known = select(steps.c.id)
    for key in connection.execute(select(effects.c.key).where(effects.c.step_id.not_in(known))).scalars():
        yield Suspicion("error", "effect", key, "belongs to no step", _EDITED)
    with_effect = select(effects.c.step_id)
    begun = select(steps.c.id, steps.c.status).where(
        steps.c.status.in_(_BEGUN), steps.c.id.not_in(with_effect)
    )
    for row in connection.execute(begun):
        what = f"is {row.status!r}, and the ledger knows of no effect"
        yield Suspicion("error", "step", row.id, what, _EDITED)


def _approvals(connection: Connection, now: datetime) -> Iterator[Suspicion]:
    table, effects, incidents = schema.approvals, schema.effects, schema.incidents
    used = select(effects.c.approval_id).where(effects.c.approval_id.is_not(None))
    unused = select(table.c.id).where(table.c.status == ApprovalStatus.USED.value, table.c.id.not_in(used))
    for name in connection.execute(unused).scalars():
        yield Suspicion("error", "approval", name, "was used, and no effect used it", _EDITED)
    stolen = select(table.c.id, table.c.status).where(
        table.c.id.in_(used), table.c.status != ApprovalStatus.USED.value
    )
    for row in connection.execute(stolen):
        what = f"is {row.status!r}, and an effect used it"
        yield Suspicion("error", "approval", row.id, what, _EDITED)
    pending = (
        select(table, incidents.c.status.label("incident_status"))
        .join(incidents, incidents.c.id == table.c.incident_id)
        .where(table.c.status == ApprovalStatus.PENDING.value)
    )
    for row in connection.execute(pending.where(table.c.kind == ApprovalKind.ACTION.value)):
        if row.incident_status in schema.ENDED:
            what = f"waits for an answer, and incident {row.incident_id} has ended"
            advice = f"watchkeeper approvals reject {row.id} --reason ended"
            yield Suspicion("warning", "approval", row.id, what, advice)
        elif row.expires_at <= now:
            what = f"was not answered before {row.expires_at:%Y-%m-%d %H:%M} UTC, which nobody noticed yet"
            advice = f"watchkeeper run --resume {row.incident_id}: silence is a no"
            yield Suspicion("warning", "approval", row.id, what, advice)


def _incidents(connection: Connection, running: set[str]) -> Iterator[Suspicion]:
    table = schema.incidents
    kept: set[str] = set()
    if "checkpoints" in inspect(connection).get_table_names():
        kept = set(connection.execute(text("SELECT DISTINCT thread_id FROM checkpoints")).scalars())
    live = select(table.c.id, table.c.status).where(table.c.status.not_in(schema.ENDED))
    for row in connection.execute(live):
        if row.id in running:
            continue
        resume = f"watchkeeper run --resume {row.id}"
        if row.id in kept:
            yield Suspicion("note", "incident", row.id, f"is {row.status!r}, and nobody works on it", resume)
        elif row.status == IncidentStatus.OPEN.value:
            yield Suspicion("note", "incident", row.id, "is open, and nobody began to work on it", resume)
        else:
            what = f"is {row.status!r}, and where it stands is not kept: it would begin anew"
            yield Suspicion("error", "incident", row.id, what, f"restore a backup, or begin anew: {resume}")


def _jobs(connection: Connection) -> Iterator[Suspicion]:
    table, halts, later = schema.jobs, schema.halts, schema.jobs.alias()
    incidents = schema.incidents
    # What was begun again since, or is about an incident that has ended, is settled.
    dead = select(table.c.id, table.c.kind, table.c.error).where(
        table.c.status == JobStatus.DEAD.value,
        ~exists().where(later.c.key == table.c.key, later.c.id > table.c.id),
        ~exists().where(
            table.c.key == table.c.kind + ":" + incidents.c.id, incidents.c.status.in_(schema.ENDED)
        ),
    )
    for row in connection.execute(dead):
        what = f"failed too often and was put aside: {row.error:.120}"
        yield Suspicion("warning", "job", f"{row.kind} {row.id}", what, "mend the cause, and begin it again")
    for row in connection.execute(select(halts).where(halts.c.lifted_at.is_(None))):
        why = f": {row.reason}" if row.reason else ""
        what = f"is stopped as a whole, by {row.by!r} since {row.at:%Y-%m-%d %H:%M} UTC{why}"
        yield Suspicion("note", "stop", "", what, "when work may go on: watchkeeper stop --lift")


def _calls(connection: Connection, now: datetime) -> Iterator[Suspicion]:
    table = schema.escalations
    ended = [status.value for status in EscalationStatus if status.ended]
    for body in connection.execute(select(table.c.body).where(table.c.status.not_in(ended))).scalars():
        escalation = Escalation.model_validate_json(body)
        if escalation.held_since is not None:
            what = f"is held since a restore at {escalation.held_since:%Y-%m-%d %H:%M} UTC: nobody is told"
            advice = f"where people do not know of it: watchkeeper escalations release {escalation.id}"
            yield Suspicion("warning", "escalation", escalation.id, what, advice)
        elif escalation.is_overdue(now):
            what = f"was to call people again at {escalation.due_at:%Y-%m-%d %H:%M} UTC, and no process did"
            advice = (
                "keep `watchkeeper serve` running, which makes calls whose time has come; or say that "
                f"you are on it: watchkeeper escalations ack {escalation.id}"
            )
            yield Suspicion("warning", "escalation", escalation.id, what, advice)


def _times(connection: Connection, now: datetime) -> Iterator[Suspicion]:
    for table, column in (
        (schema.events, schema.events.c.at),
        (schema.incidents, schema.incidents.c.updated_at),
        (schema.approvals, schema.approvals.c.requested_at),
        (schema.effects, schema.effects.c.intended_at),
    ):
        latest = connection.execute(select(func.max(column))).scalar()
        if latest is not None and latest > now + _AHEAD:
            what = f"was written in the future, at {latest:%Y-%m-%d %H:%M} UTC: the clock jumped"
            yield Suspicion(
                "warning", "clock", table.name, what, "set the clock right: deadlines depend on it"
            )


def _leased(connection: Connection, now: datetime) -> set[str]:
    """Incidents that a process of any machine works on, as far as is known: its lease has not run out."""
    table = schema.leases
    held = select(table.c.name).where(table.c.holder.is_not(None), table.c.expires_at > now)
    return {name.removeprefix("incident:") for name in connection.execute(held).scalars()}


def _running(locks: Path) -> set[str]:
    """Incidents that a living process of this machine works on; what the dead left locks nothing."""
    found = set()
    for path in locks.glob("*.lock"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.add(path.stem)
        finally:
            os.close(descriptor)
    return found


_EDITED = "no crash leaves this: somebody edited the database; compare with `watchkeeper audit show`"
