"""Approvals: durable questions to people about one exact action, each answered once and used once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import JsonValue
from sqlalchemy import or_, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.approval_types import (
    PAIR_TIER,
    SOLO_TIER,
    Answer,
    Approval,
    ApprovalKind,
    ApprovalStatus,
    Vote,
    action_digest,
    standing,
)
from watchkeeper.runtime.clock import Clock, short_id
from watchkeeper.runtime.errors import ApprovalError, StoreError
from watchkeeper.runtime.questions import find_question, read_questions
from watchkeeper.runtime.store import Store
from watchkeeper.runtime.voting import take_answer

__all__ = [
    "PAIR_TIER",
    "SOLO_TIER",
    "Answer",
    "Approval",
    "ApprovalKind",
    "ApprovalStatus",
    "Approvals",
    "Vote",
    "action_digest",
]


class Approvals:
    """Questions to people in the store.

    Args:
        store: Where they are kept.
        solo: Whether what is asked here may be approved by who asks, at tier 1 only. It is written
            down with the question, so that it holds wherever the question is answered.
        now: The time; by default the store's, which is one for all machines.
        short: Source of random names.
    """

    def __init__(
        self,
        store: Store,
        *,
        solo: bool = False,
        now: Clock | None = None,
        short: Callable[[int], str] = short_id,
    ) -> None:
        self._store = store
        self._solo = solo
        self._now = now or store.now
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
        quorum: int | None = None,
        diff: str = "",
        view: str = "",
        kind: ApprovalKind = ApprovalKind.ACTION,
        ttl_seconds: float = 3600,
        solo: bool | None = None,
        requester_accounts: tuple[str, ...] = (),
    ) -> Approval:
        """Ask; asking again about the same action while a question is open or freshly answered returns it.

        Args:
            incident_id: Incident it belongs to.
            step_id: Step it is about.
            digest: Digest of the action it is bound to.
            summary: The question in one line.
            requester: Who asks.
            tier: How much say the action needs.
            quorum: How many different people must say yes (default: two from the top tier on, else one);
                the top tier takes no fewer than two.
            diff: What would change.
            view: What the action says of itself, as JSON.
            kind: What is asked.
            ttl_seconds: Time to answer, and again to use a yes.
            solo: Whether who asks may approve (default: as these approvals were opened).
            requester_accounts: System accounts of who asks.

        Raises:
            ApprovalError: If ``ttl_seconds`` is not positive.
        """
        if not (math.isfinite(ttl_seconds) and ttl_seconds > 0):
            raise ApprovalError(f"time to answer is {ttl_seconds!r} s: it must be above 0")
        table = schema.approvals
        with self._store.transaction() as connection:
            at = self._now()
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
            least = 2 if tier >= PAIR_TIER and kind is ApprovalKind.ACTION else 1
            connection.execute(
                table.insert().values(
                    id=approval_id,
                    incident_id=incident_id,
                    step_id=step_id,
                    kind=kind.value,
                    digest=digest,
                    tier=tier,
                    quorum=max(least, quorum or 1),
                    summary=summary,
                    diff=diff,
                    view=view,
                    requester=requester,
                    requester_accounts=json.dumps(requester_accounts),
                    solo=self._solo if solo is None else solo,
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
        accounts: tuple[str, ...] = (),
        reason: str = "",
        arguments: dict[str, JsonValue] | None = None,
    ) -> Approval:
        """Answer a question: the first answer before the deadline counts.

        Where several people must say yes, the question is pending until the last of them has. Any other
        answer of one person ends it.

        Args:
            approval_id: The question.
            answer: The answer.
            by: Who answers.
            accounts: System accounts that are theirs.
            reason: Why; the words of a response.
            arguments: The arguments of an edit, as its tool validated them.

        Raises:
            ApprovalError: If it is unknown, answered or expired, if the answer does not fit the question,
                or if who asked, or who said yes before, may not answer it.
        """
        with self._store.transaction() as connection:
            # The time is told once the write lock is held: who waited for it may be late by now.
            at = self._now()
            asked = find_question(connection, approval_id, at, lock=True)
            if asked is None:
                raise self._unknown(approval_id)
            take_answer(
                connection,
                asked,
                answer,
                by=by,
                accounts=accounts,
                at=at,
                reason=reason,
                arguments=arguments,
            )
            return self.get(approval_id)

    def use(self, approval_id: str, digest: str) -> Approval:
        """Use a yes, exactly once and for exactly the action it is bound to.

        Raises:
            ApprovalError: If it is unknown, not answered with a yes, used, lapsed, or bound to another
                action.
        """
        table = schema.approvals
        with self._store.transaction() as connection:
            at = self._now()
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
        raise ApprovalError(f"approval {approval_id!r} {standing(asked)}")

    def get(self, approval_id: str) -> Approval:
        """Return a question as it stands now.

        Raises:
            ApprovalError: If there is none of that id.
        """
        with self._store.reading() as connection:
            found = find_question(connection, approval_id, self._now())
        if found is None:
            raise self._unknown(approval_id)
        return found

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
            found = read_questions(connection, query, self._now())
        return tuple([a for a in found if status is None or a.status is status][:limit])

    def about(self, step_id: str, digest: str, kind: ApprovalKind = ApprovalKind.ACTION) -> Approval | None:
        """Return the newest question about exactly this step, however it was answered, or None."""
        table = schema.approvals
        query = (
            select(table)
            .where(table.c.step_id == step_id, table.c.digest == digest, table.c.kind == kind.value)
            .order_by(table.c.requested_at.desc(), table.c.id)
            .limit(1)
        )
        with self._store.reading() as connection:
            found = read_questions(connection, query, self._now())
        return found[0] if found else None

    def lapse(self, approval_id: str) -> bool:
        """End the time to answer a question now, since nobody is left to be asked; whether it was open.

        One about an effect in doubt may be answered all the same.
        """
        table = schema.approvals
        with self._store.transaction() as connection:
            at = self._now()
            open_ = (table.c.id == approval_id) & (table.c.status == ApprovalStatus.PENDING.value)
            early = connection.execute(
                update(table).where(open_, table.c.expires_at > at).values(expires_at=at)
            )
            ended = connection.execute(
                update(table)
                .where(open_, table.c.kind == ApprovalKind.ACTION.value)
                .values(status=ApprovalStatus.EXPIRED.value)
            )
            return bool(early.rowcount + ended.rowcount)

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
                    table.c.kind == ApprovalKind.ACTION.value,
                    or_(
                        (table.c.status == ApprovalStatus.PENDING.value) & (table.c.expires_at <= at),
                        (table.c.status == ApprovalStatus.APPROVED.value) & (table.c.use_by <= at),
                    ),
                )
                .values(status=ApprovalStatus.EXPIRED.value)
            ).rowcount
            return changed

    def _unknown(self, approval_id: str) -> ApprovalError:
        return ApprovalError(
            f"approval {approval_id!r} is unknown: it is not in {self._store.place!r}; "
            "see `watchkeeper approvals list`"
        )

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
