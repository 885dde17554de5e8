"""What is checked of a policy when it is loaded: its patterns, its windows and its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from watchkeeper.runtime.errors import PolicyError
from watchkeeper.runtime.policy_evaluation import CompiledRule
from watchkeeper.runtime.policy_rules import Example
from watchkeeper.runtime.policy_types import PolicyRequest, RuleTrace
from watchkeeper.tools.errors import UnknownToolError
from watchkeeper.tools.registry import Registry

Place = tuple[int | str, ...]
Evaluate = Callable[[CompiledRule, PolicyRequest], RuleTrace]


class RuleChecks:
    """Checks of one rule.

    Args:
        compiled: The rule.
        registry: The actions that exist.
        windows: Names of the policy's windows.
        evaluate: Answers the rule for an example.
        error: Makes the error that names a place within the rule.
    """

    def __init__(
        self,
        compiled: CompiledRule,
        registry: Registry,
        *,
        windows: frozenset[str],
        evaluate: Evaluate,
        error: Callable[[Place, str], PolicyError],
    ) -> None:
        self._compiled = compiled
        self._registry = registry
        self._windows = windows
        self._evaluate = evaluate
        self._error = error

    def run(self) -> None:
        """Check everything.

        Raises:
            PolicyError: With the place and the value, at the first thing that is not right.
        """
        self._check_patterns()
        self._check_windows()
        for place, example in self._examples():
            self._check_example(place, example, wanted=place[1] == "match")

    def _check_patterns(self) -> None:
        actions = [action.name for action in self._registry.actions]
        facts = [fact.name for fact in self._registry.facts]
        for index, pattern in enumerate(self._compiled.rule.match.tools):
            if pattern == "*" or any(fnmatchcase(name, pattern) for name in actions):
                continue
            if any(fnmatchcase(name, pattern) for name in facts):
                message = f"{pattern!r} names facts only; facts change nothing and need no rule"
            else:
                known = ", ".join(sorted(actions)) or "none"
                message = f"{pattern!r} matches no registered action (there are: {known})"
            raise self._error(("match", "tools", index), message)

    def _check_windows(self) -> None:
        condition = self._compiled.condition
        named: list[tuple[Place, str]] = [
            (("match", "windows", index), name)
            for index, name in enumerate(self._compiled.rule.match.windows)
        ]
        named += [(("when",), name) for name in sorted(condition.windows if condition else ())]
        for place, name in named:
            if name not in self._windows:
                known = ", ".join(sorted(self._windows)) or "none; write it under windows"
                raise self._error(place, f"window {name!r} is not defined (there are: {known})")

    def _examples(self) -> Iterator[tuple[Place, Example]]:
        examples = self._compiled.rule.examples
        for kind, given in (("match", examples.match), ("no_match", examples.no_match)):
            for index, example in enumerate(given):
                yield ("examples", kind, index), example

    def _check_example(self, place: Place, example: Example, *, wanted: bool) -> None:
        rule, condition = self._compiled.rule, self._compiled.condition
        if example.now is None and (rule.match.windows or (condition and condition.windows)):
            raise self._error(
                place, "it speaks of windows, so its example needs a moment: now: 2026-12-31T18:00Z"
            )
        try:
            action = self._registry.action(example.action)
        except UnknownToolError as error:
            raise self._error((*place, "action"), str(error)) from error
        said = self._evaluate(self._compiled, example.request(action.reversibility, action.version))
        if said.outcome == "error":
            raise self._error(place, f"its example cannot be evaluated: {said.detail}")
        if (said.outcome == "matched") != wanted:
            ends = (
                "match its example of {!r}, but does not"
                if wanted
                else "not match its example of {!r}, but does"
            )
            raise self._error(place, "must " + ends.format(example.action))
