"""Requests of ours in the words of OpenAI's API for chat completions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from watchkeeper.models.interface import ChoiceRequest, GenerationRequest, Message, Role, ToolSpec

EXTENSION = "watchkeeper"
"""Key of what our own server understands beyond that API."""

_PORTABLE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class ToolNames:
    """Names of tools as an endpoint takes them: many refuse the dots of ours.

    Attributes:
        sent: Name on the wire by name.
    """

    sent: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def portable(cls, names: Iterable[str]) -> ToolNames:
        """Choose names of letters, digits, ``_`` and ``-``, each for one tool only."""
        unique = list(dict.fromkeys(names))
        taken = {name for name in unique if _PORTABLE_NAME.fullmatch(name)}
        sent: dict[str, str] = {}
        for name in unique:
            if _PORTABLE_NAME.fullmatch(name):
                continue
            base = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60] or "tool"
            candidate, number = base, 2
            while candidate in taken:
                candidate, number = f"{base}_{number}", number + 1
            taken.add(candidate)
            sent[name] = candidate
        return cls(sent)

    def to_wire(self, name: str) -> str:
        """Return the name that is sent."""
        return self.sent.get(name, name)

    def from_wire(self, name: str) -> str:
        """Return the tool's own name."""
        return next((own for own, sent in self.sent.items() if sent == name), name)


def names_for(request: GenerationRequest, *, own: bool) -> ToolNames:
    """Return the names under which a request's tools are sent; their own ones to our own server."""
    if own:
        return ToolNames()
    called = (call.name for message in request.messages for call in message.tool_calls)
    return ToolNames.portable([*(tool.name for tool in request.tools), *called])


def chat_body(
    request: GenerationRequest, model: str, *, own: bool, names: ToolNames, stream: bool
) -> dict[str, Any]:
    """Write a request as the body of a chat completion.

    Args:
        request: What is asked.
        model: Name of the model at the endpoint.
        own: Whether the endpoint is our own server, which is told everything; another one is shown the
            narrowed schemas in place of the canonical ones, since it makes prompt and grammar of the same.
        names: Names of the tools.
        stream: Whether the answer comes piece by piece.
    """
    body: dict[str, Any] = {
        "model": _model_name(model, request.adapter, own=own),
        "messages": [*messages(request.messages, names, own=own)],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.schema is not None:
        body["response_format"] = schema_format(request.schema)
    if request.tools:
        narrowed: Mapping[str, Any] = {} if own else request.call_schemas
        body["tools"] = [_tool(tool, narrowed, names) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice, names)
        body["parallel_tool_calls"] = request.max_calls > 1
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if own:
        body[EXTENSION] = {
            "verbatim": True,
            "call_schemas": dict(request.call_schemas),
            "max_calls": request.max_calls,
            "priority": request.priority,
        }
    return body


def choice_body(request: ChoiceRequest, model: str) -> dict[str, Any]:
    """Write a closed question as the body of our own server's ``/choose``."""
    names = ToolNames()
    body: dict[str, Any] = {
        "model": _model_name(model, request.adapter, own=True),
        "messages": messages(request.messages, names, own=True),
        "lead": request.lead,
        "options": list(request.options),
        "neutral_weight": request.neutral_weight,
        "priority": request.priority,
    }
    if request.neutral is not None:
        body["neutral"] = messages(request.neutral, names, own=True)
    return body


def schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for JSON of a schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)}}


def messages(turns: Sequence[Message], names: ToolNames, *, own: bool) -> list[dict[str, Any]]:
    """Write a conversation; calls without an id get one where the endpoint is not our own."""
    written: list[dict[str, Any]] = []
    waiting: list[str] = []
    for number, turn in enumerate(turns):
        message: dict[str, Any] = {"role": turn.role.value, "content": turn.content}
        if turn.tool_calls:
            ids = [call.id or ("" if own else f"call_{number}_{n}") for n, call in enumerate(turn.tool_calls)]
            waiting = list(ids)
            message["content"] = turn.content or None
            message["tool_calls"] = [
                {
                    "id": id_,
                    "type": "function",
                    "function": {
                        "name": names.to_wire(call.name),
                        "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
                    },
                }
                for id_, call in zip(ids, turn.tool_calls, strict=True)
            ]
        if turn.role is Role.TOOL:
            answered = turn.tool_call_id or (waiting[0] if waiting and not own else None)
            if answered in waiting:
                waiting.remove(answered)
            if answered is not None:
                message["tool_call_id"] = answered
        written.append(message)
    return written


def _model_name(model: str, adapter: str | None, *, own: bool) -> str:
    # Other servers list an adapter as a model of its own.
    return model if adapter is None else f"{model}:{adapter}" if own else adapter


def _tool(tool: ToolSpec, narrowed: Mapping[str, Any], names: ToolNames) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": names.to_wire(tool.name),
            "description": tool.description,
            "parameters": dict(narrowed.get(tool.name, tool.parameters)),
            "strict": True,
        },
    }


def _tool_choice(choice: str, names: ToolNames) -> str | dict[str, Any]:
    if choice in {"auto", "required", "none"}:
        return choice
    return {"type": "function", "function": {"name": names.to_wire(choice)}}
