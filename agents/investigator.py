"""The investigator: which facts to read next."""

from __future__ import annotations

from collections.abc import Sequence

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.case import Case
from watchkeeper.agents.decision import Decision
from watchkeeper.agents.outputs import FactCall
from watchkeeper.agents.prompts import trusted_prompt
from watchkeeper.models.interface import Cancellation, ChoiceRequest, Engine, Message
from watchkeeper.tools.passages import Trusted, passage


def _prompt(agent: Agent, case: Case, *, observations: bool) -> tuple[Message, ...]:
    seen = (case.observations() or Trusted("- nothing unusual yet")) if observations else Trusted("- none")
    return trusted_prompt(
        agent,
        passage("Alert: {condition}.\nObservations so far:\n{seen}", condition=case.condition, seen=seen),
        *(case.remarks if observations else ()),
        Trusted("Which check tells most about the cause of the alert?"),
    )


def next_facts(
    engine: Engine,
    agent: Agent,
    case: Case,
    calls: Sequence[FactCall],
    *,
    take: int,
    cancel: Cancellation | None = None,
) -> tuple[tuple[FactCall, ...], Decision]:
    """Choose the facts to be read next.

    Args:
        engine: Who answers.
        agent: What it is told, and which facts it may ask for.
        case: What is known.
        calls: The calls that are left; not empty.
        take: How many are wanted.
        cancel: Raised to end the question.
    """
    messages = _prompt(agent, case, observations=True)
    choice = engine.choose(
        ChoiceRequest(
            messages=messages,
            lead="The next thing to check is",
            options=tuple(call.about for call in calls),
            neutral=_prompt(agent, case, observations=False),
        ),
        cancel=cancel,
    )
    decision = Decision.of_choice(
        choice,
        role=agent.title,
        question="Which facts are read next?",
        messages=messages,
        evidence=case.evidence_ids,
        identity=engine.identity,
        take=take,
    )
    return tuple(calls[index] for index in decision.chosen), decision
