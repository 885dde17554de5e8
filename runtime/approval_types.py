"""What an approval is: a question about one exact action, its answers, votes and states."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.tools.canonical import digest, safe_json

SOLO_TIER = 1
"""The highest tier that one person alone may approve."""

PAIR_TIER = 3
"""The lowest tier that takes two people's yes, whatever else the policy says."""

MAX_WORDS = 2000
"""Characters that a reason or a response may have."""


class ApprovalKind(StrEnum):
    """What people are asked.

    ``ACTION``: may this be done? (approve, edit, reject, respond, escalate, terminate)
    ``IN_DOUBT``: a crash hid whether this was done; was it? (done, not-done) It stays open until somebody
    says so, although its incident waits no longer than for other answers.
    """

    ACTION = "action"
    IN_DOUBT = "in-doubt"


class ApprovalStatus(StrEnum):
    """Where a question stands.

    ``ANSWERED`` is an answer that is neither yes nor no (edit, respond, escalate, terminate): like a no, it
    never allows the action.
    """

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    ANSWERED = "answered"
    EXPIRED = "expired"
    USED = "used"


class Answer(StrEnum):
    """What a person may answer.

    ``APPROVE``: do it, once and exactly as it was shown.
    ``EDIT``: do it with other arguments; these are planned and put to the policy anew.
    ``REJECT``: do not do it; the attempt ends.
    ``RESPOND``: do not do it; the agents are told this and go on.
    ``ESCALATE``: hand the incident over.
    ``TERMINATE``: take back what was applied of the plan, and close the incident.
    ``DONE``, ``NOT_DONE``: whether an effect in doubt took place.
    """

    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"
    RESPOND = "respond"
    ESCALATE = "escalate"
    TERMINATE = "terminate"
    DONE = "done"
    NOT_DONE = "not-done"


ANSWERS: dict[ApprovalKind, tuple[Answer, ...]] = {
    ApprovalKind.ACTION: (
        Answer.APPROVE,
        Answer.EDIT,
        Answer.REJECT,
        Answer.RESPOND,
        Answer.ESCALATE,
        Answer.TERMINATE,
    ),
    ApprovalKind.IN_DOUBT: (Answer.DONE, Answer.NOT_DONE),
}
"""By what is asked: the answers that fit."""

OUTCOMES: dict[Answer, ApprovalStatus] = {
    Answer.APPROVE: ApprovalStatus.APPROVED,
    Answer.EDIT: ApprovalStatus.ANSWERED,
    Answer.REJECT: ApprovalStatus.REJECTED,
    Answer.RESPOND: ApprovalStatus.ANSWERED,
    Answer.ESCALATE: ApprovalStatus.ANSWERED,
    Answer.TERMINATE: ApprovalStatus.ANSWERED,
    Answer.DONE: ApprovalStatus.APPROVED,
    Answer.NOT_DONE: ApprovalStatus.APPROVED,
}
"""By answer: how it leaves the question."""

WORDED = frozenset({Answer.RESPOND, Answer.ESCALATE, Answer.TERMINATE})
"""Answers that say nothing without words."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Vote(_Record):
    """A person's yes: ``reason`` is why, ``at`` when; ``accounts`` were their system accounts."""

    by: str
    at: datetime
    reason: str = ""
    accounts: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which that person was known."""
        return (self.by, *self.accounts)


class Approval(_Record):
    """A question to people about one exact action.

    Attributes:
        id: ``APR-7K3QW``.
        incident_id: Incident it belongs to.
        step_id: Step it is about.
        kind: What is asked.
        digest: Digest of the action it is bound to.
        tier: How much say the action needs.
        quorum: How many different people must say yes.
        summary: The question in one line.
        diff: What was shown.
        view: What else the action said of itself, as JSON of `watchkeeper.tools.action.ActionView`; empty
            where it said nothing.
        requester: Who asks, or whose edit it is.
        requester_accounts: System accounts that were theirs then, by the users file.
        solo: Whether who asks may also approve (tier 1 only): the run was started so.
        status: Where it stands; an answered in-doubt question is ``approved``.
        requested_at: When it was asked.
        expires_at: When silence becomes a no, or its incident is handed over without what is known of an
            effect in doubt.
        ttl_seconds: Time to answer, and again to use a yes.
        votes: Who said yes, in their order; the question is pending until ``quorum`` people did.
        answer: What was answered.
        decided_by: Who answered; of several who said yes, the last.
        decided_at: When.
        reason: Why; the words of a response.
        edited: The arguments of an edit.
        self_approved: Whether who asked also answered (solo mode).
        use_by: When an unused yes lapses.
        used_at: When it was used.
    """

    id: str
    incident_id: str
    step_id: str
    kind: ApprovalKind
    digest: str
    tier: int
    quorum: int = 1
    summary: str
    diff: str
    view: str = ""
    requester: str
    requester_accounts: tuple[str, ...] = ()
    solo: bool = False
    status: ApprovalStatus
    requested_at: datetime
    expires_at: datetime
    ttl_seconds: int
    votes: tuple[Vote, ...] = ()
    answer: Answer | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    reason: str = ""
    edited: dict[str, JsonValue] | None = None
    self_approved: bool = False
    use_by: datetime | None = None
    used_at: datetime | None = None

    @property
    def requester_names(self) -> tuple[str, ...]:
        """All names under which who asks was known."""
        return (self.requester, *self.requester_accounts)

    @property
    def missing(self) -> int:
        """How many people must still say yes."""
        return max(0, self.quorum - len(self.votes)) if self.status is ApprovalStatus.PENDING else 0

    def waits(self, at: datetime) -> bool:
        """Whether its incident waits for the answer: an effect in doubt may be answered about later, too."""
        return self.status is ApprovalStatus.PENDING and at < self.expires_at


def action_digest(
    *,
    tool: str,
    version: int,
    arguments: dict[str, JsonValue],
    host: str,
    preconditions: dict[str, JsonValue],
    policy_digest: str,
    bias: JsonValue = None,
) -> str:
    """SHA-256 of the canonical JSON (RFC 8785) of everything that an approval is about."""
    measured = {} if bias is None else {"bias": safe_json(bias)}
    return digest(
        {
            **measured,
            "tool": tool,
            "version": version,
            "arguments": safe_json(arguments),
            "host": host,
            "preconditions": safe_json(preconditions),
            "policy": policy_digest,
        }
    )


def person_key(name: str) -> str:
    """The name under which a person is one person, however it is written."""
    return name.strip().casefold()


def same_person(one: str | Iterable[str], other: str | Iterable[str]) -> bool:
    """Whether two people are taken for one: they share a name, however it is written.

    Args:
        one: A name, or all names under which somebody is known: a user's, and their system accounts'.
        other: Likewise.
    """
    return not _keys(one).isdisjoint(_keys(other))


def one_of(written: str, by: str) -> str:
    """Name a person who is on record under one name, and here under another perhaps."""
    return f"{by!r}" if same_person(written, by) else f"{by!r} (as {written!r})"


def _keys(names: str | Iterable[str]) -> set[str]:
    return {person_key(name) for name in ((names,) if isinstance(names, str) else names)}


def standing(approval: Approval) -> str:
    """Say where a question stands, as the end of a sentence about it."""
    match approval.status:
        case ApprovalStatus.PENDING:
            return "was not answered yet"
        case ApprovalStatus.APPROVED | ApprovalStatus.ANSWERED:
            return f"was answered {approval.answer!s} by {approval.decided_by!r} before"
        case ApprovalStatus.REJECTED:
            return f"was rejected by {approval.decided_by!r}" + (
                f": {approval.reason}" if approval.reason else ""
            )
        case ApprovalStatus.USED:
            return f"was used at {approval.used_at:%Y-%m-%d %H:%M:%S} UTC: an approval is good for one time"
        case ApprovalStatus.EXPIRED:
            if approval.answer is None and approval.reason:
                return f"is {approval.reason}; it is put anew when its incident goes on"
            if approval.answer is None:
                return (
                    f"expired unanswered at {approval.expires_at:%Y-%m-%d %H:%M:%S} UTC, which is a no: who "
                    "raises its alert again, or asks for its retraining again, is asked anew"
                )
            return f"was answered, but not used before {approval.use_by:%Y-%m-%d %H:%M:%S} UTC: ask again"
