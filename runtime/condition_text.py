"""What the text of a CEL condition tells without evaluating it: names, loops, windows, arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_STRING = r"[rR]?[bB]?[rR]?(?:\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
_RAW = r"[bB]?[rR][bB]?(?:\"[^\"\n]*\"|'[^'\n]*')"
_TOKEN = re.compile(
    rf"(?P<space>\s+|//[^\n]*)|(?P<string>{_RAW}|{_STRING})|(?P<name>[A-Za-z_]\w*)|(?P<number>\d[\w.]*)"
    r"|(?P<sign>&&|\|\||[=!<>]=|.)",
    flags=re.DOTALL,
)
_LOOPS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_JOINTS = frozenset({"&&", "||", ")", ""})


class ConditionText:
    """The tokens of a condition, and what follows from them."""

    def __init__(self, source: str) -> None:
        found = [match for match in _TOKEN.finditer(source) if match.lastgroup != "space"]
        self._tokens = [match.group() for match in found]
        self._kinds = [match.lastgroup for match in found]

    @property
    def length(self) -> int:
        """How many tokens it has."""
        return len(self._tokens)

    @property
    def sums(self) -> int:
        """How often it adds: adding is what makes lists longer."""
        return self._tokens.count("+")

    def bound(self) -> frozenset[str]:
        """Names that its loops give to elements."""
        return frozenset(self._tokens[at + 2] for at in self._loops())

    def depth(self) -> int:
        """How many of its loops lie within each other at most."""
        loops = {at + 1 for at in self._loops()}
        deepest, stack = 0, [False]
        for at, word in enumerate(self._tokens):
            if word in {"(", "[", "{"} and self._kinds[at] == "sign":
                stack.append(at in loops)
                deepest = max(deepest, sum(stack))
            elif word in {")", "]", "}"} and self._kinds[at] == "sign" and len(stack) > 1:
                stack.pop()
        return deepest

    def calls(self, function: str) -> tuple[str | None, ...]:
        """What a function of one text is called with; None where that is not written out."""
        given: list[str | None] = []
        for at in self._all(function):
            plain = (
                self._token(at - 1) != "."
                and self._token(at + 1) == "("
                and self._kind(at + 2) == "string"
                and self._token(at + 3) == ")"
            )
            given.append(_written(self._token(at + 2)) if plain else None)
        return tuple(given)

    def fields(self, variable: str) -> frozenset[str] | None:
        """The fields of a variable that it reads; None where it does more than read some by name."""
        fields: set[str] = set()
        if "has" in self._tokens or "dyn" in self._tokens:
            return None
        for at in self._all(variable):
            if self._token(at + 1) == "." and self._kind(at + 2) == "name" and self._token(at + 3) != "(":
                fields.add(self._token(at + 2))
            elif self._token(at + 1) == "[" and self._kind(at + 2) == "string" and self._token(at + 3) == "]":
                written = _written(self._token(at + 2))
                if written is None:
                    return None
                fields.add(written)
            else:
                return None
        return frozenset(fields)

    def read_of(self, variable: str) -> frozenset[str]:
        """The fields of a variable that it names, whatever else it does with it."""
        fields: set[str] = set()
        for at in self._all(variable):
            if self._token(at + 1) == "." and self._kind(at + 2) == "name" and self._token(at + 3) != "(":
                fields.add(self._token(at + 2))
            elif self._token(at + 1) == "[" and self._kind(at + 2) == "string" and self._token(at + 3) == "]":
                fields.add(_written(self._token(at + 2)) or "")
        return frozenset(fields - {""})

    def asks_for_one(self, variable: str, field: str) -> bool:
        """Whether all it asks of a list is that some element is there or fits: more elements change nothing.

        True only for ``"x" in variable.field`` and ``variable.field.exists(e, ...)``, alone or joined by and
        and or.
        """
        inside = self._inside_loops()
        for at, word in enumerate(self._tokens):
            if not inside[at] and self._kinds[at] == "sign" and word in {"!", "?"}:
                return False
            if (
                not inside[at]
                and word == "["
                and (self._kind(at - 1) != "name" or self._token(at - 1) == variable)
            ):
                return False
            if not inside[at] and word == ")" and self._token(at + 1) not in _JOINTS:
                return False
            if (
                not inside[at]
                and word == "("
                and self._kind(at - 1) == "name"
                and at - 1 not in self._loops()
            ):
                return False
        for at in self._all(variable):
            if self._token(at + 1) != "." or self._token(at + 2) != field:
                continue
            if self._token(at - 1) == "in":
                listed = self._kind(at - 2) == "string" and self._before(at - 3)
                if inside[at] or not listed or self._token(at + 3) not in _JOINTS:
                    return False
            elif (
                inside[at]
                or not self._before(at - 1)
                or self._token(at + 3) != "."
                or self._token(at + 4) != "exists"
            ):
                return False
        return True

    def _before(self, at: int) -> bool:
        return self._token(at) in {"", "(", "&&", "||"}

    def _inside_loops(self) -> Sequence[bool]:
        loops = {at + 1 for at in self._loops()}
        inside: list[bool] = []
        stack = [False]
        for at, word in enumerate(self._tokens):
            if word == ")" and self._kinds[at] == "sign" and len(stack) > 1:
                stack.pop()
            inside.append(stack[-1])
            if word == "(" and self._kinds[at] == "sign":
                stack.append(stack[-1] or at in loops)
        return inside

    def _loops(self) -> frozenset[int]:
        return frozenset(
            at
            for at, word in enumerate(self._tokens)
            if word in _LOOPS
            and self._token(at - 1) == "."
            and self._token(at + 1) == "("
            and self._kind(at + 2) == "name"
            and self._token(at + 3) == ","
        )

    def _all(self, name: str) -> Iterator[int]:
        for at, word in enumerate(self._tokens):
            field = self._token(at - 1) == "."
            if word == name and self._kinds[at] == "name" and (not field or self._token(at + 1) == "("):
                yield at

    def _token(self, at: int) -> str:
        return self._tokens[at] if 0 <= at < len(self._tokens) else ""

    def _kind(self, at: int) -> str | None:
        return self._kinds[at] if 0 <= at < len(self._kinds) else None


def _written(literal: str) -> str | None:
    """The text of a string literal; None where it has a prefix or an escape."""
    for quote in ('"""', "'''", '"', "'"):
        if literal.startswith(quote) and literal.endswith(quote):
            text = literal[len(quote) : -len(quote)]
            return None if "\\" in text else text
    return None
