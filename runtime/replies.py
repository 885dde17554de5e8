"""What the incident graph does about an answer of a person."""

from __future__ import annotations

from typing import Any

from watchkeeper.runtime.approvals import Answer, Approval, ApprovalStatus
from watchkeeper.runtime.budgets import beyond
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.state import IncidentState, Turn
from watchkeeper.runtime.steps import StepStatus

Update = dict[str, Any]


def follow_answer(context: Context, changes: Changes, state: IncidentState, approval: Approval) -> Update:
    """Go on from the answer to a question about an action; silence is a no."""
    journal = context.journal
    if approval.status in {ApprovalStatus.APPROVED, ApprovalStatus.USED}:
        journal.steps.update(state["step"], status=StepStatus.APPROVED)
        journal.incidents.set_status(state["incident"], IncidentStatus.MITIGATING)
        return {"verdict": "execute"}
    reason = _reason(approval)
    journal.steps.update(state["step"], status=StepStatus.REFUSED, detail=reason)
    if approval.status is ApprovalStatus.ANSWERED:
        if approval.answer is Answer.EDIT:
            return _edited(context, changes, state, approval)
        if approval.answer is Answer.RESPOND:
            return _responded(context, state, reason)
        if approval.answer is Answer.TERMINATE:
            return {"verdict": "terminate" if state.get("applied") else "closed", "reason": reason}
    return {"verdict": "abandon", "reason": reason}


def _edited(context: Context, changes: Changes, state: IncidentState, approval: Approval) -> Update:
    """Propose the same action with the arguments of a person; policy and people are asked anew."""
    first, *follow = state["queue"]
    arguments = dict(approval.edited or {})
    if not state.get("applied"):
        # What follows an action depends on its arguments, and is then wanted by whoever gave them.
        hypothesis, _ = context.hypothesis(state)
        spec = context.site.inventory.host(context.incident(state).alert.host)
        after = hypothesis.cause.steps_after(first["action"], spec, arguments)
        by = approval.decided_by
        follow = [{"action": step.action, "arguments": step.arguments, "by": by} for step in after]
    edited = first | {"arguments": arguments, "by": approval.decided_by, "edit": approval.id}
    queue = [edited, *follow]
    too_much = beyond(context, changes, context.incident(state), queue)
    if too_much:
        return {"verdict": "abandon", "reason": too_much}
    return {"queue": queue, "verdict": "propose"}


def _responded(context: Context, state: IncidentState, reason: str) -> Update:
    """End the hypothesis' turn with what a person said; what was applied is taken back first."""
    if state.get("applied"):
        return {"verdict": "respond", "reason": reason}
    hypothesis, _ = context.hypothesis(state)
    turn = Turn(hypothesis=hypothesis.key, text=hypothesis.text, action="", result=reason)
    context.journal.incidents.set_status(state["incident"], IncidentStatus.INVESTIGATING)
    return {"verdict": "investigate", "turns": [turn], "queue": [], "repeat": 0, "reason": reason}


def _reason(approval: Approval) -> str:
    """Say why an action is not done."""
    who, what = approval.decided_by, approval.summary
    because = f" ({approval.reason})" if approval.reason else ""
    match approval.status, approval.answer:
        case ApprovalStatus.REJECTED, _:
            return f"{who} refused: {what}{because}"
        case ApprovalStatus.ANSWERED, Answer.EDIT:
            return f"{who} wants other arguments for it: {what}{because}"
        case ApprovalStatus.ANSWERED, Answer.RESPOND:
            return f"{who} answered: {approval.reason}"
        case ApprovalStatus.ANSWERED, Answer.TERMINATE:
            return f"{who} ended it: {approval.reason}"
        case ApprovalStatus.ANSWERED, _:
            return f"{who} handed it over: {approval.reason}"
        case _, None:
            return f"nobody answered in time, which is a no: {what}"
        case _:
            return f"{who} approved it, but the yes lapsed unused: {what}"
