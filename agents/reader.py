"""The quarantined reader: sees lines of strangers, holds no tools, and answers in enums."""

from __future__ import annotations

from collections.abc import Sequence

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.decision import Decision
from watchkeeper.agents.outputs import Reading
from watchkeeper.agents.prompts import quarantined_prompt
from watchkeeper.models.interface import Cancellation, ChoiceRequest, Engine
from watchkeeper.tools.passages import Quoted, Trusted

THEMES = {
    "no-space": "a disk or file system that has no space left",
    "configuration": "a configuration value or file that is wrong",
    "network": "a connection to another system that fails or times out",
    "memory": "memory that runs out",
    "permission": "an access that is denied",
    "start-stop": "the start or stop of a program",
    "routine": "normal work without problems",
}
MOST_LINES = 12
LEAD = Trusted("Log lines:")


def read(
    engine: Engine,
    agent: Agent,
    *,
    evidence: str,
    lines: Sequence[str],
    cancel: Cancellation | None = None,
) -> tuple[Reading, Decision]:
    """Say what untrusted lines are about.

    Args:
        engine: Who answers.
        agent: What it is told.
        evidence: Id of the evidence that quotes the lines.
        lines: The lines; the last ones are read, shortened.
        cancel: Raised to end the question.
    """
    shown = tuple(Quoted(line[:200], evidence) for line in lines[-MOST_LINES:])
    messages = quarantined_prompt(agent, LEAD, shown)
    choice = engine.choose(
        ChoiceRequest(
            messages=messages,
            lead="These log lines are mostly about",
            options=tuple(THEMES.values()),
            neutral=quarantined_prompt(agent, LEAD, ()),
        ),
        cancel=cancel,
    )
    decision = Decision.of_choice(
        choice,
        role=agent.title,
        question="What are the log lines about?",
        messages=messages,
        evidence=(evidence,),
        identity=engine.identity,
    )
    return Reading(theme=list(THEMES)[choice.best]), decision
