"""The reporter: a summary in the model's words, kept only where it says nothing that the record does not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.decision import Decision, prompt_digest
from watchkeeper.models.interface import Cancellation, Engine, GenerationRequest, system, user

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PATH = re.compile(r"/[\w./-]+")
_SENTENCE_END = re.compile(r"[.!](?=\s)")
MAX_TOKENS = 90


def summarize(
    engine: Engine, agent: Agent, record: Sequence[str], *, cancel: Cancellation | None = None
) -> tuple[str, Decision]:
    """Write two or three sentences about an incident that has ended.

    Args:
        engine: Who answers.
        agent: What it is told.
        record: What happened, one statement a line, from trusted values.
        cancel: Raised to end the answer.

    Returns:
        The summary, empty where it quoted a number or a path that the record does not have, and the
        decision that records it.
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
    decision = Decision(
        role=agent.title,
        question="Summarize the incident",
        options=(text,),
        probabilities=(),
        chosen=(0,) if faithful(text, facts) else (),
        evidence=(),
        prompt_digest=prompt_digest(messages),
        identity=engine.identity,
        usage=generation.usage,
    )
    return (text if faithful(text, facts) else ""), decision


def faithful(text: str, record: str) -> bool:
    """Whether every number and path of a text stands in the record."""
    for pattern in (_NUMBER, _PATH):
        known = {match.rstrip(".,") for match in pattern.findall(record)}
        if any(match.rstrip(".,") not in known for match in pattern.findall(text)):
            return False
    return True
