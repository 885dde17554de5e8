"""The reporter: a summary in the model's words, kept only where it says nothing that the record does not."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.decision import Decision, prompt_digest
from watchkeeper.models.interface import Cancellation, Engine, GenerationRequest, system, user

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PATH = re.compile(r"/[\w./-]+")
_IDENTIFIER = re.compile(r"\b[A-Za-z]\w+(?:\.[A-Za-z]\w+)+\b|\b[A-Za-z]\w*(?:-\w+)*-\d+\b")
_NAMED = re.compile(r"\b(?:service|host|server|program|process|database)\s+[`'\"]?(\w+[-_.]\w[\w.-]*)")
_SENTENCE_END = re.compile(r"[.!](?=\s)")
_MARKS = ".,;:!?()[]\"'`"
MAX_TOKENS = 90


def summarize(
    engine: Engine,
    agent: Agent,
    record: Sequence[str],
    *,
    names: Collection[str] = (),
    cancel: Cancellation | None = None,
) -> tuple[str, Decision]:
    """Write two or three sentences about an incident that has ended.

    Args:
        engine: Who answers.
        agent: What it is told.
        record: What happened, one statement a line, from trusted values.
        names: Hosts, services and tools of the site: one that the record does not name may not be named.
        cancel: Raised to end the answer.

    Returns:
        The summary, empty where it quoted a number, a path or a name that the record does not have, and
        the decision that records it.
    """
    facts = "\n".join(f"- {line}" for line in record)
    messages = (
        system(agent.instructions),
        user(f"What happened:\n{facts}\nSummarize this in two sentences. Use only what is written above."),
    )
    generation = engine.generate(
        GenerationRequest(messages=messages, max_tokens=MAX_TOKENS, stop=("\n\n",)), cancel=cancel
    )
    text = " ".join(generation.text.split())
    if generation.finish_reason == "length":
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        text = text[: ends[-1]].strip() if ends else ""
    kept = faithful(text, facts, names)
    decision = Decision(
        role=agent.title,
        question="Summarize the incident",
        options=(text,),
        probabilities=(),
        chosen=(0,) if kept else (),
        evidence=(),
        prompt_digest=prompt_digest(messages),
        identity=engine.identity,
        usage=generation.usage,
    )
    return (text if kept else ""), decision


def faithful(text: str, record: str, names: Collection[str] = ()) -> bool:
    """Whether every number, path and name of a text stands in the record.

    Args:
        text: What a model wrote.
        record: What it was to sum up.
        names: Names that count as names wherever they stand; others are told by their look
            (``service.restart``, ``web-1``) or by what they follow (``host db_main``).
    """
    for pattern in (_NUMBER, _PATH, _IDENTIFIER, _NAMED):
        known = {match.rstrip(".,-") for match in (*pattern.findall(record), *_words(record))}
        if any(match.rstrip(".,-") not in known for match in pattern.findall(text)):
            return False
    said, recorded = set(_words(text)), set(_words(record))
    return not any(name in said and name not in recorded for name in names)


def _words(text: str) -> list[str]:
    return [word.strip(_MARKS) for word in text.split()]
