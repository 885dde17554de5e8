"""Escalations: people are called level by level until somebody reacts, across crashes and restarts.

Each transition, what people are to be told and the next timer are written in one transaction. A timer that
comes twice finds that the escalation has gone on, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from pydantic import JsonValue
from sqlalchemy import select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.approvals import Approval, ApprovalKind, Approvals
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.clock import Clock, short_id
from watchkeeper.runtime.errors import EscalationError, IdentityError, StoreError
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.escalation_states import (
    Acknowledge,
    Answered,
    CallDue,
    Delegate,
    Escalation,
    EscalationStatus,
    QuestionDue,
    Signal,
    advance,
    begin,
)
from watchkeeper.runtime.escalation_users import with_users
from watchkeeper.runtime.events import (
    Acknowledged,
    BaseEvent,
    Delegated,
    EscalationEnded,
    EscalationStarted,
    LevelReached,
    WouldHaveCalled,
)
from watchkeeper.runtime.incident_jobs import go_on
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.jobs import CALL, NOTIFY, QUESTION, Jobs
from watchkeeper.runtime.listeners import Listeners
from watchkeeper.runtime.outbox import Outbox
from watchkeeper.runtime.store import Store
from watchkeeper.runtime.users import Users
from watchkeeper.runtime.wording import visible
from watchkeeper.tools.redaction import redact_text


class Escalations:
    """Escalations in the store.

    Args:
        store: Where they are kept.
        audit: Where everything that happens to them is written, too.
        now: The time; by default the store's, which is one for all machines.
        short: Source of random names.
        listeners: Who is told of each new event once it is on the disk.
        users: The users of the home, whose roles levels may name.
        observe_only: Whether nobody is called: what begins an escalation is written down, with who would
            have been called, and begins none.
    """

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        *,
        now: Clock | None = None,
        short: Callable[[int], str] = short_id,
        listeners: Listeners | None = None,
        users: Callable[[], Users | None] = lambda: None,
        observe_only: bool = False,
    ) -> None:
        self._store = store
        self._audit = audit
        self.now = now or store.now
        self._short = short
        self._listeners = listeners
        self._users = users
        self._observe_only = observe_only
        self._incidents = Incidents(store, now=now)
        self._approvals = Approvals(store, now=now)
        self._jobs = Jobs(store, now=now)
        self.outbox = Outbox(store)

    def start_question(
        self, approval: Approval, rules: EscalationRules, *, labels: dict[str, str]
    ) -> Escalation | None:
        """Call people about a question; for one about which they were called this returns that escalation.

        None where Watchkeeper only observes.

        Args:
            approval: The question.
            rules: Who is called.
            labels: Labels of the host that it is about.
        """
        return self._start(
            f"question:{approval.id}",
            approval.incident_id,
            rules,
            labels,
            subject=f"{approval.id} waits for an answer: {approval.summary}",
            approval_id=approval.id,
            ends_at=approval.expires_at,
        )

    def start_hand_over(
        self, incident_id: str, rules: EscalationRules, *, labels: dict[str, str], reason: str
    ) -> Escalation | None:
        """Call people about an incident that was handed to them, once; None where Watchkeeper only observes.

        Args:
            incident_id: The incident.
            rules: Who is called.
            labels: Labels of its host.
            reason: Why it was.

        Raises:
            UnknownIncidentError: If there is no such incident.
        """
        return self._start(
            f"hand-over:{incident_id}",
            incident_id,
            rules,
            labels,
            subject=f"{incident_id} was handed to people: {reason}",
        )

    def start_unclaimed(self, incident_id: str, rules: EscalationRules, *, reason: str) -> Escalation | None:
        """Call people about an incident that no worker takes, once, until one does (see `claimed`).

        Where one did, and then no worker takes it again, they are called again. None where Watchkeeper only
        observes.

        Args:
            incident_id: The incident.
            rules: Who is called; no labels of a host choose among them, since the host is not known.
            reason: Why no worker takes it.

        Raises:
            UnknownIncidentError: If there is no such incident.
        """
        key, last = self._unclaimed(incident_id)
        if last is not None and last.status is EscalationStatus.ANSWERED:
            key = f"unclaimed:{incident_id}:{last.id}"
        return self._start(
            key,
            incident_id,
            rules,
            {},
            subject=f"{incident_id} is worked on by nobody: {reason}",
        )

    def claimed(self, incident_id: str) -> None:
        """End the call about an incident that no worker took: one does now."""
        _, found = self._unclaimed(incident_id)
        if found is not None:
            self._apply(found.id, Answered("a worker that knows its host"))

    def _unclaimed(self, incident_id: str) -> tuple[str, Escalation | None]:
        """Return the newest call about an incident that no worker took, and its key."""
        key = f"unclaimed:{incident_id}"
        found = self._find(key)
        while found is not None:
            later = f"unclaimed:{incident_id}:{found.id}"
            following = self._find(later)
            if following is None:
                break
            key, found = later, following
        return key, found

    def get(self, escalation_id: str) -> Escalation:
        """Return an escalation.

        Raises:
            EscalationError: If there is none of that id.
        """
        return self._read(escalation_id)[0]

    def of_question(self, approval_id: str) -> Escalation | None:
        """Return the escalation of a question; None if nobody was called about it."""
        return self._find(f"question:{approval_id}")

    def list(
        self, *, live: bool | None = None, incident_id: str | None = None, limit: int = 100
    ) -> tuple[Escalation, ...]:
        """Return escalations, the newest first; only those that wait or are acknowledged where ``live``."""
        table = schema.escalations
        query = select(table.c.body).order_by(table.c.started_at.desc(), table.c.id)
        if incident_id is not None:
            query = query.where(table.c.incident_id == incident_id)
        if live is not None:
            ended = [status.value for status in EscalationStatus if status.ended]
            query = query.where(table.c.status.not_in(ended) if live else table.c.status.in_(ended))
        with self._store.reading() as connection:
            bodies = connection.execute(query.limit(limit)).scalars()
            return tuple(Escalation.model_validate_json(body) for body in bodies)

    def acknowledge(self, escalation_id: str, *, by: str, reason: str = "") -> Escalation:
        """Say that somebody is on it: nobody else is called, and the question keeps its own deadline.

        Args:
            escalation_id: The escalation.
            by: Who.
            reason: What they want to add.

        Raises:
            EscalationError: If it is unknown, over, or acknowledged by somebody else.
            AuditError: If that cannot be audited; it is then not acknowledged.
        """
        return self._apply(escalation_id, Acknowledge(_named(by, escalation_id)), reason=reason)

    def delegate(self, escalation_id: str, *, by: str, to: str, reason: str = "") -> Escalation:
        """Hand a call to another person, who is told and has the level's whole time.

        Args:
            escalation_id: The escalation.
            by: Who hands it on.
            to: To whom; somebody whom the rules name, where they name people.
            reason: Why.

        Raises:
            EscalationError: If it is unknown or over, or there is no such person.
            AuditError: If that cannot be audited; it is then not handed on.
        """
        people = self.get(escalation_id).rules.people
        if people and to not in people:
            known = ", ".join(sorted(people))
            raise EscalationError(f"escalation {escalation_id!r}: unknown person {to!r} (there are: {known})")
        signal = Delegate(_named(by, escalation_id), _named(to, escalation_id))
        return self._apply(escalation_id, signal, reason=reason)

    def answered(self, approval: Approval) -> None:
        """End the escalation of a question that was answered; one that is over stays as it is."""
        found = self.of_question(approval.id)
        if found is not None:
            self._apply(found.id, Answered(approval.decided_by or "somebody"))

    def expired(self, approval: Approval) -> Escalation | None:
        """End the escalation of a question whose deadline has come, and return it."""
        found = self.of_question(approval.id)
        return None if found is None else self._apply(found.id, QuestionDue())

    def on_time(self, escalation_id: str, signal: CallDue | QuestionDue) -> Escalation:
        """Go on when a timer comes; one that comes early, twice or too late changes nothing.

        Raises:
            EscalationError: If the escalation is unknown.
        """
        return self._apply(escalation_id, signal)

    def record(self, escalation: Escalation, event: BaseEvent, *, key: str | None = None) -> None:
        """Write an event of an escalation into its incident's timeline and the audit log, and tell it."""
        self._write(escalation.incident_id, event, key)

    def _write(self, incident_id: str, event: BaseEvent, key: str | None) -> None:
        def witness(new: BaseEvent) -> None:
            body: JsonValue = new.model_dump(mode="json")
            self._audit.append(getattr(new, "kind", "event"), body)
            if self._listeners is not None:
                self._listeners.promise(new)  # type: ignore[arg-type]

        self._incidents.append_event(incident_id, event, key=key, witness=witness)

    def _start(
        self,
        key: str,
        incident_id: str,
        rules: EscalationRules,
        labels: dict[str, str],
        *,
        subject: str,
        approval_id: str = "",
        ends_at: datetime | None = None,
    ) -> Escalation | None:
        subject = visible(redact_text(subject))
        users = None
        # A users file that is not usable lets nobody answer; somebody at the terminal must know.
        with suppress(IdentityError):
            users = self._users()
        rules = with_users(rules, users)
        with self._store.transaction() as connection:
            known = self._find(key)
            if known is not None:
                return known
            incident = self._incidents.get(incident_id)
            escalation = begin(
                id=self._free_id(),
                incident_id=incident_id,
                approval_id=approval_id,
                policy=rules.choose(incident.severity, labels),
                rules=rules,
                subject=subject,
                at=self.now(),
                ends_at=ends_at,
            )
            if self._observe_only:
                called = WouldHaveCalled(policy=escalation.policy, subject=subject, called=escalation.called)
                self._write(incident_id, called, f"would-have-called:{key}")
                return None
            connection.execute(
                schema.escalations.insert().values(
                    id=escalation.id,
                    incident_id=incident_id,
                    key=key,
                    status=escalation.status.value,
                    version=1,
                    started_at=escalation.started_at,
                    body=escalation.model_dump_json(),
                )
            )
            self.record(
                escalation,
                EscalationStarted(
                    escalation_id=escalation.id,
                    approval_id=approval_id,
                    policy=escalation.policy,
                    subject=subject,
                ),
            )
            if ends_at is not None:
                self._jobs.add(
                    QUESTION, {"escalation": escalation.id}, due=ends_at, key=question_key(escalation)
                )
            self._call(escalation)
        return escalation

    def _apply(self, escalation_id: str, signal: Signal, *, reason: str = "") -> Escalation:
        """Let something happen to an escalation; of two things at once, one happens after the other."""
        table = schema.escalations
        while True:
            with self._store.transaction() as connection:
                before, version = self._read(escalation_id)
                if isinstance(signal, CallDue | QuestionDue) and before.approval_id:
                    signal = replace(signal, votes=len(self._approvals.get(before.approval_id).votes))
                after = advance(before, signal, self.now())
                if after == before:
                    return after
                written = connection.execute(
                    update(table)
                    .where(table.c.id == escalation_id, table.c.version == version)
                    .values(status=after.status.value, version=version + 1, body=after.model_dump_json())
                ).rowcount
                if written == 1:
                    self._follow(before, after, signal, reason)
                    return after

    def _follow(self, before: Escalation, after: Escalation, signal: Signal, reason: str) -> None:
        """Write all that a transition brings with it."""
        if isinstance(signal, Acknowledge):
            self.record(after, Acknowledged(escalation_id=after.id, by=signal.by, reason=reason))
        if isinstance(signal, Delegate):
            self.record(after, Delegated(escalation_id=after.id, by=signal.by, to=signal.to, reason=reason))
        # The timer that brought this is at work, and is completed by whoever does it.
        moved = after.status is not EscalationStatus.WAITING or after.step != before.step
        if moved and not isinstance(signal, CallDue):
            self._jobs.cancel(call_key(before))
        if after.step != before.step:
            self._call(after)
        if after.status.ended:
            if not isinstance(signal, QuestionDue):
                self._jobs.cancel(question_key(after))
            silent = after.status is EscalationStatus.SILENT
            if silent and after.approval_id:
                self._approvals.lapse(after.approval_id)
                go_on(self._store, after.incident_id)
            self.record(
                after,
                EscalationEnded(
                    escalation_id=after.id,
                    outcome="silent" if silent else "answered",
                    detail=after.reason,
                ),
            )

    def _call(self, escalation: Escalation) -> None:
        """Write down whom a call goes to, and when the next one is due."""
        self.record(
            escalation,
            LevelReached(
                escalation_id=escalation.id,
                step=escalation.step,
                level=escalation.level,
                round=escalation.round,
                called=escalation.called,
                due_at=escalation.due_at,
            ),
        )
        for put in self.outbox.put(
            escalation.id,
            escalation.step,
            _ways(escalation),
            title=escalation.subject,
            text="\n".join(self._lines(escalation)),
            at=self.now(),
        ):
            self._jobs.add(NOTIFY, {"notification": put.id}, key=put.id)
        if escalation.due_at is not None:
            self._jobs.add(
                CALL,
                {"escalation": escalation.id, "step": escalation.step},
                due=escalation.due_at,
                key=call_key(escalation),
            )

    def _lines(self, escalation: Escalation) -> Iterator[str]:
        yield escalation.subject
        yield f"incident: watchkeeper incidents show {escalation.incident_id}"
        if escalation.approval_id:
            yield f"question: watchkeeper approvals show {escalation.approval_id}"
        yield f"you are on it: watchkeeper escalations ack {escalation.id}"
        if escalation.due_at is not None:
            yield f"the next call is due at {escalation.due_at:%Y-%m-%d %H:%M:%S} UTC"
        if escalation.ends_at is not None:
            doubtful = self._approvals.get(escalation.approval_id).kind is ApprovalKind.IN_DOUBT
            what = "nobody is called any more" if doubtful else "the question expires, which is a no,"
            yield f"{what} at {escalation.ends_at:%Y-%m-%d %H:%M:%S} UTC"

    def _read(self, escalation_id: str) -> tuple[Escalation, int]:
        table = schema.escalations
        with self._store.reading() as connection:
            row = connection.execute(
                select(table.c.body, table.c.version).where(table.c.id == escalation_id)
            ).first()
        if row is None:
            raise EscalationError(
                f"escalation {escalation_id!r} is unknown: it is not in {self._store.place!r}; "
                "see `watchkeeper escalations list`"
            )
        return Escalation.model_validate_json(str(row[0])), int(row[1])

    def _find(self, key: str) -> Escalation | None:
        table = schema.escalations
        with self._store.reading() as connection:
            body = connection.execute(select(table.c.body).where(table.c.key == key)).scalar()
        return None if body is None else Escalation.model_validate_json(body)

    def _free_id(self) -> str:
        with self._store.reading() as connection:
            for attempt in range(100):
                escalation_id = f"ESC-{self._short(5 + attempt // 10)}"
                taken = select(schema.escalations.c.id).where(schema.escalations.c.id == escalation_id)
                if connection.execute(taken).first() is None:
                    return escalation_id
        raise StoreError(
            "no free escalation id was found in 100 attempts: the source of randomness repeats itself"
        )


def call_key(escalation: Escalation) -> str:
    """Name the job that comes when the time of the last call is over."""
    return f"{escalation.id}:call:{escalation.step}"


def question_key(escalation: Escalation) -> str:
    """Name the job that comes when the question expires."""
    return f"{escalation.id}:question"


def _named(person: str, escalation_id: str) -> str:
    if not person.strip():
        raise EscalationError(f"escalation {escalation_id!r}: a person without a name was given")
    return person.strip()


def _ways(escalation: Escalation) -> Iterator[tuple[str, str]]:
    for person in escalation.called:
        for channel in dict.fromkeys(escalation.rules.channels_of(person)):
            yield person, channel
