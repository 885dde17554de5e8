"""Answers of people to questions: given and audited as one, wherever they come from."""

from __future__ import annotations

from watchkeeper.runtime.approvals import Answer, Approval, Approvals, ApprovalStatus
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.incident_jobs import go_on
from watchkeeper.runtime.store import Store


def give_answer(
    store: Store,
    approvals: Approvals,
    audit: AuditLog,
    approval_id: str,
    answer: Answer,
    *,
    by: str,
    reason: str = "",
) -> Approval:
    """Answer a question; an answer that cannot be written into the audit log is not given.

    Where the incident was given to workers, the answer has them go on with it.

    Args:
        store: Where the question is.
        approvals: The questions of that store.
        audit: Where the answer is written, too.
        approval_id: The question.
        answer: The answer.
        by: Who answers.
        reason: Why.

    Raises:
        ApprovalError: If the question is unknown, answered or expired, or not this person's to answer.
        AuditError: If the audit log cannot be written; the question is then still open.
    """
    with store.transaction():
        approval = approvals.decide(approval_id, answer, by=by, reason=reason)
        audit.append(
            "approval-answered",
            {
                "approval_id": approval.id,
                "incident_id": approval.incident_id,
                "step_id": approval.step_id,
                "digest": approval.digest,
                "answer": answer.value,
                "by": by,
                "reason": reason,
                "self_approved": approval.self_approved,
            },
        )
        if approval.status is not ApprovalStatus.PENDING:
            go_on(store, approval.incident_id)
    return approval
