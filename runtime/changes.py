"""Changes: one action from its plan over policy and approval to its effect, and back.

This is the only way in which anything is changed. It knows nothing of agents or graphs: the incident graph
walks a step through it, and so may a graph of a user's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from watchkeeper.runtime.approval_types import same_person
from watchkeeper.runtime.approvals import (
    SOLO_TIER,
    Approval,
    ApprovalKind,
    ApprovalStatus,
)
from watchkeeper.runtime.doubts import tell_effect
from watchkeeper.runtime.errors import ApprovalError, AuditError, LedgerError
from watchkeeper.runtime.events import (
    ApprovalRequested,
    EffectInDoubt,
    EffectIntended,
    PlanProposed,
    PolicyDecided,
    RolledBack,
    WouldHaveDone,
)
from watchkeeper.runtime.held_host import held_target
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState, effect_key
from watchkeeper.runtime.limits import MAX_ACTIONS, Limits
from watchkeeper.runtime.observing import refuse_observing, would_have_done
from watchkeeper.runtime.permits import Permits, target_of
from watchkeeper.runtime.policy_bias import MeasuredBias
from watchkeeper.runtime.policy_types import PolicyDecision, Verdict
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.steps import Step, StepStatus
from watchkeeper.tools.action import (
    Action,
    ActionView,
    Outcome,
    ProbeAnswer,
    Reversibility,
    Verification,
)
from watchkeeper.tools.errors import DriftError, ToolError
from watchkeeper.tools.registry import AnyAction, parse


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of asking for an effect.

    Attributes:
        state: What the ledger knows of it now.
        detail: For people.
    """

    state: EffectState
    detail: str

    @property
    def ok(self) -> bool:
        """Whether the effect took place."""
        return self.state is EffectState.DONE


class Changes:
    """Walks plan steps through plan, policy, approval, effect, verification and rollback.

    Args:
        site: Hosts, actions and policy.
        journal: Where everything is written.
        requester: In whose name actions are asked for.
        approval_ttl: Seconds after which an unanswered question is a no.
        observe_only: Whether nothing is applied or taken back, and nobody is asked.
        limits: What no policy and no approval goes beyond.
        max_actions: Actions that may be applied for one incident.
    """

    def __init__(
        self,
        site: Site,
        journal: Journal,
        *,
        requester: str,
        approval_ttl: float,
        observe_only: bool = False,
        limits: Limits | None = None,
        max_actions: int = MAX_ACTIONS,
    ) -> None:
        self.observe_only = observe_only
        self._site = site
        self._journal = journal
        self._requester = requester
        self._approval_ttl = approval_ttl
        self._permits = Permits(
            site,
            journal,
            requester=requester,
            limits=limits or Limits(),
            max_actions=max_actions,
        )

    def propose(
        self,
        incident_id: str,
        *,
        host: str,
        action: str,
        arguments: dict[str, Any],
        hypothesis: str = "",
        requester: str = "",
        bias: MeasuredBias | None = None,
        key: str,
    ) -> Step:
        """Plan an action on its target and keep it as a step; changes nothing.

        Args:
            incident_id: The incident it is for.
            host: Where; must be in the inventory.
            action: Registered name.
            arguments: Its arguments.
            hypothesis: The diagnosis it acts on.
            requester: Whose edit it is (default: in the name of who runs the incident).
            bias: How differently the version that it lets answer treats groups, where that was measured; the
                policy judges it, and an approval is bound to it.
            key: Name of this occasion; the same key gives the same step.

        Raises:
            UnknownHostError: If the host is not in the inventory.
            UnknownToolError: If there is no such action.
            ArgumentError: If the arguments are not valid.
            PlanError: If the action makes no sense on the target.
        """
        journal = self._journal
        kept = journal.steps.find(incident_id, key)
        if kept is not None:
            self._tell_plan(kept)
            return kept
        tool = self._site.registry.action(action)
        target = self._site.target(host)
        parsed = parse(tool, arguments)
        step_id = journal.steps.next_id(incident_id)
        plan = tool.plan(target, parsed, key=step_id)
        values = parsed.model_dump(mode="json")
        step = journal.steps.add(
            Step(
                id=step_id,
                incident_id=incident_id,
                hypothesis=hypothesis,
                host=host,
                action=action,
                version=tool.version,
                arguments=values,
                reversibility=tool.reversibility,
                plan=plan,
                digest=self._permits.digest(tool, host, values, plan, bias),
                requester=requester,
                bias=bias,
            ),
            key=key,
        )
        self._tell_plan(step)
        return step

    def decide(self, step_id: str) -> PolicyDecision:
        """Ask the policy about a step.

        Once people were asked about it, that stands, and they answer: a crash that has this asked again, at
        another moment, neither takes the question from them nor changes what a yes is worth.
        """
        journal = self._journal
        step = journal.steps.get(step_id)
        if step.policy is not None and self._asked(step, ApprovalKind.ACTION) is not None:
            return step.policy
        decision = self._permits.answer(step)
        status = {
            Verdict.DENY: StepStatus.REFUSED,
            Verdict.ASK: StepStatus.AWAITING,
            Verdict.ALLOW: StepStatus.APPROVED,
        }[decision.decision]
        journal.steps.update(step_id, policy=decision, status=status, detail=decision.reason)
        journal.record(
            step.incident_id,
            PolicyDecided(
                step_id=step_id,
                decision=decision.decision.value,
                rule=decision.rule,
                reason=decision.reason,
                tier=decision.tier,
            ),
            key=f"policy:{step_id}:{decision.decision.value}:{decision.tier}:{decision.quorum}",
        )
        return decision

    def refusal(self, step_id: str) -> str:
        """Say which limit forbids a step now, whatever the policy and people say; empty if none does."""
        step = self._journal.steps.get(step_id)
        return self._permits.refusal(step)

    def broken(self, step_id: str) -> str:
        """Say why the circuit breaker forbids a step, though others may be tried; empty if it does not."""
        return self._permits.broken(self._journal.steps.get(step_id))

    def no_room(self, host: str, actions: list[str]) -> str:
        """Say why a plan of so many actions would be stopped by a rate limit; empty if it would not."""
        return self._permits.no_room(host, actions)

    def beyond_solo(self, step_id: str) -> bool:
        """Whether nobody may answer for a step: one person alone runs this, and the policy wants others."""
        step = self._journal.steps.get(step_id)
        policy = step.policy
        return self._solo(step) and policy is not None and (policy.tier > SOLO_TIER or policy.quorum > 1)

    def ask(self, step_id: str) -> Approval:
        """Ask people about a step, once: asking again returns the question, whatever was answered.

        Raises:
            ApprovalError: If the policy did not say that people are to be asked.
            ObserveOnlyError: If nobody is asked.
        """
        refuse_observing(self.observe_only, step_id, "is put to nobody")
        step = self._journal.steps.get(step_id)
        if step.policy is None or step.policy.decision is not Verdict.ASK:
            raise ApprovalError(f"step {step_id!r} was not put to people by the policy")
        requester = step.requester or self._requester
        with self._journal.store.transaction():
            approval = self._asked(step, ApprovalKind.ACTION) or self._journal.approvals.request(
                incident_id=step.incident_id,
                step_id=step.id,
                digest=step.digest,
                summary=step.plan.summary,
                requester=requester,
                requester_accounts=self._journal.people.accounts(requester),
                tier=step.policy.tier,
                quorum=step.policy.quorum,
                diff=step.plan.diff,
                view=self._view(step),
                ttl_seconds=self._approval_ttl,
                solo=self._solo(step),
            )
            self._tell_question(step, approval)
        return approval

    def check_edit(self, step_id: str, arguments: dict[str, Any], *, by: str) -> dict[str, JsonValue]:
        """Say whether a step could be done with other arguments; changes nothing and keeps nothing.

        Args:
            step_id: The step that people are asked about.
            arguments: What they want instead.
            by: Whose edit it is.

        Returns:
            The arguments as the tool validated them.

        Raises:
            UnknownToolError: If this program does not know the tool.
            ArgumentError: If the arguments are not valid.
            PlanError: If the action makes no sense with them.
            ApprovalError: If they are those that were asked about, would change nothing, or if the policy
                denies them.
        """
        step = self._journal.steps.get(step_id)
        tool = self._site.registry.action(step.action)
        parsed = parse(tool, arguments)
        values: dict[str, JsonValue] = parsed.model_dump(mode="json")
        if values == step.arguments:
            raise ApprovalError(f"step {step_id!r} has these arguments already: approve it, or reject it")
        plan = tool.plan(self._site.target(step.host), parsed, key=step.plan.key)
        if plan.is_empty:
            raise ApprovalError(
                f"step {step_id!r} would change nothing with these arguments: reject it instead"
            )
        edited = step.model_copy(update={"arguments": values, "plan": plan, "requester": by})
        decision = self._permits.answer(edited)
        if decision.decision is Verdict.DENY:
            raise ApprovalError(f"step {step_id!r} is denied with these arguments: {decision.reason}")
        return values

    def ask_in_doubt(self, step_id: str) -> Approval:
        """Ask people whether an effect took place that a crash hid, once.

        Raises:
            ObserveOnlyError: If nobody is asked.
        """
        refuse_observing(self.observe_only, step_id, "is put to nobody")
        step = self._journal.steps.get(step_id)
        with self._journal.store.transaction():
            approval = self._asked(step, ApprovalKind.IN_DOUBT)
            # Such a question expires by a restore alone, and is then put anew.
            if approval is None or approval.status is ApprovalStatus.EXPIRED:
                approval = self._journal.approvals.request(
                    incident_id=step.incident_id,
                    step_id=step.id,
                    digest=step.digest,
                    summary=f"A crash hid whether this was done: {step.plan.summary}. Was it?",
                    requester=self._requester,
                    tier=1,
                    diff=step.plan.diff,
                    kind=ApprovalKind.IN_DOUBT,
                    ttl_seconds=self._approval_ttl,
                )
            self._tell_question(step, approval)
        return approval

    def settle(self, step_id: str, answer: ProbeAnswer, *, by: str) -> Applied:
        """Write what a person says of an effect in doubt; what is settled stays as it is."""
        step = self._journal.steps.get(step_id)
        ledger = self._journal.ledger
        effect = ledger.get(effect_key(step.id, step.digest))
        if effect.state is EffectState.INTENDED:
            effect = ledger.settle(effect.key, answer, by=by)
        return self._tell_effect(step, effect.state, effect.outcome.detail if effect.outcome else "")

    def apply(self, step_id: str, approval_id: str | None = None) -> Applied:
        """Do what a step says, at most once.

        The target is planned again first: where what the approval is bound to has changed, nothing is
        done. The policy is asked again together with the intent: whatever was touched until then counts.
        Called again after a crash, it does not repeat the effect but asks the action's probe.

        Args:
            step_id: The step.
            approval_id: The approval to be used up; None where the policy allows the step by itself.

        Returns:
            What the ledger knows: ``DONE``, ``FAILED``, ``NOT_DONE`` (a crash came before the effect; plan a
            new step), or ``INTENDED`` (in doubt: a person must say).

        Raises:
            ApprovalError: If the approval cannot be used for exactly this action.
            DriftError: If the target or the policy is no longer what was approved, or the policy answers
                more strictly at this moment.
            ObserveOnlyError: If nothing may be applied; what a crash hid of an earlier effect is still
                found out.
            LimitError: If the incident's budget of actions is spent, or a rate limit or an open circuit
                breaker forbids it now.
            HaltedError: If everything was stopped before anything was done.
            FencedError: If another worker took this over; where that was after the intent, what came of the
                effect is found out there.
        """
        journal = self._journal
        step = journal.steps.get(step_id)
        tool = self._site.registry.action(step.action)
        key = effect_key(step.id, step.digest)
        if journal.ledger.find(key) is not None:
            return self._recover(step, tool, key)
        refuse_observing(self.observe_only, step_id, "is not applied")
        if step.policy is None or step.policy.decision is Verdict.DENY:
            raise ApprovalError(f"step {step_id!r} was not allowed by the policy")
        if step.policy.decision is Verdict.ASK and approval_id is None:
            raise ApprovalError(f"step {step_id!r} needs an approval")
        self._permits.check_drift(step, tool)
        journal.ledger.intend(
            incident_id=step.incident_id,
            step_id=step.id,
            digest=step.digest,
            approval_id=approval_id,
            target=target_of(step),
            check=lambda: self._permits.check(step, approval_id),
            also=lambda: journal.record(
                step.incident_id, EffectIntended(step_id=step.id, key=key), key=f"effect-intended:{key}"
            ),
        )
        target = held_target(journal.store, self._site.target(step.host))
        try:
            outcome = tool.apply(target, step.plan)
        except DriftError as error:
            # Nothing was changed, so there is nothing to take back: what is there now is somebody else's.
            with journal.store.transaction():
                effect = journal.ledger.settle(
                    key, ProbeAnswer.NOT_DONE, by="the action itself", detail=str(error)
                )
                self._tell_effect(step, effect.state, str(error))
            raise
        except ToolError as error:
            outcome = Outcome(detail=str(error))
            ok = False
        else:
            ok = True
        return self._complete(step, key, ok=ok, outcome=outcome)

    def observe(self, step_id: str, *, then: tuple[str, ...] = ()) -> WouldHaveDone:
        """Write down what would have been done, where nothing is applied.

        Args:
            step_id: The step, about which the policy answered.
            then: What would have followed it.
        """
        step = self._journal.steps.get(step_id)
        event = would_have_done(step, requester=self._requester, solo=self._journal.approvals.solo, then=then)
        self._journal.steps.update(
            step_id, status=StepStatus.OBSERVED, detail=f"only observed: {event.asked}"
        )
        return self._journal.record(step.incident_id, event, key=f"observed:{step_id}")

    def verify(self, step_id: str) -> Verification:
        """Look whether the effect of a step is there."""
        step = self._journal.steps.get(step_id)
        tool = self._site.registry.action(step.action)
        try:
            found = tool.verify(self._site.target(step.host), step.plan)
        except ToolError as error:
            found = Verification(ok=False, detail=str(error))
        if found.ok:
            self._journal.steps.update(step_id, status=StepStatus.VERIFIED, detail=found.detail)
        return found

    def rollback(self, step_id: str) -> Outcome | None:
        """Take the effect of a step back; safe to repeat.

        Returns:
            What was done, or None where there is no way back or it failed: a person must look.

        Raises:
            ObserveOnlyError: If nothing may be taken back.
            LedgerError: If the effect is in doubt.
            FencedError: If another worker took this over, which then takes it back.
        """
        journal = self._journal
        step = journal.steps.get(step_id)
        key = effect_key(step.id, step.digest)
        state = journal.ledger.state(key)
        if state is EffectState.ROLLED_BACK:
            # A crash may have come between the ledger and this.
            outcome = journal.ledger.get(key).rollback_outcome or Outcome(detail="taken back")
            self._tell_rollback(step, outcome, outcome.detail)
            return outcome
        if state in {EffectState.NONE, EffectState.NOT_DONE}:
            return Outcome(detail="nothing was done")
        refuse_observing(self.observe_only, step_id, "is not taken back")
        tool = self._site.registry.action(step.action)
        if tool.reversibility is Reversibility.IRREVERSIBLE:
            self._tell_rollback(step, None, f"{step.action!r} is irreversible: there is no way back")
            return None
        if state is EffectState.INTENDED:
            raise LedgerError(f"effect {key!r} is in doubt: it is settled before it is taken back")
        journal.ledger.intend_rollback(key)
        target = held_target(journal.store, self._site.target(step.host))
        try:
            outcome = tool.rollback(target, step.plan)
        except ToolError as error:
            journal.ledger.complete_rollback(key, ok=False, outcome=Outcome(detail=str(error)))
            self._tell_rollback(step, None, str(error))
            return None
        journal.ledger.complete_rollback(key, ok=True, outcome=outcome)
        self._tell_rollback(step, outcome, outcome.detail)
        return outcome

    def _complete(self, step: Step, key: str, *, ok: bool, outcome: Outcome) -> Applied:
        """Write what came of an effect, and tell it, at once; it is kept even if it cannot be audited.

        Raises:
            AuditError: If it cannot be.
        """
        journal = self._journal
        try:
            with journal.store.transaction():
                effect = journal.ledger.complete(key, ok=ok, outcome=outcome)
                return self._tell_effect(step, effect.state, outcome.detail)
        except AuditError:
            journal.ledger.complete(key, ok=ok, outcome=outcome)
            raise

    def _recover(self, step: Step, tool: AnyAction, key: str) -> Applied:
        """Say what came of an effect that was intended before a crash."""
        ledger = self._journal.ledger
        effect = ledger.get(key)
        if effect.state is EffectState.INTENDED:
            try:
                answer = tool.probe(self._site.target(step.host), step.plan)
            except ToolError:
                answer = ProbeAnswer.UNKNOWN
            self._journal.record(
                step.incident_id,
                EffectInDoubt(step_id=step.id, answer=answer),
                key=f"in-doubt:{step.id}:{answer.value}",
            )
            effect = ledger.settle(key, answer)
        if effect.state is EffectState.INTENDED:
            self._journal.steps.update(step.id, status=StepStatus.IN_DOUBT)
            return Applied(effect.state, "a crash hid whether this was done, and its probe cannot tell")
        return self._tell_effect(step, effect.state, effect.outcome.detail if effect.outcome else "")

    def _solo(self, step: Step) -> bool:
        """Whether who asks may approve: the edit of another person is not part of working alone."""
        own = not step.requester or same_person(step.requester, self._requester)
        return self._journal.approvals.solo and own

    def _view(self, step: Step) -> str:
        """What an action says of itself to people; what cannot be read now is left out."""
        tool = self._site.registry.action(step.action)
        target = self._site.target(step.host)
        try:
            view = tool.view(target, step.plan)
        except ToolError as error:
            view = ActionView(
                undo=Action.view(tool, target, step.plan).undo, lines=(("not readable now", str(error)),)
            )
        return view.model_dump_json()

    def _asked(self, step: Step, kind: ApprovalKind) -> Approval | None:
        """Return what people were asked about a step; a step is put to them once."""
        return self._journal.approvals.about(step.id, step.digest, kind)

    def _tell_plan(self, step: Step) -> None:
        self._journal.record(
            step.incident_id,
            PlanProposed(
                step_id=step.id,
                action=step.action,
                host=step.host,
                arguments=step.arguments,
                summary=step.plan.summary,
                diff=step.plan.diff,
                reversibility=step.reversibility,
                risk=step.plan.risk,
            ),
            key=f"plan:{step.id}",
        )

    def _tell_question(self, step: Step, approval: Approval) -> None:
        """Put a question into the timeline, and call people about it."""
        self._journal.record(
            approval.incident_id,
            ApprovalRequested(
                approval_id=approval.id,
                step_id=approval.step_id,
                summary=approval.summary,
                expires_at=approval.expires_at,
            ),
            key=f"approval:{approval.id}",
        )
        if approval.status is ApprovalStatus.PENDING:
            self._journal.escalations.start_question(
                approval, self._site.escalation, labels=self._site.labels(step.host)
            )

    def _tell_effect(self, step: Step, state: EffectState, detail: str) -> Applied:
        tell_effect(self._journal, step, state, detail)
        return Applied(state, detail)

    def _tell_rollback(self, step: Step, outcome: Outcome | None, detail: str) -> None:
        status = StepStatus.FAILED if outcome is None else StepStatus.ROLLED_BACK
        with self._journal.store.transaction():
            self._journal.steps.update(step.id, status=status, detail=detail)
            self._journal.record(
                step.incident_id,
                RolledBack(step_id=step.id, ok=outcome is not None, detail=detail),
                key=f"rolled-back:{step.id}:{status.value}",
            )
