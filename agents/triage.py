"""Triage: how urgent an alert is. It reads text of strangers, so it answers in enums only."""

from __future__ import annotations

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.decision import Decision
from watchkeeper.agents.outputs import Triage
from watchkeeper.agents.prompts import quarantined_prompt
from watchkeeper.models.interface import Cancellation, ChoiceRequest, Engine
from watchkeeper.tools.passages import Quoted, Trusted

SEVERITIES = {
    "critical": "critical, because users cannot use the service now",
    "warning": "a warning, because something is degraded but still works",
    "info": "only information, because nothing needs to be done",
}
LEAD = Trusted("Alert:")
SYMPTOMS = {
    "availability": "a service that does not answer or fails its check",
    "capacity": "a resource such as disk, memory or processor that runs out",
    "performance": "something that became slow",
    "security": "a certificate, a login or an access problem",
}


def triage(
    engine: Engine, agent: Agent, *, title: str, description: str, cancel: Cancellation | None = None
) -> tuple[Triage, tuple[Decision, ...]]:
    """Judge an alert by its text.

    Args:
        engine: Who answers.
        agent: What it is told.
        title: The alert's title; untrusted.
        description: The alert's description; untrusted.
        cancel: Raised to end the question.
    """
    quotes = (Quoted(title[:200], "the alert's title"), Quoted(description[:600], "its description"))
    messages = quarantined_prompt(agent, LEAD, quotes)
    neutral = quarantined_prompt(agent, LEAD, ())
    answers: dict[str, str] = {}
    decisions: list[Decision] = []
    for question, lead, options in (
        ("How severe is the alert?", "This alert is", SEVERITIES),
        ("Which symptom does the alert report?", "This alert is about", SYMPTOMS),
    ):
        choice = engine.choose(
            ChoiceRequest(messages=messages, lead=lead, options=tuple(options.values()), neutral=neutral),
            cancel=cancel,
        )
        answers[question] = list(options)[choice.best]
        decisions.append(
            Decision.of_choice(
                choice,
                role=agent.title,
                question=question,
                messages=messages,
                evidence=(),
                identity=engine.identity,
            )
        )
    severity, symptom = answers.values()
    return Triage(severity=severity, symptom=symptom), tuple(decisions)
