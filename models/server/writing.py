"""Answers of an engine in the words of OpenAI's API."""

from __future__ import annotations

import json
import math
import secrets
import time
from typing import Any

from watchkeeper.models.interface import Choice, Generation, ToolCall, Usage
from watchkeeper.models.openai_format import EXTENSION


class Completion:
    """Writes one answer: whole, or as the chunks of a stream.

    Args:
        model: Name of the model, as the client asked for it.
    """

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, answer: Generation) -> dict[str, Any]:
        """Return a chat completion."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tool_calls:
            message["content"] = answer.text or None
            message["tool_calls"] = [_call(call) for call in answer.tool_calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(answer)}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_of(answer.usage),
        }

    def cut(self) -> dict[str, Any]:
        """Return a chat completion whose constrained answer did not end within its budget.

        A part of it would not be valid, so none is shown; what it cost is not known.
        """
        message = {"role": "assistant", "content": ""}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
        return {**self._head, "object": "chat.completion", "choices": [choice]}

    def first(self) -> bytes:
        """Return the chunk that opens a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> bytes:
        """Return a chunk of text."""
        return self._chunk({"content": text})

    def last(self, answer: Generation | None, *, include_usage: bool) -> bytes:
        """Return the chunks that end a stream; None where the answer did not end within its budget."""
        if answer is None:
            return self._chunk({}, "length") + DONE
        data = b""
        for index, call in enumerate(answer.tool_calls):
            data += self._chunk({"tool_calls": [{"index": index, **_call(call)}]})
        data += self._chunk({}, _reason(answer))
        if include_usage:
            data += event(
                {
                    **self._head,
                    "object": "chat.completion.chunk",
                    "choices": [],
                    "usage": usage_of(answer.usage),
                }
            )
        return data + DONE

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**self._head, "object": "chat.completion.chunk", "choices": [choice]})


DONE = b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    """Write a server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"


def choice_of(choice: Choice, model: str) -> dict[str, Any]:
    """Write the answer to a closed question."""
    return {
        "object": "choice",
        "model": model,
        "basis": choice.basis,
        "calibration": choice.calibration,
        "options": [
            {
                "text": option.text,
                "logprob": _finite(option.logprob),
                "corrected": _finite(option.corrected),
                "tokens": option.tokens,
                "probability": option.probability,
            }
            for option in choice.options
        ],
        "usage": usage_of(choice.usage),
    }


def model_of(name: str, *, quantization: str, digest: str, parent: str | None = None) -> dict[str, Any]:
    """Describe a model."""
    described = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "watchkeeper",
        EXTENSION: {"quantization": quantization, "digest": digest},
    }
    return described if parent is None else {**described, "parent": parent}


def usage_of(usage: Usage) -> dict[str, Any]:
    """Write what an answer cost; ``forced_tokens`` is a word of our own."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.generated_tokens,
        "total_tokens": usage.prompt_tokens + usage.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"forced_tokens": usage.forced_tokens},
    }


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _reason(answer: Generation) -> str:
    if answer.tool_calls:
        return "tool_calls"
    return "length" if answer.finish_reason == "length" else "stop"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
