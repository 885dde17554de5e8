"""Observe-only: everything is worked out as ever, nothing is applied, and nobody is asked."""

from __future__ import annotations

from watchkeeper.runtime.approvals import SOLO_TIER
from watchkeeper.runtime.errors import ObserveOnlyError
from watchkeeper.runtime.events import WouldHaveDone
from watchkeeper.runtime.policy_types import PolicyDecision, Verdict
from watchkeeper.runtime.steps import Step


def refuse_observing(observe_only: bool, step_id: str, what: str) -> None:
    """Stop before anything is changed or anybody asked.

    Raises:
        ObserveOnlyError: If only observing is allowed.
    """
    if observe_only:
        raise ObserveOnlyError(
            f"step {step_id!r} {what}: this Watchkeeper only observes; "
            "set `observe_only: false` (or leave out --observe) where it may act"
        )


def would_have_done(step: Step, *, requester: str, solo: bool, then: tuple[str, ...] = ()) -> WouldHaveDone:
    """Say what would have been done about a step.

    Args:
        step: The step, with what the policy answered.
        requester: In whose name it would have been asked for.
        solo: Whether one person alone runs this.
        then: What would have followed it.
    """
    policy = step.policy
    asking = policy is not None and policy.decision is not Verdict.DENY
    return WouldHaveDone(
        step_id=step.id,
        action=step.action,
        host=step.host,
        arguments=step.arguments,
        summary=step.plan.summary,
        diff=step.plan.diff,
        decision=("ask" if policy.decision is Verdict.ASK else "allow") if policy and asking else "",
        rule=policy.rule if policy else "",
        tier=policy.tier if policy else 0,
        reason=policy.reason if policy else "",
        asked=who_is_asked(policy, requester=requester, solo=solo),
        then=then,
    )


def who_is_asked(policy: PolicyDecision | None, *, requester: str, solo: bool) -> str:
    """Say in words who would have been asked about a step."""
    if policy is None or policy.decision is Verdict.ALLOW:
        return "nobody would have been asked: the policy allows it"
    if policy.decision is Verdict.DENY:
        return "nobody would have been asked: the policy denies it"
    if solo and policy.tier <= SOLO_TIER and policy.quorum == 1:
        return f"{requester!r}, who works alone, would have been asked (tier {policy.tier})"
    if solo:
        more = "another person" if policy.quorum == 1 else f"{policy.quorum} other people"
        return f"nobody could have been asked: tier {policy.tier} needs {more} than {requester!r}"
    people = {1: "a person", 2: "two people"}.get(policy.quorum, f"{policy.quorum} people")
    return f"{people} other than {requester!r} would have been asked (tier {policy.tier})"
