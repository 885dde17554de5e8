"""Permits: what policy, limits and the target say of a step, when planned and right before its effect."""

from __future__ import annotations

from typing import Any

from watchkeeper.runtime.approvals import action_digest
from watchkeeper.runtime.blast import BlastRadius
from watchkeeper.runtime.breaker import Breaker, BreakerState
from watchkeeper.runtime.errors import ApprovalError, IdentityError, LimitError
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.limits import ActionTarget, Limits, RateLimits
from watchkeeper.runtime.people import check_votes
from watchkeeper.runtime.policy_bias import MeasuredBias
from watchkeeper.runtime.policy_types import PolicyDecision, PolicyRequest, Verdict
from watchkeeper.runtime.repeats import Repeats
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.steps import Step
from watchkeeper.tools.action import ActionPlan
from watchkeeper.tools.errors import DriftError, TermsChangedError, ToolError
from watchkeeper.tools.registry import AnyAction, parse


class Permits:
    """Asks policy and limits about steps; changes and keeps nothing.

    Args:
        site: Hosts, actions and policy.
        journal: What was done so far.
        requester: In whose name actions are asked for.
        limits: What no policy and no approval goes beyond.
        max_actions: Actions that may be applied for one incident.
    """

    def __init__(
        self,
        site: Site,
        journal: Journal,
        *,
        requester: str,
        limits: Limits,
        max_actions: int,
    ) -> None:
        self._site = site
        self._journal = journal
        self._requester = requester
        self._max_actions = max_actions
        self._rates = RateLimits(journal.store, limits, now=journal.now)
        self._breaker = Breaker(journal.store, limits.breaker, now=journal.now)
        self._repeats = Repeats(journal.store, limits.repeats)

    def refusal(self, step: Step) -> str:
        """Say which limit forbids a step now; empty if none does."""
        return self._limited(step) or self._repeats.refusal(step.incident_id, target_of(step))

    def broken(self, step: Step) -> str:
        """Say why the circuit breaker forbids a step and nothing else; empty if it does not."""
        breaker = self._breaker.status(target_of(step))
        if breaker.state not in {BreakerState.OPEN, BreakerState.TRYING}:
            return ""
        until = (
            f"one try may be asked for at {breaker.retry_at:%Y-%m-%d %H:%M:%S} UTC"
            if breaker.state is BreakerState.OPEN
            else "the one try is under way"
        )
        return f"circuit breaker: {breaker.history()}; {until}, or after `watchkeeper breaker reset`"

    def no_room(self, host: str, actions: list[str]) -> str:
        """Say why a plan of so many actions would be stopped by a rate limit; empty if it would not."""
        return self._rates.refusal(host, actions)

    def digest(
        self,
        tool: AnyAction,
        host: str,
        arguments: dict[str, Any],
        plan: ActionPlan,
        bias: MeasuredBias | None = None,
    ) -> str:
        """Digest everything that an approval of an action is bound to."""
        return action_digest(
            tool=tool.name,
            version=tool.version,
            arguments=arguments,
            host=host,
            preconditions=plan.preconditions,
            policy_digest=self._site.policy.digest,
            bias=None if bias is None else bias.bound(),
        )

    def check_drift(self, step: Step, tool: AnyAction) -> None:
        """Refuse a step whose target, tool or policy is no longer what it was bound to.

        Raises:
            DriftError: Naming what changed.
        """
        target = self._site.target(step.host)
        try:
            fresh = tool.plan(target, parse(tool, dict(step.arguments)), key=step.plan.key)
        except ToolError as error:
            raise DriftError(f"step {step.id!r} cannot be planned any more: {error}") from error
        if fresh.preconditions != step.plan.preconditions:
            changed = ", ".join(
                sorted(
                    name
                    for name in fresh.preconditions.keys() | step.plan.preconditions.keys()
                    if fresh.preconditions.get(name) != step.plan.preconditions.get(name)
                )
            )
            raise DriftError(f"step {step.id!r}: the target changed since it was planned: {changed}")
        if self.digest(tool, step.host, step.arguments, fresh, step.bias) != step.digest:
            raise TermsChangedError(
                f"step {step.id!r}: its tool, arguments or the policy changed since it was planned"
            )

    def check(self, step: Step, approval_id: str | None) -> None:
        """Ask policy and limits again, in the transaction of the intent: what others just intended counts.

        Raises:
            ApprovalError: If people were asked about the step, and their answer is passed over, or who said
                yes may not any more.
            TermsChangedError: If the policy is stricter now than what people said yes to.
            LimitError: If a limit is reached.
        """
        if approval_id is None and self._journal.approvals.about(step.id, step.digest) is not None:
            raise ApprovalError(f"step {step.id!r} was put to people: what they answer counts")
        if approval_id is not None:
            try:
                check_votes(self._journal.people, self._journal.approvals.get(approval_id))
            except IdentityError as error:
                raise ApprovalError(str(error)) from error
        self._check_policy(step, approval_id)
        self._check_limits(step, approval_id)

    def _check_policy(self, step: Step, approval_id: str | None) -> None:
        """Refuse a step about which the policy is stricter now: rules may speak of the moment.

        Raises:
            TermsChangedError: With the reason.
        """
        now = self.answer(step)
        if now.decision is Verdict.DENY:
            raise TermsChangedError(f"step {step.id!r}: the policy denies it by now: {now.reason}")
        if now.decision is Verdict.ALLOW:
            return
        given = None if approval_id is None else self._journal.approvals.get(approval_id)
        if given is not None and given.digest != step.digest:
            return  # It is not used for this step, and whoever uses it says why.
        if given is None or given.tier < now.tier or given.quorum < now.quorum:
            people = f" and {now.quorum} people" if now.quorum > 1 else ""
            raise TermsChangedError(
                f"step {step.id!r}: the policy asks for an approval of tier {now.tier}{people} by now: "
                f"{now.reason}"
            )

    def _limited(self, step: Step) -> str:
        if self._journal.ledger.taken(step.incident_id) >= self._max_actions:
            return f"the budget of {self._max_actions} actions is spent"
        return self.broken(step) or self._rates.refusal(step.host, [step.action])

    def _check_limits(self, step: Step, approval_id: str | None) -> None:
        refused = self._limited(step)
        if not refused and approval_id is None:
            breaker = self._breaker.status(target_of(step))
            if breaker.state is BreakerState.HALF_OPEN:
                refused = f"circuit breaker: {breaker.history()}; a try needs a person's approval"
        if refused:
            raise LimitError(f"step {step.id!r}: {refused}")

    def answer(self, step: Step) -> PolicyDecision:
        """Ask the policy about a step at this moment; keeps nothing.

        What it allows is asked for nevertheless where the action failed so often that this is its one try.
        """
        answer = self._policy_now(step)
        if answer.decision is not Verdict.ALLOW:
            return answer
        breaker = self._breaker.status(target_of(step))
        if breaker.state is not BreakerState.HALF_OPEN:
            return answer
        reason = f"one try after {breaker.history()}"
        return answer.model_copy(
            update={"decision": Verdict.ASK, "rule": "circuit-breaker", "reason": reason}
        )

    def _policy_now(self, step: Step) -> PolicyDecision:
        journal = self._journal
        incident = journal.incidents.get(step.incident_id)
        now, policy = journal.now(), self._site.policy
        return policy.decide(
            PolicyRequest(
                action=step.action,
                version=step.version,
                reversibility=step.reversibility,
                arguments=step.arguments,
                host=step.host,
                labels=self._site.inventory.host(step.host).labels,
                requester=step.requester or self._requester,
                requester_roles=self._roles(step),
                now=now,
                diff_lines=len(step.plan.diff.splitlines()),
                severity=incident.severity,
                actions_taken=journal.ledger.taken(incident.id),
                blast=BlastRadius(
                    touches=journal.ledger.touches(now - policy.looks_back) if policy.looks_back else (),
                    fleet={host.name: host.labels for host in self._site.inventory},
                ),
                bias=step.bias,
            )
        )

    def _roles(self, step: Step) -> tuple[str, ...]:
        """Roles of who wants a step, as they are at this moment; none where there is no users file."""
        wanted = step.requester or self._requester
        users = self._journal.people.users
        if users is None:
            return ()
        # Whose account it was before there were users is a user now.
        user = users.named(wanted) or users.of_account(wanted)
        return tuple(role.value for role in user.roles) if user is not None else ()


def target_of(step: Step) -> ActionTarget:
    """What a step does to what, for counting."""
    return ActionTarget.of(step.action, step.host, step.arguments)
