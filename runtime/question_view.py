"""A question as a person should see it who answers: what, where, why, what else, and what undoes it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.runtime.approvals import Approval, Approvals
from watchkeeper.runtime.decisions import DecisionRecord, Decisions
from watchkeeper.runtime.events import Claim, DiagnosisMade
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.steps import Step, Steps
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import ActionView


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Alternative(_Part):
    """An option that an agent had: ``decision`` is the record that tells more."""

    decision: str
    question: str
    text: str
    probability: float
    chosen: bool


class QuestionView(_Part):
    """Everything about a question that a person should see.

    Texts are as they were written down: whoever shows them escapes them.

    Attributes:
        approval: The question itself.
        action: Registered name of the action.
        version: Its version.
        arguments: Its arguments.
        host: Where it acts.
        hypothesis: Why: the diagnosis that it acts on.
        probability: How probable that is; None where no diagnosis is on record.
        evidence: What supports the diagnosis, with ids of evidence.
        diff: What would change.
        risk: What may go wrong.
        reversibility: Whether it can be taken back.
        undo: How it would be taken back.
        lines: What else the action says of itself.
        policy: What the policy said, and which rule.
        alternatives: What else the agents could have chosen, the most probable first.
        deadline: When silence becomes a no.
    """

    approval: Approval
    action: str
    version: int
    arguments: dict[str, JsonValue]
    host: str
    hypothesis: str
    probability: float | None
    evidence: tuple[Claim, ...]
    diff: str
    risk: str
    reversibility: str
    undo: str
    lines: tuple[tuple[str, str], ...]
    policy: str
    alternatives: tuple[Alternative, ...]
    deadline: datetime


def view_question(store: Store, approval: Approval) -> QuestionView:
    """Put together what is on record about a question.

    Raises:
        UnknownRecordError: If its step is not in the store.
        StoreError: If the store cannot be read.
    """
    step = Steps(store).get(approval.step_id)
    said = ActionView.model_validate_json(approval.view) if approval.view else ActionView(undo="")
    diagnosis = _diagnosis(store, step)
    return QuestionView(
        approval=approval,
        action=step.action,
        version=step.version,
        arguments=step.arguments,
        host=step.host,
        hypothesis=step.hypothesis,
        probability=None if diagnosis is None else diagnosis.probability,
        evidence=() if diagnosis is None else diagnosis.claims,
        diff=approval.diff,
        risk=step.plan.risk,
        reversibility=step.reversibility.value,
        undo=said.undo,
        lines=said.lines,
        policy=f"{step.policy.reason} (rule {step.policy.rule})" if step.policy else "",
        alternatives=_alternatives(store, step),
        deadline=approval.expires_at,
    )


def reload_view(store: Store, approval_id: str) -> QuestionView:
    """Read a question and everything about it.

    Raises:
        ApprovalError: If there is no such question.
    """
    return view_question(store, Approvals(store).get(approval_id))


def _diagnosis(store: Store, step: Step) -> DiagnosisMade | None:
    """The diagnosis that stood when the step was planned."""
    if not step.hypothesis:
        return None
    found = [
        event
        for event in Incidents(store).events(step.incident_id)
        if isinstance(event, DiagnosisMade) and event.at <= step.created_at
    ]
    return found[-1] if found else None


def _alternatives(store: Store, step: Step) -> tuple[Alternative, ...]:
    """The options of the last choices of a cause and of an action before the step was planned."""
    if not step.hypothesis:
        return ()
    last: dict[str, DecisionRecord] = {}
    for record in Decisions(store).list(step.incident_id):
        if record.at <= step.created_at and len(record.options) > 1:
            last[record.role] = record
    return tuple(
        Alternative(
            decision=record.id,
            question=record.question,
            text=option.text,
            probability=option.probability,
            chosen=number == record.chosen,
        )
        for record in (last[role] for role in ("diagnostician", "remediator") if role in last)
        for number, option in sorted(enumerate(record.options), key=lambda item: -item[1].probability)
    )
