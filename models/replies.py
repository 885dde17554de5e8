"""Answers of an endpoint, taken apart and checked: nothing that it says is believed unseen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from watchkeeper.models.errors import BudgetExceededError, GrammarError, InvalidReplyError
from watchkeeper.models.interface import (
    FinishReason,
    Generation,
    GenerationRequest,
    JsonSchema,
    ToolCall,
    Usage,
)
from watchkeeper.models.numerals import read_float
from watchkeeper.models.openai_format import ToolNames
from watchkeeper.models.schemas import SchemaError, fault

_ENDED: Mapping[str, FinishReason] = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "eos_token": "stop",
    "length": "length",
}
_CHARACTERS_A_TOKEN = 3


@dataclass(frozen=True, slots=True)
class RawCall:
    """A call as it came: nothing in it has been checked."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came.

    Attributes:
        text: Its text.
        calls: Its calls.
        finish: Why it ended.
        usage: What the endpoint counted; ``None`` where it said nothing.
        tokens: Its tokens with their alternatives, as the API writes them.
    """

    text: str
    calls: tuple[RawCall, ...]
    finish: str
    usage: Mapping[str, Any] | None
    tokens: tuple[Mapping[str, Any], ...] = ()


def read_reply(value: Any) -> Reply:
    """Take a chat completion apart.

    Raises:
        InvalidReplyError: If it is none.
    """
    choice = _first_choice(value)
    message = _mapping(choice.get("message"), "choices[0].message")
    calls = []
    for index, item in enumerate(_list(message.get("tool_calls"), "choices[0].message.tool_calls")):
        place = f"choices[0].message.tool_calls[{index}]"
        call = _mapping(item, place)
        function = _mapping(call.get("function"), f"{place}.function")
        calls.append(
            RawCall(
                _text(call.get("id"), f"{place}.id"),
                _text(function.get("name"), f"{place}.function.name"),
                _text(function.get("arguments"), f"{place}.function.arguments"),
            )
        )
    content = _text(message.get("content"), "choices[0].message.content")
    logprobs = choice.get("logprobs")
    tokens = _list(logprobs.get("content"), "choices[0].logprobs") if isinstance(logprobs, dict) else []
    return Reply(
        content,
        tuple(calls),
        _text(choice.get("finish_reason"), "choices[0].finish_reason"),
        _usage_of(value),
        tuple(_mapping(token, "choices[0].logprobs.content") for token in tokens),
    )


class StreamedReply:
    """Puts an answer together from its pieces."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._finish = ""
        self._usage: Mapping[str, Any] | None = None

    def add(self, event: Mapping[str, Any]) -> str:
        """Take a piece and return the text in it.

        Raises:
            InvalidReplyError: If it is no chunk of a chat completion.
        """
        self._usage = _usage_of(event) or self._usage
        choices = _list(event.get("choices"), "choices")
        if not choices:
            return ""
        choice = _first_choice(event)
        finish = choice.get("finish_reason")
        if finish is not None:
            self._finish = _text(finish, "choices[0].finish_reason")
        delta = _mapping(choice.get("delta") or {}, "choices[0].delta")
        for item in _list(delta.get("tool_calls"), "choices[0].delta.tool_calls"):
            place = "choices[0].delta.tool_calls"
            call = _mapping(item, place)
            index = call.get("index", 0)
            if not isinstance(index, int):
                raise InvalidReplyError(f"{place}: index {index!r:.40} is no number")
            parts = self._calls.setdefault(index, ["", "", ""])
            function = _mapping(call.get("function") or {}, f"{place}.function")
            # Some servers repeat id and name in every piece, so those are taken once.
            parts[0] = parts[0] or _text(call.get("id"), f"{place}.id")
            parts[1] = parts[1] or _text(function.get("name"), f"{place}.function.name")
            parts[2] += _text(function.get("arguments"), f"{place}.function.arguments")
        text = _text(delta.get("content"), "choices[0].delta.content")
        self._texts.append(text)
        return text

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def in_call(self) -> bool:
        """Whether a call has begun."""
        return bool(self._calls)

    def reply(self) -> Reply:
        """Return the whole.

        Raises:
            InvalidReplyError: If it did not end.
        """
        if not self._finish:
            raise InvalidReplyError("the stream ended without a finish_reason, so the answer may be cut")
        calls = tuple(RawCall(*parts) for _, parts in sorted(self._calls.items()))
        return Reply(self.text, calls, self._finish, self._usage)


def checked(
    reply: Reply,
    request: GenerationRequest,
    allowed: Mapping[str, JsonSchema],
    names: ToolNames,
    *,
    seconds: float,
) -> Generation:
    """Hold an answer against what was asked, as a grammar of ours would have enforced it.

    Args:
        reply: The answer.
        request: What was asked.
        allowed: Schema of the arguments, narrowed, of each tool that may be called.
        names: Names of the tools on the wire.
        seconds: How long it took.

    Raises:
        InvalidReplyError: If it is none that the request allows.
        BudgetExceededError: If a constrained answer did not end within its budget.
        GrammarError: If a schema cannot be checked.
    """
    reason = _ENDED.get(reply.finish)
    if reason is None:
        raise InvalidReplyError(f"the endpoint ended its answer for the reason {reply.finish!r:.40}")
    forced = bool(allowed) and request.tool_choice != "auto"
    if reason == "length" and (request.schema is not None or forced or reply.calls):
        raise BudgetExceededError(
            f"the answer did not end within max_tokens={request.max_tokens}; "
            f"ask again with more, or bound the schema's strings and arrays"
        )
    # The same call in another turn is another call, also where an endpoint numbers none.
    turn = len(request.messages)
    calls = tuple(
        _call(call, f"call_{turn}_{number}", allowed, names) for number, call in enumerate(reply.calls)
    )
    if len(calls) > max(1, request.max_calls):
        _refuse(f"{len(calls)} calls came, at most {request.max_calls} were asked for", reply)
    if forced and not calls:
        _refuse(f"tool_choice {request.tool_choice!r} asks for a call, and a text came", reply)
    ids = [call.id for call in calls]
    if len(set(ids)) < len(ids):
        _refuse(f"two calls have the same id: {ids!r:.80}", reply)
    if request.schema is not None:
        value = _json(reply.text, "the answer", reply)
        _check(value, request.schema, "the answer")
    return Generation(reply.text, calls, reason, usage(reply, request, seconds))


def usage(reply: Reply, request: GenerationRequest | None, seconds: float) -> Usage:
    """Return what an answer cost; estimated from its length where the endpoint does not say.

    A budget of tokens must also hold against an endpoint that counts none.
    """
    counted = reply.usage
    if counted is None:
        asked = sum(len(message.content) for message in request.messages) if request else 0
        given = len(reply.text) + sum(len(call.name) + len(call.arguments) for call in reply.calls)
        return Usage(-(-asked // _CHARACTERS_A_TOKEN), 0, -(-given // _CHARACTERS_A_TOKEN), 0, seconds)
    return read_usage(counted, seconds)


def read_usage(counted: Mapping[str, Any], seconds: float) -> Usage:
    """Read the tokens that an endpoint counted; what is no count is 0."""
    prompt = counted.get("prompt_tokens_details")
    answer = counted.get("completion_tokens_details")
    return Usage(
        _count(counted.get("prompt_tokens")),
        _count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else 0,
        _count(counted.get("completion_tokens")),
        _count(answer.get("forced_tokens")) if isinstance(answer, dict) else 0,
        seconds,
    )


def parse_json(text: str) -> Any:
    """Parse JSON as its standard has it: no NaN and no infinity.

    Raises:
        ValueError: If it is none.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=read_float)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _call(call: RawCall, own_id: str, allowed: Mapping[str, JsonSchema], names: ToolNames) -> ToolCall:
    name = names.from_wire(call.name)
    if name not in allowed:
        raise InvalidReplyError(
            f"the endpoint called {name!r:.80}, which is none of: {', '.join(allowed) or 'nothing'}"
        )
    try:
        arguments = parse_json(call.arguments or "{}")
    except ValueError as error:
        raise InvalidReplyError(
            f"the arguments of {name!r} are no JSON ({error}): {call.arguments!r:.120}"
        ) from error
    if not isinstance(arguments, dict):
        raise InvalidReplyError(f"the arguments of {name!r} are no JSON object: {call.arguments!r:.120}")
    _check(arguments, allowed[name], f"the arguments of {name!r}")
    return ToolCall(name, arguments, call.id or own_id)


def _check(value: Any, schema: JsonSchema, what: str) -> None:
    try:
        reason = fault(value, schema)
    except SchemaError as error:
        raise GrammarError(f"{what} cannot be checked: {error}") from error
    if reason is not None:
        raise InvalidReplyError(f"{what} came and does not satisfy the schema: {reason}")


def _json(text: str, what: str, reply: Reply) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        _refuse(f"{what} is no JSON ({error})", reply)


def _refuse(reason: str, reply: Reply) -> NoReturn:
    raise InvalidReplyError(f"{reason}: {reply.text!r:.120}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _first_choice(value: Any) -> Mapping[str, Any]:
    choices = _list(_mapping(value, "the answer").get("choices"), "choices")
    if not choices:
        raise InvalidReplyError("the answer of the endpoint holds no choices")
    return _mapping(choices[0], "choices[0]")


def _usage_of(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    counted = value.get("usage")
    return counted if isinstance(counted, dict) else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidReplyError(f"{place} is no JSON object: {value!r:.80}")
    return value


def _list(value: Any, place: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidReplyError(f"{place} is no list: {value!r:.80}")
    return value


def _text(value: Any, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidReplyError(f"{place} is no text: {value!r:.80}")
    return value
