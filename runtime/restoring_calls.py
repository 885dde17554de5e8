"""What becomes of calls to people in a restored store: nobody is told twice, nobody forgotten in silence.

What was to be sent when the backup was made may have been sent since, and people may have reacted. So nothing
of it goes out by itself; see design/0018.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, JsonValue
from sqlalchemy import Connection, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.errors import EscalationError
from watchkeeper.runtime.escalation import call_key, question_key
from watchkeeper.runtime.escalation_states import Escalation, EscalationStatus
from watchkeeper.runtime.jobs import CALL, NOTIFY, Jobs
from watchkeeper.runtime.outbox import NotificationStatus
from watchkeeper.runtime.people import Person
from watchkeeper.runtime.store import Store

_SENT_SINCE = "held by a restore from a backup: whether it was sent since is not known"
_ASKED_ANEW = "a restore from a backup expired its question; people are called when it is put anew"
_PENDING = (NotificationStatus.PENDING.value,)
_SENDING = (NotificationStatus.SENDING.value,)


class CallsHeld(BaseModel):
    """What was under way when the backup was made.

    Attributes:
        held: Escalations whose calls wait until a person releases them.
        ended: Escalations that are over with their questions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    held: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()


def hold_calls(store: Store, at: datetime) -> CallsHeld:
    """Let no call of a restored store go out by itself.

    Of an incident that was handed to people the notifications and the next call are held until somebody
    releases them. The escalation of a question ends, as its question does: that is put anew, and people are
    called about it then.

    Args:
        store: The restored store; its questions are expired already.
        at: The time.
    """
    table = schema.escalations
    jobs = Jobs(store, now=lambda: at)
    held: list[str] = []
    ended: list[str] = []
    with store.transaction() as connection:
        for body in connection.execute(select(table.c.body).order_by(table.c.id)).scalars().all():
            escalation = Escalation.model_validate_json(body)
            if escalation.status.ended:
                _settle(connection, escalation.id, _SENDING, NotificationStatus.UNKNOWN, _SENT_SINCE, at)
                continue
            if escalation.approval_id:
                _settle(connection, escalation.id, _PENDING, NotificationStatus.WITHDRAWN, _ASKED_ANEW, at)
                _settle(connection, escalation.id, _SENDING, NotificationStatus.UNKNOWN, _SENT_SINCE, at)
                _put(connection, _over(escalation, at))
                ended.append(escalation.id)
            else:
                unsent = _PENDING + _SENDING
                some = _settle(connection, escalation.id, unsent, NotificationStatus.HELD, _SENT_SINCE, at)
                if not some and escalation.due_at is None:
                    continue
                _put(connection, escalation.model_copy(update={"held_since": at}))
                held.append(escalation.id)
            jobs.cancel(call_key(escalation))
            jobs.cancel(question_key(escalation))
    return CallsHeld(held=tuple(held), ended=tuple(ended))


def release_calls(
    store: Store, audit: AuditLog, escalation_id: str, *, by: Person, at: datetime
) -> Escalation:
    """Send what a restore held of an escalation, and let its next call come after its level's whole time.

    Args:
        store: The store.
        audit: Where it is written, too.
        escalation_id: The escalation.
        by: Who says so.
        at: The time.

    Raises:
        EscalationError: If there is none of that id, or nothing of it is held.
        AuditError: If it cannot be audited; nothing is released then.
    """
    table, sent = schema.escalations, schema.notifications
    with store.transaction() as connection:
        body = connection.execute(select(table.c.body).where(table.c.id == escalation_id)).scalar()
        escalation = None if body is None else Escalation.model_validate_json(body)
        if escalation is None or escalation.held_since is None:
            raise EscalationError(
                f"of escalation {escalation_id!r} nothing is held; see `watchkeeper escalations list`"
            )
        waiting = escalation.status is EscalationStatus.WAITING
        wait = escalation.levels[escalation.level - 1].wait
        released = escalation.model_copy(
            update={"held_since": None, "due_at": at + wait if waiting and wait is not None else None}
        )
        _put(connection, released)
        jobs = Jobs(store, now=lambda: at)
        kept = (sent.c.escalation_id == escalation_id) & (sent.c.status == NotificationStatus.HELD.value)
        names = tuple(connection.execute(select(sent.c.id).where(kept).order_by(sent.c.id)).scalars())
        # Where somebody is on it by now, nobody needs to be told any more.
        status = NotificationStatus.PENDING if waiting else NotificationStatus.WITHDRAWN
        connection.execute(update(sent).where(kept).values(status=status.value, updated_at=at, detail=""))
        for name in names if waiting else ():
            jobs.cancel(name)
            jobs.add(NOTIFY, {"notification": name}, key=name)
        if released.due_at is not None:
            about: dict[str, JsonValue] = {"escalation": released.id, "step": released.step}
            jobs.add(CALL, about, due=released.due_at, key=call_key(released))
        audit.append(
            "escalation-released",
            {
                "escalation_id": released.id,
                "incident_id": released.incident_id,
                "by": by.name,
                "known_by": by.proof.value,
                "notifications": list(names),
            },
        )
    return released


def _over(escalation: Escalation, at: datetime) -> Escalation:
    over = {"status": EscalationStatus.SILENT, "reason": _ASKED_ANEW, "due_at": None, "ended_at": at}
    return escalation.model_copy(update=over)


def _settle(
    connection: Connection,
    escalation_id: str,
    found: tuple[str, ...],
    status: NotificationStatus,
    detail: str,
    at: datetime,
) -> bool:
    """Change notifications that stand so; whether there were any."""
    table = schema.notifications
    changed = connection.execute(
        update(table)
        .where(table.c.escalation_id == escalation_id, table.c.status.in_(found))
        .values(status=status.value, leased_until=None, updated_at=at, detail=detail)
    ).rowcount
    return bool(changed)


def _put(connection: Connection, escalation: Escalation) -> None:
    table = schema.escalations
    connection.execute(
        update(table)
        .where(table.c.id == escalation.id)
        .values(
            status=escalation.status.value, version=table.c.version + 1, body=escalation.model_dump_json()
        )
    )
