"""What a tool may be called with: JSON schemas for a model, narrowed to what the inventory knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from pydantic import Field
from pydantic_core import PydanticUndefined

from watchkeeper.tools.action import Action
from watchkeeper.tools.errors import ArgumentError
from watchkeeper.tools.fact import Fact
from watchkeeper.tools.inventory import HostSpec, HttpCheck
from watchkeeper.tools.text import shown_path, shown_url

Tool = Fact[Any, Any] | Action[Any]
Vocabulary = Literal[
    "service", "path", "config", "log", "data", "url", "pid", "process", "job", "jobspec", "metric", "filling"
]

_KEPT = (
    "type",
    "description",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "multipleOf",
    "minProperties",
    "maxProperties",
)
_FORMATS = frozenset({"date-time", "date", "time", "duration", "email", "ipv4", "ipv6", "uuid", "uri"})
_MAX_DEPTH = 32


@runtime_checkable
class Enumerable(Protocol):
    """A fact that knows by itself which calls of it make sense on a host."""

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Return the arguments of each call that makes sense for the host's inventory."""
        ...


def known(vocabulary: Vocabulary, *, description: str | None = None) -> Any:
    """Mark an argument as naming something of the inventory; used inside ``Annotated``.

    ``service: Annotated[str, known("service")]`` makes the field an enum of the services known, in every
    schema made with a vocabulary.

    Args:
        vocabulary: Name of the set of values: ``service``, ``config``, ``log``, ``data``, ``url``,
            ``jobspec``, ``metric`` and ``filling`` come from the inventory (``vocabulary_of``); ``path``,
            ``pid``, ``process`` and ``job`` from what facts found.
        description: What the field is, for the model.

    Raises:
        ValueError: If there is no such vocabulary.
    """
    if vocabulary not in get_args(Vocabulary):
        raise ValueError(f"vocabulary {vocabulary!r} is not one of {', '.join(get_args(Vocabulary))}")
    return Field(description=description, json_schema_extra={"vocabulary": vocabulary})


def folders_of(spec: HostSpec) -> list[str]:
    """Return the data folders and the folders of the logs of a host, each once."""
    found: dict[str, None] = {}
    for service in spec.services:
        found |= dict.fromkeys(str(folder) for folder in service.data)
        found |= dict.fromkeys(str(log.parent) for log in service.logs)
    return list(found)


def words_of(spec: HostSpec) -> frozenset[str]:
    """Return every text that a host's inventory holds, as it is and as findings show it."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.update({value, shown_path(value), shown_url(value)})
        elif isinstance(value, dict):
            walk(list(value.values()))
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(spec.model_dump(mode="json"))
    walk(folders_of(spec))
    return frozenset(found)


def vocabulary_of(spec: HostSpec) -> dict[str, list[str]]:
    """Return the values that a host's inventory knows, by vocabulary.

    ``path``, ``pid``, ``process`` and ``job`` are left out: they come from evidence, and whoever holds it
    adds them. ``data`` is every folder worth looking at: data folders, and the folders of logs. ``metric``
    is every series whose anomalies are known, and ``filling`` every one whose disk is forecast.
    """
    services = spec.services
    return {
        "service": [s.name for s in services],
        "config": list(dict.fromkeys(str(path) for s in services for path in s.config)),
        "log": list(dict.fromkeys(str(path) for s in services for path in s.logs)),
        "data": folders_of(spec),
        "jobspec": [job.name for job in spec.jobs],
        "url": list(dict.fromkeys(c.url for s in services for c in s.checks if isinstance(c, HttpCheck))),
        "metric": series_of(spec, "anomaly"),
        "filling": series_of(spec, "disk-forecast"),
    }


def series_of(spec: HostSpec, kind: str) -> list[str]:
    """Return the files of the series of a host whose predictors are of a kind, each once."""
    found = (metric.path for service in spec.services for metric in service.metrics if metric.kind == kind)
    return list(dict.fromkeys(str(path) for path in found))


def argument_schema(tool: Tool, vocabulary: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Return the JSON schema of a tool's arguments, for a model.

    The schema is canonical: references are resolved, titles and defaults are left out, fields stand in
    the order of their definition, and a field that may be null is one that may be left out. So the same
    tool gives the same bytes, and a prompt's prefix stays shared. Fields whose JSON schema extra says
    ``{"internal": True}`` are left out: programs set them, a model cannot even say them.

    Args:
        tool: A fact or an action.
        vocabulary: The values known, by vocabulary name; a name that is missing narrows nothing.

    Raises:
        ArgumentError: If a required argument has no value to choose from, so that the tool cannot be
            called on this host, or if an argument's type refers to itself.
    """
    full = tool.arguments_type.model_json_schema()
    definitions = full.get("$defs", {})
    required = full.get("required", [])
    properties: dict[str, Any] = {}
    for name, schema in full.get("properties", {}).items():
        if schema.get("internal"):
            continue
        try:
            narrowed = _narrow(schema, definitions, vocabulary or {})
        except RecursionError as error:
            raise ArgumentError(f"{tool.name}: {name}: the type refers to itself; bound its depth") from error
        if narrowed is not None:
            properties[name] = narrowed
        elif name in required:
            raise ArgumentError(
                f"{tool.name}: {name}: nothing to choose from (the host has no {schema['vocabulary']!r})"
            )
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name in required],
        "additionalProperties": False,
    }


def open_arguments(schema: Mapping[str, Any]) -> list[str]:
    """Return the arguments of a schema that may be any text, or a number without bounds.

    What a model writes into such an argument was not read anywhere: it can come from an unrelated line. An
    argument is closed where its values are listed, where it is true or false, or a number between two bounds,
    and where that holds for all of its parts.
    """
    return [name for name, part in schema["properties"].items() if not _is_closed(part)]


def _is_closed(part: Mapping[str, Any]) -> bool:
    if "enum" in part or "const" in part:
        return True
    choices = [*part.get("anyOf", ()), *part.get("oneOf", ())]
    if choices:
        return all(_is_closed(choice) for choice in choices)
    match part.get("type"):
        case "boolean" | "null":
            return True
        case "integer" | "number":
            lowest = "minimum" in part or "exclusiveMinimum" in part
            return lowest and ("maximum" in part or "exclusiveMaximum" in part)
        case "array":
            parts = [*part.get("prefixItems", ()), *([part["items"]] if part.get("items") else ())]
            return bool(parts) and all(_is_closed(item) for item in parts)
        case "object":
            inner = part.get("properties", {}).values()
            return part.get("additionalProperties") is False and all(_is_closed(item) for item in inner)
        case _:
            return False


def candidate_calls(fact: Fact[Any, Any], spec: HostSpec) -> list[dict[str, Any]]:
    """Return the arguments of every call of a fact that makes sense for a host's inventory.

    A fact that has a ``candidates`` method (see ``Enumerable``) says so itself. Otherwise every required
    argument must be of a vocabulary, and all combinations are returned: one empty call for a fact that
    needs no arguments, none for a fact whose arguments the inventory does not know.
    """
    if isinstance(fact, Enumerable):
        return [dict(call) for call in fact.candidates(spec)]
    values = vocabulary_of(spec)
    choices: list[list[tuple[str, str]]] = []
    for name, field in fact.arguments_type.model_fields.items():
        if field.default is not PydanticUndefined or field.default_factory is not None:
            continue
        extra = field.json_schema_extra
        vocabulary = extra.get("vocabulary") if isinstance(extra, dict) else None
        known_values = values.get(vocabulary, []) if isinstance(vocabulary, str) else []
        choices.append([(name, value) for value in known_values])
    return [dict(call) for call in product(*choices)]


def _narrow(
    schema: Mapping[str, Any],
    definitions: Mapping[str, Any],
    vocabulary: Mapping[str, Sequence[str]],
    depth: int = 0,
) -> dict[str, Any] | None:
    """Make one schema canonical; None if its vocabulary is known and empty.

    Raises:
        RecursionError: If it refers to itself.
    """
    if depth > _MAX_DEPTH:
        raise RecursionError

    def inner(part: Mapping[str, Any]) -> dict[str, Any] | None:
        return _narrow(part, definitions, vocabulary, depth + 1)

    schema = _resolve(schema, definitions)
    name: str = schema.get("vocabulary", "")
    result = {key: schema[key] for key in _KEPT if key in schema}
    if schema.get("format") in _FORMATS:
        result["format"] = schema["format"]
    values = list(vocabulary[name]) if name in vocabulary else None
    if values is not None and not values:
        return None
    if schema.get("type") == "array":
        fixed = [inner(part) for part in schema.get("prefixItems", ())]
        items = dict(schema.get("items", {}))
        if name:
            items["vocabulary"] = name
        narrowed = inner(items)
        if narrowed is None or None in fixed:
            return None
        return result | ({"prefixItems": fixed} if fixed else {"items": narrowed})
    if schema.get("type") == "object" and "properties" in schema:
        parts = {k: inner(v) for k, v in schema["properties"].items()}
        properties = {k: v for k, v in parts.items() if v is not None}
        result["properties"] = properties
        result["required"] = [k for k in properties if k in schema.get("required", [])]
        result["additionalProperties"] = False
    elif schema.get("type") == "object" and "additionalProperties" in schema:
        rest = schema["additionalProperties"]
        result["additionalProperties"] = inner(rest) if isinstance(rest, Mapping) else rest
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            branches = [inner(branch) for branch in schema[keyword]]
            result[keyword] = [branch for branch in branches if branch is not None]
    if values is not None:
        result.pop("pattern", None)  # the values say more
        result["enum"] = [int(v) for v in values] if schema.get("type") == "integer" else values
    return result


def _resolve(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Follow references and take null out of a choice; what the field itself says wins."""
    merged = dict(schema)
    while True:
        if "$ref" in merged:
            merged = dict(definitions[merged.pop("$ref").rsplit("/", 1)[-1]]) | merged
        elif "anyOf" in merged:
            branches = [branch for branch in merged["anyOf"] if branch.get("type") != "null"]
            if len(branches) != 1:
                return merged | {"anyOf": branches}
            del merged["anyOf"]
            merged = dict(branches[0]) | merged
        else:
            return merged
