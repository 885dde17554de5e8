"""Jobs: work and timers that outlive a process, each done by one worker at a time."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, JsonValue
from sqlalchemy import ColumnElement, Row, Select, select, update
from sqlalchemy.exc import IntegrityError

from watchkeeper.runtime import schema
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.errors import FencedError
from watchkeeper.runtime.leases import LEASE_SECONDS, LONGEST_LEASE, check_term
from watchkeeper.runtime.store import Store

ATTEMPTS = 8
"""Claims after which a job that never ended well is put aside."""

_LONGEST_PAUSE = 300.0
"""Most seconds between two attempts."""

_LONGEST_LEASE = timedelta(seconds=LONGEST_LEASE)

CALL = "escalation-call"
"""The job that comes when the time of a call is over."""

QUESTION = "escalation-question"
"""The job that comes when a question expires."""

NOTIFY = "escalation-notify"
"""The job that sends a notification."""

AWAITED = frozenset({CALL, QUESTION, NOTIFY})
"""Kinds that people wait for: nothing else would reach them, so these are tried for as long as it takes."""

_AWAITED_PAUSE = 60.0
"""Most seconds between two attempts of those."""


class JobStatus(StrEnum):
    """Where a job stands; ``DEAD`` failed too often and waits for a person."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def live(self) -> bool:
        """Whether it is still to be done."""
        return self in _LIVE


_LIVE = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})


class Job(BaseModel):
    """Work to be done, now or at a time.

    Attributes:
        id: Its number, in the order in which jobs were added.
        kind: What is to be done: workers know their kinds.
        key: What there is one live job of at most; None where that does not matter.
        status: Where it stands.
        due_at: Not before this.
        body: What it is about.
        attempts: How often it was claimed, but for claims that were given back.
        worker: Who has it, or had it last.
        lease_until: When it is anybody's, unless its worker renews.
        error: What went wrong last.
        created_at: When it was added.
        ended_at: When it was done, dead or cancelled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    kind: str
    key: str | None = None
    status: JobStatus
    due_at: datetime
    body: dict[str, JsonValue]
    attempts: int
    worker: str | None = None
    lease_until: datetime | None = None
    error: str = ""
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that one worker has.

    Attributes:
        job: The job as it was claimed.
        worker: Who has it.
        fence: Token of this claim: whoever claims it next has a higher one, and this one is void.
        lease_seconds: For how long it is this worker's alone, from each renewal.
    """

    job: Job
    worker: str
    fence: int
    lease_seconds: float


class Jobs:
    """Jobs in the store.

    Every method that writes is part of the caller's transaction where there is one.

    Args:
        store: Where they are kept.
        now: The time; by default the store's, which is one for all machines.
        attempts: Claims after which a job that never ended well is put aside.
    """

    def __init__(self, store: Store, *, now: Clock | None = None, attempts: int = ATTEMPTS) -> None:
        self._store = store
        self._now = now or store.now
        self._attempts = attempts

    @property
    def shared(self) -> bool:
        """Whether workers on other machines may take them."""
        return self._store.shared

    def add(
        self, kind: str, body: dict[str, JsonValue], *, due: datetime | None = None, key: str | None = None
    ) -> Job:
        """Add a job; where a live one has the same key, that one is returned as it is.

        Args:
            kind: What is to be done.
            body: What it is about, as JSON.
            due: Not before this (aware of its zone); by default now.
            key: What there is one live job of at most.

        Raises:
            ValueError: If ``due`` has no time zone.
            StoreError: If it cannot be written.
        """
        if due is not None and due.tzinfo is None:
            raise ValueError(f"job {kind!r} is due at {due!r}, which has no time zone")
        table = schema.jobs
        with self._store.transaction() as connection:
            at = self._now()
            values = {
                "kind": kind,
                "key": key,
                "status": JobStatus.QUEUED.value,
                "due_at": due or at,
                "body": json.dumps(body),
                "attempts": 0,
                "fence": 0,
                "created_at": at,
            }
            while True:
                live = None if key is None else self._live(key)
                if live is not None:
                    return live
                try:
                    with connection.begin_nested():
                        added = connection.execute(table.insert().values(values).returning(table.c.id))
                        number = int(added.scalar_one())
                except IntegrityError:
                    # Somebody else added one of this key meanwhile.
                    continue
                return self.get(number)

    def claim(
        self, worker: str, *, kinds: Collection[str] | None = None, lease_seconds: float = LEASE_SECONDS
    ) -> Claim | None:
        """Take the job that is due longest, or whose worker went silent; None where there is none.

        A job whose workers went silent too often is put aside instead, unless people wait for it.

        Args:
            worker: Who takes it.
            kinds: Only jobs of these kinds.
            lease_seconds: For how long it is this worker's alone, unless it renews.

        Raises:
            StoreError: If it cannot be written.
            ValueError: If the lease is to last for longer than any.
        """
        check_term(lease_seconds)
        table = schema.jobs
        with self._store.reading() as connection:
            if connection.execute(self._ready(kinds)).first() is None:
                return None
        with self._store.transaction() as connection:
            while True:
                at = self._now()
                row = connection.execute(self._ready(kinds).with_for_update(skip_locked=True)).first()
                if row is None:
                    return None
                job = _job(row)
                if self._spent(job):
                    said = f"its worker {job.worker!r} went silent in attempt {job.attempts}"
                    self._change(job.id, status=JobStatus.DEAD.value, ended_at=at, error=said)
                    continue
                fence = int(row._mapping["fence"]) + 1
                self._change(
                    job.id,
                    status=JobStatus.RUNNING.value,
                    worker=worker,
                    fence=fence,
                    attempts=table.c.attempts + 1,
                    lease_until=at + timedelta(seconds=lease_seconds),
                )
                return Claim(self.get(job.id), worker, fence, lease_seconds)

    def renew(self, claim: Claim) -> None:
        """Keep a job for another lease.

        Raises:
            FencedError: If it is not this claim's any more.
        """
        with self._store.transaction():  # the lease begins once it can be written
            until = self._now() + timedelta(seconds=claim.lease_seconds)
            self._end(claim, "renewed", lease_until=until)

    def complete(self, claim: Claim) -> None:
        """A job is done: together with what else the caller's transaction writes, such as what follows.

        Raises:
            FencedError: If it is not this claim's any more.
        """
        self._end(claim, "completed", status=JobStatus.DONE.value, ended_at=self._now(), error="")

    def fail(self, claim: Claim, error: str, retry_in: float | None = None) -> Job:
        """An attempt failed: the job is tried again later, or put aside after too many.

        One that people wait for is never put aside.

        Args:
            claim: The attempt.
            error: What went wrong, for people.
            retry_in: Seconds until the next attempt; by default twice as many as before, from 2 to 300, or
                to 60 where people wait for it.

        Raises:
            FencedError: If it is not this claim's any more.
        """
        if self._spent(claim.job):
            return self.bury(claim, error)
        longest = _AWAITED_PAUSE if claim.job.kind in AWAITED else _LONGEST_PAUSE
        pause = min(longest, 2.0 ** min(claim.job.attempts, 10)) if retry_in is None else retry_in
        with self._store.transaction():
            due = self._now() + timedelta(seconds=pause)
            self._end(
                claim, "failed", status=JobStatus.QUEUED.value, due_at=due, lease_until=None, error=error
            )
        return self.get(claim.job.id)

    def bury(self, claim: Claim, error: str) -> Job:
        """Put a job aside that no further attempt would mend.

        Raises:
            FencedError: If it is not this claim's any more.
        """
        self._end(claim, "put aside", status=JobStatus.DEAD.value, ended_at=self._now(), error=error)
        return self.get(claim.job.id)

    def release(self, claim: Claim, *, again_in: float = 0, body: dict[str, JsonValue] | None = None) -> None:
        """Give a job back unfinished; that counts as no attempt.

        Args:
            claim: What is given back.
            again_in: Seconds until anybody may claim it; by default it keeps its place among the due ones.
            body: What it is about from now on; by default the same as before.

        Raises:
            FencedError: If it is not this claim's any more.
        """
        table = schema.jobs
        self._end(
            claim,
            "given back",
            status=JobStatus.QUEUED.value,
            due_at=self._now() + timedelta(seconds=again_in) if again_in else table.c.due_at,
            lease_until=None,
            attempts=table.c.attempts - 1,
            body=table.c.body if body is None else json.dumps(body),
        )

    def hurry(self, key: str) -> bool:
        """Make the live job of a key due now; whether there is one.

        One that is running is marked: see `hurried`.
        """
        table = schema.jobs
        with self._store.transaction() as connection:
            at = self._now()
            connection.execute(
                update(table)
                .where(
                    table.c.key == key,
                    (table.c.status == JobStatus.RUNNING.value)
                    | ((table.c.status == JobStatus.QUEUED.value) & (table.c.due_at > at)),
                )
                .values(due_at=at)
            )
            return self._live(key) is not None

    def hurried(self, claim: Claim) -> bool:
        """Whether somebody wanted a job to be done at once after it was claimed: what it saw may be old."""
        return self.get(claim.job.id).due_at != claim.job.due_at

    def cancel(self, key: str) -> bool:
        """Take back the live job of a key; whether there was one.

        One that is running can then not be completed: whoever runs it is told by its next write.
        """
        table = schema.jobs
        with self._store.transaction() as connection:
            changed: int = connection.execute(
                update(table)
                .where(table.c.key == key, _is_live())
                .values(status=JobStatus.CANCELLED.value, ended_at=self._now())
            ).rowcount
            return changed > 0

    def get(self, number: int) -> Job:
        """Return a job.

        Raises:
            LookupError: If there is none of that number.
        """
        with self._store.reading() as connection:
            row = connection.execute(select(schema.jobs).where(schema.jobs.c.id == number)).first()
        if row is None:
            raise LookupError(f"job {number} is not in {self._store.place!r}")
        return _job(row)

    def find(self, key: str) -> Job | None:
        """Return the newest job of a key, live or not."""
        found = self.list(key=key, limit=1)
        return found[0] if found else None

    def list(
        self,
        *,
        kind: str | None = None,
        status: JobStatus | None = None,
        key: str | None = None,
        limit: int = 100,
    ) -> tuple[Job, ...]:
        """Return jobs, the newest first."""
        table = schema.jobs
        query = select(table).order_by(table.c.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(table.c.kind == kind)
        if status is not None:
            query = query.where(table.c.status == status.value)
        if key is not None:
            query = query.where(table.c.key == key)
        with self._store.reading() as connection:
            return tuple(_job(row) for row in connection.execute(query))

    def _spent(self, job: Job) -> bool:
        return job.attempts >= self._attempts and job.kind not in AWAITED

    def _ready(self, kinds: Collection[str] | None) -> Select[tuple[object, ...]]:
        table = schema.jobs
        at = self._now()
        due = (table.c.status == JobStatus.QUEUED.value) & (table.c.due_at <= at)
        # A lease that ends later than any may was written by a clock that was ahead, and set right since.
        over = (table.c.lease_until <= at) | (table.c.lease_until > at + _LONGEST_LEASE)
        silent = (table.c.status == JobStatus.RUNNING.value) & over
        query = select(table).where(due | silent).order_by(table.c.due_at, table.c.id).limit(1)
        return query if kinds is None else query.where(table.c.kind.in_(sorted(kinds)))

    def _live(self, key: str) -> Job | None:
        with self._store.reading() as connection:
            row = connection.execute(select(schema.jobs).where(schema.jobs.c.key == key, _is_live())).first()
        return None if row is None else _job(row)

    def _change(self, number: int, **values: object) -> None:
        with self._store.transaction() as connection:
            connection.execute(update(schema.jobs).where(schema.jobs.c.id == number).values(**values))

    def _end(self, claim: Claim, what: str, **values: object) -> None:
        table = schema.jobs
        with self._store.transaction() as connection:
            changed = connection.execute(
                update(table)
                .where(
                    table.c.id == claim.job.id,
                    table.c.fence == claim.fence,
                    table.c.worker == claim.worker,  # SQLite gives the number of a pruned job again
                    table.c.status == JobStatus.RUNNING.value,
                )
                .values(**values)
            ).rowcount
            if changed == 1:
                return
            now = self.get(claim.job.id)
        holder = f" by {now.worker!r}" if now.worker not in {None, claim.worker} else ""
        raise FencedError(
            f"job {claim.job.id} ({claim.job.kind!r}) cannot be {what} by {claim.worker!r}: it is "
            f"{now.status.value!r}{holder} since, and this claim is void"
        )


def _is_live() -> ColumnElement[bool]:
    return schema.jobs.c.status.in_([status.value for status in sorted(_LIVE)])


def _job(row: Row[tuple[object, ...]]) -> Job:
    values = dict(row._mapping)
    del values["fence"]
    return Job.model_validate({**values, "body": json.loads(str(values["body"]))})
