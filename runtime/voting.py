"""Taking an answer: whose it may be, whether it is in time, and how many must say yes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from pydantic import JsonValue
from sqlalchemy import Connection, or_, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.approval_types import (
    ANSWERS,
    MAX_WORDS,
    OUTCOMES,
    SOLO_TIER,
    WORDED,
    Answer,
    Approval,
    ApprovalKind,
    ApprovalStatus,
    one_of,
    person_key,
    same_person,
    standing,
)
from watchkeeper.runtime.errors import ApprovalError


def take_answer(
    connection: Connection,
    asked: Approval,
    answer: Answer,
    *,
    by: str,
    accounts: tuple[str, ...],
    at: datetime,
    reason: str,
    arguments: dict[str, JsonValue] | None,
) -> None:
    """Write an answer down, in the transaction in which the question was read.

    ``accounts`` are the system accounts of who answers: whoever asked, or said yes before, may have done so
    as one of them.

    Raises:
        ApprovalError: If the answer does not fit, comes too late, or is not this person's to give.
    """
    _check_answer(asked, answer, reason, arguments)
    if asked.status is not ApprovalStatus.PENDING:
        raise ApprovalError(f"approval {asked.id!r} {standing(asked)}")
    _check_person(connection, asked, answer, by, accounts)
    if answer is Answer.APPROVE:
        _vote(connection, asked, by=by, accounts=accounts, at=at, reason=reason)
        if len(asked.votes) + 1 < asked.quorum:
            return
    table = schema.approvals
    changed = connection.execute(
        update(table)
        .where(
            table.c.id == asked.id,
            table.c.status == ApprovalStatus.PENDING.value,
            or_(table.c.expires_at > at, table.c.kind == ApprovalKind.IN_DOUBT.value),
        )
        .values(
            status=OUTCOMES[answer].value,
            answer=answer.value,
            decided_by=by,
            decided_at=at,
            reason=reason,
            edited=None if arguments is None else json.dumps(arguments),
            self_approved=answer is Answer.APPROVE and same_person((by, *accounts), asked.requester_names),
            use_by=at + timedelta(seconds=asked.ttl_seconds) if answer is Answer.APPROVE else None,
        )
    ).rowcount
    if changed != 1:
        raise ApprovalError(f"approval {asked.id!r} was answered by somebody else at the same moment")


def _vote(
    connection: Connection,
    asked: Approval,
    *,
    by: str,
    accounts: tuple[str, ...],
    at: datetime,
    reason: str,
) -> None:
    connection.execute(
        schema.approval_votes.insert().values(
            approval_id=asked.id,
            person=person_key(by),
            number=len(asked.votes) + 1,
            name=by,
            accounts=json.dumps(accounts),
            at=at,
            reason=reason,
        )
    )


def _check_answer(
    asked: Approval, answer: Answer, reason: str, arguments: dict[str, JsonValue] | None
) -> None:
    if answer not in ANSWERS[asked.kind]:
        first, *others = (repr(a.value) for a in ANSWERS[asked.kind])
        fitting = f"{', '.join([first, *others[:-1]])} or {others[-1]}"
        raise ApprovalError(f"approval {asked.id!r} is answered {fitting}, not {answer.value!r}")
    if (answer is Answer.EDIT) != (arguments is not None):
        needs = "needs the new arguments" if arguments is None else "takes no arguments: only an edit does"
        raise ApprovalError(f"approval {asked.id!r}: the answer {answer.value!r} {needs}")
    if answer in WORDED and not reason.strip():
        raise ApprovalError(f"approval {asked.id!r}: the answer {answer.value!r} needs words: say why")
    if len(reason) > MAX_WORDS:
        raise ApprovalError(
            f"approval {asked.id!r}: {len(reason)} characters are too many to say why: {MAX_WORDS} are kept"
        )


def _check_person(
    connection: Connection, asked: Approval, answer: Answer, by: str, accounts: tuple[str, ...]
) -> None:
    if not by.strip():
        raise ApprovalError(f"approval {asked.id!r}: who answers is not said")
    if answer is not Answer.APPROVE:
        return
    names = (by, *accounts)
    for vote in asked.votes:
        if same_person(names, vote.names):
            raise ApprovalError(
                f"approval {asked.id!r} is of tier {asked.tier}, which takes {asked.quorum} people, and "
                f"{one_of(vote.by, by)} said yes before: another person must, too"
            )
    if not same_person(names, asked.requester_names):
        return
    who = one_of(asked.requester, by)
    first = _asked_before_edit(connection, asked)
    if first and (not asked.solo or asked.quorum > 1):
        count = "another person" if asked.quorum == 1 else f"{asked.quorum} other people"
        raise ApprovalError(
            f"approval {asked.id!r} is the edit of {who} of what {first!r} asked for: who edits asks for the "
            f"edited action, so their own yes does not count: {count} must approve it"
        )
    if not asked.solo:
        raise ApprovalError(
            f"approval {asked.id!r} was asked for by {who}, who may not approve it: another person must "
            "(who works alone says so when a run begins: `--solo`)"
        )
    if asked.tier > SOLO_TIER or asked.quorum > 1:
        raise ApprovalError(
            f"approval {asked.id!r} is of tier {asked.tier}, for {asked.quorum} to approve: {who} asked for "
            f"it and even in solo mode may approve tier {SOLO_TIER} only; another person must"
        )


def _asked_before_edit(connection: Connection, asked: Approval) -> str:
    """Return who asked for what the requester of a question edited; empty where it is no edit."""
    table = schema.approvals
    step = connection.execute(select(schema.steps.c.body).where(schema.steps.c.id == asked.step_id)).scalar()
    if step is None:
        return ""
    arguments = json.loads(step)["arguments"]
    edits = connection.execute(
        select(table.c.edited, table.c.decided_by, table.c.requester)
        .where(table.c.incident_id == asked.incident_id, table.c.answer == Answer.EDIT.value)
        .order_by(table.c.decided_at.desc())
    )
    for edited, editor, requester in edits:
        of_requester = same_person(editor, asked.requester_names)
        if of_requester and json.loads(edited) == arguments:
            return str(requester)
    return ""
