"""Conditions of policy rules: CEL (https://cel.dev) behind a seam of our own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

VARIABLES = frozenset({"action", "arguments", "host", "requester", "now", "diff_lines", "incident"})
"""What a condition may speak of."""

STATIC_VARIABLES = frozenset({"action", "host"})
"""Those that do not depend on the moment or on the arguments."""

_BINDING = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")


class ConditionError(ValueError):
    """A condition is not an expression, or cannot be evaluated."""


class Condition(Protocol):
    """A yes-or-no question about one concrete action."""

    @property
    def variables(self) -> frozenset[str]:
        """Variables that it speaks of."""
        ...

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Answer it.

        Raises:
            ConditionError: If it cannot be answered, or the answer is neither yes nor no.
        """
        ...


class CelCondition:
    """A condition written in CEL.

    Raises:
        ConditionError: If it is not CEL, or speaks of something that is not there.
    """

    def __init__(self, source: str) -> None:
        import cel

        self.source = source
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise ConditionError(f"{source!r} is not a CEL expression: {_brief(error)}") from error
        bound = set(_BINDING.findall(source))
        self.variables = frozenset(set(self._program.variables()) - bound)
        unknown = sorted(self.variables - VARIABLES)
        if unknown:
            raise ConditionError(
                f"{source!r} speaks of {unknown[0]!r}, which is not there (there are: "
                f"{', '.join(sorted(VARIABLES))})"
            )

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Answer the condition.

        Raises:
            ConditionError: If it cannot be answered, or the answer is neither yes nor no.
        """
        try:
            answer = self._program.execute(dict(variables))
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            missing = "no such key: " if isinstance(error, KeyError) else ""
            raise ConditionError(f"{self.source!r}: {missing}{_brief(error)}") from error
        if not isinstance(answer, bool):
            raise ConditionError(f"{self.source!r} answers {answer!r:.60} instead of true or false")
        return answer


def _brief(error: Exception) -> str:
    # The library prints a drawing of the place over several lines; the first says it in words.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(": ERROR: ")[-1].removeprefix("<input>:")[:200] if lines else type(error).__name__
