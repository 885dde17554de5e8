"""YAML files of the operator: read once, with the line of every value for error messages."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

Place = tuple[int | str, ...]

_DEPTH = 30
_VALUES = 50_000
"""Bounds that no file written by hand reaches, but a few lines of references to references do."""


class DocumentError(ValueError):
    """A YAML file cannot be read; the message names the file, the line and the value."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML file holds.

    Attributes:
        path: The file.
        data: Its content.
        lines: Line of each value by its place, from 1.
    """

    path: Path
    data: Any
    lines: dict[Place, int]

    def where(self, place: Sequence[int | str]) -> str:
        """Name a place: ``'/etc/policy.yaml' line 7: rules.0.tier``; the nearest one that was written."""
        known = tuple(place)
        while known and known not in self.lines:
            known = known[:-1]
        line = f" line {self.lines[known]}" if known in self.lines else ""
        name = ".".join(str(part) for part in place)
        return f"{str(self.path)!r}{line}" + (f": {name}" if name else "")

    def explain(self, error: ValidationError, *, within: Place = ()) -> str:
        """Say what is wrong first, where, and with which value.

        An unknown key goes before a missing one: it is mostly that one, misspelled.

        Args:
            error: What is wrong.
            within: Where the part stands that was validated; of a choice among kinds, without its kind.
        """
        errors = error.errors()
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        where = self.where((*within, *first["loc"][1 if within else 0 :]))
        match first["type"]:
            case "missing":
                return f"{where}: missing"
            case "extra_forbidden":
                siblings = [one for one in errors if one["loc"][:-1] == first["loc"][:-1]]
                missing = [str(one["loc"][-1]) for one in siblings if one["type"] == "missing"]
                meant = get_close_matches(str(first["loc"][-1]), missing, n=1)
                message = f"unknown key ({f'is {meant[0]!r} meant?' if meant else 'check its spelling'})"
            case "union_tag_invalid":
                key, known = first["ctx"]["discriminator"].strip("'"), first["ctx"]["expected_tags"]
                return f"{where}: unknown {key} {first['ctx']['tag']!r} (there are: {known})"
            case "union_tag_not_found":
                return f"{where}: its {first['ctx']['discriminator']} is missing (got {first['input']!r:.80})"
            case "model_type" | "model_attributes_type" | "dict_type":
                message = "keys with values are expected"
            case _:
                message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {message} (got {first['input']!r:.80})"


def read_document(path: Path, what: str) -> Document:
    """Read a YAML file; a key that is written twice is an error, since one of the two would be lost.

    Args:
        path: The file.
        what: What it is, for messages: ``"policy"``.

    Raises:
        DocumentError: If it cannot be read or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DocumentError(
            f"{what} {str(path)!r} cannot be read: {error.strerror}; name the file that is meant, or write "
            "files to begin with by `watchkeeper init`"
        ) from error
    except OSError as error:
        raise DocumentError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DocumentError(f"{what} {str(path)!r} is not UTF-8 text: byte {error.start}") from error
    lines: dict[Place, int] = {}
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(path, {}, {})
        _index(root, (), lines, what, path, 0)
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark is not None else ""
        said = error.problem or error.context or "unreadable"
        raise DocumentError(f"{what} {str(path)!r}{line}: not valid YAML: {said}") from error
    except RecursionError as error:
        raise DocumentError(f"{what} {str(path)!r}: nested too deeply (more than {_DEPTH} levels)") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(
            f"{what} {str(path)!r}: not valid YAML: {' '.join(str(error).split())}"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    return Document(path, data, lines)


def _index(node: yaml.Node, place: Place, lines: dict[Place, int], what: str, path: Path, depth: int) -> None:
    lines[place] = node.start_mark.line + 1
    if depth > _DEPTH or len(lines) > _VALUES:
        raise DocumentError(
            f"{what} {str(path)!r} line {lines[place]}: nested too deeply or too large (more than {_DEPTH} "
            f"levels or {_VALUES} values)"
        )
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else repr(key.tag)
            if name in seen:
                raise DocumentError(
                    f"{what} {str(path)!r} line {key.start_mark.line + 1}: key {name!r} is written twice"
                )
            seen.add(name)
            _index(value, (*place, name), lines, what, path, depth + 1)
            lines[(*place, name)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _index(value, (*place, number), lines, what, path, depth + 1)
