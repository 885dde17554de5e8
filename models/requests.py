"""What a request allows: checks that every engine makes before it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from watchkeeper.models.errors import GrammarError
from watchkeeper.models.interface import ChoiceRequest, GenerationRequest, JsonSchema, ToolSpec


def check_options(request: ChoiceRequest) -> None:
    """Refuse a closed question that has no answer or an ambiguous one.

    Raises:
        ValueError: If there is no option, one is empty, or two are the same.
    """
    if not request.options:
        raise ValueError("a closed question needs at least one option")
    for index, option in enumerate(request.options):
        if not option.strip():
            raise ValueError(f"option {index} is empty: {option!r}")
        if option in request.options[:index]:
            raise ValueError(f"option {index} repeats an earlier one: {option!r}")


def check_generation(request: GenerationRequest) -> None:
    """Refuse a request that contradicts itself.

    Raises:
        ValueError: If the budget is not positive or the temperature is negative.
        GrammarError: If both a schema and a tool choice constrain the answer.
    """
    if request.max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {request.max_tokens!r}")
    if not request.temperature >= 0:
        raise ValueError(f"temperature must be 0 or more, got {request.temperature!r}")
    if request.schema is not None and request.tool_choice != "none":
        raise GrammarError(
            f"a schema and tool_choice {request.tool_choice!r} exclude each other; give one of them"
        )


def callable_schemas(
    tools: Sequence[ToolSpec], choice: str, call_schemas: Mapping[str, JsonSchema]
) -> dict[str, JsonSchema]:
    """Return the argument schema of every tool that may be called, after narrowing.

    Empty where no call is possible: for ``"none"``, and for ``"auto"`` without tools.

    Raises:
        GrammarError: If a call is forced and no tool is there, a name is unknown, or two tools share one.
    """
    names = [tool.name for tool in tools]
    known = ", ".join(names) or "none"
    if len(set(names)) != len(names):
        raise GrammarError(f"two tools have the same name (tools: {known})")
    unknown = sorted(call_schemas.keys() - set(names))
    if unknown:
        raise GrammarError(f"call_schemas narrows {unknown[0]!r}, which is none of the tools: {known}")
    if choice == "none":
        return {}
    if choice == "required" and not names:
        raise GrammarError("tool_choice 'required' needs at least one tool")
    if choice not in {"auto", "required"}:
        if choice not in names:
            raise GrammarError(f"tool_choice {choice!r} is none of the tools: {known}")
        names = [choice]
    return {tool.name: call_schemas.get(tool.name, tool.parameters) for tool in tools if tool.name in names}
