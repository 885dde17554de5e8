"""Nodes that change: plan, lint, gate, approve, execute, doubt, verify, rollback."""

from __future__ import annotations

from typing import Any

from langgraph.types import interrupt

from watchkeeper.agents import Diagnosis, DiagnosisStatus
from watchkeeper.models.errors import BudgetExceededError, GrammarError
from watchkeeper.runtime.approvals import Answer, Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.budgets import beyond, exhausted
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.doubts import tell_answer
from watchkeeper.runtime.errors import ApprovalError, LimitError, ObserveOnlyError
from watchkeeper.runtime.events import DiagnosisMade, PlanRefused, StageEntered, Verified
from watchkeeper.runtime.events import DiagnosisStatus as StoredStatus
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.investigation import Investigation, is_clear
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.remedies import examinations, order_of, remedies
from watchkeeper.runtime.replies import follow_answer
from watchkeeper.runtime.restoring_records import EXPIRED_BY_RESTORE, asked_anew, planned_anew
from watchkeeper.runtime.state import IncidentState, Turn
from watchkeeper.runtime.steps import Step, StepStatus
from watchkeeper.tools.action import ProbeAnswer
from watchkeeper.tools.errors import ArgumentError, DriftError, PlanError, ToolError

Update = dict[str, Any]


class Mitigation:
    """The nodes around a change; the effect itself is `Changes`' alone."""

    def __init__(self, context: Context, changes: Changes, investigation: Investigation) -> None:
        self._context = context
        self._changes = changes
        self._investigation = investigation

    def remedy(self, state: IncidentState) -> Update:
        """Let the model choose the action and write its arguments; runbook steps follow it."""
        context = self._context
        self._enter(state, "plan")
        spent = exhausted(context, state)
        if spent:
            return {"verdict": "escalate", "reason": spent}
        hypothesis, _ = context.hypothesis(state)
        incident = context.incident(state)
        spec = context.site.inventory.host(incident.alert.host)
        for call in examinations(context, spec, hypothesis):
            self._investigation.gather(incident.id, call)
        case = context.case(state)
        offered = remedies(context, spec, hypothesis, case)
        if not offered:
            nothing = "no action that the policy allows and that has something to act on mends this"
            return self._give_up(state, "", f"{nothing}: it needs a person")
        key = f"remedy:{len(state.get('turns', ()))}"
        ranking, decision = context.team.choose_action(case, hypothesis, offered)
        context.journal.decide(incident.id, decision, key=f"{key}:action")
        chosen = offered[ranking[0]]
        try:
            remedy, filled = context.team.fill_arguments(case, hypothesis, chosen)
        except (BudgetExceededError, GrammarError) as error:
            return self._give_up(state, chosen.spec.name, f"its arguments could not be written: {error}")
        context.journal.decide(incident.id, filled, key=f"{key}:arguments")
        follow = hypothesis.cause.steps_after(remedy.action, spec, remedy.arguments)
        queue = [{"action": remedy.action, "arguments": remedy.arguments}]
        queue += [{"action": step.action, "arguments": step.arguments} for step in follow]
        too_much = beyond(context, self._changes, incident, queue)
        if too_much:
            return {"verdict": "escalate", "reason": too_much}
        return {"queue": queue, "applied": [], "repeat": 0, "verdict": "propose"}

    def propose(self, state: IncidentState) -> Update:
        """Plan the next step of the queue against the state of its target."""
        context = self._context
        incident = context.incident(state)
        hypothesis, _ = context.hypothesis(state)
        step = state["queue"][0]
        turn = len(state.get("turns", ()))
        key = f"step:{turn}:{len(state['applied'])}:{state['repeat']}"
        if step.get("edit"):
            key += f":{step['edit']}"
        try:
            planned = self._changes.propose(
                incident.id,
                host=incident.alert.host,
                action=step["action"],
                arguments=step["arguments"],
                hypothesis=hypothesis.text,
                requester=step.get("by") or "",
                key=key,
            )
        except (PlanError, ArgumentError) as error:
            return self._give_up(state, step["action"], str(error))
        except ToolError as error:
            return self._give_up(state, step["action"], f"its target could not be read: {error}")
        return {"step": planned.id, "verdict": "lint"}

    def lint(self, state: IncidentState) -> Update:
        """Refuse a step that makes no sense here and now, before anyone is asked about it."""
        self._enter(state, "lint")
        context = self._context
        incident = context.incident(state)
        step = context.journal.steps.get(state["step"])
        if planned_anew(step):
            return self._ask_anew(state)
        later = bool(state["applied"])
        if step.plan.is_empty:
            if later:
                self._refuse(step.id, "it would change nothing any more, and was left out")
                return {
                    "queue": state["queue"][1:],
                    "verdict": "propose" if len(state["queue"]) > 1 else "verify",
                }
            return self._pass_over(state, step, "it would change nothing")
        if not later and not context.fires(incident, context.read_condition(incident)):
            # What was read before says that it fires; what is diagnosed next must know better.
            self._investigation.read_again(state)
            return self._pass_over(
                state,
                step,
                "the alert's condition does not hold any more, so no action could be verified",
            )
        same = [
            other
            for other in context.journal.steps.list(incident.id)
            if other.id != step.id
            and (other.action, other.arguments) == (step.action, step.arguments)
            and other.status in {StepStatus.ROLLED_BACK, StepStatus.FAILED}
            and other.plan.preconditions == step.plan.preconditions
        ]
        if same and not later and not state["repeat"]:
            return self._pass_over(state, step, f"the same was tried in step {same[0].id} and did not help")
        return {"verdict": "gate"}

    def gate(self, state: IncidentState) -> Update:
        """Ask the policy; where people must be asked, write the question down."""
        self._enter(state, "gate")
        if planned_anew(self._context.journal.steps.get(state["step"])):
            return self._ask_anew(state)
        decision = self._changes.decide(state["step"])
        step = self._context.journal.steps.get(state["step"])
        if decision.decision is Verdict.DENY:
            return self._give_up(state, step.action, f"the policy denies it: {decision.reason}")
        observing = self._changes.observe_only
        known = self._context.journal.approvals.about(step.id, step.digest)
        if known is not None and not observing:
            return self._asked(state, known)  # before a crash; limits are asked again before the effect
        limited = self._limited(state, step)
        if limited is not None:
            return limited
        if observing:
            return self._observed(state)
        if decision.decision is Verdict.ALLOW:
            return {"approval": "", "verdict": "execute"}
        if self._changes.beyond_solo(step.id):
            reason = (
                f"{step.plan.summary}: this needs another person (tier {decision.tier}: {decision.reason}), "
                "and one person alone runs this"
            )
            if state["applied"]:
                return self._stopped(state, reason)  # what was begun well is people's to go on with
            return self._pass_over(state, step, reason)
        return self._asked(state, self._changes.ask(step.id))

    def approve(self, state: IncidentState) -> Update:
        """Wait for the answer; this node does nothing else."""
        interrupt({"approval": state["approval"]})
        return {"verdict": "answered"}

    def answered(self, state: IncidentState) -> Update:
        """Read the answer from the store, which is the truth."""
        context = self._context
        approval = context.journal.approvals.get(state["approval"])
        if approval.waits(context.journal.now()):
            return {"verdict": "approve"}
        tell_answer(context.journal, approval)
        if asked_anew(approval):
            doubtful = approval.kind is ApprovalKind.IN_DOUBT
            return {"verdict": "doubt"} if doubtful else self._ask_anew(state)
        if approval.kind is ApprovalKind.IN_DOUBT:
            return self._settled(state, approval)
        if approval.status is ApprovalStatus.EXPIRED and approval.answer is None:
            context.journal.escalations.expired(approval)
        return follow_answer(context, self._changes, state, approval)

    def execute(self, state: IncidentState) -> Update:
        """Do it, at most once."""
        self._enter(state, "execute")
        context = self._context
        step = context.journal.steps.get(state["step"])
        context.journal.incidents.set_status(state["incident"], IncidentStatus.MITIGATING)
        try:
            applied = self._changes.apply(step.id, state["approval"] or None)
        except DriftError as error:
            context.journal.record(
                state["incident"],
                PlanRefused(action=step.action, reason=str(error)),
                key=f"drifted:{step.id}",
            )
            self._refuse(step.id, str(error))
            if state["repeat"] >= 1:
                return {"verdict": "abandon", "reason": f"the target keeps changing: {error}"}
            return {"repeat": state["repeat"] + 1, "verdict": "propose"}
        except ObserveOnlyError:
            return self._limited(state, step) or self._observed(state)
        except ApprovalError as error:
            if state["approval"] and asked_anew(context.journal.approvals.get(state["approval"])):
                return self._ask_anew(state)
            self._refuse(step.id, str(error))
            return {"verdict": "abandon", "reason": str(error)}
        except LimitError as error:
            broken = self._changes.broken(step.id)
            return self._pass_over(state, step, broken) if broken else self._stopped(state, str(error))
        return self._after_effect(state, applied.state, applied.detail)

    def doubt(self, state: IncidentState) -> Update:
        """Ask a person whether an effect took place that a crash hid and no probe can tell."""
        if self._changes.observe_only:
            step = self._context.journal.steps.get(state["step"])
            reason = f"only observed, so nobody was asked whether this was done: {step.plan.summary}"
            return {"verdict": "escalate", "reason": reason}
        return self._asked(state, self._changes.ask_in_doubt(state["step"]))

    def verify(self, state: IncidentState) -> Update:
        """Look whether the alert's own condition is clear; only that counts."""
        self._enter(state, "verify")
        context = self._context
        clear = is_clear(context, state["incident"], patience=context.settings.settle_seconds)
        step_id = state["applied"][-1]
        step = context.journal.steps.get(step_id)
        context.journal.record(
            state["incident"],
            Verified(
                step_id=step_id,
                effect_ok=step.status is StepStatus.VERIFIED,
                condition_clear=clear,
                detail="the alert's condition is clear" if clear else "the alert's condition still fires",
            ),
            key=f"verified:{step_id}:{clear}",
        )
        if not clear:
            return {"verdict": "rollback", "reason": "it did not help: the alert's condition still fires"}
        _, diagnosis = context.hypothesis(state)
        confirmed = diagnosis.model_copy(update={"status": DiagnosisStatus.CONFIRMED})
        self._confirm(state, confirmed)
        return {
            "diagnosis": confirmed.model_dump(mode="json"),
            "verdict": "resolved",
            "reason": f"{step.action} mended it: the alert's condition is clear",
        }

    def rollback(self, state: IncidentState) -> Update:
        """Take back what was applied, the last first; then the next hypothesis has its turn."""
        self._enter(state, "rollback")
        context = self._context
        actions = []
        failed = []
        for step_id in reversed(state["applied"]):
            step = context.journal.steps.get(step_id)
            actions.append(step.action)
            try:
                outcome = self._changes.rollback(step_id)
            except ObserveOnlyError:
                reason = f"{state['reason']}; only observed, so it was not taken back: {step.plan.summary}"
                return {"verdict": "escalate", "reason": reason}
            if outcome is None:
                failed.append(step)
        if failed:
            what = "; ".join(f"{step.action} ({order_of(dict(step.arguments))})" for step in failed)
            return {
                "verdict": "escalate",
                "reason": f"{state['reason']}; this could not be taken back: {what}",
            }
        if state["verdict"] in {"abandon", "terminate"}:
            end = "escalate" if state["verdict"] == "abandon" else "closed"
            return {"verdict": end, "applied": [], "reason": state["reason"]}
        hypothesis, _ = context.hypothesis(state)
        turn = Turn(
            hypothesis=hypothesis.key,
            text=hypothesis.text,
            action=actions[-1] if actions else state["queue"][0]["action"],
            result=_taken_back(state),
        )
        context.journal.incidents.set_status(state["incident"], IncidentStatus.INVESTIGATING)
        return {"verdict": "investigate", "turns": [turn], "applied": [], "queue": [], "repeat": 0}

    def _observed(self, state: IncidentState) -> Update:
        """Write down what would have been done, and hand over: nothing is applied."""
        later = tuple(f"{step['action']} ({order_of(step['arguments'])})" for step in state["queue"][1:])
        event = self._changes.observe(state["step"], then=later)
        before = "" if not state["applied"] else f"; {len(state['applied'])} earlier step(s) stay applied"
        reason = (
            f"only observed, nothing was changed: would have done: {event.summary} ({event.asked}){before}"
        )
        return {"verdict": "observed", "reason": reason}

    def _ask_anew(self, state: IncidentState) -> Update:
        """Plan a step again against the target as it is: a restore expired its plan or its question."""
        self._refuse(state["step"], EXPIRED_BY_RESTORE)
        return {"repeat": state["repeat"] + 1, "verdict": "propose"}

    def _asked(self, state: IncidentState, approval: Approval) -> Update:
        self._context.journal.incidents.set_status(state["incident"], IncidentStatus.AWAITING_APPROVAL)
        return {"approval": approval.id, "verdict": "approve"}

    def _settled(self, state: IncidentState, approval: Approval) -> Update:
        """Go on from what a person said of an effect in doubt; in silence it stays in doubt."""
        if approval.answer is None:
            self._context.journal.escalations.expired(approval)
            reason = f"nobody said whether it was done, so it is still in doubt: {approval.summary}"
            return {"verdict": "escalate", "reason": reason}
        self._context.journal.incidents.set_status(state["incident"], IncidentStatus.MITIGATING)
        answer = ProbeAnswer.DONE if approval.answer is Answer.DONE else ProbeAnswer.NOT_DONE
        applied = self._changes.settle(state["step"], answer, by=approval.decided_by or "a person")
        return self._after_effect(state, applied.state, applied.detail)

    def _after_effect(self, state: IncidentState, known: EffectState, detail: str) -> Update:
        step_id = state["step"]
        if known is EffectState.INTENDED:
            return {"verdict": "doubt"}
        if known is EffectState.NOT_DONE:
            # Nothing happened before the crash; what is tried anew is planned and approved anew.
            return {"repeat": state["repeat"] + 1, "verdict": "propose"}
        applied = [*state["applied"], step_id]
        if known is not EffectState.DONE:
            return {"applied": applied, "verdict": "rollback", "reason": f"it failed: {detail}"}
        found = self._changes.verify(step_id)
        if not found.ok:
            return {
                "applied": applied,
                "verdict": "rollback",
                "reason": f"its effect is not there: {found.detail}",
            }
        queue = state["queue"][1:]
        return {"applied": applied, "queue": queue, "repeat": 0, "verdict": "propose" if queue else "verify"}

    def _limited(self, state: IncidentState, step: Step) -> Update | None:
        """Say how it goes on where the breaker or a limit forbids a step; None where none does."""
        broken = self._changes.broken(step.id)
        if broken:
            return self._pass_over(state, step, broken)
        refused = self._changes.refusal(step.id)
        return self._stopped(state, refused) if refused else None

    def _stopped(self, state: IncidentState, reason: str) -> Update:
        """End the attempt: a limit forbids its next step, and earlier ones are taken back."""
        journal = self._context.journal
        step = journal.steps.get(state["step"])
        journal.record(
            state["incident"], PlanRefused(action=step.action, reason=reason), key=f"limit:{step.id}"
        )
        self._refuse(step.id, reason)
        return {"verdict": "abandon", "reason": reason}

    def _give_up(self, state: IncidentState, action: str, reason: str) -> Update:
        """End the turn of a hypothesis: what was applied of its plan is taken back, if anything."""
        context = self._context
        number = len(state.get("turns", ()))
        context.journal.record(
            state["incident"], PlanRefused(action=action, reason=reason), key=f"refused:{number}:{action}"
        )
        if state.get("applied"):
            return {"verdict": "rollback", "reason": reason}
        hypothesis, _ = context.hypothesis(state)
        turn = Turn(hypothesis=hypothesis.key, text=hypothesis.text, action="", result=reason)
        return {"verdict": "diagnose", "turns": [turn], "queue": [], "reason": reason}

    def _pass_over(self, state: IncidentState, step: Step, reason: str) -> Update:
        """Refuse a step that was planned, and with it its hypothesis."""
        self._refuse(step.id, reason)
        return self._give_up(state, step.action, reason)

    def _refuse(self, step_id: str, reason: str) -> None:
        """Close a step that was planned, and is not done."""
        self._context.journal.steps.update(step_id, status=StepStatus.REFUSED, detail=reason)

    def _confirm(self, state: IncidentState, diagnosis: Diagnosis) -> None:
        self._context.journal.record(
            state["incident"],
            DiagnosisMade(
                cause=diagnosis.cause,
                subject=diagnosis.subject,
                status=StoredStatus.CONFIRMED,
                probability=diagnosis.probability,
            ),
            key=f"confirmed:{len(state.get('turns', ()))}",
        )

    def _enter(self, state: IncidentState, stage: str) -> None:
        name = (
            f"stage:{stage}:{len(state.get('turns', ()))}:{len(state.get('applied', ()))}:{state['repeat']}"
        )
        self._context.journal.record(state["incident"], StageEntered(stage=stage), key=name)


def _taken_back(state: IncidentState) -> str:
    """Say in a sentence of our own why what was applied was taken back."""
    if state["verdict"] == "respond":
        return "it was taken back, since a person answered"
    if state["reason"].startswith("it did not help"):
        return f"{state['reason'].partition(':')[0]} and was taken back"
    return f"{state['reason']}; all of it was taken back"
