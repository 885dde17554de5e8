"""Conditions of policy rules: CEL (https://cel.dev) behind a seam of our own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from watchkeeper.runtime.blast import span_of
from watchkeeper.runtime.condition_text import ConditionText

VARIABLES = frozenset(
    {
        "action",
        "arguments",
        "host",
        "requester",
        "requester_roles",
        "now",
        "diff_lines",
        "incident",
        "blast",
        "bias",
    }
)
"""What a condition may speak of, besides ``blast_`` and a time span (``blast_30m``)."""

STATIC_VARIABLES = frozenset({"action", "host"})
"""Those that do not depend on the moment or on the arguments."""

WINDOWS = "windows"
"""The variable that stands for the windows of the policy; conditions ask for one by ``in_window("name")``."""

BLAST_SPAN = "1h"
"""The time span of ``blast``, where none is named."""

_BLAST = re.compile(r"blast(?:_(\w+))?")
_IN_WINDOW = "in_window"
_LONGEST = 4_000
"""Characters of a condition at most."""

_STEPS = 1_000_000
"""Turns of loops that a condition may take at most; a few tenths of a second."""


class ConditionError(ValueError):
    """A condition is not an expression, or cannot be evaluated."""


class Condition(Protocol):
    """A yes-or-no question about one concrete action."""

    @property
    def variables(self) -> frozenset[str]:
        """Variables that it speaks of; ``windows`` among them if it asks for a window."""
        ...

    @property
    def windows(self) -> frozenset[str]:
        """Names of the windows that it asks for."""
        ...

    @property
    def text(self) -> ConditionText:
        """Its tokens."""
        ...

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Answer it.

        Raises:
            ConditionError: If it cannot be answered, or the answer is neither yes nor no.
        """
        ...


class CelCondition:
    """A condition written in CEL.

    CEL has no loop without an end, but loops within loops; how long a condition may take is bounded before it
    is evaluated, by the depth of its loops and by the size of what it is about.

    Raises:
        ConditionError: If it is not CEL, speaks of something that is not there, or could take too long.
    """

    def __init__(self, source: str) -> None:
        import cel

        self.source = source
        if len(source) > _LONGEST:
            raise ConditionError(f"{source[:40]!r}… has {len(source)} characters: {_LONGEST} are the most")
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise ConditionError(f"{source!r} is not a CEL expression: {_brief(error)}") from error
        self.text = ConditionText(source)
        bound = self.text.bound()
        self.variables = frozenset(set(self._program.variables()) - bound)
        for name in sorted(bound):
            if name in VARIABLES or _BLAST.fullmatch(name):
                raise ConditionError(f"{source!r} calls an element {name!r}, which is a variable: rename it")
        unknown = sorted(name for name in self.variables if not _known(name))
        if unknown:
            raise ConditionError(
                f"{source!r} speaks of {unknown[0]!r}, which is not there (there are: "
                f"{', '.join(sorted(VARIABLES))}, and blast_30m and the like)"
            )
        named = self.text.calls(_IN_WINDOW)
        if None in named:
            raise ConditionError(
                f'{source!r}: in_window takes the name of a window: in_window("maintenance")'
            )
        self.windows = frozenset(name for name in named if name is not None)
        if self.windows:
            self.variables |= {WINDOWS}
        self._check_steps({})

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Answer the condition.

        Raises:
            ConditionError: If it cannot be answered, could take too long, or answers neither yes nor no.
        """
        self._check_steps(variables)
        windows: Mapping[str, bool] = variables.get(WINDOWS, {})
        missing = sorted(self.windows - windows.keys())
        if missing:
            raise ConditionError(f"{self.source!r}: whether window {missing[0]!r} is open is not known")
        given = {name: value for name, value in variables.items() if name != WINDOWS}
        try:
            answer = self._program.execute(given | {_IN_WINDOW: windows.__getitem__})
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            said = "no such key: " if isinstance(error, KeyError) else ""
            raise ConditionError(f"{self.source!r}: {said}{_brief(error)}") from error
        if not isinstance(answer, bool):
            raise ConditionError(f"{self.source!r} answers {answer!r:.60} instead of true or false")
        return answer

    def _check_steps(self, variables: Mapping[str, Any]) -> None:
        """Refuse what could take too long; the bound is coarse: every loop over all there is.

        Raises:
            ConditionError: If it could.
        """
        depth = self.text.depth()
        if depth == 0:
            return
        largest = (self.text.length + _size(variables)) * (1 + self.text.sums)
        if largest**depth > _STEPS:
            raise ConditionError(
                f"{self.source!r:.200}: loops {depth} deep over up to {largest} values take too long (at "
                f"most {_STEPS} turns): write it with fewer loops within each other"
            )


def blast_spans(condition: Condition) -> frozenset[str]:
    """Return the time spans whose blast radius a condition speaks of."""
    found = (_BLAST.fullmatch(name) for name in condition.variables)
    return frozenset((match[1] or BLAST_SPAN) for match in found if match)


def _known(name: str) -> bool:
    blast = _BLAST.fullmatch(name)
    if blast is None or blast[1] is None:
        return name in VARIABLES
    try:
        span_of(blast[1])
    except ValueError:
        return False
    return True


def _size(value: object) -> int:
    if isinstance(value, str):
        return 1 + len(value) // 64
    if isinstance(value, Mapping):
        return 1 + sum(_size(item) for item in value.values())
    if isinstance(value, Sequence):
        return 1 + sum(_size(item) for item in value)
    return 1


def _brief(error: Exception) -> str:
    # The library prints a drawing of the place over several lines; the first says it in words.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(": ERROR: ")[-1].removeprefix("<input>:")[:200] if lines else type(error).__name__
