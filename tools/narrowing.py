"""Values that a policy always denies leave the schema, so that a model cannot even say them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from watchkeeper.tools.errors import ArgumentError
from watchkeeper.tools.schema import Tool

Admits = Callable[[str, JsonValue], bool]
"""Whether an argument of that name may have that value, in any call at any moment."""


def without_denied(
    tool: Tool, schema: dict[str, Any], *, admits: Admits, admits_element: Admits
) -> dict[str, Any]:
    """Take the values out of a tool's schema that no call may have.

    Only values that a schema lists can be taken out: those of an enum, of a list of an enum, and true and
    false. An argument that may be left out must be given where what it is without is denied.

    Args:
        tool: A fact or an action.
        schema: Its schema, as ``argument_schema`` made it.
        admits: Asked about each value of an argument.
        admits_element: Asked about each value that a list may hold.

    Raises:
        ArgumentError: If an argument has no value left that it may have, so that the tool cannot be called.
    """
    properties: dict[str, Any] = {}
    required = list(schema["required"])
    for name, part in schema["properties"].items():
        narrowed = _narrowed(name, part, admits, admits_element)
        if name not in required:
            default = tool.arguments_type.model_fields[name].get_default(call_default_factory=True)
            if not admits(name, to_jsonable_python(default)):
                required.append(name)
        if narrowed is not None:
            properties[name] = narrowed
        elif name in required:
            raise ArgumentError(
                f"{tool.name}: {name}: nothing to choose from (the policy denies every value)"
            )
    return schema | {
        "properties": properties,
        "required": [name for name in properties if name in required],
    }


def _narrowed(
    name: str, part: dict[str, Any], admits: Admits, admits_element: Admits
) -> dict[str, Any] | None:
    """Narrow one argument; None if nothing is left of it."""
    if part.get("type") == "array":
        items = part.get("items", {})
        kept = _kept(name, items, admits_element)
        return part if kept is items else None if kept is None else part | {"items": kept}
    return _kept(name, part, admits)


def _kept(name: str, part: dict[str, Any], admits: Admits) -> dict[str, Any] | None:
    values: list[Any] = part.get("enum", [])
    if not values and "const" in part:
        values = [part["const"]]
    elif not values and part.get("type") == "boolean":
        values = [True, False]
    kept = [value for value in values if admits(name, value)]
    if len(kept) == len(values):
        return part
    return {key: value for key, value in part.items() if key != "const"} | {"enum": kept} if kept else None
