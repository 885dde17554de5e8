"""The policy: rules that answer allow, ask or deny for one concrete action, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from watchkeeper.runtime.canonical import digest, safe_json
from watchkeeper.runtime.conditions import STATIC_VARIABLES, CelCondition, Condition, ConditionError
from watchkeeper.runtime.errors import PolicyError
from watchkeeper.runtime.policy_rules import Example, Rule, Rules
from watchkeeper.runtime.policy_types import PolicyDecision, PolicyRequest, RuleTrace, Verdict
from watchkeeper.tools.action import Reversibility
from watchkeeper.tools.documents import Document, DocumentError, read_document
from watchkeeper.tools.errors import UnknownToolError
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.registry import AnyAction, Registry

_RANK = {Verdict.ALLOW: 0, Verdict.ASK: 1, Verdict.DENY: 2}
_IRREVERSIBLE_TIER = 2


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: Rule
    condition: Condition | None


class Policy:
    """Rules, checked and compiled.

    Deny beats ask beats allow. What no rule matches is denied, and so is everything that a rule with an
    error was about: a rule that cannot be evaluated may be the one that forbids. Facts need no rule.

    Args:
        rules: The rules.
        registry: The actions that exist.
        compile_condition: Turns the text of a condition into one.
        document: The file they were read from, for messages.

    Raises:
        PolicyError: If a condition is not valid, a pattern names no action, or an example fails.
    """

    def __init__(
        self,
        rules: Rules,
        registry: Registry,
        *,
        compile_condition: Callable[[str], Condition] = CelCondition,
        document: Document | None = None,
    ) -> None:
        self._document = document
        self._rules = tuple(
            _Compiled(rule, self._compile(number, rule, compile_condition))
            for number, rule in enumerate(rules.rules)
        )
        self.digest = digest(safe_json(rules.model_dump(mode="json")))
        for number, compiled in enumerate(self._rules):
            self._check_patterns(number, compiled.rule, registry)
            self._check_examples(number, compiled, registry)

    @classmethod
    def load(cls, path: Path, registry: Registry) -> Policy:
        """Read a policy from a YAML file and check it.

        Raises:
            PolicyError: With file, line and value, if anything about it is not right.
        """
        try:
            document = read_document(path, "policy")
        except DocumentError as error:
            raise PolicyError(str(error)) from error
        try:
            rules = Rules.model_validate(document.data)
        except ValidationError as error:
            raise PolicyError(f"policy {document.explain(error)}") from error
        return cls(rules, registry, document=document)

    @classmethod
    def default(cls, registry: Registry) -> Policy:
        """The policy that comes with Watchkeeper: ask before every action."""
        with as_file(files("watchkeeper.runtime") / "default_policy.yaml") as path:
            return cls.load(path, registry)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in the order in which they are written."""
        return tuple(compiled.rule for compiled in self._rules)

    def decide(self, request: PolicyRequest) -> PolicyDecision:
        """Answer for one concrete action."""
        variables = request.variables()
        trace: list[RuleTrace] = []
        matched: list[Rule] = []
        failed: RuleTrace | None = None
        for compiled in self._rules:
            said = _evaluate(compiled, request.action, request.labels, variables)
            trace.append(said)
            if said.outcome == "error":
                failed = failed or said
            elif said.outcome == "matched":
                matched.append(compiled.rule)
        if failed is not None:
            return self._deny(
                failed.rule, f"rule {failed.rule!r} cannot be evaluated: {failed.detail}", trace
            )
        if not matched:
            where = f"{request.action!r} on host {request.host!r}"
            return self._deny("-", f"no rule speaks of {where}, and what no rule allows is denied", trace)
        verdict = max((rule.decision for rule in matched), key=_RANK.__getitem__)
        deciding = [rule for rule in matched if rule.decision is verdict]
        rule = max(deciding, key=lambda r: r.tier)
        reason = rule.reason or f"rule {rule.name!r} says {verdict.value}"
        tier = rule.tier
        irreversible = request.reversibility is Reversibility.IRREVERSIBLE
        if irreversible and verdict is not Verdict.DENY and (verdict is Verdict.ALLOW or tier < 2):
            raised = max(tier, _IRREVERSIBLE_TIER)
            trace.append(
                RuleTrace(
                    rule=rule.name,
                    outcome="raised",
                    detail=f"{request.action!r} is irreversible: {verdict.value} at tier {tier} became "
                    f"ask at tier {raised}",
                )
            )
            verdict, tier = Verdict.ASK, raised
            reason = f"{reason} (raised to tier {raised}: there is no way back)"
        return PolicyDecision(
            decision=verdict,
            tier=tier,
            rule=rule.name,
            reason=reason,
            policy_digest=self.digest,
            trace=tuple(trace),
        )

    def allows_ever(self, action: AnyAction, host: HostSpec) -> bool:
        """Whether any arguments at any moment could be allowed or asked for.

        False means that the action on that host need not even be sayable.
        """
        variables: dict[str, Any] = {
            "action": {
                "name": action.name,
                "version": action.version,
                "reversibility": action.reversibility.value,
            },
            "host": {"name": host.name, "labels": host.labels},
        }
        possible = False
        for compiled in self._rules:
            if not compiled.rule.match.fits(action.name, host.labels):
                continue
            condition = compiled.condition
            certain = condition is None or condition.variables <= STATIC_VARIABLES
            if certain:
                outcome = _evaluate(compiled, action.name, host.labels, variables).outcome
                if outcome == "error" or (outcome == "matched" and compiled.rule.decision is Verdict.DENY):
                    return False
                if outcome == "not-matched":
                    continue
            if compiled.rule.decision is not Verdict.DENY:
                possible = True
        return possible

    def _deny(self, rule: str, reason: str, trace: list[RuleTrace]) -> PolicyDecision:
        return PolicyDecision(
            decision=Verdict.DENY, rule=rule, reason=reason, policy_digest=self.digest, trace=tuple(trace)
        )

    def _error(self, number: int, rule: Rule, place: tuple[int | str, ...], message: str) -> PolicyError:
        where = self._document.where(("rules", number, *place)) if self._document else "rules"
        return PolicyError(f"policy {where}: rule {rule.name!r}: {message}")

    def _compile(
        self, number: int, rule: Rule, compile_condition: Callable[[str], Condition]
    ) -> Condition | None:
        if rule.when is None:
            return None
        try:
            return compile_condition(rule.when)
        except ConditionError as error:
            raise self._error(number, rule, ("when",), str(error)) from error

    def _check_patterns(self, number: int, rule: Rule, registry: Registry) -> None:
        actions = [action.name for action in registry.actions]
        facts = [fact.name for fact in registry.facts]
        for index, pattern in enumerate(rule.match.tools):
            if pattern == "*" or any(fnmatchcase(name, pattern) for name in actions):
                continue
            if any(fnmatchcase(name, pattern) for name in facts):
                message = f"{pattern!r} names facts only; facts change nothing and need no rule"
            else:
                known = ", ".join(sorted(actions)) or "none"
                message = f"{pattern!r} matches no registered action (there are: {known})"
            raise self._error(number, rule, ("match", "tools", index), message)

    def _check_examples(self, number: int, compiled: _Compiled, registry: Registry) -> None:
        rule = compiled.rule
        for kind, examples in (("match", rule.examples.match), ("no_match", rule.examples.no_match)):
            for index, example in enumerate(examples):
                place = ("examples", kind, index)
                said = self._try(number, compiled, example, registry, place)
                if said.outcome == "error":
                    raise self._error(number, rule, place, f"its example cannot be evaluated: {said.detail}")
                if (said.outcome == "matched") != (kind == "match"):
                    wanted = "match" if kind == "match" else "not match"
                    raise self._error(
                        number,
                        rule,
                        place,
                        f"must {wanted} its example of {example.action!r}, but does not"
                        if kind == "match"
                        else f"must {wanted} its example of {example.action!r}, but does",
                    )

    def _try(
        self,
        number: int,
        compiled: _Compiled,
        example: Example,
        registry: Registry,
        place: tuple[int | str, ...],
    ) -> RuleTrace:
        try:
            action = registry.action(example.action)
        except UnknownToolError as error:
            raise self._error(number, compiled.rule, (*place, "action"), str(error)) from error
        request = example.request(action.reversibility, action.version)
        return _evaluate(compiled, request.action, request.labels, request.variables())


def _evaluate(
    compiled: _Compiled, action: str, labels: dict[str, str], variables: dict[str, Any]
) -> RuleTrace:
    rule = compiled.rule
    if not rule.match.fits(action, labels):
        return RuleTrace(rule=rule.name, outcome="not-matched", detail="speaks of other actions or hosts")
    if compiled.condition is None:
        return RuleTrace(rule=rule.name, outcome="matched")
    try:
        holds = compiled.condition.holds(variables)
    except ConditionError as error:
        return RuleTrace(rule=rule.name, outcome="error", detail=str(error))
    return RuleTrace(rule=rule.name, outcome="matched" if holds else "not-matched", detail=rule.when or "")
