"""A tool whose arguments no grammar can enforce is refused when it is defined or registered."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from watchkeeper.tools.errors import ArgumentError, UnenforceableError
from watchkeeper.tools.schema import Tool, argument_schema


def check_enforceable(tool: Tool) -> None:
    """Refuse a tool that a model could call with arguments that are not valid.

    Both the whole schema of the arguments and what a model sees of it are checked; no model is needed.

    Raises:
        UnenforceableError: With the tool, the place in its schema and the reason.
    """
    # llguidance takes a tenth of a second to import: not before there is a tool.
    from watchkeeper.models.enforceable import unenforceable

    try:
        schemas = (_sayable(tool.arguments_type.model_json_schema()), argument_schema(tool))
    except PydanticInvalidForJsonSchema as error:
        raise UnenforceableError(
            _message(tool.name, f"{_without_schema(tool)}no JSON schema: {error.message}")
        ) from error
    except ArgumentError as error:
        raise UnenforceableError(_message(tool.name, str(error).removeprefix(f"{tool.name}: "))) from error
    for schema in schemas:
        fault = unenforceable(schema)
        if fault is not None:
            place = fault.place.replace("$.properties.", "argument ", 1)
            raise UnenforceableError(_message(tool.name, f"{place}: {fault.reason}"))


def _without_schema(tool: Tool) -> str:
    """Name the argument whose type has no JSON schema."""
    for name, field in tool.arguments_type.model_fields.items():
        try:
            TypeAdapter(field.annotation).json_schema()
        except PydanticInvalidForJsonSchema:
            return f"argument {name}: "
    return ""


def _sayable(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only programs set."""
    fields = schema.get("properties", {})
    return schema | {"properties": {name: part for name, part in fields.items() if not part.get("internal")}}


def _message(name: str, reason: str) -> str:
    return f"tool {name!r} is refused, for its arguments cannot be enforced: {reason}; change the annotation"
