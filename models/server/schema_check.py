"""Schemas that a client sent: what is wrong with one is told with its place, before it becomes a grammar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from watchkeeper.models.schemas import SchemaError, resolve

_KINDS = frozenset(["object", "array", "string", "integer", "number", "boolean", "null"])
_MAPS = ("properties", "$defs", "definitions", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties", "propertyNames")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_MAX_DEPTH = 100


def schema_faults(schema: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the reason of everything that makes a value no JSON schema.

    Args:
        schema: What was sent.
        place: Where it stands in the request, e.g. ``tools[0].function.parameters``.
    """
    yield from _faults(schema, schema if isinstance(schema, Mapping) else {}, place, 0)


def _faults(schema: Any, root: Mapping[str, Any], place: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        yield place, f"a schema is a JSON object, not {schema!r:.80}"
        return
    if depth > _MAX_DEPTH:
        yield place, f"schemas are nested deeper than {_MAX_DEPTH}"
        return
    yield from _own_faults(schema, root, place)
    for keyword in _MAPS:
        if keyword in schema:
            if not isinstance(schema[keyword], Mapping):
                yield f"{place}.{keyword}", f"must be a JSON object of schemas, not {schema[keyword]!r:.80}"
                continue
            for name, part in schema[keyword].items():
                yield from _faults(part, root, f"{place}.{keyword}.{name}", depth + 1)
    for keyword in _LISTS:
        if keyword in schema:
            parts = schema[keyword]
            if not isinstance(parts, list) or not parts:
                yield f"{place}.{keyword}", f"must be a list of schemas, not {parts!r:.80}"
                continue
            for index, part in enumerate(parts):
                yield from _faults(part, root, f"{place}.{keyword}[{index}]", depth + 1)
    for keyword in _SINGLES:
        if keyword in schema:
            yield from _faults(schema[keyword], root, f"{place}.{keyword}", depth + 1)


def _own_faults(schema: Mapping[str, Any], root: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    kinds = schema.get("type", [])
    for kind in [kinds] if not isinstance(kinds, list) else kinds:
        if not isinstance(kind, str) or kind not in _KINDS:
            yield f"{place}.type", f"{kind!r:.80} is no type of JSON ({', '.join(sorted(_KINDS))})"
    if "enum" in schema and (not isinstance(schema["enum"], list) or not schema["enum"]):
        yield f"{place}.enum", f"must be a list of at least one value, not {schema['enum']!r:.80}"
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        yield f"{place}.required", f"must be a list of names, not {required!r:.80}"
    for keyword in _NUMBERS:
        value = schema.get(keyword, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{place}.{keyword}", f"must be a number, not {value!r:.80}"
    for keyword in _COUNTS:
        value = schema.get(keyword, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            yield f"{place}.{keyword}", f"must be a number of at least 0, not {value!r:.80}"
    if "$ref" in schema:
        try:
            resolve(schema, root)
        except SchemaError as error:
            yield f"{place}.$ref", str(error)
