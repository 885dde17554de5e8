"""Incidents: alerts grouped by fingerprint, with a life, events and evidence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Row, bindparam, func, select, union_all, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.clock import Clock, short_id
from watchkeeper.runtime.database import HeldError
from watchkeeper.runtime.errors import (
    FencedError,
    IncidentBusyError,
    OperationError,
    StoreError,
    TransitionError,
    UnknownIncidentError,
)
from watchkeeper.runtime.event_redaction import redacted
from watchkeeper.runtime.events import EVENT, BaseEvent, Event, IncidentOpened, Progress
from watchkeeper.runtime.leases import LEASE_SECONDS, Lease, Leases, new_holder
from watchkeeper.runtime.store import Store
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.redaction import redact_text


class IncidentStatus(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    INVESTIGATING = "investigating"
    AWAITING_APPROVAL = "awaiting-approval"
    MITIGATING = "mitigating"
    RESOLVED = "resolved"
    ESCALATED = "escalated"
    CLOSED = "closed"

    @property
    def ended(self) -> bool:
        """Whether Watchkeeper has no more work to do on it; a new alert then opens a new incident."""
        return self.value in schema.ENDED


_LIVE = {
    IncidentStatus.INVESTIGATING,
    IncidentStatus.AWAITING_APPROVAL,
    IncidentStatus.MITIGATING,
    IncidentStatus.RESOLVED,
    IncidentStatus.ESCALATED,
    IncidentStatus.CLOSED,
}
TRANSITIONS: dict[IncidentStatus, frozenset[IncidentStatus]] = {
    IncidentStatus.OPEN: frozenset(_LIVE),
    IncidentStatus.INVESTIGATING: frozenset(_LIVE),
    IncidentStatus.AWAITING_APPROVAL: frozenset(_LIVE),
    IncidentStatus.MITIGATING: frozenset(_LIVE),
    IncidentStatus.ESCALATED: frozenset({IncidentStatus.RESOLVED, IncidentStatus.CLOSED}),
    IncidentStatus.RESOLVED: frozenset({IncidentStatus.CLOSED}),
    IncidentStatus.CLOSED: frozenset(),
}
"""Where an incident may go from each status; staying where it is is always possible."""


class Incident(BaseModel):
    """Alerts about one thing, and where the work on it stands.

    Attributes:
        id: ``INC-7K3Q``.
        fingerprint: What its alerts have in common.
        status: Where it stands.
        severity: As triage sees it (until then, as the alert said).
        alert: The first alert.
        alert_count: How many were grouped into it.
        opened_at: When the first came.
        updated_at: When anything about it changed last.
        ended_at: When the work on it ended.
        summary: What came of it.
        worked_seconds: Time that was worked on it, without waiting for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    fingerprint: str
    status: IncidentStatus
    severity: Severity
    alert: Alert
    alert_count: int
    opened_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    summary: str = ""
    worked_seconds: float = 0.0


E = TypeVar("E", bound=BaseEvent)

USED = "used:"
"""Name, before it, of the id of an incident that was removed: what lies outside of the store goes by it."""

_PLACE = select(
    select(func.coalesce(func.max(schema.events.c.seq), 0))
    .where(schema.events.c.incident_id == bindparam("incident_id"))
    .scalar_subquery()
    .label("last"),
    select(schema.events.c.body)
    .where(
        schema.events.c.incident_id == bindparam("incident_id"),
        schema.events.c.call_key == bindparam("call_key"),
    )
    .scalar_subquery()
    .label("kept"),
).where(select(schema.incidents.c.id).where(schema.incidents.c.id == bindparam("incident_id")).exists())
"""The last place of an incident's events, and the event that an occasion has; no row without the incident."""


class Incidents:
    """Incidents in the store."""

    def __init__(
        self, store: Store, *, now: Clock | None = None, short: Callable[[int], str] = short_id
    ) -> None:
        self._store = store
        self._now = now or store.now
        self._short = short
        # Work is timed by a clock that nobody sets, and that stands still while the machine sleeps.
        self._seconds = time.monotonic if now is None else lambda: now().timestamp()
        self._watches: dict[str, float] = {}
        self._watching = threading.Lock()

    def open(
        self,
        alert: Alert,
        *,
        by: str = "",
        accounts: tuple[str, ...] = (),
        witness: Callable[[IncidentOpened], object] | None = None,
    ) -> Incident:
        """Open an incident for an alert, or group the alert into the live one of its fingerprint.

        Args:
            alert: The alert.
            by: Who has it handled.
            accounts: System accounts that are theirs.
            witness: As for ``append_event``.
        """
        at = self._now()
        with self._store.transaction() as connection:
            live = connection.execute(
                select(schema.incidents.c.id).where(
                    schema.incidents.c.fingerprint == alert.fingerprint,
                    schema.incidents.c.status.not_in(schema.ENDED),
                )
            ).scalar()
            if live is None:
                incident_id = self._free_id()
                connection.execute(
                    schema.incidents.insert().values(
                        id=incident_id,
                        fingerprint=alert.fingerprint,
                        status=IncidentStatus.OPEN.value,
                        severity=alert.severity.value,
                        alert=alert.model_dump_json(),
                        alert_count=1,
                        opened_at=at,
                        updated_at=at,
                    )
                )
            else:
                incident_id = live
                connection.execute(
                    update(schema.incidents)
                    .where(schema.incidents.c.id == incident_id)
                    .values(alert_count=schema.incidents.c.alert_count + 1, updated_at=at)
                )
            self.append_event(
                incident_id,
                IncidentOpened(
                    title=alert.title,
                    host=alert.host,
                    service=alert.service,
                    severity=alert.severity,
                    grouped=live is not None,
                    by=by,
                    accounts=accounts,
                ),
                witness=witness,
            )
            return self.get(incident_id)

    def was_removed(self, incident_id: str) -> bool:
        """Whether there was such an incident, and it was pruned."""
        used = select(schema.meta.c.name).where(schema.meta.c.name == f"{USED}{incident_id}")
        with self._store.reading() as connection:
            return connection.execute(used).first() is not None

    def get(self, incident_id: str) -> Incident:
        """Return an incident.

        Raises:
            UnknownIncidentError: If there is none of that id.
        """
        with self._store.reading() as connection:
            row = connection.execute(
                select(schema.incidents).where(schema.incidents.c.id == incident_id)
            ).first()
        if row is None:
            raise self._unknown(incident_id)
        return _incident(row)

    def list(self, *, live: bool | None = None, limit: int = 100) -> tuple[Incident, ...]:
        """Return incidents, the newest first; only live or only ended ones where ``live`` is given."""
        query = select(schema.incidents).order_by(
            schema.incidents.c.opened_at.desc(), schema.incidents.c.id.desc()
        )
        if live is not None:
            status = schema.incidents.c.status
            query = query.where(status.not_in(schema.ENDED) if live else status.in_(schema.ENDED))
        with self._store.reading() as connection:
            return tuple(_incident(row) for row in connection.execute(query.limit(limit)))

    def set_status(
        self,
        incident_id: str,
        status: IncidentStatus,
        *,
        summary: str | None = None,
    ) -> Incident:
        """Move an incident on; setting the status that it has changes nothing but the summary.

        Raises:
            TransitionError: If it cannot go there from where it is.
            UnknownIncidentError: If there is none of that id.
        """
        with self._store.transaction() as connection:
            incident = self.get(incident_id)
            if status is not incident.status and status not in TRANSITIONS[incident.status]:
                allowed = ", ".join(sorted(s.value for s in TRANSITIONS[incident.status])) or "nowhere"
                raise TransitionError(
                    f"incident {incident_id!r} is {incident.status.value!r} and cannot become "
                    f"{status.value!r} (from there it goes to: {allowed})"
                )
            at = self._now()
            summary = None if summary is None else redact_text(summary)
            ended_at = (incident.ended_at or at) if status.ended else None
            connection.execute(
                update(schema.incidents)
                .where(schema.incidents.c.id == incident_id)
                .values(
                    status=status.value,
                    updated_at=at,
                    ended_at=ended_at,
                    summary=incident.summary if summary is None else summary,
                )
            )
            return self.get(incident_id)

    def set_severity(self, incident_id: str, severity: Severity) -> Incident:
        """Keep what triage says of the severity.

        Raises:
            UnknownIncidentError: If there is none of that id.
        """
        with self._store.transaction() as connection:
            self.get(incident_id)
            connection.execute(
                update(schema.incidents)
                .where(schema.incidents.c.id == incident_id)
                .values(severity=severity.value, updated_at=self._now())
            )
            return self.get(incident_id)

    def append_event(
        self,
        incident_id: str,
        event: E,
        *,
        key: str | None = None,
        witness: Callable[[E], object] | None = None,
    ) -> E:
        """Keep an event and return it with its incident, place and time.

        ``Progress`` is given its time and not kept.

        Args:
            incident_id: The incident.
            event: What happened; secrets in its texts are not kept.
            key: Name of this occasion, unique within the incident: a node that is repeated after a crash
                gets the event that was kept the first time.
            witness: Called with an event that was not kept before; if it raises, nothing is kept. What a
                crash cuts off right after it may be witnessed again.

        Raises:
            UnknownIncidentError: If there is no such incident.
        """
        event = redacted(event)
        if isinstance(event, Progress):
            return event.model_copy(update={"incident_id": incident_id, "at": self._now()})
        table = schema.events
        with self._store.transaction() as connection:
            place = connection.execute(_PLACE, {"incident_id": incident_id, "call_key": key}).first()
            if place is None:
                raise self._unknown(incident_id)
            if place.kept is not None:
                return type(event).model_validate_json(place.kept)
            stored = event.model_copy(
                update={"incident_id": incident_id, "seq": place.last + 1, "at": self._now()}
            )
            connection.execute(
                table.insert().values(
                    incident_id=incident_id,
                    seq=stored.seq,
                    call_key=key,
                    kind=getattr(stored, "kind", ""),
                    at=stored.at,
                    body=stored.model_dump_json(),
                )
            )
            self._work_on(connection, incident_id)
            if witness is not None:
                witness(stored)
        return stored

    @contextmanager
    def working(self, incident_id: str) -> Iterator[None]:
        """Count the time of the block as work on an incident; every event that is written keeps it."""
        self.rested(incident_id)
        try:
            yield
        finally:
            # What has ended is reported already: its figures stay as they were told.
            with suppress(OperationError), self._store.transaction() as connection:
                if not self.get(incident_id).status.ended:
                    self._work_on(connection, incident_id)
            self._watches.pop(incident_id, None)

    def rested(self, incident_id: str) -> None:
        """Leave out the time since the last event: it was spent waiting for people."""
        self._watches[incident_id] = self._seconds()

    def worked(self, incident_id: str) -> float:
        """Return the seconds that were worked on an incident, without waiting for people.

        Raises:
            UnknownIncidentError: If there is no such incident.
        """
        since = self._watches.get(incident_id)
        running = self._seconds() - since if since is not None else 0.0
        return self.get(incident_id).worked_seconds + max(0.0, running)

    def _work_on(self, connection: Connection, incident_id: str) -> None:
        """Keep the time since it was kept last."""
        table = schema.incidents
        with self._watching:
            since, now = self._watches.get(incident_id), self._seconds()
            if since is None or now <= since:
                return
            self._watches[incident_id] = now
        connection.execute(
            update(table)
            .where(table.c.id == incident_id)
            .values(worked_seconds=table.c.worked_seconds + (now - since))
        )

    def events(self, incident_id: str, *, after: int = 0) -> tuple[Event, ...]:
        """Return the events of an incident in their order, those with ``seq`` above ``after``.

        Raises:
            UnknownIncidentError: If there is no such incident.
        """
        table = schema.events
        with self._store.reading() as connection:
            rows = connection.execute(
                select(table.c.body)
                .where(table.c.incident_id == incident_id, table.c.seq > after)
                .order_by(table.c.seq)
            ).scalars()
            found = tuple(EVENT.validate_json(body) for body in rows)
            return found or self._none_of(incident_id)

    def add_evidence(
        self,
        incident_id: str,
        call_key: str,
        gather: Callable[[str], Evidence],
        *,
        number: int | None = None,
        witness: Callable[[Evidence], object] = lambda _: None,
    ) -> Evidence:
        """Keep what a fact said, once for each call.

        Args:
            incident_id: The incident.
            call_key: Name of the call, unique within the incident: a node that is repeated after a crash
                gets the evidence that was kept the first time.
            gather: Reads the fact under the evidence id it is given (``E1``, ``E2``, ...); not called if the
                evidence is there. It runs outside of any transaction.
            number: Its number; by default the next one.
            witness: Called with the evidence in the transaction that keeps it, or with that which is there.

        Raises:
            UnknownIncidentError: If there is no such incident.
        """
        kept = self.find_evidence(incident_id, call_key)
        if kept is not None:
            witness(kept)
            return kept
        evidence = gather(f"E{number or self.next_evidence(incident_id)}")
        table = schema.evidence
        with self._store.transaction() as connection:
            kept = self.find_evidence(incident_id, call_key)
            if kept is not None:
                witness(kept)
                return kept
            place = number or self.next_evidence(incident_id)
            evidence = evidence.model_copy(update={"id": f"E{place}"})
            connection.execute(
                table.insert().values(
                    incident_id=incident_id, number=place, call_key=call_key, body=evidence.model_dump_json()
                )
            )
            witness(evidence)
        return evidence

    def next_evidence(self, incident_id: str) -> int:
        """Return the number that the next evidence will have.

        Raises:
            UnknownIncidentError: If there is no such incident.
        """
        table = schema.evidence
        with self._store.reading() as connection:
            last = connection.execute(
                select(func.max(table.c.number)).where(table.c.incident_id == incident_id)
            ).scalar()
            if last is None:
                self.get(incident_id)
        return int(last or 0) + 1

    def find_evidence(self, incident_id: str, call_key: str) -> Evidence | None:
        """Return the evidence of a call, or None if it was not kept yet."""
        table = schema.evidence
        with self._store.reading() as connection:
            body = connection.execute(
                select(table.c.body).where(table.c.incident_id == incident_id, table.c.call_key == call_key)
            ).scalar()
        return None if body is None else Evidence.model_validate_json(body)

    def evidence(self, incident_id: str, only: Sequence[str] | None = None) -> tuple[Evidence, ...]:
        """Return the evidence of an incident in its order; only these ids where given.

        Raises:
            UnknownIncidentError: If there is no such incident.
        """
        table = schema.evidence
        with self._store.reading() as connection:
            rows = connection.execute(
                select(table.c.body).where(table.c.incident_id == incident_id).order_by(table.c.number)
            ).scalars()
            found = tuple(Evidence.model_validate_json(body) for body in rows)
            found = found or self._none_of(incident_id)
        return found if only is None else tuple(e for e in found if e.id in only)

    @contextmanager
    def lock(
        self,
        incident_id: str,
        *,
        seconds: float = LEASE_SECONDS,
        on_lost: Callable[[FencedError], object] | None = None,
    ) -> Iterator[Lease]:
        """Hold an incident, so that no two processes (or threads) run it at once.

        It is held by a lease, which is renewed until the block ends: where its process dies it is anybody's
        after ``seconds``. What is written from within the block is refused once another process has taken it
        over. Where the store is of one machine a lock is kept besides: it is free at once when its process
        ends, and not before.

        Args:
            incident_id: The incident.
            seconds: How long the lease lasts without being renewed.
            on_lost: Called from another thread when it was taken over.

        Raises:
            IncidentBusyError: If it is held.
            UnknownIncidentError: If there is no such incident.
        """
        self.get(incident_id)
        leases = Leases(self._store)
        name = f"incident:{incident_id}"
        with self._lock(incident_id):
            # On one machine, who held the lease held the lock, too, and has neither any more.
            lease = leases.acquire(name, new_holder(), seconds=seconds, force=not self._store.shared)
            if lease is None:
                holder, end = leases.holder(name), leases.ends_at(name)
                until = f", at most until {end:%H:%M:%S} UTC if that is dead" if end is not None else ""
                raise IncidentBusyError(
                    f"incident {incident_id!r} is being run by process {holder or 'of another worker'}"
                    f"{until}; wait for it or stop it first"
                )
            with leases.kept(lease, on_lost or (lambda _: None)), self._store.fenced(lease):
                yield lease

    @contextmanager
    def _lock(self, incident_id: str) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(self._store.hold(incident_id))
            except HeldError as error:
                raise IncidentBusyError(
                    f"incident {incident_id!r} is being run by {error}; wait for it or stop it first"
                ) from error
            yield

    def _none_of(self, incident_id: str) -> tuple[()]:
        """Return nothing, of an incident that exists."""
        self.get(incident_id)
        return ()

    def _unknown(self, incident_id: str) -> UnknownIncidentError:
        return UnknownIncidentError(
            f"incident {incident_id!r} is not in {self._store.place!r}; see `watchkeeper incidents list`"
        )

    def _free_id(self) -> str:
        with self._store.reading() as connection:
            for attempt in range(100):
                incident_id = f"INC-{self._short(4 + attempt // 10)}"
                taken = select(schema.incidents.c.id).where(schema.incidents.c.id == incident_id)
                used = select(schema.meta.c.name).where(schema.meta.c.name == f"{USED}{incident_id}")
                if connection.execute(union_all(taken, used)).first() is None:
                    return incident_id
        raise StoreError(
            "no free incident id was found in 100 attempts: the source of randomness repeats itself"
        )


def _incident(row: Row[tuple[object, ...]]) -> Incident:
    values = dict(row._mapping)
    return Incident(**{**values, "alert": _alert(values["alert"])})


@lru_cache(maxsize=64)
def _alert(body: str) -> Alert:
    return Alert.model_validate_json(body)
