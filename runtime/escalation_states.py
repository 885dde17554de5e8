"""How an escalation goes on: a pure function of where it stands, what happened, and the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from watchkeeper.runtime.errors import EscalationError
from watchkeeper.runtime.escalation_rules import EscalationRules, Level
from watchkeeper.runtime.oncall import first_level, people_of

_GRACE = timedelta(seconds=30)
"""Time in which a call is still made by itself: another worker takes over what one that died had begun."""


class EscalationStatus(StrEnum):
    """Where an escalation stands.

    ``WAITING``: a level was called and nobody said yet that they are on it.
    ``ACKNOWLEDGED``: somebody is on it; nobody else is called.
    ``ANSWERED``: the question was answered.
    ``SILENT``: nobody reacted in time: the question is answered no, the incident is people's.
    """

    WAITING = "waiting"
    ACKNOWLEDGED = "acknowledged"
    ANSWERED = "answered"
    SILENT = "silent"

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self in {EscalationStatus.ANSWERED, EscalationStatus.SILENT}


class Escalation(BaseModel):
    """People being called about a question, or about an incident that was handed over.

    Attributes:
        id: ``ESC-7K3QW``.
        incident_id: Incident it belongs to.
        approval_id: The question; empty where the incident was handed over.
        policy: Name of the policy.
        rules: The rules as they were when it began; it goes by these to its end.
        subject: What it is about, in one line.
        status: Where it stands.
        level: Number of the level that was called last, from 1.
        round: How often that level was called again.
        step: How often anybody was called; every call has a number of its own.
        called: Who was called last.
        started_at: When it began.
        due_at: When the next call is due; None where none is.
        ends_at: When the question expires; None where the incident was handed over.
        acknowledged_by: Who is on it.
        acknowledged_at: Since when.
        delegated_by: Who handed the last call on.
        held_since: Since when its calls wait until a person releases them, after a restore from a backup;
            None where they do not.
        ended_at: When it was over.
        reason: How.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    incident_id: str
    approval_id: str = ""
    policy: str
    rules: EscalationRules
    subject: str
    status: EscalationStatus = EscalationStatus.WAITING
    level: int
    round: int = 0
    step: int = 1
    called: tuple[str, ...]
    started_at: datetime
    due_at: datetime | None
    ends_at: datetime | None = None
    acknowledged_by: str = ""
    acknowledged_at: datetime | None = None
    delegated_by: str = ""
    held_since: datetime | None = None
    ended_at: datetime | None = None
    reason: str = ""

    def is_overdue(self, at: datetime) -> bool:
        """Whether the next call should have been made by now, and no process did."""
        waits = self.status is EscalationStatus.WAITING and self.held_since is None
        return waits and self.due_at is not None and self.due_at + _GRACE <= at

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of its policy."""
        return self.rules.policy(self.policy).levels


@dataclass(frozen=True, slots=True)
class CallDue:
    """The time of a call is over.

    Attributes:
        step: The call.
        votes: How many said yes to its question, of more who are to.
    """

    step: int
    votes: int = 0


@dataclass(frozen=True, slots=True)
class QuestionDue:
    """The question's own deadline has come.

    Attributes:
        votes: How many said yes to it, of more who are to.
    """

    votes: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The question was answered.

    Attributes:
        by: By whom.
    """

    by: str


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Somebody says that they are on it.

    Attributes:
        by: Who.
    """

    by: str


@dataclass(frozen=True, slots=True)
class Delegate:
    """Somebody hands the call to another person.

    Attributes:
        by: Who.
        to: To whom.
    """

    by: str
    to: str


Signal = CallDue | QuestionDue | Answered | Acknowledge | Delegate


def begin(
    *,
    id: str,  # noqa: A002 (the field's name)
    incident_id: str,
    policy: str,
    rules: EscalationRules,
    subject: str,
    at: datetime,
    approval_id: str = "",
    ends_at: datetime | None = None,
) -> Escalation:
    """Return an escalation that begins now: its first level is called.

    Raises:
        ConfigurationError: If the policy is unknown.
    """
    plan = rules.policy(policy)
    number = first_level(plan, at)
    level = plan.levels[number - 1]
    return Escalation(
        id=id,
        incident_id=incident_id,
        approval_id=approval_id,
        policy=policy,
        rules=rules,
        subject=subject,
        level=number,
        called=people_of(rules, level, at),
        started_at=at,
        due_at=None if level.wait is None else at + level.wait,
        ends_at=ends_at,
    )


def advance(now: Escalation, signal: Signal, at: datetime) -> Escalation:
    """Return where an escalation stands after something happened.

    A timer that comes early, twice, or for a call that is not the last one changes nothing, and so does an
    answer to what is over; people are told.

    Args:
        now: Where it stands.
        signal: What happened.
        at: When.

    Raises:
        EscalationError: If somebody acknowledges or delegates what is over.
    """
    match signal:
        case CallDue(step, votes):
            if now.status is not EscalationStatus.WAITING or step != now.step or now.held_since:
                return now
            return now if now.due_at is None or at < now.due_at else _next(now, at, votes)
        case QuestionDue(votes):
            if now.status.ended or now.ends_at is None or at < now.ends_at:
                return now
            return _silent(now, at, votes)
        case Answered(by):
            if now.status.ended:
                return now
            return _over(now, EscalationStatus.ANSWERED, f"{by} answered", at)
        case Acknowledge(by):
            _check_open(now, at)
            if now.status is EscalationStatus.ACKNOWLEDGED:
                if now.acknowledged_by == by:
                    return now
                raise EscalationError(
                    f"escalation {now.id!r} was acknowledged by {now.acknowledged_by!r} before; take it over "
                    f"with `watchkeeper escalations delegate {now.id} --to {by}`"
                )
            changes = {
                "status": EscalationStatus.ACKNOWLEDGED,
                "acknowledged_by": by,
                "acknowledged_at": at,
                "due_at": None,
                "held_since": None,
            }
            return now.model_copy(update=changes)
        case Delegate(by, to):
            _check_open(now, at)
            if now.called == (to,) and now.status is EscalationStatus.WAITING:
                raise EscalationError(f"escalation {now.id!r} waits for {to!r} alone already")
            return _call(now, now.level, now.round, (to,), at, delegated_by=by)


def _next(now: Escalation, at: datetime, votes: int) -> Escalation:
    """Call again, or the next level; after the last one there is silence, but not where somebody said yes."""
    level = now.levels[now.level - 1]
    if now.round < level.repeat and not now.delegated_by:
        return _call(now, now.level, now.round + 1, people_of(now.rules, level, at), at)
    if now.level == len(now.levels):
        # Whoever else was called has until the question's own deadline.
        return now.model_copy(update={"due_at": None}) if votes and now.ends_at else _silent(now, at)
    following = now.levels[now.level]
    return _call(now, now.level + 1, 0, people_of(now.rules, following, at), at)


def _call(
    now: Escalation, level: int, again: int, called: tuple[str, ...], at: datetime, *, delegated_by: str = ""
) -> Escalation:
    wait = now.levels[level - 1].wait
    return now.model_copy(
        update={
            "status": EscalationStatus.WAITING,
            "level": level,
            "round": again,
            "step": now.step + 1,
            "called": called,
            # Counted from the call, so that nobody is passed over whose time ran out while nothing ran.
            "due_at": None if wait is None else at + wait,
            "acknowledged_by": "",
            "acknowledged_at": None,
            "delegated_by": delegated_by,
            "held_since": None,
        }
    )


def _silent(now: Escalation, at: datetime, votes: int = 0) -> Escalation:
    calls = "once" if now.step == 1 else f"{now.step} times"
    if votes:
        said = f"only {votes} said yes before the question's deadline; people were called {calls}"
    elif now.acknowledged_by:
        said = f"{now.acknowledged_by} acknowledged it, and nobody answered before the question's deadline"
    else:
        said = f"nobody reacted; people were called {calls}, the last time {', '.join(now.called)}"
    return _over(now, EscalationStatus.SILENT, said, at)


def _over(now: Escalation, status: EscalationStatus, reason: str, at: datetime) -> Escalation:
    return now.model_copy(update={"status": status, "reason": reason, "due_at": None, "ended_at": at})


def _check_open(now: Escalation, at: datetime) -> None:
    if now.status.ended:
        raise EscalationError(
            f"escalation {now.id!r} is over since {now.ended_at:%Y-%m-%d %H:%M:%S} UTC: {now.reason}"
        )
    if now.ends_at is not None and at >= now.ends_at:
        raise EscalationError(
            f"escalation {now.id!r} is over: its question expired at {now.ends_at:%Y-%m-%d %H:%M:%S} UTC"
        )
