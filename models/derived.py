"""A closed question for an endpoint that cannot score texts: one constrained answer, and what it tells.

The answer is a JSON object whose only value is one of the options. Where the endpoint tells the
log-probabilities of its tokens and of their alternatives, a share is put together for every option: those
that part from the answer at a token share what the alternatives there that fit them had. What is not among
the alternatives is taken to be as probable as the least of them, which is too much: the answer looks less
sure than it was, never more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from watchkeeper.models.errors import InvalidReplyError
from watchkeeper.models.interface import Message, Role
from watchkeeper.models.openai_format import schema_format
from watchkeeper.models.replies import Reply, parse_json

_KEY = "answer"
_ALTERNATIVES = 20
_NUDGE = 0.01


def question(turns: Sequence[Message], lead: str, options: Sequence[str]) -> tuple[Message, ...]:
    """Return the conversation with what is wanted at its end."""
    listed = "\n".join(f"- {option}" for option in options)
    begun = f' It goes on from "{lead.strip()}".' if lead.strip() else ""
    wanted = f'Answer with JSON, {{"{_KEY}": TEXT}}, where TEXT is one of these:{begun}\n{listed}'
    last = turns[-1] if turns else None
    if last is not None and last.role is Role.USER:
        return (*turns[:-1], Message(Role.USER, f"{last.content}\n\n{wanted}"))
    return (*turns, Message(Role.USER, wanted))


def answer_body(
    messages: Sequence[Mapping[str, Any]], model: str, options: Sequence[str], *, logprobs: bool
) -> dict[str, Any]:
    """Write the body of the question."""
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "response_format": schema_format(
            {
                "type": "object",
                "properties": {_KEY: {"type": "string", "enum": list(options)}},
                "required": [_KEY],
                "additionalProperties": False,
            }
        ),
        "temperature": 0.0,
        # A token is a byte at the least, and a character may be escaped.
        "max_tokens": max(len(json.dumps(option)) for option in options) + 64,
    }
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
    return body


def chosen(reply: Reply, options: Sequence[str]) -> int:
    """Return the index of the option that was answered.

    Raises:
        InvalidReplyError: If it is none.
    """
    try:
        value = parse_json(reply.text)
    except ValueError as error:
        raise InvalidReplyError(f"the answer is no JSON ({error}): {reply.text!r:.120}") from error
    text = value.get(_KEY) if isinstance(value, dict) else None
    if text not in options:
        raise InvalidReplyError(f"the answer is none of the options: {reply.text!r:.120}")
    return options.index(text)


def flat_shares(best: int, count: int) -> list[float]:
    """Return shares that say which option was answered, and nothing else."""
    whole = count + _NUDGE
    return [(1 + _NUDGE if index == best else 1) / whole for index in range(count)]


def softmax(scores: Sequence[float]) -> list[float]:
    """Turn logarithms of shares into shares that sum to 1."""
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    return [weight / sum(weights) for weight in weights]


def log_shares(reply: Reply, best: int, options: Sequence[str]) -> list[float] | None:
    """Put the logarithm of each option's probability together, up to a constant.

    Args:
        reply: The answer with its tokens.
        best: Index of the option that it holds.
        options: All of them.

    Returns:
        One number an option, or None where the tokens do not tell.
    """
    tokens = _tokens(reply)
    if tokens is None:
        return None
    text = "".join(token for token, _, _ in tokens)
    endings = [json.dumps(option, ensure_ascii=False) for option in options]
    start = text.find(endings[best])
    if start < 0 or any(not alternatives for _, _, alternatives in tokens):
        return None
    wholes = [text[:start] + ending for ending in endings]
    found: dict[int, float] = {}
    alive = set(range(len(options)))
    before, path = "", 0.0
    for token, logprob, alternatives in tokens:
        after = before + token
        staying = {index for index in alive if _goes_on(wholes[index], after)}
        for index, share in _leave(alive - staying, before, alternatives, wholes).items():
            found[index] = path + share
        if staying != alive:
            # Only where options part does the token say something about them.
            path += logprob
        alive, before = staying, after
        if len(alive) <= 1:
            break
    if best not in alive:
        return None
    for index in alive:
        found[index] = path - math.log(len(alive))
    return [found[index] for index in range(len(options))]


def _leave(
    leaving: set[int], before: str, alternatives: Mapping[str, float], wholes: Sequence[str]
) -> dict[int, float]:
    """Return the log-probability of every option that parts from the answer at this token."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index in leaving:
        fitting = tuple(token for token in alternatives if token and _goes_on(wholes[index], before + token))
        groups.setdefault(fitting, []).append(index)
    shares: dict[int, float] = {}
    for fitting, members in groups.items():
        if fitting:
            mass = math.log(sum(math.exp(alternatives[token]) for token in fitting) or 5e-324)
            mass -= math.log(len(members))
        else:
            mass = min(alternatives.values())
        shares |= dict.fromkeys(members, mass)
    return shares


def _goes_on(whole: str, text: str) -> bool:
    return whole.startswith(text) or text.startswith(whole)


def _tokens(reply: Reply) -> list[tuple[str, float, dict[str, float]]] | None:
    read = []
    for item in reply.tokens:
        token, logprob = item.get("token"), item.get("logprob")
        listed = item.get("top_logprobs")
        if not isinstance(token, str) or not _is_logprob(logprob) or not isinstance(listed, list):
            return None
        alternatives = {
            other["token"]: min(0.0, float(other["logprob"]))
            for other in listed
            if isinstance(other, dict)
            and isinstance(other.get("token"), str)
            and _is_logprob(other.get("logprob"))
        }
        read.append((token, min(0.0, float(logprob)), alternatives))
    return read or None


def _is_logprob(value: Any) -> TypeGuard[float]:
    # OpenAI writes -9999 for what is out of sight; NaN would poison every share.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
