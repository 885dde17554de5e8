"""From JSON schemas and tools to grammars that a model cannot leave while it decodes.

Grammars are llguidance's Lark dialect (https://github.com/guidance-ai/llguidance). They are written for the
fewest choices: no optional whitespace, arguments in the order of the schema, objects closed unless the
schema opens them. What is left to the model is what the schema leaves open; everything else is forced and
can be appended without asking the model.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from watchkeeper.models.errors import GrammarError
from watchkeeper.models.interface import JsonSchema

_SEPARATORS: Mapping[str, Any] = {
    "whitespace_flexible": False,
    # The separators of json.dumps, which chat templates use and models are therefore trained on.
    "key_separator": ": ",
}
_CACHED_GRAMMARS = 256
# Other formats, such as pydantic's "path", are names that JSON Schema gives no meaning.
_STANDARD_FORMATS = frozenset(
    [
        *("date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname"),
        *("ipv4", "ipv6", "uuid", "uri", "uri-reference", "uri-template", "iri", "iri-reference"),
        *("json-pointer", "relative-json-pointer", "regex"),
    ]
)
# llguidance takes 29 February for a date of every year, 0000 for a year, and 60 for a second.
_DATE = (
    "^([1-9][0-9]{3}-((0[13-9]|1[0-2])-[0-9]{2}|02-([01][0-9]|2[0-8]))"
    "|([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)-02-29)"
)
_CALENDAR: Mapping[str, str] = {
    "date": f"{_DATE}$",
    "date-time": f"{_DATE}[Tt][0-9]{{2}}:[0-9]{{2}}:[0-5]",
    "time": "^[0-9]{2}:[0-9]{2}:[0-5]",
}


class AnswerKind(StrEnum):
    """What a grammar produces."""

    JSON = "json"
    CALL = "call"
    TEXT_OR_CALL = "text or call"


@dataclass(frozen=True, slots=True)
class CallTags:
    """How a model family writes a tool call: JSON between two texts, or bare.

    Attributes:
        opening: What stands before a call; empty where calls are bare JSON.
        closing: What stands after it.
        opening_id: The token that is the opening, where there is one.
        closing_id: The token that is the closing, where there is one.
        arguments: The key that holds the arguments, beside ``"name"``.
        separator: What stands between two calls of one answer; None where an answer holds one at most.
        spread: Whether each argument has a line of its own. Not only a matter of taste: a model finds other
            values in a layout that it does not write by itself.
    """

    opening: str = "<tool_call>"
    closing: str = "</tool_call>"
    opening_id: int | None = None
    closing_id: int | None = None
    arguments: str = "arguments"
    separator: str | None = "\n"
    spread: bool = False

    @property
    def native(self) -> bool:
        """Whether the tags are tokens of their own, which no content can imitate."""
        return self.opening_id is not None and self.closing_id is not None


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar and what it produces."""

    kind: AnswerKind
    lark: str

    @property
    def digest(self) -> str:
        """SHA-256 of the grammar."""
        return hashlib.sha256(self.lark.encode()).hexdigest()

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that texts in it must match, each once."""
        found: dict[str, None] = {}
        for line in self.lark.splitlines():
            _, embedded, schema = line.partition("%json ")
            if embedded:
                found |= dict.fromkeys(_patterns(json.loads(schema)))
        return tuple(found)


def _patterns(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for keyword, part in value.items():
            # A property may be named "pattern": its schema is no string.
            if keyword == "pattern" and isinstance(part, str):
                yield part
            yield from _patterns(part)
    elif isinstance(value, list):
        for part in value:
            yield from _patterns(part)


def schema_grammar(schema: JsonSchema) -> Grammar:
    """Write the grammar of a JSON value."""
    return Grammar(AnswerKind.JSON, f"start: %json {_embedded(schema)}\n")


def call_grammar(
    allowed: Mapping[str, JsonSchema], tags: CallTags, *, or_text: bool = False, max_calls: int = 1
) -> Grammar:
    """Write the grammar of one tool call, or of several.

    Args:
        allowed: Argument schemas of the tools that may be called, by name; at least one.
        tags: How the family writes a call.
        or_text: Whether a text may take the place of the calls.
        max_calls: How many calls an answer may hold; a family that knows one a turn keeps to one.

    Raises:
        GrammarError: If ``max_calls`` is not positive, or a schema is not JSON.
    """
    if max_calls < 1:
        raise GrammarError(f"max_calls must be at least 1, got {max_calls!r}")
    rules = [
        f"call: {_framed(tags)}",
        "object: " + " | ".join(f"object_{index}" for index in range(len(allowed))),
    ]
    for index, (name, schema) in enumerate(allowed.items()):
        begin, between, end = ("{\n  ", ",\n  ", "\n}") if tags.spread else ("{", ", ", "}")
        head = f'{begin}"name": {json.dumps(name)}{between}{json.dumps(tags.arguments)}: '
        rules.append(f"object_{index}: {_quoted(head)} arguments_{index} {_quoted(end)}")
        embedded = _embedded(schema, ",\n    " if tags.spread else ", ")
        rules.append(f"arguments_{index}: %json {embedded}")
    calls, objects = "call", "object"
    if max_calls > 1 and tags.separator is not None:
        calls, objects = "calls", "objects"
        between = _quoted(tags.separator)
        rules += [f"{what}s: {what} ({between} {what}){{0,{max_calls - 1}}}" for what in ("call", "object")]
    if not or_text:
        return Grammar(AnswerKind.CALL, "\n".join([f"start: {calls}", *rules, ""]))
    # An answer that begins like a call is one: small models leave the opening tag out, or write a fenced
    # block instead. A text may begin with a fence, but not with one of JSON.
    rules.append(f'fenced: "```json\\n" {objects} "\\n```"')
    fence = r"`{1,2}([^`](.|\n)*)?|```([^`j](.|\n)*)?"
    if tags.native:
        start = [f"start: TEXT {calls}? | {calls} | {objects} | fenced", rf"TEXT: /[^{{`](.|\n)*|{fence}/"]
    elif tags.opening:
        first = re.escape(tags.opening[0])
        start = [f"start: TEXT | {calls} | {objects} | fenced", rf"TEXT: /[^{first}{{`](.|\n)*|{fence}/"]
    else:
        start = [f"start: TEXT | {objects} | fenced", rf"TEXT: /[^{{`](.|\n)*|{fence}/"]
    return Grammar(AnswerKind.TEXT_OR_CALL, "\n".join([*start, *rules, ""]))


def _framed(tags: CallTags) -> str:
    if tags.native:
        return f'<[{tags.opening_id}]> "\\n" object "\\n" <[{tags.closing_id}]>'
    if not tags.opening:
        return "object"
    return f'{_quoted(tags.opening)} "\\n" object "\\n" {_quoted(tags.closing)}'


def closed(schema: Any) -> Any:
    """Forbid unnamed properties wherever a schema names some and does not say that others are welcome.

    Every value that the closed schema allows is allowed by the original one, and a small model is not led
    into inventing keys. A schema with ``allOf`` is left alone: closing one part would forbid the others'.
    """
    if '"allOf"' in json.dumps(schema):
        return schema
    return _close(schema)


def _close(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return [_close(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    for keyword in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(keyword), Mapping):
            result[keyword] = {name: _close(part) for name, part in schema[keyword].items()}
    for keyword in ("items", "prefixItems", "anyOf", "oneOf", "additionalProperties"):
        if keyword in schema:
            result[keyword] = _close(schema[keyword])
    if schema.get("properties") or schema.get("type") == "object":
        result.setdefault("additionalProperties", False)
    if schema.get("format", "date") not in _STANDARD_FORMATS:
        del result["format"]
    elif schema.get("format") in _CALENDAR:
        result.setdefault("pattern", _CALENDAR[schema["format"]])
    return result


def _embedded(schema: JsonSchema, item_separator: str = ", ") -> str:
    try:
        body = {**closed(schema), "x-guidance": {**_SEPARATORS, "item_separator": item_separator}}
        return json.dumps(body)
    except (TypeError, ValueError) as error:
        raise GrammarError(f"schema {schema!r:.200} is not JSON: {error}") from error


def _quoted(text: str) -> str:
    return json.dumps(text)


class GrammarCompiler:
    """Compiles grammars for one vocabulary and keeps the compiled ones.

    Args:
        vocabulary: llguidance's view of the tokenizer.
    """

    def __init__(self, vocabulary: LLTokenizer) -> None:
        self.vocabulary = vocabulary
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, grammar: Grammar) -> LLMatcher:
        """Return a fresh matcher of a grammar.

        Raises:
            GrammarError: If the grammar cannot be enforced; the message says which part of the schema.
        """
        digest = grammar.digest
        with self._lock:
            pristine = self._compiled.get(digest)
            if pristine is not None:
                self._compiled.move_to_end(digest)
                return pristine.deep_copy()
        pristine = LLMatcher(self.vocabulary, LLMatcher.grammar_from_lark(grammar.lark), log_level=0)
        if pristine.is_error():
            reason = " ".join(pristine.get_error().split())
            raise GrammarError(f"the schema cannot be enforced while decoding: {reason:.400}")
        with self._lock:
            self._compiled[digest] = pristine
            while len(self._compiled) > _CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
            return pristine.deep_copy()
