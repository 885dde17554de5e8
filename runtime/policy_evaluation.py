"""Evaluation of one rule: for one concrete action, and for whatever is certain before there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from watchkeeper.runtime.conditions import BLAST_SPAN, STATIC_VARIABLES, Condition, ConditionError
from watchkeeper.runtime.policy_rules import Rule
from watchkeeper.runtime.policy_types import RuleTrace, Verdict
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.registry import AnyAction

MATCHED, NOT_MATCHED, ERROR, UNKNOWN = "matched", "not-matched", "error", "unknown"


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule whose condition is ready to be answered."""

    rule: Rule
    condition: Condition | None

    def evaluate(
        self, action: str, labels: dict[str, str], variables: Mapping[str, Any], windows: Mapping[str, bool]
    ) -> RuleTrace:
        """Say whether it is about an action, what its condition answers, and what went wrong."""
        rule = self.rule
        if not rule.match.fits(action, labels):
            return _said(rule, NOT_MATCHED, "speaks of other actions or hosts")
        if rule.match.windows and not any(windows.get(name) for name in rule.match.windows):
            return _said(rule, NOT_MATCHED, f"none of its windows is open: {', '.join(rule.match.windows)}")
        if self.condition is None:
            return _said(rule, MATCHED)
        try:
            holds = self.condition.holds(variables)
        except ConditionError as error:
            return _said(rule, ERROR, str(error))
        return _said(rule, MATCHED if holds else NOT_MATCHED, rule.when or "")

    def foresee(self, action: AnyAction, host: HostSpec, arguments: Mapping[str, JsonValue]) -> str:
        """Say what is certain at every moment, whatever the arguments are that are not given.

        A condition that speaks of other arguments, too, is certain where the given ones decide: CEL's *and*
        and *or* answer although one side cannot be evaluated.

        Returns:
            ``matched``, ``not-matched``, ``error``, or ``unknown``.
        """
        rule, condition = self.rule, self.condition
        if not rule.match.fits(action.name, host.labels):
            return NOT_MATCHED
        matched = UNKNOWN if rule.match.windows else MATCHED
        if condition is None:
            return matched
        fields: frozenset[str] | None = frozenset()
        if "arguments" in condition.variables:
            fields = condition.text.fields("arguments")
        if fields is None or not condition.variables <= STATIC_VARIABLES | {"arguments"}:
            return UNKNOWN
        try:
            holds = condition.holds(static_variables(action, host) | {"arguments": dict(arguments)})
        except ConditionError:
            certain = fields <= arguments.keys() and not rule.match.windows
            return ERROR if certain else UNKNOWN
        return matched if holds else NOT_MATCHED

    def forbids_element(self, action: AnyAction, host: HostSpec, field: str, value: JsonValue) -> bool:
        """Whether it denies every call whose list ``field`` holds a value, whatever else there is."""
        condition = self.condition
        return (
            self.rule.decision is Verdict.DENY
            and condition is not None
            and condition.text.asks_for_one("arguments", field)
            and self.foresee(action, host, {field: [value]}) == MATCHED
        )


def static_variables(action: AnyAction, host: HostSpec) -> dict[str, Any]:
    """The variables that are known before there are arguments and a moment."""
    return {
        "action": {
            "name": action.name,
            "version": action.version,
            "reversibility": action.reversibility.value,
        },
        "host": {"name": host.name, "labels": host.labels},
    }


def blast_variable(span: str) -> tuple[str, ...]:
    """Names of the variables of a time span."""
    name = f"blast_{span}"
    return (name, "blast") if span == BLAST_SPAN else (name,)


def _said(rule: Rule, outcome: str, detail: str = "") -> RuleTrace:
    return RuleTrace(rule=rule.name, outcome=outcome, detail=detail)
