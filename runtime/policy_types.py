"""What a policy is asked and what it answers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, model_validator

from watchkeeper.runtime.approval_types import PAIR_TIER
from watchkeeper.runtime.blast import BlastRadius, Reach
from watchkeeper.runtime.clock import utc_now
from watchkeeper.runtime.policy_bias import MeasuredBias
from watchkeeper.tools.action import Reversibility
from watchkeeper.tools.findings import Severity


class Verdict(StrEnum):
    """What a policy answers for one concrete action."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


def quorum_of(tier: int, quorum: int | None = None) -> int:
    """How many people must say yes: what is asked for, and two at least at the top tier."""
    return max(quorum or 1, 2 if tier >= PAIR_TIER else 1)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicyRequest(_Record):
    """One concrete action, as a policy sees it.

    Attributes:
        action: Registered name.
        version: Version of the action.
        reversibility: What can be done about it afterwards.
        arguments: Its arguments.
        host: Name of the host.
        labels: Labels of the host.
        requester: Who wants it.
        requester_roles: Roles of who wants it.
        now: When.
        diff_lines: Lines of the plan's diff.
        severity: Severity of the incident.
        actions_taken: Actions that were applied for the incident before.
        blast: What was touched across all incidents, and the fleet.
        bias: How differently the version that is to answer treats groups; None where nothing was measured.
    """

    action: str
    version: int = 1
    reversibility: Reversibility
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    host: str
    labels: dict[str, str] = Field(default_factory=dict)
    requester: str = ""
    requester_roles: tuple[str, ...] = ()
    now: AwareDatetime = Field(default_factory=utc_now)
    diff_lines: int = Field(default=0, ge=0)
    severity: Severity = Severity.CRITICAL
    actions_taken: int = Field(default=0, ge=0)
    blast: BlastRadius = BlastRadius()
    bias: MeasuredBias | None = None

    def variables(self) -> dict[str, Any]:
        """The variables that a rule's condition may use, but for windows, blast radius and bias."""
        moment: datetime = self.now
        return {
            "action": {
                "name": self.action,
                "version": self.version,
                "reversibility": self.reversibility.value,
            },
            "arguments": self.arguments,
            "host": {"name": self.host, "labels": self.labels},
            "requester": self.requester,
            "requester_roles": list(self.requester_roles),
            "now": moment,
            "diff_lines": self.diff_lines,
            "incident": {"severity": self.severity.value, "actions_taken": self.actions_taken},
        }


class RuleTrace(_Record):
    """What one rule said, and why.

    ``matched``, ``not-matched`` or ``error``; ``limited`` where its limit made it stricter; ``raised`` where
    it was made stricter since there is no way back.
    """

    rule: str
    outcome: str
    detail: str = ""


class PolicyDecision(_Record):
    """The answer of a policy.

    Attributes:
        decision: What may be done.
        tier: How much say it needs where people are asked: 1 one person, 2 a second person, 3 two others.
        quorum: How many people must say yes where people are asked.
        rule: Rule that decided; ``"-"`` where none did.
        reason: Why, for people and for the agent that must choose something else.
        policy_digest: SHA-256 of the policy that answered.
        trace: What every rule said that was looked at.
        windows: For each window of the policy whether it is open at that moment.
        blast: By time span: what was touched within it, for the spans that the policy speaks of.
    """

    decision: Verdict
    tier: int = Field(default=1, ge=1, le=3)
    quorum: int = Field(default=1, ge=1, le=3)
    rule: str
    reason: str
    policy_digest: str
    trace: tuple[RuleTrace, ...] = ()
    windows: dict[str, bool] = Field(default_factory=dict)
    blast: dict[str, Reach] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, values: Any) -> Any:
        # What was kept before there was a quorum says so by its tier.
        if isinstance(values, dict) and "quorum" not in values:
            return values | {"quorum": quorum_of(values.get("tier", 1))}
        return values
