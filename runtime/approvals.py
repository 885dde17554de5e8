"""Approvals: durable questions to people about one exact action, each answered once and used once."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, JsonValue
from sqlalchemy import Row, or_, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.canonical import digest, safe_json
from watchkeeper.runtime.clock import Clock, short_id, utc_now
from watchkeeper.runtime.errors import ApprovalError, StoreError
from watchkeeper.runtime.store import Store

SOLO_TIER = 1
"""The highest tier that one person alone may approve."""

PAIR_TIER = 3
"""The lowest tier that takes two people's yes."""


class ApprovalKind(StrEnum):
    """What people are asked.

    ``ACTION``: may this be done? (approve, reject)
    ``IN_DOUBT``: a crash hid whether this was done; was it? (done, not-done)
    """

    ACTION = "action"
    IN_DOUBT = "in-doubt"


class ApprovalStatus(StrEnum):
    """Where a question stands."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    USED = "used"


class Answer(StrEnum):
    """What a person may answer."""

    APPROVE = "approve"
    REJECT = "reject"
    DONE = "done"
    NOT_DONE = "not-done"


ANSWERS: dict[ApprovalKind, tuple[Answer, ...]] = {
    ApprovalKind.ACTION: (Answer.APPROVE, Answer.REJECT),
    ApprovalKind.IN_DOUBT: (Answer.DONE, Answer.NOT_DONE),
}


class Approval(BaseModel):
    """A question to people about one exact action.

    Attributes:
        id: ``APR-7K3QW``.
        incident_id: Incident it belongs to.
        step_id: Step it is about.
        kind: What is asked.
        digest: Digest of the action it is bound to.
        tier: How much say the action needs.
        summary: The question in one line.
        diff: What was shown.
        requester: Who asks.
        solo: Whether who asks may also approve (tier 1 only): the run was started so.
        status: Where it stands; an answered in-doubt question is ``approved``.
        requested_at: When it was asked.
        expires_at: When silence becomes a no.
        ttl_seconds: Time to answer, and again to use a yes.
        answer: What was answered.
        first_by: Who said yes first where two people must; the question is pending until the second does.
        decided_by: Who answered.
        decided_at: When.
        reason: Why.
        self_approved: Whether who asked also answered (solo mode).
        use_by: When an unused yes lapses.
        used_at: When it was used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    incident_id: str
    step_id: str
    kind: ApprovalKind
    digest: str
    tier: int
    summary: str
    diff: str
    requester: str
    solo: bool = False
    status: ApprovalStatus
    requested_at: datetime
    expires_at: datetime
    ttl_seconds: int
    answer: Answer | None = None
    first_by: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    reason: str = ""
    self_approved: bool = False
    use_by: datetime | None = None
    used_at: datetime | None = None


def action_digest(
    *,
    tool: str,
    version: int,
    arguments: dict[str, JsonValue],
    host: str,
    preconditions: dict[str, JsonValue],
    policy_digest: str,
) -> str:
    """SHA-256 of the canonical JSON (RFC 8785) of everything that an approval is about."""
    return digest(
        {
            "tool": tool,
            "version": version,
            "arguments": safe_json(arguments),
            "host": host,
            "preconditions": safe_json(preconditions),
            "policy": policy_digest,
        }
    )


class Approvals:
    """Questions to people in the store.

    Args:
        store: Where they are kept.
        solo: Whether what is asked here may be approved by who asks, at tier 1 only. It is written
            down with the question, so that it holds wherever the question is answered.
        now: The time.
        short: Source of random names.
    """

    def __init__(
        self,
        store: Store,
        *,
        solo: bool = False,
        now: Clock = utc_now,
        short: Callable[[int], str] = short_id,
    ) -> None:
        self._store = store
        self._solo = solo
        self._now = now
        self._short = short

    @property
    def solo(self) -> bool:
        """Whether what is asked here may be approved by who asks."""
        return self._solo

    def request(
        self,
        *,
        incident_id: str,
        step_id: str,
        digest: str,
        summary: str,
        requester: str,
        tier: int = 1,
        diff: str = "",
        kind: ApprovalKind = ApprovalKind.ACTION,
        ttl_seconds: float = 3600,
    ) -> Approval:
        """Ask; asking again about the same action while a question is open or freshly answered returns it.

        Raises:
            ApprovalError: If ``ttl_seconds`` is not positive.
        """
        if not (math.isfinite(ttl_seconds) and ttl_seconds > 0):
            raise ApprovalError(f"time to answer is {ttl_seconds!r} s: it must be above 0")
        table = schema.approvals
        at = self._now()
        with self._store.transaction() as connection:
            self._expire(at)
            asked = connection.execute(
                select(table.c.id).where(
                    table.c.step_id == step_id,
                    table.c.digest == digest,
                    table.c.kind == kind.value,
                    table.c.status.in_((ApprovalStatus.PENDING.value, ApprovalStatus.APPROVED.value)),
                )
            ).scalar()
            if asked is not None:
                return self.get(asked)
            approval_id = self._free_id()
            seconds = max(1, round(ttl_seconds))
            connection.execute(
                table.insert().values(
                    id=approval_id,
                    incident_id=incident_id,
                    step_id=step_id,
                    kind=kind.value,
                    digest=digest,
                    tier=tier,
                    summary=summary,
                    diff=diff,
                    requester=requester,
                    solo=self._solo,
                    status=ApprovalStatus.PENDING.value,
                    requested_at=at,
                    expires_at=at + timedelta(seconds=seconds),
                    ttl_seconds=seconds,
                    self_approved=False,
                )
            )
            return self.get(approval_id)

    def decide(
        self,
        approval_id: str,
        answer: Answer,
        *,
        by: str,
        reason: str = "",
    ) -> Approval:
        """Answer a question: the first answer before the deadline counts.

        The top tier takes two people: their question is pending until the second has said yes, too. A no of
        either ends it.

        Raises:
            ApprovalError: If it is unknown, answered or expired, if the answer does not fit the question,
                or if who asked, or who said yes before, may not answer it.
        """
        table = schema.approvals
        asked = self.get(approval_id)
        if answer not in ANSWERS[asked.kind]:
            fitting = " or ".join(repr(a.value) for a in ANSWERS[asked.kind])
            raise ApprovalError(f"approval {approval_id!r} is answered {fitting}, not {answer.value!r}")
        self._check_person(asked, answer, by)
        at = self._now()
        rejected = answer is Answer.REJECT
        if answer is Answer.APPROVE and asked.tier >= PAIR_TIER and asked.first_by is None:
            first = self._say_first(asked, by, at)
            # Somebody else may have been the first meanwhile.
            return first or self.decide(approval_id, answer, by=by, reason=reason)
        with self._store.transaction() as connection:
            changed = connection.execute(
                update(table)
                .where(
                    table.c.id == approval_id,
                    table.c.status == ApprovalStatus.PENDING.value,
                    table.c.expires_at > at,
                )
                .values(
                    status=(ApprovalStatus.REJECTED if rejected else ApprovalStatus.APPROVED).value,
                    answer=answer.value,
                    decided_by=by,
                    decided_at=at,
                    reason=reason,
                    self_approved=answer is Answer.APPROVE and _same_person(by, asked.requester),
                    use_by=at + timedelta(seconds=asked.ttl_seconds) if answer is Answer.APPROVE else None,
                )
            ).rowcount
            if changed == 1:
                return self.get(approval_id)
        raise ApprovalError(f"approval {approval_id!r} {_state(self.get(approval_id))}")

    def _say_first(self, asked: Approval, by: str, at: datetime) -> Approval | None:
        """Keep the first yes of two; None if the question is not as it was read any more."""
        table = schema.approvals
        with self._store.transaction() as connection:
            changed = connection.execute(
                update(table)
                .where(
                    table.c.id == asked.id,
                    table.c.status == ApprovalStatus.PENDING.value,
                    table.c.expires_at > at,
                    table.c.first_by.is_(None),
                )
                .values(first_by=by)
            ).rowcount
            if changed == 1:
                return self.get(asked.id)
        now = self.get(asked.id)
        if now.first_by is None:
            raise ApprovalError(f"approval {asked.id!r} {_state(now)}")
        return None

    def use(self, approval_id: str, digest: str) -> Approval:
        """Use a yes, exactly once and for exactly the action it is bound to.

        Raises:
            ApprovalError: If it is unknown, not answered with a yes, used, lapsed, or bound to another
                action.
        """
        table = schema.approvals
        at = self._now()
        with self._store.transaction() as connection:
            changed = connection.execute(
                update(table)
                .where(
                    table.c.id == approval_id,
                    table.c.kind == ApprovalKind.ACTION.value,
                    table.c.status == ApprovalStatus.APPROVED.value,
                    table.c.digest == digest,
                    table.c.use_by > at,
                )
                .values(status=ApprovalStatus.USED.value, used_at=at)
            ).rowcount
            if changed == 1:
                return self.get(approval_id)
        asked = self.get(approval_id)
        if asked.kind is not ApprovalKind.ACTION:
            raise ApprovalError(
                f"approval {approval_id!r} asks whether something was done: it allows nothing"
            )
        if asked.status is ApprovalStatus.APPROVED and asked.digest != digest:
            raise ApprovalError(
                f"approval {approval_id!r} is for another action than the one at hand (arguments, target, "
                "preconditions or policy changed since it was asked): ask again"
            )
        raise ApprovalError(f"approval {approval_id!r} {_state(asked)}")

    def get(self, approval_id: str) -> Approval:
        """Return a question as it stands now.

        Raises:
            ApprovalError: If there is none of that id.
        """
        with self._store.reading() as connection:
            row = connection.execute(
                select(schema.approvals).where(schema.approvals.c.id == approval_id)
            ).first()
        if row is None:
            raise ApprovalError(
                f"approval {approval_id!r} is unknown: it is not in {str(self._store.path)!r}; "
                "see `watchkeeper approvals list`"
            )
        return self._approval(row)

    def list(
        self, *, status: ApprovalStatus | None = None, incident_id: str | None = None, limit: int = 100
    ) -> tuple[Approval, ...]:
        """Return questions as they stand now, the newest first."""
        table = schema.approvals
        query = select(table).order_by(table.c.requested_at.desc(), table.c.id)
        if incident_id is not None:
            query = query.where(table.c.incident_id == incident_id)
        if status is not None:
            # A pending row whose deadline has passed counts as expired: it is sorted out below.
            stored = {status.value}
            if status is ApprovalStatus.EXPIRED:
                stored |= {ApprovalStatus.PENDING.value, ApprovalStatus.APPROVED.value}
            query = query.where(table.c.status.in_(stored))
        with self._store.reading() as connection:
            found = [self._approval(row) for row in connection.execute(query)]
        return tuple([a for a in found if status is None or a.status is status][:limit])

    def expire(self) -> int:
        """Mark what nobody answered, or used, in time; return how many."""
        with self._store.transaction():
            return self._expire(self._now())

    def _expire(self, at: datetime) -> int:
        table = schema.approvals
        with self._store.transaction() as connection:
            changed: int = connection.execute(
                update(table)
                .where(
                    or_(
                        (table.c.status == ApprovalStatus.PENDING.value) & (table.c.expires_at <= at),
                        (table.c.status == ApprovalStatus.APPROVED.value) & (table.c.use_by <= at),
                    )
                )
                .values(status=ApprovalStatus.EXPIRED.value)
            ).rowcount
            return changed

    def _check_person(self, asked: Approval, answer: Answer, by: str) -> None:
        if not by.strip():
            raise ApprovalError(f"approval {asked.id!r}: who answers is not said")
        if answer is Answer.APPROVE and asked.first_by is not None and _same_person(by, asked.first_by):
            raise ApprovalError(
                f"approval {asked.id!r} is of tier {asked.tier}, which takes two people, and {by!r} said yes "
                "before: another person must, too"
            )
        if answer is not Answer.APPROVE or not _same_person(by, asked.requester):
            return
        if not asked.solo:
            raise ApprovalError(
                f"approval {asked.id!r} was asked for by {by!r}, who may not approve it: another person must "
                "(who works alone says so when a run begins: `--solo`)"
            )
        if asked.tier > SOLO_TIER:
            raise ApprovalError(
                f"approval {asked.id!r} is of tier {asked.tier}: {by!r} asked for it and even in solo mode "
                f"may approve tier {SOLO_TIER} only; another person must"
            )

    def _approval(self, row: Row[tuple[object, ...]]) -> Approval:
        approval = Approval.model_validate(dict(row._mapping))
        deadline = {
            ApprovalStatus.PENDING: approval.expires_at,
            ApprovalStatus.APPROVED: approval.use_by,
        }.get(approval.status)
        if deadline is not None and deadline <= self._now():
            return approval.model_copy(update={"status": ApprovalStatus.EXPIRED})
        return approval

    def _free_id(self) -> str:
        with self._store.reading() as connection:
            for attempt in range(100):
                approval_id = f"APR-{self._short(5 + attempt // 10)}"
                taken = select(schema.approvals.c.id).where(schema.approvals.c.id == approval_id)
                if connection.execute(taken).first() is None:
                    return approval_id
        raise StoreError(
            "no free approval id was found in 100 attempts: the source of randomness repeats itself"
        )


def _same_person(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def _state(approval: Approval) -> str:
    """Say where a question stands, as the end of a sentence about it."""
    match approval.status:
        case ApprovalStatus.PENDING:
            return "was not answered yet"
        case ApprovalStatus.APPROVED:
            return f"was answered {approval.answer!s} by {approval.decided_by!r} before"
        case ApprovalStatus.REJECTED:
            return f"was rejected by {approval.decided_by!r}" + (
                f": {approval.reason}" if approval.reason else ""
            )
        case ApprovalStatus.USED:
            return f"was used at {approval.used_at:%Y-%m-%d %H:%M:%S} UTC: an approval is good for one time"
        case ApprovalStatus.EXPIRED:
            if approval.answer is None:
                return f"expired unanswered at {approval.expires_at:%Y-%m-%d %H:%M:%S} UTC: ask again"
            return f"was answered, but not used before {approval.use_by:%Y-%m-%d %H:%M:%S} UTC: ask again"
