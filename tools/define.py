"""Facts and actions of a user's own, from a function and from a small class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, get_type_hints

from pydantic import create_model

from watchkeeper.tools.action import (
    Action,
    ActionPlan,
    ActionView,
    Outcome,
    ProbeAnswer,
    Reversibility,
    Verification,
)
from watchkeeper.tools.enforcement import check_enforceable
from watchkeeper.tools.errors import ApplyError, CollectError, PlanError, RollbackError, ToolError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.findings import Finding
from watchkeeper.tools.host import Target

R = TypeVar("R", bound=Result)
FindingsOf = Callable[[Any], Iterable[Finding]]


class DefinedFact(Fact[Arguments, R]):
    """A fact made by `fact`; it can be called like the function it was made from."""

    def __init__(
        self,
        function: Callable[..., R],
        *,
        name: str,
        summary: str,
        provenance: Provenance,
        findings: FindingsOf | None,
        network: bool = False,
    ) -> None:
        self.network = network  # type: ignore[misc]
        self.name = name  # type: ignore[misc]  # an instance of this class is a tool of its own
        self.summary = summary  # type: ignore[misc]
        self.provenance = provenance  # type: ignore[misc]
        self._function = function
        self._findings = findings
        self.arguments_type = _arguments_of(function, name)
        returned = get_type_hints(function).get("return")
        if not (isinstance(returned, type) and issubclass(returned, Result)):
            raise TypeError(
                f"fact {name!r} must be annotated to return a subclass of Result, not {returned!r}"
            )
        self.result_type = returned  # type: ignore[assignment]  # what the annotation says is what it returns
        check_enforceable(self)

    def __call__(self, target: Target, **arguments: Any) -> R:
        """Call the function itself."""
        return self._function(target, **arguments)

    def collect(self, target: Target, arguments: Arguments) -> Raw:
        """Call the function.

        Raises:
            CollectError: If the function raises it, or the system refuses what it tries.
        """
        with _refusals(self.name, CollectError):
            return self._function(target, **dict(arguments)).model_dump(mode="json")

    def interpret(self, raw: Raw, arguments: Arguments) -> R:  # noqa: ARG002
        """Validate what it returned."""
        return self.result_type.model_validate(raw)

    def findings(self, result: R, arguments: Arguments) -> Iterable[Finding]:  # noqa: ARG002
        """Ask the function given as ``findings``."""
        return tuple(self._findings(result)) if self._findings else ()


def fact(
    name: str,
    *,
    summary: str,
    provenance: Provenance = Provenance.TRUSTED,
    findings: FindingsOf | None = None,
    network: bool = False,
) -> Callable[[Callable[..., R]], DefinedFact[R]]:
    """Make a fact from a function ``(target, **arguments) -> Result``.

    Args:
        name: Registered name, ``noun.noun``.
        summary: What it tells, in a few words; the model reads it.
        provenance: ``UNTRUSTED`` where the result quotes text that others can write.
        findings: Says what a plain analyzer sees in a result; a cause is supported by findings.
        network: Whether commands that it runs need the network; their sandbox has none otherwise.

    Raises:
        TypeError: If an argument has no annotation, or the function is not annotated to return a `Result`.
        UnenforceableError: If no grammar can keep a model to the arguments.
    """

    def make(function: Callable[..., R]) -> DefinedFact[R]:
        return DefinedFact(
            function,
            name=name,
            summary=summary,
            provenance=provenance,
            findings=findings,
            network=network,
        )

    return make


class ActionMethods(Protocol):
    """What a class must have to become an action."""

    def plan(self, target: Target, key: str, **arguments: Any) -> ActionPlan:
        """Say what would change; changes nothing. Annotated keyword arguments are the action's arguments."""
        ...

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Do what the plan says."""
        ...

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Look whether the effect is there."""
        ...

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """After a crash: look whether apply took place."""
        ...


class DefinedAction(Action[Arguments]):
    """An action made by `action`."""

    def __init__(
        self, methods: ActionMethods, *, name: str, summary: str, version: int, reversibility: Reversibility
    ) -> None:
        self.name = name  # type: ignore[misc]  # an instance of this class is a tool of its own
        self.summary = summary  # type: ignore[misc]
        self.version = version  # type: ignore[misc]
        self.reversibility = reversibility  # type: ignore[misc]
        self._methods = methods
        self.arguments_type = _arguments_of(methods.plan, name)
        self._undo = getattr(methods, "rollback", None)
        self._view = getattr(methods, "view", None)
        if reversibility is not Reversibility.IRREVERSIBLE and self._undo is None:
            raise TypeError(
                f"action {name!r} is declared {reversibility.value}, so it must have a rollback method"
            )
        check_enforceable(self)

    def plan(self, target: Target, arguments: Arguments, *, key: str) -> ActionPlan:
        """Ask the class.

        Raises:
            PlanError: If the class raises it, or the system refuses what it tries.
        """
        with _refusals(self.name, PlanError):
            return self._methods.plan(target, key, **dict(arguments))

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Ask the class.

        Raises:
            ApplyError: If the class raises it, or the system refuses what it tries.
        """
        with _refusals(self.name, ApplyError):
            return self._methods.apply(target, plan)

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Ask the class.

        Raises:
            CollectError: If the class raises it, or the system refuses what it tries.
        """
        with _refusals(self.name, CollectError):
            return self._methods.verify(target, plan)

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """Ask the class.

        Raises:
            CollectError: If the class raises it, or the system refuses what it tries.
        """
        with _refusals(self.name, CollectError):
            return self._methods.probe(target, plan)

    def view(self, target: Target, plan: ActionPlan) -> ActionView:
        """Ask the class, where it has a ``view`` method.

        Raises:
            CollectError: If the class raises it, or the system refuses what it tries.
        """
        if self._view is None:
            return super().view(target, plan)
        with _refusals(self.name, CollectError):
            view: ActionView = self._view(target, plan)
            return view

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        """Ask the class, where there is a way back.

        Raises:
            RollbackError: If there is none, the class raises it, or the system refuses what it tries.
        """
        if self._undo is None:
            return super().rollback(target, plan)
        with _refusals(self.name, RollbackError):
            outcome: Outcome = self._undo(target, plan)
            return outcome


def action(
    name: str, *, summary: str, reversibility: Reversibility | str, version: int = 1
) -> Callable[[type[ActionMethods]], DefinedAction]:
    """Make an action from a class with ``plan``, ``apply``, ``verify``, ``probe`` and ``rollback``.

    Args:
        name: Registered name, ``noun.verb``.
        summary: What it does, in a few words; the model reads it.
        reversibility: What can be done about it afterwards; only an irreversible one needs no ``rollback``.
        version: Raised when the meaning of the arguments changes.

    Raises:
        TypeError: If an argument of ``plan`` has no annotation, or ``rollback`` is missing.
        UnenforceableError: If no grammar can keep a model to the arguments.
    """

    def make(methods: type[ActionMethods]) -> DefinedAction:
        return DefinedAction(
            methods(), name=name, summary=summary, version=version, reversibility=Reversibility(reversibility)
        )

    return make


@contextmanager
def _refusals(name: str, error_type: type[ToolError]) -> Iterator[None]:
    """Tell what the system refuses (a missing file, a closed port) as any tool tells that it could not."""
    try:
        yield
    except OSError as error:
        what = f": {error.filename!r}" if error.filename else ""
        raise error_type(f"{name}: {error.strerror or error}{what}") from error


def _arguments_of(function: Callable[..., Any], name: str) -> type[Arguments]:
    """Make an arguments model from the annotated parameters after ``target`` (and ``key``).

    Raises:
        TypeError: If one has no annotation.
    """
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in {"self", "target", "key"}:
            continue
        if parameter.name not in hints or parameter.kind in {
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        }:
            raise TypeError(f"tool {name!r}: argument {parameter.name!r} needs a type annotation")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    made: type[Arguments] = create_model(f"{name}.Arguments", __base__=Arguments, **fields)
    return made
