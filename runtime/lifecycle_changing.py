"""Nodes of the lifecycle that change: propose, gate, approve, answered, execute, verify, rollback."""

from __future__ import annotations

from typing import Any

from langgraph.types import interrupt

from watchkeeper.runtime.approvals import Answer, Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.doubts import tell_answer
from watchkeeper.runtime.errors import ApprovalError, LimitError, ObserveOnlyError
from watchkeeper.runtime.events import PlanRefused
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.lifecycle_run import LifecycleRun
from watchkeeper.runtime.lifecycle_state import Change, LifecycleState, Outcome, Update, ends
from watchkeeper.runtime.policy_bias import MeasuredBias
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.restoring_records import asked_anew, planned_anew
from watchkeeper.runtime.steps import StepStatus
from watchkeeper.tools.action import ProbeAnswer
from watchkeeper.tools.errors import ArgumentError, DriftError, PlanError, TermsChangedError, ToolError

ACTIONS = {
    Change.TRAIN: "job.submit",
    Change.TRIAL: "predictor.challenge",
    Change.PROMOTE: "predictor.promote",
}


class Changing:
    """The nodes around a change; the effect itself is `Changes`' alone."""

    def __init__(self, run: LifecycleRun) -> None:
        self._run = run
        self._journal = run.context.journal
        self._changes = run.changes

    def propose(self, state: LifecycleState) -> Update:
        """Plan the change against what is there now."""
        change = Change(state["change"])
        moved = self._moved(state) if change is Change.PROMOTE else ""
        if moved:
            return ends(Outcome.CHANGED, moved)
        try:
            step = self._changes.propose(
                state["incident"],
                host=self._run.request.host,
                action=ACTIONS[change],
                arguments=self._arguments(state, change),
                hypothesis="" if change is Change.TRAIN else self._why(state),
                bias=None if change is Change.TRAIN else self._measured(state),
                key=f"{change}:{state['repeat']}",
            )
        except (PlanError, ArgumentError) as error:
            refused = Outcome.BAD_DATA if change is Change.TRAIN else Outcome.CHANGED
            return ends(refused, f"{ACTIONS[change]} makes no sense: {error}")
        if step.plan.is_empty:
            if change is Change.TRAIN:
                return ends(Outcome.BAD_DATA, step.plan.summary)
            # Somebody else did it, so it is not this lifecycle's to watch or take back.
            return ends(Outcome.CHANGED, step.plan.summary)
        return {"step": step.id, "approval": "", "verdict": "gate"}

    def gate(self, state: LifecycleState) -> Update:
        """Ask the policy; where people must be asked, write the question down."""
        self._run.enter(state, "gate", f"{state['change']}:{state['repeat']}")
        if planned_anew(self._journal.steps.get(state["step"])):
            return {"repeat": state["repeat"] + 1, "verdict": "propose"}
        decision = self._changes.decide(state["step"])
        if decision.decision is Verdict.DENY:
            return ends(Outcome.BY_POLICY, f"the policy denies it: {decision.reason}")
        refused = self._changes.refusal(state["step"])
        if refused:
            return self._stopped(state, refused)
        if self._changes.observe_only:
            return self._observed(state)
        if decision.decision is Verdict.ALLOW:
            return {"approval": "", "verdict": "execute"}
        if self._changes.beyond_solo(state["step"]):
            reason = (
                f"this needs another person (tier {decision.tier}: {decision.reason}), and one person alone "
                "runs this"
            )
            return self._stopped(state, reason)
        approval = self._changes.ask(state["step"])
        self._journal.incidents.set_status(state["incident"], IncidentStatus.AWAITING_APPROVAL)
        return {"approval": approval.id, "verdict": "approve"}

    def approve(self, state: LifecycleState) -> Update:
        """Wait for the answer; this node does nothing else."""
        interrupt({"approval": state["approval"]})
        return {"verdict": "answered"}

    def answered(self, state: LifecycleState) -> Update:
        """Read the answer from the store, which is the truth; only a plain yes is a yes."""
        approval = self._journal.approvals.get(state["approval"])
        if approval.waits(self._journal.now()):
            return {"verdict": "approve"}
        tell_answer(self._journal, approval)
        doubtful = approval.kind is ApprovalKind.IN_DOUBT
        if asked_anew(approval):
            return {"verdict": "doubt"} if doubtful else {"repeat": state["repeat"] + 1, "verdict": "propose"}
        if approval.answer is None:
            self._journal.escalations.expired(approval)
        if doubtful:
            return self._settled(state, approval)
        if approval.status in {ApprovalStatus.APPROVED, ApprovalStatus.USED}:
            self._journal.steps.update(state["step"], status=StepStatus.APPROVED)
            self._journal.incidents.set_status(state["incident"], IncidentStatus.MITIGATING)
            return {"verdict": "execute"}
        if approval.answer is None:
            reason = f"nobody answered in time, which is a no: {approval.summary}"
        else:
            because = f" ({approval.reason})" if approval.reason else ""
            reason = f"{approval.decided_by} answered {approval.answer.value}{because}: {approval.summary}"
        self._journal.steps.update(state["step"], status=StepStatus.REFUSED, detail=reason)
        return ends(Outcome.BY_PERSON, reason)

    def _settled(self, state: LifecycleState, approval: Approval) -> Update:
        """Go on from what a person said of a change in doubt; in silence it stays in doubt."""
        if approval.answer is None:
            reason = f"nobody said whether it was done, so it is still in doubt: {approval.summary}"
            return ends(Outcome.ESCALATED, reason)
        self._journal.incidents.set_status(state["incident"], IncidentStatus.MITIGATING)
        said = ProbeAnswer.DONE if approval.answer is Answer.DONE else ProbeAnswer.NOT_DONE
        known = self._changes.settle(state["step"], said, by=approval.decided_by or "a person")
        return self._after(state, Change(state["change"]), known.state, known.detail)

    def execute(self, state: LifecycleState) -> Update:
        """Do it, at most once."""
        change = Change(state["change"])
        self._run.enter(state, change.value)
        self._journal.incidents.set_status(state["incident"], IncidentStatus.MITIGATING)
        try:
            applied = self._changes.apply(state["step"], state["approval"] or None)
        except DriftError as error:
            self._refused(state, str(error))
            # The target of a training is its data.
            of_data = change is Change.TRAIN and not isinstance(error, TermsChangedError)
            return ends(Outcome.BAD_DATA if of_data else Outcome.CHANGED, str(error))
        except ObserveOnlyError:
            refused = self._changes.refusal(state["step"])
            return self._stopped(state, refused) if refused else self._observed(state)
        except ApprovalError as error:
            if state["approval"] and asked_anew(self._journal.approvals.get(state["approval"])):
                return {"repeat": state["repeat"] + 1, "verdict": "propose"}
            self._refused(state, str(error))
            return ends(Outcome.BY_PERSON, str(error))
        except LimitError as error:
            return self._stopped(state, str(error))
        return self._after(state, change, applied.state, applied.detail)

    def doubt(self, state: LifecycleState) -> Update:
        """Ask a person whether a change took place that a crash hid and no probe can tell."""
        if self._changes.observe_only:
            summary = self._journal.steps.get(state["step"]).plan.summary
            return ends(
                Outcome.ESCALATED, f"only observed, so nobody was asked whether this was done: {summary}"
            )
        approval = self._changes.ask_in_doubt(state["step"])
        self._journal.incidents.set_status(state["incident"], IncidentStatus.AWAITING_APPROVAL)
        return {"approval": approval.id, "verdict": "approve"}

    def verify(self, state: LifecycleState) -> Update:
        """Look whether the version answers: ask the server that runs, or the registry where none does."""
        self._run.enter(state, "verify")
        found = self._changes.verify(state["steps"][Change.PROMOTE])
        self._run.judged(state, "verify", found.detail, ok=found.ok)
        if found.ok:
            return {"verdict": "watch"}
        return {"verdict": "rollback", "reason": f"the version does not answer: {found.detail}"}

    def rollback(self, state: LifecycleState) -> Update:
        """Take the promotion back, exactly."""
        self._run.enter(state, "rollback")
        step = self._journal.steps.get(state["steps"][Change.PROMOTE])
        try:
            outcome = self._changes.rollback(step.id)
        except ObserveOnlyError:
            left = f"only observed, so it was not taken back: {step.plan.summary}"
            return ends(Outcome.ESCALATED, f"{state['reason']}; {left}")
        if outcome is None:
            step = self._journal.steps.get(step.id)
            return ends(Outcome.ESCALATED, f"{state['reason']}; it could not be taken back: {step.detail}")
        return {"verdict": "prove"}

    def settle(self, state: LifecycleState) -> Update:
        """Take a trial back, however it ended; what it showed is on record."""
        step_id = state.get("steps", {}).get(Change.TRIAL)
        if step_id is None:
            return {}
        try:
            if self._changes.rollback(step_id) is not None:
                return {}
            left = f"the challenger could not be taken away: {self._journal.steps.get(step_id).detail}"
        except ObserveOnlyError:
            left = "only observed, so the challenger was not taken away"
        return {"outcome": Outcome.ESCALATED.value, "reason": f"{state['reason']}; {left}"}

    def _moved(self, state: LifecycleState) -> str:
        """Say that another version answers than the one that was compared with; empty if none does."""
        try:
            champion = self._run.champion()
        except ToolError as error:
            return str(error)
        number = None if champion is None else champion.number
        if number == state["champion"]:
            return ""
        said = "no version" if number is None else f"version {number}"
        return f"the champion was moved since it was compared with: {said} answers now"

    def _why(self, state: LifecycleState) -> str:
        """Say what people should know who are asked whether it may answer."""
        found = {stage: self._run.finding(state, stage) for stage in ("compare", "bias", "trial")}
        return "; ".join(f"{stage}: {one.detail}" for stage, one in found.items() if one is not None)

    def _measured(self, state: LifecycleState) -> MeasuredBias | None:
        """Return how differently it treats groups; None where that was not kept."""
        found = self._run.finding(state, "bias")
        kept = None if found is None else found.values.get("measured")
        return None if kept is None else MeasuredBias.model_validate(kept)

    def _arguments(self, state: LifecycleState, change: Change) -> dict[str, Any]:
        name = self._run.request.predictor
        return {"spec": name} if change is Change.TRAIN else {"name": name, "version": state["version"]}

    def _after(self, state: LifecycleState, change: Change, known: EffectState, detail: str) -> Update:
        if known is EffectState.INTENDED:
            return {"verdict": "doubt"}
        if known is EffectState.NOT_DONE and not state["repeat"]:
            return {"repeat": state["repeat"] + 1, "verdict": "propose"}
        if known is not EffectState.DONE:
            return ends(Outcome.ESCALATED, f"{ACTIONS[change]} failed: {detail}")
        steps = {**state.get("steps", {}), change.value: state["step"]}
        return {"steps": steps, "verdict": change.value, "repeat": 0}

    def _observed(self, state: LifecycleState) -> Update:
        event = self._changes.observe(state["step"])
        return ends(Outcome.BY_POLICY, f"only observed, nothing was changed: {event.summary} ({event.asked})")

    def _stopped(self, state: LifecycleState, reason: str) -> Update:
        self._refused(state, reason)
        return ends(Outcome.BY_POLICY, reason)

    def _refused(self, state: LifecycleState, reason: str) -> None:
        step = self._journal.steps.get(state["step"])
        self._journal.record(
            state["incident"], PlanRefused(action=step.action, reason=reason), key=f"refused:{step.id}"
        )
        self._journal.steps.update(step.id, status=StepStatus.REFUSED, detail=reason)
