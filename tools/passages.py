"""Text with its label: what a prompt may be built from, and what may only be quoted.

A label travels as the type of a text. `Trusted` text was written by code, by the inventory and by plain
analyzers; `Quoted` text may have been written by anyone, and cannot be put into another text at all: not by
an f-string, not by ``format``, not by ``join``. So a prompt of an agent that holds tools, which takes
`Trusted` alone, fails where it is built and not where it is answered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from watchkeeper.tools.errors import UntrustedTextError

_PLACE = re.compile(r"\{(\w+)\}")


class Trusted(str):
    """Text that no stranger wrote any part of; whoever makes it says so."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Quoted:
    """Text that others can write.

    Attributes:
        text: The text; for people, and for agents that hold no tools.
        source: Where it was found, in a few words.
    """

    text: str
    source: str

    def __str__(self) -> NoReturn:
        raise UntrustedTextError(f"text of {self.source} cannot be made part of another text: quote it")

    def __format__(self, form: str) -> NoReturn:
        self.__str__()
        raise AssertionError(form)  # not reached


def passage(template: str, **pieces: Trusted | int | float) -> Trusted:
    """Put trusted pieces into the places of a template that is written in code, e.g. ``"Alert: {what}."``.

    Raises:
        UntrustedTextError: If a piece is not trusted, or a place has no piece.
    """
    for name, piece in pieces.items():
        _require(piece, f"piece {name!r}")

    def put(match: re.Match[str]) -> str:
        if match[1] not in pieces:
            raise UntrustedTextError(f"place {match[1]!r} of a passage has no piece")
        return str(pieces[match[1]])

    return Trusted(_PLACE.sub(put, template))


def lines(parts: Iterable[Trusted]) -> Trusted:
    """Put trusted lines below each other.

    Raises:
        UntrustedTextError: If one of them is not trusted.
    """
    kept = list(parts)
    for part in kept:
        _require(part, "a line")
    return Trusted("\n".join(kept))


def stand_in(text: str, names: tuple[str, ...] = ()) -> Trusted:
    """Return the name under which agents speak of something that others named, e.g. ``file-1``.

    Args:
        text: What others called it.
        names: The names known so far, in an order that stays; others are told apart by a digest.
    """
    kind = "file" if text.startswith("/") else "name"
    if text in names:
        return Trusted(f"{kind}-{names.index(text) + 1}")
    return Trusted(f"{kind}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:6]}")


def _require(piece: Any, what: str) -> None:
    if not isinstance(piece, Trusted | int | float):
        raise UntrustedTextError(
            f"{what} is {type(piece).__name__} and not trusted text: only that may be told to an agent with "
            "tools (see `passage`)"
        )
