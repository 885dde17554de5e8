"""What a model is asked while it is measured; the same numbers give the same requests everywhere."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from watchkeeper.models.interface import (
    ChoiceRequest,
    GenerationRequest,
    JsonSchema,
    Message,
    ToolSpec,
    assistant,
    system,
    user,
)

Count = Callable[[tuple[Message, ...]], int]
"""Returns the length of the prompt that a conversation makes."""

OPTIONS = ("the disk is full", "the memory is exhausted", "the network is down", "a certificate expired")
_LEAD = "The root cause is that"
_HOSTS = ("web-1", "web-2", "db-1", "cache-1")
_CALL_TOKENS = 256
_LONGEST = 1 << 16
"""Characters of a report at most: more than the longest prompt that is asked for."""

RESTART = ToolSpec(
    "service.restart",
    "Restart a service on a host, after a delay.",
    {
        "type": "object",
        "properties": {
            "host": {"type": "string", "enum": list(_HOSTS)},
            "service": {"type": "string", "enum": ["shop", "search", "mail"]},
            "delay_seconds": {"type": "integer", "minimum": 0, "maximum": 600},
        },
        "required": ["host", "service", "delay_seconds"],
    },
)

_NOUNS = ("service", "volume", "certificate", "queue", "backup")
_VERBS = ("restart", "inspect", "move", "limit")
_ARGUMENTS: Mapping[str, JsonSchema] = {
    "host": {"type": "string", "enum": list(_HOSTS)},
    "name": {"type": "string", "minLength": 1, "maxLength": 16},
    "path": {"type": "string", "pattern": "^/[a-z]{1,8}/[a-z]{1,8}$"},
    "delay_seconds": {"type": "integer", "minimum": 0, "maximum": 600},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "force": {"type": "boolean"},
    "until": {"type": "string", "format": "date"},
    "mode": {"const": "careful"},
    "ticket": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^OPS-[0-9]{3}$"}]},
    "retries": {"type": ["integer", "null"], "minimum": 0, "maximum": 5},
    "ports": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1, "maximum": 65535},
        "minItems": 1,
        "maxItems": 3,
    },
    "window": {
        "type": "object",
        "properties": {
            "start": {"type": "string", "pattern": "^[0-2][0-9]:00$"},
            "hours": {"type": "integer", "minimum": 1, "maximum": 12},
        },
        "required": ["start", "hours"],
        "additionalProperties": False,
    },
    "labels": {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 8},
        "maxProperties": 2,
    },
}


@dataclass(frozen=True, slots=True)
class Turn:
    """An agent's turns: what it is asked first, and what it is asked once that was answered."""

    first: GenerationRequest
    later: GenerationRequest


def reading(count: Count, tokens: int) -> GenerationRequest:
    """Make a request whose prompt is about as long as asked for, and no longer where that is possible."""
    return GenerationRequest(_reported(count, tokens, 0), max_tokens=1)


def writing(number: int, tokens: int) -> GenerationRequest:
    """Make a request for a text that is longer than its budget."""
    asked = f"Write a very long story about server room number {number}, with many details."
    return GenerationRequest((user(asked),), max_tokens=tokens)


def turns(count: Count, number: int) -> Turn:
    """Make two turns of an agent that shares nothing with the agent of another number."""
    first = _reported(count, 512, number)
    answer = assistant("The disk of web-3 is nearly full, and it fills up.")
    later = (*first, answer, user("Its log was emptied since. What is wrong now?"))
    return Turn(GenerationRequest(first, max_tokens=1), GenerationRequest(later, max_tokens=1))


def calling() -> GenerationRequest:
    """Make a request for a forced call, with a prompt of about 250 tokens in most families."""
    talk = (
        system("You run the servers of a small site. You answer with one call of a tool."),
        user("The search on db-1 answers slowly. Restart it in half a minute."),
    )
    return GenerationRequest(talk, (RESTART,), "required", max_tokens=_CALL_TOKENS)


def varied_call(number: int) -> GenerationRequest:
    """Make a request for a forced call whose tool and question are those of a number."""
    rng = random.Random(number)
    noun = _NOUNS[number % len(_NOUNS)]
    verb = _VERBS[number // len(_NOUNS) % len(_VERBS)]
    names = rng.sample(sorted(_ARGUMENTS), rng.randint(2, 5))
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": {name: _ARGUMENTS[name] for name in names},
        "required": [names[0], *(name for name in names[1:] if rng.random() < 0.6)],
        "additionalProperties": False,
    }
    tool = ToolSpec(f"{noun}.{verb}", f"{verb.capitalize()} a {noun}.", parameters)
    asked = f"Ticket {number}: {verb} the {noun} of {rng.choice(_HOSTS)} by {rng.randint(10, 99)} percent."
    return GenerationRequest((user(asked),), (tool,), "required", max_tokens=_CALL_TOKENS)


def choosing(count: Count) -> ChoiceRequest:
    """Make a closed question about a report of about 500 tokens."""
    return ChoiceRequest(_reported(count, 512, 0), _LEAD, OPTIONS)


def _reported(count: Count, tokens: int, number: int) -> tuple[Message, ...]:
    """Make a conversation of a length; numbers differ in the first words, so that nothing is shared."""
    low, high = 0, min(_LONGEST, 8 * tokens)
    while low < high:
        middle = -(-(low + high) // 2)
        if count(_report(middle, number)) <= tokens:
            low = middle
        else:
            high = middle - 1
    return _report(low, number)


def _report(characters: int, number: int) -> tuple[Message, ...]:
    lines = (
        f"{line}: host web-{line % 4} reports {37 * (line + number) % 100} % of its disk used\n"
        for line in range(characters // 48 + 1)
    )
    return (system(f"{number} is your site."), user(f"{''.join(lines)[:characters]}\nWhat is wrong?"))
