"""The policy: rules that answer allow, ask or deny for one concrete action, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from watchkeeper.runtime.blast import Reach, span_of
from watchkeeper.runtime.conditions import WINDOWS, CelCondition, Condition, ConditionError, blast_spans
from watchkeeper.runtime.errors import PolicyError
from watchkeeper.runtime.policy_bias import RULE as BIAS_RULE
from watchkeeper.runtime.policy_bias import BiasAnswer, BiasRules, MeasuredBias
from watchkeeper.runtime.policy_checks import Place, RuleChecks
from watchkeeper.runtime.policy_evaluation import (
    ERROR,
    MATCHED,
    NOT_MATCHED,
    CompiledRule,
    blast_variable,
)
from watchkeeper.runtime.policy_rules import Rule, Rules
from watchkeeper.runtime.policy_types import PolicyDecision, PolicyRequest, RuleTrace, Verdict
from watchkeeper.runtime.policy_windows import Window, open_windows
from watchkeeper.tools.action import Reversibility
from watchkeeper.tools.canonical import digest, safe_json
from watchkeeper.tools.documents import Document, DocumentError, read_document
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.registry import AnyAction, Registry

_RANK = {Verdict.ALLOW: 0, Verdict.ASK: 1, Verdict.DENY: 2}
IRREVERSIBLE_TIER = 2
"""The least tier at which anything irreversible is asked for, whatever a rule says."""


@dataclass(frozen=True, slots=True)
class _Vote:
    """What a rule that matched says, and why: its limit may have made it stricter."""

    rule: Rule
    decision: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a decision rests on besides the request."""

    variables: dict[str, Any]
    windows: dict[str, bool]
    blast: dict[str, Reach]
    bias: BiasAnswer | None


class Policy:
    """Rules, checked and compiled.

    Deny beats ask beats allow. What no rule matches is denied, and so is everything that a rule with an
    error was about: a rule that cannot be evaluated may be the one that forbids. What treats groups more
    differently than the section ``bias`` says is denied, whatever the rules answer. The order of rules does
    not matter. Facts need no rule.

    Args:
        rules: The rules.
        registry: The actions that exist.
        compile_condition: Turns the text of a condition into one.
        document: The file they were read from, for messages.

    Raises:
        PolicyError: If a condition is not valid, a pattern names no action, a window is not defined, or an
            example fails.
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
        self._windows = dict(rules.windows)
        self._bias = rules.bias
        self._rules = tuple(
            CompiledRule(rule, self._compile(number, rule, compile_condition))
            for number, rule in enumerate(rules.rules)
        )
        self.digest = digest(safe_json(rules.model_dump(mode="json")))
        self._spans = frozenset(
            span for one in self._rules if one.condition is not None for span in blast_spans(one.condition)
        ) | {rule.limit.per for rule in rules.rules if rule.limit is not None}
        for number, compiled in enumerate(self._rules):
            RuleChecks(
                compiled,
                registry,
                windows=frozenset(self._windows),
                evaluate=lambda rule, request: self._evaluate(rule, request, self._moment(request)),
                error=partial(self._error, number, compiled.rule),
            ).run()

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

    @property
    def compiled(self) -> tuple[CompiledRule, ...]:
        """The rules, ready to be evaluated one by one."""
        return self._rules

    @property
    def windows(self) -> Mapping[str, Window]:
        """The windows by name."""
        return self._windows

    @property
    def bias(self) -> BiasRules:
        """How differently versions of predictors may treat groups."""
        return self._bias

    @property
    def looks_back(self) -> timedelta | None:
        """How far back the blast radius matters; None where no rule speaks of it."""
        return max((span_of(span) for span in self._spans), default=None)

    def decide(self, request: PolicyRequest) -> PolicyDecision:
        """Answer for one concrete action."""
        moment = self._moment(request)
        trace: list[RuleTrace] = []
        votes: list[_Vote] = []
        for compiled in self._rules:
            said = self._evaluate(compiled, request, moment)
            trace.append(said)
            if said.outcome == MATCHED:
                votes.append(_vote(compiled.rule, request, trace))
        failed = [said for said in trace if said.outcome == ERROR]
        if failed:
            first = min(failed, key=lambda said: said.rule)
            reason = f"rule {first.rule!r} cannot be evaluated: {first.detail}"
            return self._answer(Verdict.DENY, first.rule, reason, trace, moment)
        if moment.bias is not None:
            said = _bias_said(moment.bias)
            trace.append(said)
            if moment.bias.refused:
                return self._answer(Verdict.DENY, BIAS_RULE, said.detail, trace, moment)
        if not votes:
            where = f"{request.action!r} on host {request.host!r}"
            reason = f"no rule holds for {where}, and what no rule allows is denied"
            return self._answer(Verdict.DENY, "-", reason, trace, moment)
        verdict = max((vote.decision for vote in votes), key=_RANK.__getitem__)
        deciding = [vote for vote in votes if vote.decision is verdict]
        quorum = max(vote.rule.people for vote in deciding)
        vote = max(sorted(deciding, key=lambda v: v.rule.name), key=lambda v: (v.rule.tier, v.rule.people))
        reason, tier = vote.reason, vote.rule.tier
        irreversible = request.reversibility is Reversibility.IRREVERSIBLE
        if (
            irreversible
            and verdict is not Verdict.DENY
            and (verdict is Verdict.ALLOW or tier < IRREVERSIBLE_TIER)
        ):
            raised = max(tier, IRREVERSIBLE_TIER)
            trace.append(
                RuleTrace(
                    rule=vote.rule.name,
                    outcome="raised",
                    detail=f"{request.action!r} is irreversible: {verdict.value} at tier {tier} became "
                    f"ask at tier {raised}",
                )
            )
            verdict, tier = Verdict.ASK, raised
            reason = f"{reason} (raised to tier {raised}: there is no way back)"
        return self._answer(verdict, vote.rule.name, reason, trace, moment, tier=tier, quorum=quorum)

    def allows_ever(
        self, action: AnyAction, host: HostSpec, arguments: Mapping[str, JsonValue] | None = None
    ) -> bool:
        """Whether an action on a host could be allowed or asked for at any moment.

        False means that it need not even be sayable.

        Args:
            action: The action.
            host: Where.
            arguments: Some of its arguments; any values of the others are thought of.
        """
        possible = False
        for compiled in self._rules:
            outcome = compiled.foresee(action, host, arguments or {})
            denies = compiled.rule.decision is Verdict.DENY
            if outcome == ERROR or (outcome == MATCHED and denies):
                return False
            possible = possible or (outcome != NOT_MATCHED and not denies)
        return possible

    def allows_element(self, action: AnyAction, host: HostSpec, field: str, value: JsonValue) -> bool:
        """Whether a list among the arguments could hold a value in a call that is allowed or asked for."""
        return not any(rule.forbids_element(action, host, field, value) for rule in self._rules)

    def _moment(self, request: PolicyRequest) -> _Moment:
        windows = open_windows(self._windows, request.now)
        blast = {
            span: request.blast.within(span, host=request.host, now=request.now)
            for span in sorted(self._spans)
        }
        answer = None if request.bias is None else self._bias.of(request.bias.predictor).judge(request.bias)
        verdict = answer.verdict.value if answer is not None and answer.verdict is not None else ""
        measured = request.bias or MeasuredBias()
        variables = request.variables() | {WINDOWS: windows, "bias": measured.told(verdict)}
        for span, reach in blast.items():
            variables |= dict.fromkeys(blast_variable(span), reach.model_dump())
        return _Moment(variables, windows, blast, answer)

    def _evaluate(self, compiled: CompiledRule, request: PolicyRequest, moment: _Moment) -> RuleTrace:
        return compiled.evaluate(request.action, request.labels, moment.variables, moment.windows)

    def _answer(
        self,
        decision: Verdict,
        rule: str,
        reason: str,
        trace: list[RuleTrace],
        moment: _Moment,
        *,
        tier: int = 1,
        quorum: int = 1,
    ) -> PolicyDecision:
        return PolicyDecision(
            decision=decision,
            tier=tier,
            quorum=quorum,
            rule=rule,
            reason=reason,
            policy_digest=self.digest,
            trace=tuple(trace),
            windows=moment.windows,
            blast=moment.blast,
        )

    def where(self, number: int, *place: int | str) -> str:
        """Name a place within a rule: the file, the line and the part."""
        return self._document.where(("rules", number, *place)) if self._document else "rules"

    def _error(self, number: int, rule: Rule, place: Place, message: str) -> PolicyError:
        return PolicyError(f"policy {self.where(number, *place)}: rule {rule.name!r}: {message}")

    def _compile(
        self, number: int, rule: Rule, compile_condition: Callable[[str], Condition]
    ) -> Condition | None:
        if rule.when is None:
            return None
        try:
            return compile_condition(rule.when)
        except ConditionError as error:
            raise self._error(number, rule, ("when",), str(error)) from error


def _bias_said(answer: BiasAnswer) -> RuleTrace:
    """Tell what the policy's limits say of groups."""
    if answer.refused:
        detail = f"it treats groups more differently than the policy allows: {answer.reason}"
        return RuleTrace(rule=BIAS_RULE, outcome=MATCHED, detail=detail)
    return RuleTrace(rule=BIAS_RULE, outcome=NOT_MATCHED, detail=answer.reason)


def _vote(rule: Rule, request: PolicyRequest, trace: list[RuleTrace]) -> _Vote:
    """Say what a rule that matched answers: a limit that is exceeded makes it stricter; the trace tells."""
    reason = rule.reason or f"rule {rule.name!r} says {rule.decision.value}"
    if rule.limit is None:
        return _Vote(rule, rule.decision, reason)
    reach = request.blast.within(rule.limit.per, host=request.host, now=request.now, group=rule.limit.group)
    exceeded = rule.limit.exceeded(reach)
    if not exceeded:
        return _Vote(rule, rule.decision, reason)
    stricter = Verdict(rule.limit.beyond)
    trace.append(
        RuleTrace(
            rule=rule.name,
            outcome="limited",
            detail=f"{exceeded}: {rule.decision.value} became {stricter.value}",
        )
    )
    return _Vote(rule, stricter, f"the limit of rule {rule.name!r} is reached: {exceeded}")
