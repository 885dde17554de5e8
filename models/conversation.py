"""LangChain's messages, tools and settings in the words of an engine, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    UsageMetadata,
)

from watchkeeper.models.interface import Message, Role, ToolCall, ToolSpec, Usage

_ROLES = {
    "system": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "ai": Role.ASSISTANT,
}
_CALLS_AND_THOUGHTS = frozenset(["tool_use", "tool_call", "reasoning", "thinking"])


def turn(message: BaseMessage) -> Message:
    """Return a message of LangChain as a turn.

    Raises:
        ValueError: If it holds something that a text model cannot read.
    """
    text = _text(message)
    match message:
        case SystemMessage():
            return Message(Role.SYSTEM, text)
        case HumanMessage():
            return Message(Role.USER, text)
        case AIMessage():
            calls = tuple(
                ToolCall(call["name"], call["args"], call["id"] or "") for call in message.tool_calls
            )
            return Message(Role.ASSISTANT, text, calls)
        case ToolMessage():
            return Message(Role.TOOL, text, tool_call_id=message.tool_call_id)
        case ChatMessage() if message.role.lower() in _ROLES:
            return Message(_ROLES[message.role.lower()], text)
        case _:
            raise ValueError(f"a message of type {message.type!r} cannot be shown to a text model")


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts: list[str] = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block["text"]))
        elif block.get("type") not in _CALLS_AND_THOUGHTS:
            raise ValueError(
                f"a {message.type} message holds a block of type {block.get('type')!r}; only text"
            )
    return "".join(parts)


def with_instruction(turns: Sequence[Message], instruction: str) -> list[Message]:
    """Return turns whose system turn ends with an instruction."""
    if turns and turns[0].role is Role.SYSTEM:
        return [Message(Role.SYSTEM, f"{turns[0].content}\n\n{instruction}"), *turns[1:]]
    return [Message(Role.SYSTEM, instruction), *turns]


def tool(described: dict[str, Any]) -> ToolSpec:
    """Return a tool from its description in OpenAI's form."""
    function = described["function"]
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolSpec(function["name"], function.get("description", ""), parameters)


def tool_choice(choice: str | bool | dict[str, Any] | None) -> str:
    """Return ``"auto"``, ``"required"``, ``"none"`` or a tool's name for any way to write a choice."""
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    if choice is None or choice is False:
        return "auto"
    return "required" if choice is True or choice == "any" else choice


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Return what an answer cost in LangChain's form."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.generated_tokens,
        total_tokens=usage.prompt_tokens + usage.generated_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
    )
