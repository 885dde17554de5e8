"""From the body of a request to what an engine is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from watchkeeper.models.enforceable import unenforceable
from watchkeeper.models.interface import (
    ChoiceRequest,
    GenerationRequest,
    JsonSchema,
    Message,
    Role,
    ToolCall,
    ToolSpec,
)
from watchkeeper.models.requests import callable_schemas
from watchkeeper.models.server.bodies import (
    DEFAULT_MAX_TOKENS,
    ChatBody,
    ChooseBody,
    MessageBody,
    NamedChoice,
    ToolBody,
)
from watchkeeper.models.server.errors import HttpError

Body = TypeVar("Body", bound=BaseModel)

SEVERAL_CALLS = 8
"""How many calls an answer may hold where a client asks for parallel ones without a number."""

_INSTRUCTION = "Answer with one JSON value that follows this JSON schema:\n"
_NO_ARGUMENTS: JsonSchema = {"type": "object", "properties": {}, "additionalProperties": False}
_WORDS = frozenset(["auto", "none", "required"])
_OBJECT: JsonSchema = {"type": "object"}


def parse(data: bytes, kind: type[Body]) -> Body:
    """Read a body.

    Raises:
        HttpError: With the place of the first mistake in it.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body of the request is no JSON: {error}", code="invalid_json") from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = _place(first["loc"])
        given = f" (got {first['input']!r:.80})" if first["type"] != "missing" else ""
        raise HttpError(400, f"{place or 'the body'}: {first['msg']}{given}", param=place or None) from error


def generation_request(body: ChatBody, adapter: str | None) -> GenerationRequest:
    """Return what the engine is asked for a chat completion.

    Raises:
        HttpError: If a message, a tool or a schema is not right, with its place.
    """
    extension = body.watchkeeper
    tools = tuple(_tool(tool, index) for index, tool in enumerate(body.tools))
    if body.tool_choice not in {None, "none", "auto"} and not tools:
        raise HttpError(400, "tool_choice asks for a call, and there are no tools", param="tool_choice")
    choice = _tool_choice(body, tools)
    schema = _answer_schema(body)
    if schema is not None and choice != "none":
        raise HttpError(
            400,
            "response_format and tools that may be called exclude each other; set tool_choice to 'none'",
            param="response_format",
        )
    for name, narrowed in extension.call_schemas.items():
        check_schema(narrowed, f"watchkeeper.call_schemas.{name}")
    turns = messages(body.messages, "messages")
    if schema is not None and not extension.verbatim:
        turns = _instructed(turns, schema)
    several = SEVERAL_CALLS if body.parallel_tool_calls else 1
    stop = (body.stop,) if isinstance(body.stop, str) else body.stop or ()
    if any(not text for text in stop):
        raise HttpError(400, "a stop text must not be empty", param="stop")
    request = GenerationRequest(
        turns,
        tools,
        tool_choice=choice,
        schema=schema,
        call_schemas=extension.call_schemas,
        max_tokens=body.max_completion_tokens or body.max_tokens or DEFAULT_MAX_TOKENS,
        temperature=body.temperature or 0.0,
        seed=body.seed,
        stop=tuple(stop),
        max_calls=extension.max_calls or several,
        adapter=adapter,
        priority=extension.priority,
    )
    callable_schemas(request.tools, request.tool_choice, request.call_schemas)
    return request


def choice_request(body: ChooseBody, adapter: str | None) -> ChoiceRequest:
    """Return what the engine is asked for a closed question.

    Raises:
        HttpError: If a message is not right, with its place.
    """
    return ChoiceRequest(
        messages(body.messages, "messages"),
        body.lead,
        body.options,
        neutral=None if body.neutral is None else messages(body.neutral, "neutral"),
        neutral_weight=body.neutral_weight,
        adapter=adapter,
        priority=body.priority,
    )


def messages(bodies: Sequence[MessageBody], place: str) -> tuple[Message, ...]:
    """Return the turns of a conversation.

    Raises:
        HttpError: If the arguments of a call are no JSON object.
    """
    return tuple(_message(body, f"{place}[{index}]") for index, body in enumerate(bodies))


def check_schema(schema: Any, place: str) -> None:
    """Refuse what is no JSON schema, or cannot be enforced.

    Raises:
        HttpError: With the place and the reason.
    """
    fault = unenforceable(schema)
    if fault is not None:
        where = place + fault.place.removeprefix("$")
        raise HttpError(400, f"{where}: {fault.reason}", code="unsupported_schema", param=where)


def _message(body: MessageBody, place: str) -> Message:
    content = body.content or ""
    if not isinstance(content, str):
        content = "".join(part.text for part in content)
    if body.tool_calls and body.role != "assistant":
        raise HttpError(400, f"{place}: only an assistant's message holds calls", param=f"{place}.tool_calls")
    calls = []
    for index, call in enumerate(body.tool_calls):
        where = f"{place}.tool_calls[{index}].function.arguments"
        try:
            arguments = json.loads(call.function.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise HttpError(400, f"{where} is no JSON: {error}", param=where) from error
        if not isinstance(arguments, dict):
            raise HttpError(400, f"{where} is no JSON object: {call.function.arguments!r:.80}", param=where)
        calls.append(ToolCall(call.function.name, arguments, call.id))
    role = Role.SYSTEM if body.role == "developer" else Role(body.role)
    return Message(role, content, tuple(calls), body.tool_call_id)


def _tool(body: ToolBody, index: int) -> ToolSpec:
    parameters = _NO_ARGUMENTS if body.function.parameters is None else body.function.parameters
    place = f"tools[{index}].function.parameters"
    check_schema(parameters, place)
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise HttpError(400, f"{place}: arguments are a JSON object", code="unsupported_schema", param=place)
    if body.function.name in _WORDS:
        where = f"tools[{index}].function.name"
        raise HttpError(400, f"{where}: {body.function.name!r} is a word of tool_choice", param=where)
    return ToolSpec(body.function.name, body.function.description or "", parameters)


def _tool_choice(body: ChatBody, tools: Sequence[ToolSpec]) -> str:
    choice = body.tool_choice
    if isinstance(choice, NamedChoice):
        name = choice.function.name
        if name not in {tool.name for tool in tools}:
            known = ", ".join(tool.name for tool in tools)
            raise HttpError(
                400,
                f"tool_choice names {name!r:.80}, which is none of the tools: {known}",
                param="tool_choice.function.name",
            )
        return name
    return choice or "auto" if tools else "none"


def _answer_schema(body: ChatBody) -> JsonSchema | None:
    form = body.response_format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return _OBJECT
    place = "response_format.json_schema.schema"
    schema = form.json_schema.json_schema if form.json_schema is not None else None
    if not isinstance(schema, dict):
        raise HttpError(400, f"{place}: must be a JSON schema, got {schema!r:.80}", param=place)
    check_schema(schema, place)
    return schema


def _instructed(turns: tuple[Message, ...], schema: JsonSchema) -> tuple[Message, ...]:
    instruction = _INSTRUCTION + json.dumps(schema, ensure_ascii=False)
    if turns[0].role is Role.SYSTEM:
        return (Message(Role.SYSTEM, f"{turns[0].content}\n\n{instruction}"), *turns[1:])
    return (Message(Role.SYSTEM, instruction), *turns)


def _place(parts: Sequence[int | str]) -> str:
    place = ""
    for part in parts:
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            place += f".{part}" if place else part
    return place
