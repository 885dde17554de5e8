"""Promoting a version, as an action: a planned move of an alias, verified at the server, and taken back."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from watchkeeper.tools.action import Action, ActionPlan, Outcome, ProbeAnswer, Reversibility, Verification
from watchkeeper.tools.errors import (
    ApplyError,
    CollectError,
    DriftError,
    MovedError,
    PlanError,
    RollbackError,
    ToolError,
    VersionError,
)
from watchkeeper.tools.fact import Arguments
from watchkeeper.tools.host import Target
from watchkeeper.tools.versions.facts import PredictorName, versions_of
from watchkeeper.tools.versions.live import answers_with, version_said
from watchkeeper.tools.versions.records import CHALLENGER, CHAMPION, MoveState, Version
from watchkeeper.tools.versions.versions import Versions

BY = "watchkeeper"
"""In whose name agents promote."""


class PromoteArguments(Arguments):
    """Which version of which predictor."""

    name: PredictorName
    version: int = Field(ge=1, description="number of the version that is to answer")


class PredictorPromote(Action[PromoteArguments]):
    """Let a version of a predictor answer; rollback restores the one before, or none, exactly."""

    name: ClassVar[str] = "predictor.promote"
    summary: ClassVar[str] = "let another version of a predictor answer"
    reversibility: ClassVar[Reversibility] = Reversibility.REVERSIBLE
    arguments_type = PromoteArguments
    alias: ClassVar[str] = CHAMPION
    does: ClassVar[str] = "answer"
    risk: ClassVar[str] = "metrics are of held-out data: the version may do worse on what it is asked"

    def plan(self, target: Target, arguments: PromoteArguments, *, key: str) -> ActionPlan:
        """Show the move of the alias and how the metrics differ.

        Raises:
            PlanError: If there is no such version, or its files are not as they were kept.
        """
        try:
            versions = versions_of(target)
            version = versions.get(arguments.name, arguments.version)
            versions.check(version)
            number = versions.aliases(arguments.name).get(self.alias)
        except ToolError as error:
            raise PlanError(str(error)) from error
        if number == version.number:
            summary = f"version {number} of predictor {arguments.name} is its {self.alias} already"
            return ActionPlan(key=key, summary=summary)
        what = f"version {version.number} of predictor {arguments.name}"
        return ActionPlan(
            key=key,
            summary=f"let {what} {self.does}, which {version_said(number)} does",
            diff=promotion_diff(versions, version, number, alias=self.alias),
            preconditions={self.alias: number, "digest": version.digest},
            details={"name": arguments.name, "version": version.number, "before": number},
            risk=self.risk,
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Move the alias.

        Raises:
            DriftError: If it names another version than was planned (nothing was changed).
            ApplyError: If it cannot be moved (nothing was changed).
        """
        name, number, before = _of(plan)
        try:
            versions_of(target).promote(
                name,
                number,
                alias=self.alias,
                by=BY,
                reason=f"step {plan.key}",
                key=plan.key,
                expected=before,
            )
        except MovedError as error:
            raise DriftError(str(error)) from error
        except (CollectError, VersionError) as error:
            raise ApplyError(str(error)) from error
        changed = (f"{name}:{self.alias}",)
        return Outcome(detail=f"version {number} of {name} is its {self.alias}", changed=changed)

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Ask the servers of it that run which version answers; where none does, the registry."""
        name, number, _ = _of(plan)
        return answers_with(versions_of(target), name, self.alias, number)

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """Look whether a move was made under the plan's key."""
        name, _, _ = _of(plan)
        move = versions_of(target).find_move(name, plan.key)
        return ProbeAnswer.DONE if move is not None and move.state is MoveState.DONE else ProbeAnswer.NOT_DONE

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        """Let the alias name again what it named before; safe to repeat.

        Raises:
            RollbackError: If it was moved again since, or what it named is damaged.
        """
        name, number, before = _of(plan)
        try:
            versions = versions_of(target)
            move = versions.find_move(name, plan.key)
            if move is None or move.state is not MoveState.DONE:
                return Outcome(detail=f"{self.alias} of {name} was not moved, so there is nothing to undo")
            versions.restore(move, by=BY, reason=f"step {plan.key} taken back")
        except (CollectError, VersionError) as error:
            raise RollbackError(str(error)) from error
        detail = f"{self.alias} of {name} names {version_said(before)} again, not version {number}"
        return Outcome(detail=detail, changed=(f"{name}:{self.alias}",))


class PredictorChallenge(PredictorPromote):
    """Let a version of a predictor be tried on live requests; rollback restores the alias, exactly."""

    name: ClassVar[str] = "predictor.challenge"
    summary: ClassVar[str] = "let a version of a predictor be tried on live requests"
    alias: ClassVar[str] = CHALLENGER
    does: ClassVar[str] = "be tried on live requests"
    risk: ClassVar[str] = (
        "a canary answers a share of the requests, as the server says; a shadow answers none"
    )


def promotion_diff(versions: Versions, version: Version, before: int | None, *, alias: str = CHAMPION) -> str:
    """Show how a move of an alias changes what it names, with the metrics of both."""
    name = version.name
    lines = [f"--- {alias} of {name}: {version_said(before)}"]
    lines.append(f"+++ {alias} of {name}: version {version.number}")
    try:
        old = _metrics(None if before is None else versions.get(name, before))
    except VersionError:
        # A damaged record of what answers is a reason more to replace it.
        old = {"quality": "not known: its record is damaged"}
    new = _metrics(version)
    for metric in sorted(old.keys() | new.keys()):
        if metric in old:
            lines.append(f"-{metric}: {old[metric]}")
        if metric in new:
            lines.append(f"+{metric}: {new[metric]}")
    return "\n".join(lines)


def _metrics(version: Version | None) -> dict[str, str]:
    if version is None:
        return {}
    evaluation = version.record.evaluation
    if evaluation is None:
        return {"quality": "not evaluated"}
    rows = f" ({evaluation.rows} rows)"
    found = {metric: f"{value:.4g}" for metric, value in evaluation.metrics.items()}
    if evaluation.primary in found:
        found[evaluation.primary] += rows
    return {**found, "data": version.record.manifest.data_sha256[:12] or "not known"}


def _of(plan: ActionPlan) -> tuple[str, int, int | None]:
    before = plan.details["before"]
    return (
        str(plan.details["name"]),
        int(str(plan.details["version"])),
        None if before is None else int(str(before)),
    )
