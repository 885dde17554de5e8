"""Cases: a table of actions and of what a policy must answer to them, as it is written in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from watchkeeper.runtime.blast import BlastRadius, Reach
from watchkeeper.runtime.errors import PolicyError
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_bias import Difference, MeasuredBias
from watchkeeper.runtime.policy_types import PolicyDecision, PolicyRequest, Verdict
from watchkeeper.tools.documents import Document, DocumentError, read_document
from watchkeeper.tools.errors import ToolError
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.registry import Registry, parse


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expected(_Strict):
    """What must be answered; what is not said does not matter. ``expect: deny`` is short for the decision."""

    decision: Verdict
    tier: int | None = None
    quorum: int | None = None
    rule: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"decision": value} if isinstance(value, str) else value

    def differences(self, decision: PolicyDecision) -> tuple[str, ...]:
        """Say what was answered otherwise: ``tier is 2 instead of 1``."""
        pairs = [(name, getattr(self, name), getattr(decision, name)) for name in type(self).model_fields]
        return tuple(
            f"{name} is {got} instead of {wanted}"
            for name, wanted, got in pairs
            if wanted is not None and got != wanted
        )


class Case(_Strict):
    """One action and what must be answered to it.

    Attributes:
        name: What it shows, for the table (default: the action and the host).
        action: Registered name.
        host: A host of the inventory.
        labels: Labels of a host that is not in the inventory; then any name will do.
        arguments: Its arguments.
        at: When (default: now).
        requester: Who wants it.
        requester_roles: Roles of who wants it.
        diff_lines: Lines of the plan's diff.
        severity: Severity of the incident.
        actions_taken: Actions taken for it before.
        blast: What is touched within any time span, the action at hand counted in.
        bias: How differently the version that is to answer treats groups.
        expect: What must be answered.
    """

    name: str = ""
    action: str
    host: str
    labels: dict[str, str] | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    at: AwareDatetime | None = None
    requester: str = "example"
    requester_roles: tuple[str, ...] = ()
    diff_lines: int = Field(default=1, ge=0)
    severity: Severity = Severity.CRITICAL
    actions_taken: int = Field(default=0, ge=0)
    blast: Reach | None = None
    bias: tuple[Difference, ...] = ()
    expect: Expected

    @property
    def title(self) -> str:
        """What it is called in a table."""
        return self.name or f"{self.action} on {self.host}"


class _Cases(_Strict):
    cases: tuple[Case, ...] = Field(min_length=1)


class Verified(_Strict):
    """What became of a case.

    Attributes:
        case: The case.
        decision: What the policy answered.
        differences: What is not as expected; empty if all is.
    """

    case: Case
    decision: PolicyDecision
    differences: tuple[str, ...] = ()


class Cases:
    """Cases of a file.

    Args:
        path: The YAML file.

    Raises:
        PolicyError: With file, line and value, if it cannot be read or does not hold cases.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._document: Document = read_document(path, "cases")
        except DocumentError as error:
            raise PolicyError(str(error)) from error
        try:
            self.cases: Sequence[Case] = _Cases.model_validate(self._document.data).cases
        except ValidationError as error:
            raise PolicyError(f"cases {self._document.explain(error)}") from error

    def verify(self, policy: Policy, registry: Registry, inventory: Inventory) -> tuple[Verified, ...]:
        """Ask a policy about each of them.

        Raises:
            PolicyError: With the place, if an action, an argument or a host is not there.
        """
        verified: list[Verified] = []
        for number, case in enumerate(self.cases):
            try:
                decision = policy.decide(_request(case, registry, inventory))
            except ToolError as error:
                raise PolicyError(f"cases {self._document.where(('cases', number))}: {error}") from error
            verified.append(
                Verified(case=case, decision=decision, differences=case.expect.differences(decision))
            )
        return tuple(verified)


def _request(case: Case, registry: Registry, inventory: Inventory) -> PolicyRequest:
    action = registry.action(case.action)
    moment = {} if case.at is None else {"now": case.at}
    return PolicyRequest(
        action=action.name,
        version=action.version,
        reversibility=action.reversibility,
        arguments=parse(action, dict(case.arguments)).model_dump(mode="json"),
        host=case.host,
        labels=inventory.host(case.host).labels if case.labels is None else case.labels,
        requester=case.requester,
        requester_roles=case.requester_roles,
        diff_lines=case.diff_lines,
        severity=case.severity,
        actions_taken=case.actions_taken,
        blast=BlastRadius(fleet={spec.name: spec.labels for spec in inventory}, fixed=case.blast),
        bias=MeasuredBias.given(case.bias, case.arguments),
        **moment,
    )
