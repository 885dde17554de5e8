"""Actions: tools that change something, with plan, apply, verify, rollback and probe."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from watchkeeper.tools.errors import RollbackError
from watchkeeper.tools.fact import Arguments
from watchkeeper.tools.host import Target

_LONG = 200


class Reversibility(StrEnum):
    """What can be done about an action afterwards.

    ``REVERSIBLE``: rollback restores the state before, exactly.
    ``COMPENSABLE``: rollback restores what matters; the plan says what stays different.
    ``IRREVERSIBLE``: there is no rollback; said before approval, and a higher tier is needed.
    """

    REVERSIBLE = "reversible"
    COMPENSABLE = "compensable"
    IRREVERSIBLE = "irreversible"


class ProbeAnswer(StrEnum):
    """Whether an effect whose outcome was lost took place."""

    DONE = "done"
    NOT_DONE = "not-done"
    UNKNOWN = "unknown"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionPlan(_Record):
    """What an action would change, made from the state of its target at one moment.

    Attributes:
        key: Idempotency key, given by the caller and unique to the plan step. Whatever the action
            stores (a quarantine folder, a saved version) is found again under it.
        summary: One line for a person.
        diff: What would change, readable by a person; empty if nothing would.
        preconditions: The *stable* facts on which the plan rests (a digest, a state; not the size of a
            growing log). They are bound into the approval and read again before apply.
        details: Whatever apply, verify, rollback and probe need: they must work from the plan alone in
            a process that was started after a crash.
        risk: What may go wrong, and what rollback does not bring back.
    """

    key: str
    summary: str
    diff: str = ""
    preconditions: dict[str, JsonValue] = Field(default_factory=dict)
    details: dict[str, JsonValue] = Field(default_factory=dict)
    risk: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether the target is already as the action would make it."""
        return not self.diff


class Outcome(_Record):
    """What apply or rollback did: ``changed`` lists what was touched, ``detail`` tells a person."""

    detail: str
    changed: tuple[str, ...] = ()


class Verification(_Record):
    """Whether the action's own effect is there (not whether the incident is over)."""

    ok: bool
    detail: str


class ActionView(_Record):
    """What an action says of itself to the person who is asked about it, besides its plan.

    Attributes:
        undo: How it would be taken back, and what stays different.
        lines: What else matters, as names and texts: ``("state", "running for 3 days")``.
    """

    undo: str
    lines: tuple[tuple[str, str], ...] = ()


_UNDO = {
    Reversibility.REVERSIBLE: "taking it back restores the state before, exactly",
    Reversibility.COMPENSABLE: "taking it back restores what matters; the risk says what stays different",
    Reversibility.IRREVERSIBLE: "there is no way back",
}

A = TypeVar("A", bound=Arguments)


class Action(ABC, Generic[A]):
    """A tool that changes something.

    Every method but ``plan`` works from the plan alone. ``apply`` is called at most once for a plan.

    Attributes:
        name: Registered name, ``noun.verb``.
        version: Raised when the meaning of the arguments changes; part of what an approval is bound to.
        summary: What it does, in a few words; the model reads it.
        reversibility: What can be done about it afterwards.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    reversibility: ClassVar[Reversibility]
    arguments_type: type[A]

    @abstractmethod
    def plan(self, target: Target, arguments: A, *, key: str) -> ActionPlan:
        """Look at the target and say what would change; changes nothing.

        Raises:
            PlanError: If the action makes no sense on this target.
        """

    @abstractmethod
    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Do what the plan says.

        Raises:
            DriftError: If the target is no longer as the plan found it (nothing was changed).
            ApplyError: If it failed half-way.
        """

    @abstractmethod
    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Look whether the effect is there."""

    @abstractmethod
    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """After a crash between intent and outcome: look whether apply took place."""

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:  # noqa: ARG002
        """Undo the effect; safe to repeat.

        Raises:
            RollbackError: If it cannot be undone, or not any more.
        """
        raise RollbackError(f"{self.name!r} is {self.reversibility}: there is no way back")

    def view(self, target: Target, plan: ActionPlan) -> ActionView:  # noqa: ARG002
        """Say what a person should know who decides about a plan; changes nothing.

        By default that is how it would be taken back, and what the plan rests on.
        """
        rests = tuple((name, _short(value)) for name, value in plan.preconditions.items())
        return ActionView(undo=_UNDO[self.reversibility], lines=rests)

    def describe(self, arguments: A) -> str:
        """Say what this call would do, in a few words, for the choice among actions."""
        values = ", ".join(str(v) for v in arguments.model_dump(mode="json", exclude_defaults=True).values())
        return f"{self.summary} ({values})" if values else self.summary

    def parse_arguments(self, values: dict[str, Any]) -> A:
        """Validate arguments."""
        return self.arguments_type.model_validate(values)


def _short(value: JsonValue) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return said if len(said) <= _LONG else f"{said[:_LONG]} ... ({len(said)} characters)"
