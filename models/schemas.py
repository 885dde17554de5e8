"""JSON schemas without a model: check a value, and make the shortest or a random one.

Covers what pydantic and hand-written tool schemas use of JSON Schema 2020-12. A keyword that this module
does not know is never skipped in silence: checking against it raises :class:`SchemaError`.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from watchkeeper.models.interface import JsonSchema

_ANNOTATIONS = frozenset(
    [
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "x-guidance",
    ]
)
_KNOWN = frozenset(
    [
        "type",
        "enum",
        "const",
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
    ]
)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict, Mapping),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_FORMATS: Mapping[str, tuple[str, str]] = {
    "date": ("2000-01-01", r"\d{4}-\d\d-\d\d"),
    "time": ("00:00:00Z", r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
    "date-time": ("2000-01-01T00:00:00Z", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
    "duration": ("P1D", r"P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?"),
    "uuid": ("00000000-0000-4000-8000-000000000000", r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "email": ("a@b.c", r"[^@\s]+@[^@\s]+"),
    "hostname": ("a", r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"),
    "ipv4": ("0.0.0.0", r"\d{1,3}(\.\d{1,3}){3}"),  # noqa: S104 (an example of the format, nothing binds to it)
    "ipv6": ("::", r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*"),
    "uri": ("a:b", r"[A-Za-z][A-Za-z0-9+.-]*:\S+"),
}
_MAX_DEPTH = 64


class SchemaError(ValueError):
    """A JSON schema uses something that this module does not cover, or nothing satisfies it."""


def fault(value: Any, schema: JsonSchema | bool) -> str | None:
    """Return the first reason why a value does not satisfy a schema, with its place, or None.

    Raises:
        SchemaError: If the schema uses a keyword that is not covered.
    """
    root = schema if isinstance(schema, Mapping) else {}
    return next(_faults(value, schema, root, "$", 0), None)


def shortest(schema: JsonSchema | bool) -> Any:
    """Make a small value that satisfies the schema; optional parts are left out.

    Raises:
        SchemaError: If none could be made (for example for a ``pattern`` that no simple text matches).
    """
    return _checked(schema, None)


def sample(schema: JsonSchema | bool, rng: random.Random) -> Any:
    """Make a random value that satisfies the schema: enum values, branches and optional parts by chance.

    Raises:
        SchemaError: If none could be made.
    """
    return _checked(schema, rng)


def _checked(schema: JsonSchema | bool, rng: random.Random | None) -> Any:
    root = schema if isinstance(schema, Mapping) else {}
    value = _make(schema, root, rng, 0)
    reason = fault(value, schema)
    if reason is not None:
        raise SchemaError(f"no value found for the schema: {reason}; script this answer instead")
    return value


def resolve(schema: JsonSchema, root: JsonSchema) -> JsonSchema | bool:
    """Follow ``$ref`` inside the document.

    Raises:
        SchemaError: If the reference leads nowhere.
    """
    reference = schema["$ref"]
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise SchemaError(f"$ref {reference!r} does not point into the same schema")
    found: Any = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or key not in found:
            raise SchemaError(f"$ref {reference!r} leads nowhere: {key!r} is missing")
        found = found[key]
    siblings = {key: value for key, value in schema.items() if key != "$ref" and key not in _ANNOTATIONS}
    if siblings and isinstance(found, Mapping):
        return {"allOf": [found, siblings]}
    return found  # type: ignore[no-any-return]  # JSON is untyped here; _faults checks what it is


def _faults(value: Any, schema: JsonSchema | bool, root: JsonSchema, place: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise SchemaError(f"{place}: the schema refers to itself without end")
    if isinstance(schema, bool):
        if not schema:
            yield f"{place}: nothing is allowed here, got {value!r:.80}"
        return
    unknown = schema.keys() - _KNOWN - _ANNOTATIONS
    if unknown:
        raise SchemaError(f"{place}: keyword {min(unknown)!r} is not covered")
    if "$ref" in schema:
        yield from _faults(value, resolve(schema, root), root, place, depth + 1)
        return
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{place}: must be {schema['const']!r}, got {value!r:.80}"
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        yield f"{place}: must be one of {list(schema['enum'])!r:.200}, got {value!r:.80}"
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
        if not any(_is(value, kind) for kind in kinds):
            yield f"{place}: must be {' or '.join(kinds)}, got {value!r:.80}"
            return
    for part in schema.get("allOf", ()):
        yield from _faults(value, part, root, place, depth + 1)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            fits = sum(
                next(_faults(value, part, root, place, depth + 1), None) is None for part in schema[keyword]
            )
            if not fits or (keyword == "oneOf" and fits > 1):
                yield f"{place}: fits {fits} of {len(schema[keyword])} {keyword} forms, got {value!r:.80}"
    if isinstance(value, str):
        yield from _string_faults(value, schema, place)
    elif isinstance(value, Mapping):
        yield from _object_faults(value, schema, root, place, depth)
    elif isinstance(value, list | tuple):
        yield from _array_faults(value, schema, root, place, depth)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number_faults(value, schema, place)


def _string_faults(value: str, schema: JsonSchema, place: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"{place}: shorter than {schema['minLength']} characters, got {value!r:.80}"
    if len(value) > schema.get("maxLength", math.inf):
        yield f"{place}: longer than {schema['maxLength']} characters, got {value!r:.80}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{place}: does not match {schema['pattern']!r}, got {value!r:.80}"
    known = _FORMATS.get(schema.get("format", ""))
    if known is not None and not re.fullmatch(known[1], value):
        yield f"{place}: is no {schema['format']}, got {value!r:.80}"


def _number_faults(value: float, schema: JsonSchema, place: str) -> Iterator[str]:
    if value < schema.get("minimum", -math.inf) or value <= schema.get("exclusiveMinimum", -math.inf):
        yield f"{place}: {value!r} is too small"
    if value > schema.get("maximum", math.inf) or value >= schema.get("exclusiveMaximum", math.inf):
        yield f"{place}: {value!r} is too large"
    step = schema.get("multipleOf")
    if step is not None and abs(value / step - round(value / step)) > 1e-9:
        yield f"{place}: {value!r} is no multiple of {step!r}"


def _object_faults(
    value: Mapping[str, Any], schema: JsonSchema, root: JsonSchema, place: str, depth: int
) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}: {name!r} is missing"
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", math.inf):
        yield f"{place}: has {len(value)} entries"
    for name, item in value.items():
        if "propertyNames" in schema:
            yield from _faults(name, schema["propertyNames"], root, f"{place}.{name}", depth + 1)
        if name in properties:
            yield from _faults(item, properties[name], root, f"{place}.{name}", depth + 1)
        elif schema.get("additionalProperties") is False:
            yield f"{place}: {name!r} is not allowed (allowed: {', '.join(properties) or 'nothing'})"
        else:
            rest = schema.get("additionalProperties", True)
            yield from _faults(item, rest, root, f"{place}.{name}", depth + 1)


def _array_faults(
    value: Sequence[Any], schema: JsonSchema, root: JsonSchema, place: str, depth: int
) -> Iterator[str]:
    if len(value) < schema.get("minItems", 0):
        yield f"{place}: has {len(value)} items, at least {schema['minItems']} are needed"
    if len(value) > schema.get("maxItems", math.inf):
        yield f"{place}: has {len(value)} items, at most {schema['maxItems']} are allowed"
    if schema.get("uniqueItems") and any(_same(a, b) for index, a in enumerate(value) for b in value[:index]):
        yield f"{place}: holds the same item twice"
    fixed = schema.get("prefixItems", ())
    for index, item in enumerate(value):
        part = fixed[index] if index < len(fixed) else schema.get("items", True)
        yield from _faults(item, part, root, f"{place}[{index}]", depth + 1)


def _is(value: Any, kind: str) -> bool:
    if kind not in _TYPES:
        raise SchemaError(f"type {kind!r} is not one of JSON's")
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _same(left: Any, right: Any) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _make(schema: JsonSchema | bool, root: JsonSchema, rng: random.Random | None, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise SchemaError("the schema needs itself without end, so no value is finite")
    if isinstance(schema, bool):
        if not schema:
            raise SchemaError("nothing satisfies the schema false")
        return None
    if "$ref" in schema:
        return _make(resolve(schema, root), root, rng, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        if not schema["enum"]:
            raise SchemaError("an empty enum allows nothing")
        return rng.choice(list(schema["enum"])) if rng else schema["enum"][0]
    if "allOf" in schema:
        return _make(_merged(schema, root), root, rng, depth + 1)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            shared = {key: value for key, value in schema.items() if key != keyword}
            forms = [{"allOf": [shared, form]} for form in schema[keyword] if form is not False]
            return _first_that_works(forms, root, rng, depth)
    kinds = schema.get("type", _implied(schema))
    kind = kinds if isinstance(kinds, str) else (rng.choice(list(kinds)) if rng else kinds[0])
    match kind:
        case "object":
            return _make_object(schema, root, rng, depth)
        case "array":
            return _make_array(schema, root, rng, depth)
        case "string":
            return _make_string(schema, rng)
        case "integer" | "number":
            return _make_number(schema, kind, rng)
        case "boolean":
            return rng.random() < 0.5 if rng else False
        case "null":
            return None
        case _:
            raise SchemaError(f"type {kind!r} is not one of JSON's")


def _implied(schema: JsonSchema) -> str:
    if schema.keys() & {"properties", "required", "additionalProperties", "minProperties"}:
        return "object"
    if schema.keys() & {"items", "prefixItems", "minItems"}:
        return "array"
    if schema.keys() & {"minLength", "maxLength", "pattern", "format"}:
        return "string"
    if schema.keys() & {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}:
        return "number"
    return "null"


def _first_that_works(
    forms: Sequence[JsonSchema], root: JsonSchema, rng: random.Random | None, depth: int
) -> Any:
    order = rng.sample(list(forms), len(forms)) if rng else list(forms)
    reason = "no form is allowed"
    for form in order:
        try:
            value = _make(form, root, rng, depth + 1)
        except SchemaError as error:
            reason = str(error)
            continue
        problem = next(_faults(value, form, root, "$", 0), None)
        if problem is None:
            return value
        reason = problem
    raise SchemaError(reason)


def _merged(schema: JsonSchema, root: JsonSchema) -> JsonSchema:
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        while isinstance(part, Mapping) and "$ref" in part:
            part = resolve(part, root)  # noqa: PLW2901 (following a chain of references)
        if isinstance(part, bool):
            if not part:
                raise SchemaError("nothing satisfies the schema false")
            continue
        flat = _merged(part, root) if "allOf" in part else part
        for key, value in flat.items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*dict.fromkeys([*merged.get(key, ()), *value])]
            elif key == "enum" and key in merged:
                merged[key] = [item for item in merged[key] if any(_same(item, other) for other in value)]
            elif key.startswith(("min", "exclusiveMin")) and key in merged:
                merged[key] = max(merged[key], value)
            elif key.startswith(("max", "exclusiveMax")) and key in merged:
                merged[key] = min(merged[key], value)
            else:
                merged[key] = value
    return merged


def _make_object(
    schema: JsonSchema, root: JsonSchema, rng: random.Random | None, depth: int
) -> dict[str, Any]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = set(schema.get("required", ()))
    value: dict[str, Any] = {}
    for name, part in properties.items():
        # Optional parts become rarer with depth, so that a recursive schema ends.
        if name in required or (rng is not None and rng.random() < 0.5 / (1 + depth / 8)):
            value[name] = _make(part, root, rng, depth + 1)
    rest = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            value[name] = _make(rest, root, rng, depth + 1)
    optional = [name for name in properties if name not in value]
    while len(value) < schema.get("minProperties", 0):
        name = optional.pop(0) if optional else f"key{len(value)}"
        value[name] = _make(properties.get(name, rest), root, rng, depth + 1)
    return value


def _make_array(schema: JsonSchema, root: JsonSchema, rng: random.Random | None, depth: int) -> list[Any]:
    least = max(schema.get("minItems", 0), 0)
    most = schema.get("maxItems", least + 2)
    length = rng.randint(least, min(most, least + 2)) if rng and depth < 8 else least
    fixed = schema.get("prefixItems", ())
    rest = schema.get("items", len(fixed) == 0)
    value: list[Any] = []
    for index in range(length):
        if index >= len(fixed) and rest is False:
            break
        part = fixed[index] if index < len(fixed) else rest
        item = _make(part, root, rng, depth + 1)
        if schema.get("uniqueItems") and any(_same(item, other) for other in value):
            item = _another(part, value, root, depth)
            if item is None and len(value) >= least:
                break
        value.append(item)
    return value


def _another(part: JsonSchema | bool, taken: Sequence[Any], root: JsonSchema, depth: int) -> Any:
    """Look for an item that is not taken yet; None where the search fails."""
    for seed in range(200):
        item = _make(part, root, random.Random(seed), depth + 1)
        if not any(_same(item, other) for other in taken):
            return item
    return None


def _make_string(schema: JsonSchema, rng: random.Random | None) -> str:
    least = schema.get("minLength", 0)
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]][0]
    if "pattern" in schema:
        for text in ("", "a", "0", "A", "a1", "a-b", "a.b", "/", "/a", "-", "1.0", "0.0.0.0", "a@b.c"):  # noqa: S104 (texts to try)
            for candidate in (text, text * max(1, least)):
                if next(_string_faults(candidate, schema, ""), None) is None:
                    return candidate
        raise SchemaError(f"no simple text matches the pattern {schema['pattern']!r}")
    length = rng.randint(least, min(schema.get("maxLength", least + 8), least + 8)) if rng else least
    return "".join(rng.choice("abcdefghij") for _ in range(length)) if rng else "a" * length


def _make_number(schema: JsonSchema, kind: str, rng: random.Random | None) -> float:
    step: float = schema.get("multipleOf", 1)
    low: float = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf))
    high: float = schema.get("maximum", schema.get("exclusiveMaximum", math.inf))
    if "exclusiveMinimum" in schema and schema["exclusiveMinimum"] >= low:
        low = schema["exclusiveMinimum"] + (step if kind == "integer" else _gap(low, high))
    if "exclusiveMaximum" in schema and schema["exclusiveMaximum"] <= high:
        high = schema["exclusiveMaximum"] - (step if kind == "integer" else _gap(low, high))
    if rng:
        start = low if low > -math.inf else (min(0, high) - 100)
        end = high if high < math.inf else max(0, start) + 100
        if kind == "number" and "multipleOf" not in schema:
            return round(rng.uniform(start, end), 3) if end - start > 0.01 else start
        first, last = math.ceil(start / step), math.floor(end / step)
        if first > last:
            raise SchemaError(f"no multiple of {step!r} lies between {low!r} and {high!r}")
        return step * rng.randint(first, last)
    nearest = min(max(0, low), high)
    if kind == "number" and "multipleOf" not in schema:
        return nearest
    multiple = math.ceil(nearest / step) if nearest >= 0 or nearest == low else math.floor(nearest / step)
    return step * multiple


def _gap(low: float, high: float) -> float:
    return min(1.0, (high - low) / 2) if math.isfinite(high - low) else 1.0
