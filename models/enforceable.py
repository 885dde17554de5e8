"""Whether a JSON schema can be enforced while a model decodes; no model and no torch is needed to tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from watchkeeper.models.errors import GrammarError
from watchkeeper.models.interface import JsonSchema

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_SINGLE = ("items", "additionalProperties")
# Keywords of older drafts that the grammar would pass over in silence.
_OLD = {
    "additionalItems": "write prefixItems and items",
    "disallow": "write the types that are allowed",
    "divisibleBy": "write multipleOf",
    "extends": "write allOf",
}
_LONGEST = 4_096
_REMEMBERED = 512


@dataclass(frozen=True, slots=True)
class Unenforceable:
    """Why a schema cannot be enforced.

    Attributes:
        place: Where in the schema, ``$`` being its root.
        reason: What cannot be enforced there.
    """

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def unenforceable(schema: JsonSchema) -> Unenforceable | None:
    """Return why no grammar can keep a model to a schema, or None where one can.

    Refused is what the grammar does not know, what it would pass over in silence, and what no finite value
    satisfies.
    """
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError) as error:
        return Unenforceable("$", f"not JSON: {error}")
    return _judged(text)


def check_enforceable(schema: JsonSchema, what: str) -> None:
    """Refuse a schema that cannot be enforced.

    Args:
        schema: JSON schema, e.g. of a tool's arguments.
        what: Whose it is, e.g. ``"tool 'disk.show'"``; the message begins with it.

    Raises:
        GrammarError: With the place and the reason.
    """
    fault = unenforceable(schema)
    if fault is not None:
        raise GrammarError(f"{what}: the schema cannot be enforced while decoding: {fault}")


@lru_cache(maxsize=_REMEMBERED)
def _judged(text: str) -> Unenforceable | None:
    schema: Any = json.loads(text)
    if not isinstance(schema, dict):
        return Unenforceable("$", f"a schema is a JSON object, got {text:.80}")
    silent = next(_passed_over(schema, "$"), None)
    if silent is not None:
        return silent
    reason = _refusal(schema)
    if reason is not None:
        return _deepest(schema, schema, "$", reason)
    if _refers_to_itself(schema) and not _ends(schema):
        return Unenforceable("$", f"no value of at most {_LONGEST} bytes satisfies it: does it need itself?")
    return None


def _parts(schema: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    for keyword in _MAPS:
        if isinstance(schema.get(keyword), dict):
            yield from ((f"{place}.{keyword}.{name}", part) for name, part in schema[keyword].items())
    for keyword in _LISTS:
        if isinstance(schema.get(keyword), list):
            yield from ((f"{place}.{keyword}[{index}]", part) for index, part in enumerate(schema[keyword]))
    for keyword in _SINGLE:
        if keyword in schema:
            yield f"{place}.{keyword}", schema[keyword]


def _passed_over(schema: Any, place: str) -> Iterator[Unenforceable]:
    if not isinstance(schema, dict):
        return
    for keyword, instead in _OLD.items():
        if keyword in schema:
            yield Unenforceable(place, f"keyword {keyword!r} is not of JSON Schema 2020-12; {instead}")
    if isinstance(schema.get("items"), list):
        yield Unenforceable(place, "'items' is a list, which is not JSON Schema 2020-12; write prefixItems")
    for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
        if isinstance(schema.get(keyword), bool):
            yield Unenforceable(place, f"{keyword!r} must be a number, got {schema[keyword]!r}")
    step = schema.get("multipleOf", 1)
    if not isinstance(step, int | float) or step <= 0:
        yield Unenforceable(place, f"'multipleOf' must be above 0, got {step!r}")
    least, required = schema.get("minProperties", 0), schema.get("required", [])
    if isinstance(least, int) and isinstance(required, list) and least > len(required) + 1:
        # A grammar cannot tell whether two keys that it does not know are the same.
        yield Unenforceable(place, f"'minProperties' is {least!r}: name the properties and require them")
    for inner, part in _parts(schema, place):
        yield from _passed_over(part, inner)


def _refusal(schema: Any) -> str | None:
    """Return why llguidance refuses a schema."""
    from llguidance import LLMatcher

    from watchkeeper.models.grammar import schema_grammar

    grammar = LLMatcher.grammar_from_lark(schema_grammar(schema).lark)
    refused, messages = LLMatcher.validate_grammar_with_warnings(grammar, _bytes())
    if not refused:
        return None
    message: str = messages[0]
    # The message goes on with the grammar, and begins with a place in it.
    said = message.partition("\n   1 | ")[0].partition("JSON schema: ")[2] or message
    return " ".join(said.split())[:300]


def _deepest(schema: JsonSchema, root: JsonSchema, place: str, reason: str) -> Unenforceable:
    """Find the innermost part that is refused by itself."""
    shared = {keyword: root[keyword] for keyword in ("$defs", "definitions") if keyword in root}
    for inner, part in _parts(schema, place):
        if not isinstance(part, dict):
            continue
        inner_reason = _refusal(part | shared)
        if inner_reason is not None:
            return _deepest(part, root, inner, inner_reason)
    return Unenforceable(place, reason)


def _refers_to_itself(schema: JsonSchema) -> bool:
    """Tell whether following references may come back to where it was; True where that is hard to tell."""
    named = {
        f"#/{keyword}/{name}": _references(part)
        for keyword in ("$defs", "definitions")
        for name, part in schema.get(keyword, {}).items()
    }
    reached = _references({key: part for key, part in schema.items() if key not in {"$defs", "definitions"}})
    for _ in range(len(named) + 1):
        if not reached:
            return False
        if not reached <= named.keys():
            return True
        reached = set().union(*(named[reference] for reference in reached))
    return True


def _references(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*(_references(item) for item in value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*(_references(item) for item in value.values()))
    reference = value.get("$ref")
    return found | {reference} if isinstance(reference, str) else found


def _ends(schema: JsonSchema) -> bool:
    from watchkeeper.models.closing import Closer
    from watchkeeper.models.grammar import GrammarCompiler, schema_grammar

    grammar = schema_grammar(schema)
    matcher = GrammarCompiler(_bytes()).matcher(grammar)
    return Closer(_bytes()).close(matcher, limit=_LONGEST, grammar=grammar) is not None


@lru_cache(maxsize=1)
def _bytes() -> LLTokenizer:
    """Return a vocabulary of single bytes, which takes no file; it is never changed."""
    from llguidance import LLTokenizer

    return LLTokenizer("byte")
