"""Rules of a policy, as they are written in YAML."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from watchkeeper.runtime.blast import BlastRadius, Reach, Span
from watchkeeper.runtime.policy_bias import BiasRules, Difference, MeasuredBias
from watchkeeper.runtime.policy_types import PolicyRequest, Verdict, quorum_of
from watchkeeper.runtime.policy_windows import Window
from watchkeeper.tools.action import Reversibility
from watchkeeper.tools.findings import Severity

WindowName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Strict):
    """What a rule is about at all.

    Attributes:
        tools: Patterns of action names, any of which must fit (``service.*``).
        hosts: Patterns of label values, all of which must fit (``environment: prod*``).
        windows: Names of windows, any of which must be open; without any, the rule holds at all times.
    """

    tools: tuple[str, ...] = Field(default=("*",), min_length=1)
    hosts: dict[str, str] = Field(default_factory=dict)
    windows: tuple[WindowName, ...] = ()

    def fits(self, action: str, labels: dict[str, str]) -> bool:
        """Whether an action on a host with these labels is meant at some time; no label, no fit."""
        return self.fits_action(action) and self.fits_host(labels)

    def fits_action(self, action: str) -> bool:
        """Whether an action is meant on some host."""
        return any(fnmatchcase(action, pattern) for pattern in self.tools)

    def fits_host(self, labels: dict[str, str]) -> bool:
        """Whether a host with these labels is meant; no label, no fit."""
        return all(
            name in labels and fnmatchcase(labels[name], pattern) for name, pattern in self.hosts.items()
        )


class Limit(_Strict):
    """How much may be touched before a rule becomes stricter, counted across all incidents and actions.

    The action at hand is counted in: ``hosts: 3`` means that no fourth host is touched.

    Attributes:
        hosts: Hosts at most.
        share: Share of the fleet at most; above 0, up to 1.
        actions: Actions at most.
        per: Time span that is looked back.
        group: A label: only hosts with the same value of it as the host at hand count, also as the fleet.
        beyond: What the rule answers beyond it.
    """

    hosts: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, le=1)
    actions: int | None = Field(default=None, ge=1)
    per: Span
    group: str | None = None
    beyond: Literal["ask", "deny"] = "deny"

    @model_validator(mode="after")
    def _some(self) -> Limit:
        if self.hosts is None and self.share is None and self.actions is None:
            raise ValueError("a limit has hosts, share or actions")
        return self

    def exceeded(self, reach: Reach) -> str:
        """Say which bound is exceeded, for people; empty if none is."""
        where = f" with the same {self.group!r}" if self.group else ""
        if self.hosts is not None and reach.hosts > self.hosts:
            return f"{reach.hosts} hosts{where} would be touched within {self.per}, and {self.hosts} may be"
        if self.share is not None and reach.share > self.share:
            return (
                f"{reach.share:.1%} of the hosts{where} would be touched within {self.per}, and "
                f"{self.share:.1%} may be"
            )
        if self.actions is not None and reach.actions > self.actions:
            return (
                f"{reach.actions} actions{where} would be taken within {self.per}, and {self.actions} may be"
            )
        return ""


class ExampleHost(_Strict):
    """A host of an example."""

    name: str = "example"
    labels: dict[str, str] = Field(default_factory=dict)


class ExampleIncident(_Strict):
    """An incident of an example."""

    severity: Severity = Severity.CRITICAL
    actions_taken: int = Field(default=0, ge=0)


class Example(_Strict):
    """A concrete action by which a rule is checked when it is loaded.

    Attributes:
        action: Registered name of an action.
        reversibility: Taken from the action where not given.
        arguments: Its arguments.
        host: Where.
        requester: Who wants it.
        requester_roles: Roles of who wants it.
        now: When.
        diff_lines: Lines of the plan's diff.
        incident: What it is for.
        blast: What is touched within any time span, the action at hand counted in.
        bias: How differently the version that is to answer treats groups.
    """

    action: str
    reversibility: Reversibility | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    host: ExampleHost = ExampleHost()
    requester: str = "example"
    requester_roles: tuple[str, ...] = ()
    now: AwareDatetime | None = None
    diff_lines: int = Field(default=1, ge=0)
    incident: ExampleIncident = ExampleIncident()
    blast: Reach | None = None
    bias: tuple[Difference, ...] = ()

    def request(self, reversibility: Reversibility, version: int) -> PolicyRequest:
        """The request that the example stands for."""
        moment = {} if self.now is None else {"now": self.now}
        return PolicyRequest(
            action=self.action,
            version=version,
            reversibility=self.reversibility or reversibility,
            arguments=self.arguments,
            host=self.host.name,
            labels=self.host.labels,
            requester=self.requester,
            requester_roles=self.requester_roles,
            diff_lines=self.diff_lines,
            severity=self.incident.severity,
            actions_taken=self.incident.actions_taken,
            blast=BlastRadius(fixed=self.blast),
            bias=MeasuredBias.given(self.bias, self.arguments),
            **moment,
        )


class Examples(_Strict):
    """Actions that a rule must match, and such that it must not."""

    match: tuple[Example, ...] = ()
    no_match: tuple[Example, ...] = ()


class Rule(_Strict):
    """One rule.

    Attributes:
        name: Its name, unique in the policy.
        match: What it is about.
        when: A condition in CEL; without one it always holds.
        decision: Its answer.
        tier: How much say is needed where people are asked.
        quorum: How many people must say yes where people are asked (default: two at tier 3, else one).
        limit: How much may be touched before it becomes stricter.
        reason: Why, for people.
        examples: What it is checked by.
    """

    name: str = Field(min_length=1, max_length=100)
    match: Match = Match()
    when: str | None = None
    decision: Verdict
    tier: int = Field(default=1, ge=1, le=3)
    quorum: int | None = Field(default=None, ge=1, le=3)
    limit: Limit | None = None
    reason: str = ""
    examples: Examples = Examples()

    @property
    def people(self) -> int:
        """How many people must say yes where it asks."""
        return quorum_of(self.tier, self.quorum)

    @model_validator(mode="after")
    def _sensible(self) -> Rule:
        if self.limit is not None and self.decision is Verdict.DENY:
            raise ValueError("a limit makes a rule stricter, and this one denies anyway: take the limit out")
        if self.limit is not None and self.limit.beyond == self.decision.value:
            raise ValueError(
                "beyond its limit it would ask as before: write beyond: deny, or decision: allow"
            )
        return self


class Rules(_Strict):
    """A policy as it is written.

    Attributes:
        version: Of the format.
        windows: Times by name, for ``match.windows`` and ``in_window("name")``.
        bias: How differently versions of predictors may treat groups.
        rules: The rules.
    """

    version: Literal[1]
    windows: dict[WindowName, Window] = Field(default_factory=dict)
    bias: BiasRules = BiasRules()
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Rules:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"rule {name!r} is defined twice")
        return self
