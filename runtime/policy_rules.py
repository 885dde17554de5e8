"""Rules of a policy, as they are written in YAML."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, model_validator

from watchkeeper.runtime.policy_types import PolicyRequest, Verdict
from watchkeeper.tools.action import Reversibility
from watchkeeper.tools.findings import Severity


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Strict):
    """What a rule is about at all.

    Attributes:
        tools: Patterns of action names, any of which must fit (``service.*``).
        hosts: Patterns of label values, all of which must fit (``environment: prod*``).
    """

    tools: tuple[str, ...] = Field(default=("*",), min_length=1)
    hosts: dict[str, str] = Field(default_factory=dict)

    def fits(self, action: str, labels: dict[str, str]) -> bool:
        """Whether an action on a host with these labels is meant; a missing label never fits."""
        return any(fnmatchcase(action, pattern) for pattern in self.tools) and all(
            name in labels and fnmatchcase(labels[name], pattern) for name, pattern in self.hosts.items()
        )


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
        now: When.
        diff_lines: Lines of the plan's diff.
        incident: What it is for.
    """

    action: str
    reversibility: Reversibility | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    host: ExampleHost = ExampleHost()
    requester: str = "example"
    now: AwareDatetime | None = None
    diff_lines: int = Field(default=1, ge=0)
    incident: ExampleIncident = ExampleIncident()

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
            diff_lines=self.diff_lines,
            severity=self.incident.severity,
            actions_taken=self.incident.actions_taken,
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
        reason: Why, for people.
        examples: What it is checked by.
    """

    name: str = Field(min_length=1, max_length=100)
    match: Match = Match()
    when: str | None = None
    decision: Verdict
    tier: int = Field(default=1, ge=1, le=3)
    reason: str = ""
    examples: Examples = Examples()


class Rules(_Strict):
    """A policy as it is written."""

    version: Literal[1]
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Rules:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"rule {name!r} is defined twice")
        return self
