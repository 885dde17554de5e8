"""The outbox: what people are to be told, written with the transition that calls them, sent afterwards.

A row says before a message is sent that it is about to be. What a crash then hides is sent again only
where the sink knows it by its id; elsewhere it is recorded as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Row, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.errors import DeliveryUnknownError, EscalationError, NotSentError
from watchkeeper.runtime.notify import Message, Sink
from watchkeeper.runtime.store import Store
from watchkeeper.tools.redaction import redact_text

ATTEMPTS = 6
"""Times that a notification is tried before it is given up."""

_FIRST_PAUSE = timedelta(seconds=10)
LEASE = timedelta(seconds=120)
"""Time that sending one message may take; after it, whoever began is taken for dead."""


class NotificationStatus(StrEnum):
    """Where a notification stands.

    ``PENDING``: to be sent.
    ``SENDING``: somebody is about to send it, or a crash hides whether they did.
    ``SENT``: it was.
    ``FAILED``: it was given up.
    ``UNKNOWN``: whether it was sent cannot be told; it is not sent again.
    ``WITHDRAWN``: nobody needed to be told any more when its turn came.
    ``HELD``: it may have been sent since the backup that this store was restored from; a person says.
    """

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"
    WITHDRAWN = "withdrawn"
    HELD = "held"


class Notification(BaseModel):
    """One message to one person by one way, for one call of an escalation.

    Attributes:
        id: ``ESC-7K3QW-2-1``: its escalation, the call, its place in it.
        escalation_id: The escalation.
        step: The call.
        recipient: Who is told.
        channel: By which way.
        status: Where it stands.
        attempts: How often it was tried.
        leased_until: Until when whoever sends it has the time to.
        updated_at: When anything about it changed last.
        detail: Why it was not sent, if it was not.
        message: What is said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    escalation_id: str
    step: int
    recipient: str
    channel: str
    status: NotificationStatus
    attempts: int
    leased_until: datetime | None
    updated_at: datetime
    detail: str
    message: Message


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of trying to send a notification.

    Attributes:
        notification: As it stands now.
        again_at: When to try again, or to look what came of it; None where it is done with.
        news: Whether this made an end of it.
    """

    notification: Notification
    again_at: datetime | None = None
    news: bool = False


class Outbox:
    """Notifications in the store.

    Args:
        store: Where they are kept.
        attempts: Times that one is tried.
        lease: Time that sending one may take.
    """

    def __init__(self, store: Store, *, attempts: int = ATTEMPTS, lease: timedelta = LEASE) -> None:
        self._store = store
        self._attempts = attempts
        self._lease = lease

    def put(
        self,
        escalation_id: str,
        step: int,
        ways: Iterator[tuple[str, str]],
        *,
        title: str,
        text: str,
        at: datetime,
    ) -> tuple[Notification, ...]:
        """Write down whom to tell, each by each of their ways; what is written is not written again.

        Args:
            escalation_id: The escalation.
            step: The call.
            ways: Recipients and channels.
            title: What they are told, in one line; without secrets, as the text is.
            text: All of it.
            at: Now.
        """
        table = schema.notifications
        with self._store.transaction() as connection:
            for number, (recipient, channel) in enumerate(ways, start=1):
                notification_id = f"{escalation_id}-{step}-{number}"
                message = Message(
                    id=notification_id,
                    recipient=recipient,
                    channel=channel,
                    title=redact_text(title),
                    text=redact_text(text),
                    at=at,
                )
                connection.execute(
                    table.insert().values(
                        id=notification_id,
                        escalation_id=escalation_id,
                        step=step,
                        recipient=recipient,
                        channel=channel,
                        status=NotificationStatus.PENDING.value,
                        attempts=0,
                        updated_at=at,
                        detail="",
                        message=message.model_dump_json(),
                    )
                )
            return self.list(escalation_id, step=step)

    def get(self, notification_id: str) -> Notification:
        """Return a notification.

        Raises:
            EscalationError: If there is none of that id.
        """
        with self._store.reading() as connection:
            row = connection.execute(
                select(schema.notifications).where(schema.notifications.c.id == notification_id)
            ).first()
        if row is None:
            raise EscalationError(f"notification {notification_id!r} is unknown")
        return _notification(row)

    def list(self, escalation_id: str, *, step: int | None = None) -> tuple[Notification, ...]:
        """Return the notifications of an escalation in their order; only those of a call where given."""
        table = schema.notifications
        query = select(table).where(table.c.escalation_id == escalation_id)
        if step is not None:
            query = query.where(table.c.step == step)
        with self._store.reading() as connection:
            found = [_notification(row) for row in connection.execute(query)]
        return tuple(sorted(found, key=lambda one: (one.step, int(one.id.rpartition("-")[2]))))

    def withdraw(self, notification_id: str, at: datetime) -> None:
        """Leave a notification unsent that nobody needs any more, if nobody is sending it."""
        self._write(notification_id, None, at, status=NotificationStatus.WITHDRAWN)

    def take(self, notification_id: str, *, repeatable: bool, at: datetime) -> Delivery | None:
        """Write down that a notification is about to be sent.

        Args:
            notification_id: The notification.
            repeatable: Whether its sink knows what it has sent.
            at: Now.

        Returns:
            None where it is to be sent now; else why not.
        """
        with self._store.transaction():
            now = self.get(notification_id)
            if now.status is NotificationStatus.SENDING:
                if now.leased_until is not None and at < now.leased_until:
                    return Delivery(now, again_at=now.leased_until)
                if not repeatable:
                    said = "a crash hid whether it was sent"
                    self._write(now.id, now.attempts, at, status=NotificationStatus.UNKNOWN, detail=said)
                    return Delivery(self.get(now.id), news=True)
            elif now.status is not NotificationStatus.PENDING:
                return Delivery(now)
            taken = self._write(
                now.id,
                now.attempts,
                at,
                status=NotificationStatus.SENDING,
                attempts=now.attempts + 1,
                leased_until=at + self._lease,
            )
            # Somebody else may have taken it since it was read.
            return None if taken else Delivery(self.get(now.id), again_at=at + self._lease)

    def settle(self, taken: Notification, error: Exception | None, at: datetime) -> Delivery:
        """Write down what came of sending; what was taken by somebody else meanwhile is theirs.

        Args:
            taken: The notification as it was taken.
            error: What went wrong.
            at: Now.
        """
        again_at = None
        with self._store.transaction():
            if error is None:
                written = self._write(taken.id, taken.attempts, at, status=NotificationStatus.SENT)
            elif isinstance(error, NotSentError) and taken.attempts < self._attempts:
                again_at = at + _FIRST_PAUSE * 2 ** (taken.attempts - 1)
                written = self._write(
                    taken.id, taken.attempts, at, status=NotificationStatus.PENDING, detail=str(error)
                )
            else:
                failed = isinstance(error, NotSentError)
                status = NotificationStatus.FAILED if failed else NotificationStatus.UNKNOWN
                times = f" (tried {taken.attempts} times)" if failed else ""
                written = self._write(taken.id, taken.attempts, at, status=status, detail=f"{error}{times}")
            now = self.get(taken.id)
        return Delivery(now, again_at=again_at if written else None, news=written and again_at is None)

    def _write(self, notification_id: str, owned: int | None, at: datetime, **values: object) -> bool:
        """Change a notification that this attempt still owns (None: one that nobody is sending)."""
        table = schema.notifications
        statement = update(table).where(table.c.id == notification_id)
        if owned is None:
            statement = statement.where(table.c.status == NotificationStatus.PENDING.value)
        else:
            open_ = (NotificationStatus.PENDING.value, NotificationStatus.SENDING.value)
            statement = statement.where(table.c.attempts == owned, table.c.status.in_(open_))
        status = values.pop("status")
        assert isinstance(status, NotificationStatus)
        kept = {"leased_until": None} | values
        with self._store.transaction() as connection:
            changed = connection.execute(
                statement.values(status=status.value, updated_at=at, **kept)
            ).rowcount
        return bool(changed == 1)


def try_to_send(sink: Sink, message: Message) -> Exception | None:
    """Send a message and return what went wrong."""
    try:
        sink.send(message)
    except (NotSentError, DeliveryUnknownError) as error:
        return error
    return None


def _notification(row: Row[tuple[object, ...]]) -> Notification:
    values = dict(row._mapping)
    return Notification(**{**values, "message": Message.model_validate_json(values["message"])})
