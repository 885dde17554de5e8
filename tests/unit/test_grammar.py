"""Grammars admit exactly what their schema allows, and leave as little choice as possible."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import llguidance.hf
import pytest

from tests import tiny
from watchkeeper.models.errors import GrammarError
from watchkeeper.models.grammar import (
    CallTags,
    Grammar,
    GrammarCompiler,
    call_grammar,
    closed,
    schema_grammar,
)
from watchkeeper.models.schemas import fault, sample

RESTART: dict[str, Any] = {
    "type": "object",
    "properties": {
        "service": {"enum": ["web", "db"]},
        "delay": {"type": "integer", "maximum": 60, "minimum": 0},
    },
    "required": ["service", "delay"],
}
SHOW: dict[str, Any] = {"type": "object", "properties": {"path": {"type": "string", "maxLength": 20}}}


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(llguidance.hf.from_tokenizer(tiny.tokenizer()))


@pytest.fixture(scope="module")
def native() -> CallTags:
    ids = tiny.tokenizer().convert_tokens_to_ids(["<tool_call>", "</tool_call>"])
    return CallTags(opening_id=ids[0], closing_id=ids[1])


def admits(compiler: GrammarCompiler, grammar: Grammar, text: str) -> bool:
    matcher = compiler.matcher(grammar)
    if "<[" in grammar.lark:
        tokens = compiler.vocabulary.tokenize_str(text, parse_special=True)
    else:
        tokens = [
            token for byte in text.encode() for token in compiler.vocabulary.tokenize_bytes(bytes([byte]))
        ]
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def call(name: str, arguments: object) -> str:
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}) + "\n</tool_call>"


@pytest.mark.parametrize("are_native", [True, False])
def test_a_call_names_an_allowed_tool_and_keeps_to_its_schema(
    compiler: GrammarCompiler, native: CallTags, are_native: bool
) -> None:
    grammar = call_grammar({"restart": RESTART, "disk.show": SHOW}, native if are_native else CallTags())
    assert admits(compiler, grammar, call("restart", {"service": "db", "delay": 7}))
    assert admits(compiler, grammar, call("disk.show", {"path": "/var"}))
    assert admits(compiler, grammar, call("disk.show", {}))
    assert not admits(compiler, grammar, call("restart", {"service": "mail", "delay": 7}))
    assert not admits(compiler, grammar, call("restart", {"service": "db", "delay": 61}))
    assert not admits(compiler, grammar, call("restart", {"delay": 7, "service": "db"}))
    assert not admits(compiler, grammar, call("disk.show", {"path": "/var", "all": True}))
    assert not admits(compiler, grammar, call("stop", {}))
    assert not admits(compiler, grammar, "I will not.")


@pytest.mark.parametrize("are_native", [True, False])
def test_with_a_choice_a_text_is_allowed_but_no_broken_call(
    compiler: GrammarCompiler, native: CallTags, are_native: bool
) -> None:
    grammar = call_grammar({"restart": RESTART}, native if are_native else CallTags(), or_text=True)
    good, bad = {"service": "web", "delay": 1}, {"service": "mail", "delay": 1}
    for text in ("All is well.", "`ls` shows it", "```bash\nls\n```", "naïve\n\n{not a call}"):
        assert admits(compiler, grammar, text), text
    bare = json.dumps({"name": "restart", "arguments": good})
    for text in (call("restart", good), bare, f"```json\n{bare}\n```"):
        assert admits(compiler, grammar, text), text
        assert not admits(compiler, grammar, text.replace(json.dumps(good), json.dumps(bad))), text


def test_a_call_may_follow_a_text_where_tags_are_tokens(compiler: GrammarCompiler, native: CallTags) -> None:
    grammar = call_grammar({"disk.show": SHOW}, native, or_text=True)
    assert admits(compiler, grammar, "Let me look.\n" + call("disk.show", {}))


def test_a_call_that_is_spread_has_a_line_for_each_argument(
    compiler: GrammarCompiler, native: CallTags
) -> None:
    grammar = call_grammar({"restart": RESTART, "disk.show": SHOW}, dataclasses.replace(native, spread=True))
    opened = '<tool_call>\n{\n  "name": "restart",\n  "arguments": {"service": "db",\n    "delay": 7}\n}'
    assert admits(compiler, grammar, opened + "\n</tool_call>")
    assert not admits(compiler, grammar, opened.replace("7", "61") + "\n</tool_call>")
    assert not admits(compiler, grammar, call("restart", {"service": "db", "delay": 7}))


def test_what_is_certain_is_forced(compiler: GrammarCompiler, native: CallTags) -> None:
    matcher = compiler.matcher(call_grammar({"restart": RESTART}, native))
    forced = matcher.compute_ff_tokens()
    head = '<tool_call>\n{"name": "restart", "arguments": {"service": "'
    assert compiler.vocabulary.decode_str(forced) == head
    assert matcher.consume_tokens(forced)
    assert matcher.consume_tokens(compiler.vocabulary.tokenize_str("d"))
    assert compiler.vocabulary.decode_str(matcher.compute_ff_tokens()) == 'b", "delay": '


SCHEMAS: list[dict[str, Any]] = [
    RESTART,
    {"type": "array", "items": {"enum": [1, "two", None, True]}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"type": "integer", "minimum": -5, "maximum": 5}, {"type": "boolean"}]},
    {"type": "string", "pattern": "^[a-z]{2,4}$"},
    {
        "$defs": {"step": {"type": "object", "properties": {"do": {"const": "x"}}, "required": ["do"]}},
        "type": "object",
        "properties": {"steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "maxItems": 2}},
        "required": ["steps"],
    },
    {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "maxLength": 3},
            "b": {"type": "number", "minimum": -2.5, "maximum": 2.5},
        },
    },
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_valid_values_are_admitted(compiler: GrammarCompiler, schema: dict[str, Any]) -> None:
    if "pattern" in schema:
        values: list[Any] = ["ab", "abcd"]
    else:
        values = [sample(closed(schema), random.Random(seed)) for seed in range(20)]
    for value in values:
        assert admits(compiler, schema_grammar(schema), json.dumps(value)), value


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_walk_by_chance_through_the_grammar_ends_in_a_valid_value(
    compiler: GrammarCompiler, schema: dict[str, Any]
) -> None:
    for seed in range(10):
        rng = random.Random(seed)
        matcher = compiler.matcher(schema_grammar(schema))
        tokens: list[int] = []
        while not matcher.is_stopped():
            bits = matcher.compute_bitmask()
            allowed = [i for i in range(compiler.vocabulary.vocab_size) if bits[i // 8] >> (i % 8) & 1]
            token = rng.choice(allowed)
            if token == compiler.vocabulary.eos_token:
                break
            # A quotation mark ends a string, so that a walk by chance ends too.
            quote = compiler.vocabulary.tokenize_str('"')[0]
            token = quote if quote in allowed and rng.random() < 0.3 else token
            assert matcher.consume_token(token)
            tokens.append(token)
            assert len(tokens) < 500
        text = compiler.vocabulary.decode_bytes(tokens).decode("utf-8", "replace")
        value = json.loads(text)
        assert fault(value, schema) is None, text


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        {"type": "string", "pattern": "^(?=a)b"},
        {"enum": []},
        {"type": "integer", "minimum": 5, "maximum": 3},
        {"$ref": "#/$defs/gone"},
        {"type": "strnig"},
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_before_decoding(
    compiler: GrammarCompiler, schema: dict[str, Any]
) -> None:
    with pytest.raises(GrammarError, match="cannot be enforced"):
        compiler.matcher(schema_grammar(schema))


def test_a_schema_that_is_not_json_is_refused() -> None:
    with pytest.raises(GrammarError, match="not JSON"):
        schema_grammar({"enum": [object()]})


def test_no_calls_at_all_is_no_grammar_of_calls(native: CallTags) -> None:
    with pytest.raises(GrammarError, match="max_calls must be at least 1, got 0"):
        call_grammar({"restart": RESTART}, native, max_calls=0)


def test_a_matcher_is_fresh_every_time(compiler: GrammarCompiler) -> None:
    grammar = schema_grammar({"enum": ["a", "b"]})
    first = compiler.matcher(grammar)
    assert first.consume_tokens(compiler.vocabulary.tokenize_str('"a"'))
    assert compiler.vocabulary.decode_str(compiler.matcher(grammar).compute_ff_tokens()) == '"'


def test_closing_a_schema_only_forbids() -> None:
    open_schema = {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": True}}}
    assert closed(open_schema)["additionalProperties"] is False
    assert closed(open_schema)["properties"]["a"]["additionalProperties"] is True
    mixed = {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    assert closed(mixed) == mixed
