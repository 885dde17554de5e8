"""Answers of people to questions: authenticated, given and audited as one, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import JsonValue

from watchkeeper.runtime.approval_types import one_of, same_person
from watchkeeper.runtime.approvals import Answer, Approval, ApprovalKind, Approvals, ApprovalStatus
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.authority import attempt
from watchkeeper.runtime.errors import ApprovalError
from watchkeeper.runtime.escalation import Escalations
from watchkeeper.runtime.events import IncidentOpened
from watchkeeper.runtime.incident_jobs import go_on
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.people import People, Person, check_answer, check_votes
from watchkeeper.runtime.store import Store


def give_answer(
    store: Store,
    approvals: Approvals,
    audit: AuditLog,
    people: People,
    approval_id: str,
    answer: Answer,
    *,
    by: Person | str | None = None,
    token: str | None = None,
    reason: str = "",
    arguments: dict[str, JsonValue] | None = None,
    escalations: Escalations | None = None,
    settle: Callable[[Approval], object] = lambda _: None,
) -> Approval:
    """Answer a question; an answer that cannot be written into the audit log is not given.

    That somebody was refused an answer is written there, too.

    Where the incident was given to workers, the answer has them go on with it.

    Args:
        store: Where the question is.
        approvals: The questions of that store.
        audit: Where the answer is written, too.
        people: Who there is.
        approval_id: The question.
        answer: The answer.
        by: Who answers (default: the user of this process).
        token: Their token, where it is not this process's user.
        reason: Why; the words of a response.
        arguments: The arguments of an edit, as its tool validated them.
        escalations: Those of that store; nobody is called any more about a question that is answered.
        settle: Writes what is said of an effect in doubt, in the transaction of the answer.

    Raises:
        ApprovalError: If the question is unknown, answered or expired, or not this person's to answer.
        IdentityError: If there is a users file, and it is not known who this is, or their roles do not do.
        AuditError: If the audit log cannot be written; the question is then still open.
    """
    asked = approvals.get(approval_id)
    with (
        attempt(audit, _what(asked, answer)) as known,
        store.transaction(),
    ):
        person = known(people.confirm(by, token=token))
        asked = approvals.get(approval_id)
        check_answer(person, asked, answer)
        if answer is Answer.APPROVE:
            _check_openers(store, person, asked)
            check_votes(people, asked)
        approval = approvals.decide(
            approval_id,
            answer,
            by=person.name,
            accounts=person.accounts,
            reason=reason,
            arguments=arguments,
        )
        audit.append(
            "approval-answered",
            {
                "approval_id": approval.id,
                "incident_id": approval.incident_id,
                "step_id": approval.step_id,
                "digest": approval.digest,
                "answer": answer.value,
                "by": person.name,
                "known_by": person.proof.value,
                "reason": reason,
                "edited": approval.edited,
                "votes": [vote.by for vote in approval.votes],
                "quorum": approval.quorum,
                "self_approved": approval.self_approved,
            },
        )
        if approval.kind is ApprovalKind.IN_DOUBT:
            settle(approval)
        if approval.decided_at is not None:
            at = approval.decided_at
            (escalations or Escalations(store, audit, now=lambda: at)).answered(approval)
        if approval.status is not ApprovalStatus.PENDING:
            go_on(store, approval.incident_id)
    return approval


def check_answerer(
    approvals: Approvals,
    audit: AuditLog,
    people: People,
    approval_id: str,
    answer: Answer,
    *,
    by: Person | str | None = None,
    token: str | None = None,
) -> Person:
    """Say who is about to answer a question, if their roles allow it; a refusal is audited.

    It is for what an answer takes before it is given, such as planning an edit; `give_answer` asks again.

    Args:
        approvals: The questions.
        audit: Where a refusal is written.
        people: Who there is.
        approval_id: The question.
        answer: The answer that they want to give.
        by: Who (default: the user of this process).
        token: Their token, where it is not this process's user.

    Raises:
        ApprovalError: If the question is unknown.
        IdentityError: If there is a users file, and it is not known who this is, or their roles do not do.
    """
    asked = approvals.get(approval_id)
    with attempt(audit, _what(asked, answer)) as known:
        person = known(people.confirm(by, token=token))
        check_answer(person, asked, answer)
    return person


def _what(asked: Approval, answer: Answer) -> str:
    """Name what somebody tries, for the audit log."""
    return f"answer {answer.value!r} to {asked.id} (incident {asked.incident_id})"


def _check_openers(store: Store, person: Person, asked: Approval) -> None:
    """Let nobody approve what is done for an alert of theirs, whoever's worker asks.

    Raises:
        ApprovalError: If they had the incident handled, and somebody else asks.
    """
    if same_person(person.names, asked.requester_names):  # then the question says what they may
        return
    for event in Incidents(store).events(asked.incident_id):
        if isinstance(event, IncidentOpened) and same_person(person.names, (event.by, *event.accounts)):
            raise ApprovalError(
                f"approval {asked.id!r} is about incident {asked.incident_id!r}, which "
                f"{one_of(event.by, person.name)} had handled: another person must approve it"
            )
