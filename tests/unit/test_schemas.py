"""JSON schemas without a model: what is checked, what is made."""

from __future__ import annotations

import random
from typing import Any

import pytest

from watchkeeper.models.schemas import SchemaError, fault, sample, shortest

SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]},
    {"enum": ["x", 1, None]},
    {"const": {"deep": [1]}},
    {"type": ["string", "null"], "minLength": 2},
    {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "null"}]},
    {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 0.5, "maximum": 0.75}]},
    {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"required": ["b"]}]},
    {"type": "array", "items": {"enum": ["p", "q", "r"]}, "minItems": 2, "maxItems": 3, "uniqueItems": True},
    {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "boolean"}],
        "minItems": 2,
        "items": False,
    },
    {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "integer", "maximum": -3},
    {"type": "string", "format": "date-time"},
    {"type": "string", "pattern": "^/"},
    {"type": "object", "minProperties": 2, "additionalProperties": {"type": "boolean"}},
    {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    },
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_made_satisfies_the_schema(schema: dict[str, Any]) -> None:
    assert fault(shortest(schema), schema) is None
    for seed in range(50):
        assert fault(sample(schema, random.Random(seed)), schema) is None


@pytest.mark.parametrize(
    ("value", "schema", "reason"),
    [
        ({"b": "x"}, SCHEMAS[0], r"\$: 'a' is missing"),
        ({"a": 1, "b": 2}, SCHEMAS[0], r"\$\.b: must be string"),
        (True, {"type": "integer"}, "must be integer"),
        (True, {"enum": [1]}, "must be one of"),
        ([1, [2, "x"]], {"items": {"items": {"type": "integer"}}}, r"\$\[1\]\[1\]: must be integer"),
        ({"c": 1}, {"additionalProperties": False}, "'c' is not allowed"),
        ("A", {"pattern": "^[a-z]+$"}, "does not match"),
        ("ab", {"maxLength": 1}, "longer than 1"),
        (0.35, {"multipleOf": 0.1}, "no multiple"),
        (3, {"oneOf": [{"type": "integer"}, {"minimum": 0}]}, "fits 2"),
        ("2024-13", {"format": "date"}, "is no date"),
    ],
)
def test_a_fault_names_the_place_and_the_value(value: Any, schema: dict[str, Any], reason: str) -> None:
    import re

    found = fault(value, schema)
    assert found is not None
    assert re.search(reason, found), found


def test_a_keyword_that_is_not_covered_is_never_skipped() -> None:
    with pytest.raises(SchemaError, match="'if'"):
        fault(1, {"if": {"type": "integer"}})


def test_a_schema_that_nothing_satisfies_is_an_error() -> None:
    endless = {"properties": {"x": {"$ref": "#"}}, "required": ["x"]}
    for schema in ({"enum": []}, {"type": "integer", "minimum": 4, "maximum": 3}, endless):
        with pytest.raises(SchemaError):
            shortest(schema)


def test_a_reference_must_lead_somewhere() -> None:
    with pytest.raises(SchemaError, match="nowhere"):
        fault(1, {"$ref": "#/$defs/gone"})
