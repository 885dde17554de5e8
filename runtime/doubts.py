"""Effects in doubt: what a person says of one is written into the ledger with the answer, at any time.

The question stays open although nobody answers it in time and its incident ends: until somebody says what
happened, the effect counts as one that may be there.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from watchkeeper.runtime.approval_types import Answer, Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.errors import ObserveOnlyError
from watchkeeper.runtime.events import ApprovalDecided, EffectDone
from watchkeeper.runtime.ledger import EffectState, effect_key
from watchkeeper.runtime.steps import Step, StepStatus
from watchkeeper.tools.action import ProbeAnswer
from watchkeeper.tools.errors import ToolError

if TYPE_CHECKING:
    from watchkeeper.runtime.changes import Changes
    from watchkeeper.runtime.journal import Journal


def settle_doubt(journal: Journal, approval: Approval) -> None:
    """Write what a person answered about an effect in doubt; what is settled stays as it is.

    Part of the transaction that keeps the answer.

    Args:
        journal: Where it is written.
        approval: The question with its answer.
    """
    tell_answer(journal, approval)
    step = journal.steps.get(approval.step_id)
    effect = journal.ledger.find(effect_key(step.id, approval.digest))
    if effect is None or effect.state is not EffectState.INTENDED:
        return
    said = ProbeAnswer.DONE if approval.answer is Answer.DONE else ProbeAnswer.NOT_DONE
    effect = journal.ledger.settle(effect.key, said, by=approval.decided_by or "a person")
    tell_effect(journal, step, effect.state, effect.outcome.detail if effect.outcome else "")


def tell_answer(journal: Journal, approval: Approval) -> None:
    """Write an answer into the incident's events, once."""
    if approval.answer is None:
        return
    journal.record(
        approval.incident_id,
        ApprovalDecided(
            approval_id=approval.id,
            answer=approval.answer.value,
            by=approval.decided_by or "",
            reason=approval.reason,
            edited=approval.edited,
            self_approved=approval.self_approved,
        ),
        key=f"answer:{approval.id}",
    )


def tell_effect(journal: Journal, step: Step, state: EffectState, detail: str) -> None:
    """Write what came of an effect into its step and the incident's events, once."""
    status = StepStatus.APPLIED if state is EffectState.DONE else StepStatus.FAILED
    with journal.store.transaction():
        journal.steps.update(step.id, status=status, detail=detail)
        journal.record(
            step.incident_id,
            EffectDone(step_id=step.id, ok=state is EffectState.DONE, detail=detail),
            key=f"effect-done:{step.id}",
        )


def look_again(journal: Journal, changes: Changes, incident_id: str) -> None:
    """Find out what an ended incident left in doubt: look, and ask where that cannot tell.

    What was begun to be taken back is taken back; what people are asked about is left to them.

    Args:
        journal: Where its effects are.
        changes: Looks, and asks.
        incident_id: The incident.
    """
    asked = {
        approval.step_id
        for approval in journal.approvals.list(incident_id=incident_id, status=ApprovalStatus.PENDING)
        if approval.kind is ApprovalKind.IN_DOUBT
    }
    for effect in journal.ledger.in_doubt(incident_id):
        if effect.step_id in asked:
            continue
        # Tools may be gone, and where it is only observed nobody is asked.
        with suppress(ObserveOnlyError):
            state = effect.state
            with suppress(ToolError):
                if state is EffectState.ROLLING_BACK:
                    changes.rollback(effect.step_id)
                else:
                    state = changes.apply(effect.step_id).state
            if state is EffectState.INTENDED:
                changes.ask_in_doubt(effect.step_id)
