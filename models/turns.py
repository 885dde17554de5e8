"""Messages as the turns of a chat template, in the way that a family wants them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from watchkeeper.models.families import Family, Turn
from watchkeeper.models.interface import Message, Role, ToolCall, ToolSpec

_TOOLS_INTRODUCTION = (
    "# Tools\n\n"
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_TOOLS_CLOSE = (
    "\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def written(messages: Sequence[Message], tools: Sequence[ToolSpec], family: Family) -> list[Turn]:
    """Return the turns of a conversation; tools are written into them where the template cannot.

    Args:
        messages: The conversation; at least one message.
        tools: Tools that the prompt describes.
        family: The model's family.
    """
    if family.describes_tools:
        single = messages if family.parallel else _one_call_a_turn(messages)
        return [_native(message) for message in single]
    turns = [_plain(message) for message in messages]
    if tools:
        _lead(turns, _tools_section(tools), role="system", at_end=True)
    if not family.takes_system:
        turns = _without_system(turns)
    return _alternating(turns) if family.alternates else turns


def description(tool: ToolSpec) -> dict[str, Any]:
    """Describe a tool as OpenAI's interface does, which chat templates expect."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _call_text(call: ToolCall) -> str:
    return json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)


def _tools_section(tools: Sequence[ToolSpec]) -> str:
    lines = "\n".join(json.dumps(description(tool), ensure_ascii=False) for tool in tools)
    return _TOOLS_INTRODUCTION + lines + _TOOLS_CLOSE


def _native(message: Message) -> Turn:
    turn: Turn = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    return turn


def _plain(message: Message) -> Turn:
    content = message.content
    if message.role is Role.TOOL:
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    for call in message.tool_calls:
        content += ("\n" if content else "") + f"<tool_call>\n{_call_text(call)}\n</tool_call>"
    return {"role": message.role.value, "content": content}


def _one_call_a_turn(messages: Sequence[Message]) -> list[Message]:
    """Part turns with several calls, each call followed by its answer, and a text from its call."""
    result: list[Message] = []
    waiting = list(messages)
    while waiting:
        message = waiting.pop(0)
        if len(message.tool_calls) + bool(message.content) <= 1:
            result.append(message)
            continue
        if message.content:
            result.append(Message(message.role, message.content))
        answers: list[Message] = []
        while waiting and waiting[0].role is Role.TOOL:
            answers.append(waiting.pop(0))
        for call in message.tool_calls:
            result.append(Message(message.role, "", (call,)))
            own = next((answer for answer in answers if answer.tool_call_id == call.id), None)
            if own is not None:
                answers.remove(own)
                result.append(own)
        result += answers
    return result


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """Let system texts open the first user turn; a later one is said by the user."""
    rest = list(turns)
    opening: list[str] = []
    while rest and rest[0]["role"] == "system":
        opening.append(rest.pop(0)["content"])
    rest = [{**turn, "role": "user"} if turn["role"] == "system" else turn for turn in rest]
    if opening:
        _lead(rest, "\n\n".join(opening), role="user", at_end=False)
    return rest


def _lead(turns: list[Turn], text: str, *, role: str, at_end: bool) -> None:
    """Add a text to the first turn where that is of the role, else as a turn before it."""
    if not turns or turns[0]["role"] != role:
        turns.insert(0, {"role": role, "content": text})
        return
    parts = [turns[0]["content"], text] if at_end else [text, turns[0]["content"]]
    turns[0] = {**turns[0], "content": "\n\n".join(parts)}


def _alternating(turns: Sequence[Turn]) -> list[Turn]:
    """Join what one side says in a row, and let the user begin."""
    result: list[Turn] = []
    for turn in turns:
        # A system turn is the first one or none: templates that want alternation refuse another.
        late = turn["role"] == "system" and result and result[-1]["role"] != "system"
        role = "user" if late else turn["role"]
        if result and result[-1]["role"] == role:
            result[-1] = {**result[-1], "content": f"{result[-1]['content']}\n\n{turn['content']}"}
        else:
            result.append({**turn, "role": role})
    first = 1 if result[0]["role"] == "system" else 0
    if first == len(result) or result[first]["role"] != "user":
        result.insert(first, {"role": "user", "content": "(The conversation goes on.)"})
    return result
