"""An answer that ran out of its budget is ended by a shortest text that makes it whole."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

import llguidance.hf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLTokenizer

from tests import tiny
from watchkeeper.models.closing import Closer
from watchkeeper.models.grammar import CallTags, Grammar, GrammarCompiler, call_grammar, schema_grammar
from watchkeeper.models.schemas import fault, sample

BYTES = LLTokenizer("byte")
COMPILER = GrammarCompiler(BYTES)
CLOSER = Closer(BYTES)
MIXED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "host": {"enum": ["web1", "web2", "database", "größe", 'a"b', "c\\d"]},
        "note": {"type": "string", "minLength": 3, "maxLength": 30},
        "count": {"type": "integer", "minimum": 10, "maximum": 600},
        "share": {"type": "number", "exclusiveMaximum": -172.75},
        "more": {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 4},
                {"type": "object", "properties": {"kind": {"enum": ["long", "b"]}}, "required": ["kind"]},
            ]
        },
        "free": {"type": ["string", "null"]},
        "map": {"type": "object", "additionalProperties": {"type": "boolean"}},
    },
    "required": ["host", "note", "count", "share", "more"],
}


def ended(grammar: Grammar, written: bytes, *, limit: int = 512) -> bytes | None:
    """The whole text, where what was written so far can be ended."""
    matcher = COMPILER.matcher(grammar)
    assert matcher.consume_tokens(list(written))
    end = CLOSER.close(matcher, limit=limit, grammar=grammar)
    return None if end is None else written + BYTES.decode_bytes(end)


@pytest.mark.parametrize("seed", range(8))
def test_every_beginning_of_a_valid_value_is_ended_validly(seed: int) -> None:
    grammar = schema_grammar(MIXED)
    text = json.dumps(sample(MIXED | {"additionalProperties": False}, random.Random(seed)))
    # As a model writes it: characters, not escapes of their numbers.
    text = json.dumps(json.loads(text), ensure_ascii=False)
    for length in range(len(text.encode()) + 1):
        whole = ended(grammar, text.encode()[:length])
        assert whole is not None, text.encode()[:length]
        assert fault(json.loads(whole), MIXED) is None


values = st.recursive(
    st.one_of(
        st.integers(-200, 200),
        st.booleans(),
        st.none(),
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(st.sampled_from("abcdé"), max_size=3), inner, max_size=3),
    ),
    max_leaves=6,
)


@given(st.lists(values, min_size=1, max_size=6), st.data())
@settings(max_examples=150, deadline=None)
def test_no_end_is_shorter_than_the_one_found(options: list[Any], data: st.DataObject) -> None:
    grammar = schema_grammar({"enum": options})
    texts = [json.dumps(option, ensure_ascii=False).encode() for option in options]
    text = data.draw(st.sampled_from(texts))
    written = text[: data.draw(st.integers(0, len(text)))]
    whole = ended(grammar, written)
    possible = [len(other) for other in texts if other.startswith(written)]
    assert whole is not None
    assert len(whole) == min(possible)
    assert whole in texts


@given(
    st.lists(st.lists(st.sampled_from(["a", "ab", "abc", "b", "bcd"]), min_size=1, unique=True), max_size=3)
)
@settings(max_examples=50, deadline=None)
def test_several_choices_are_each_made_for_the_shortest_whole(choices: list[list[str]]) -> None:
    names = [f"k{index}" for index in range(len(choices))]
    schema = {
        "type": "object",
        "properties": {name: {"enum": options} for name, options in zip(names, choices, strict=True)},
        "required": names,
    }
    every = (dict(zip(names, values, strict=True)) for values in itertools.product(*choices))
    whole = ended(schema_grammar(schema), b"")
    assert whole is not None
    assert len(whole) == min(len(json.dumps(value)) for value in every)


@pytest.mark.parametrize(
    ("schema", "written", "whole"),
    [
        ({"type": "string"}, '"half a sent', '"half a sent"'),
        ({"type": "string", "minLength": 4}, '"', '"aaaa"'),
        ({"type": "string"}, '"line\\', '"line\\""'),
        ({"type": "array", "items": {"type": "integer"}}, "[12", "[12]"),
        ({"type": "array", "items": {"type": "integer"}}, "[12, ", "[12, 0]"),
        ({"type": "integer", "minimum": 470, "maximum": 4700}, "4", "470"),
        ({"enum": ["longest", "longer", "long"]}, '"lon', '"long"'),
        ({"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "null"}, {"const": 7}]}, "", "7"),
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}}, '{"a', '{"a": ""}'),
    ],
)
def test_the_end_is_the_shortest_there_is(schema: dict[str, Any], written: str, whole: str) -> None:
    found = ended(schema_grammar(schema), written.encode())
    assert found is not None
    assert len(found.decode()) == len(whole)
    assert fault(json.loads(found), schema) is None


def test_a_character_cut_in_two_is_completed() -> None:
    whole = ended(schema_grammar({"type": "string"}), '"größe ディ'.encode()[:-1])
    assert whole is not None
    assert json.loads(whole).startswith("größe デ")


@pytest.mark.parametrize("pattern", ["[.]log$", "web", "^/[a-z/]*$", "^[0-9a-f]{64}$", "^a.*z$"])
def test_a_text_that_must_match_a_pattern_is_ended_so_that_it_does(pattern: str) -> None:
    schema = {"type": "array", "items": {"type": "string", "pattern": pattern}, "minItems": 2}
    for written in ("", '["', '["/' if pattern.startswith("^/") else '["a'):
        whole = ended(schema_grammar(schema), written.encode())
        assert whole is not None, written
        assert fault(json.loads(whole), schema) is None


def test_a_value_that_may_hold_itself_is_ended_at_once() -> None:
    node: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"enum": ["x"]}, "below": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["name", "below"],
    }
    whole = ended(schema_grammar(node), b'{"name": "x", "below": {"name": "x", "below": ')
    assert whole == b'{"name": "x", "below": {"name": "x", "below": null}}'


def test_where_no_end_fits_there_is_none() -> None:
    grammar = schema_grammar({"type": "string", "minLength": 2_000})
    assert ended(grammar, b'"a', limit=100) is None
    endless = {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1}}}
    assert ended(schema_grammar(endless | {"$ref": "#/$defs/n"}), b"[") is None


def test_an_answer_that_may_end_as_it_is_gets_nothing_more() -> None:
    assert ended(schema_grammar({"type": "integer"}), b"12") == b"12"


def test_the_matcher_stays_where_it_was() -> None:
    matcher = COMPILER.matcher(schema_grammar(MIXED))
    assert matcher.consume_tokens(list(b'{"host": "web'))
    before = matcher.compute_bitmask()
    assert CLOSER.close(matcher, limit=512) is not None
    assert matcher.compute_bitmask() == before
    assert matcher.consume_tokens(list(b'2", "note": "'))


def closes_every_call(vocabulary: LLTokenizer, tags: CallTags, tokens: Sequence[int], schema: Any) -> None:
    matcher = GrammarCompiler(vocabulary).matcher(call_grammar({"go": schema}, tags))
    closer = Closer(vocabulary)
    for number, token in enumerate(tokens):
        end = closer.close(matcher, limit=256)
        assert end is not None, vocabulary.decode_bytes(tokens[:number])
        probe = matcher.deep_copy()
        assert probe.consume_tokens(end)
        assert probe.is_accepting()
        whole = vocabulary.decode_bytes([*tokens[:number], *end]).decode()
        call = json.loads(whole.partition("<tool_call>")[2].partition("</tool_call>")[0])
        assert call["name"] == "go"
        assert fault(call["arguments"], schema) is None
        assert matcher.consume_token(token)


@pytest.mark.parametrize("native", [True, False])
def test_a_call_is_ended_with_what_closes_calls(native: bool) -> None:
    made = tiny.tokenizer(tags=native)
    vocabulary = llguidance.hf.from_tokenizer(made)
    opening, closing = made.convert_tokens_to_ids(["<tool_call>", "</tool_call>"])
    tags = CallTags(opening_id=opening, closing_id=closing) if native else CallTags()
    value = sample(MIXED | {"additionalProperties": False}, random.Random(3))
    body = json.dumps({"name": "go", "arguments": value}, ensure_ascii=False)
    text = f"<tool_call>\n{body}\n</tool_call>"
    closes_every_call(vocabulary, tags, vocabulary.tokenize_str(text, parse_special=native), MIXED)


@pytest.mark.model
def test_answers_are_ended_in_the_tokens_of_a_real_model() -> None:
    from watchkeeper.models.catalog import find_model
    from watchkeeper.models.store import find_installed

    folder = find_installed(find_model("smollm2-135m-instruct")).weights
    from transformers import AutoTokenizer

    real = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    vocabulary = llguidance.hf.from_tokenizer(real)
    for seed in range(4):
        value = sample(MIXED | {"additionalProperties": False}, random.Random(seed))
        body = json.dumps({"name": "go", "arguments": value}, ensure_ascii=False)
        text = f"<tool_call>\n{body}\n</tool_call>"
        closes_every_call(vocabulary, CallTags(), vocabulary.tokenize_str(text), MIXED)
