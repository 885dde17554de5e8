"""The diagnostician: which of the supported hypotheses is the root cause, and why."""

from __future__ import annotations

from collections.abc import Sequence

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.case import Case
from watchkeeper.agents.decision import Decision
from watchkeeper.agents.hypotheses import Hypothesis
from watchkeeper.agents.outputs import Claim, Diagnosis, DiagnosisStatus
from watchkeeper.models.interface import Cancellation, ChoiceRequest, Engine, Message, system, user


def _prompt(agent: Agent, case: Case, *, observations: bool) -> tuple[Message, ...]:
    seen = (case.observations() or "- everything looks normal") if observations else "- none"
    tried = "".join(
        f"- {attempt.action} was tried because {attempt.hypothesis}: {attempt.result}\n"
        for attempt in case.attempts
    )
    return (
        system(agent.instructions),
        user(
            f"Alert: {case.condition}.\nObservations:\n{seen}\n"
            + (f"Tried already:\n{tried}" if tried and observations else "")
            + "What is the root cause of the alert?"
        ),
    )


def diagnose(
    engine: Engine,
    agent: Agent,
    case: Case,
    hypotheses: Sequence[Hypothesis],
    *,
    min_confidence: float,
    cancel: Cancellation | None = None,
) -> tuple[Hypothesis, Diagnosis, Decision]:
    """Choose the most probable of the hypotheses.

    Args:
        engine: Who answers.
        agent: What it is told.
        case: The evidence.
        hypotheses: What the evidence supports; not empty.
        min_confidence: Probability below which the diagnosis is INCONCLUSIVE.
        cancel: Raised to end the question.
    """
    messages = _prompt(agent, case, observations=True)
    choice = engine.choose(
        ChoiceRequest(
            messages=messages,
            lead="The root cause is that",
            options=tuple(hypothesis.text for hypothesis in hypotheses),
            neutral=_prompt(agent, case, observations=False),
        ),
        cancel=cancel,
    )
    decision = Decision.of_choice(
        choice,
        role=agent.title,
        question="What is the root cause?",
        messages=messages,
        evidence=case.evidence_ids,
        identity=engine.identity,
    )
    chosen = hypotheses[choice.best]
    probability = choice.options[choice.best].probability
    sure = probability >= min_confidence
    diagnosis = Diagnosis(
        cause=chosen.cause.id,
        subject=chosen.subject,
        text=chosen.text,
        status=DiagnosisStatus.LIKELY if sure else DiagnosisStatus.INCONCLUSIVE,
        probability=probability,
        claims=tuple(Claim(statement=item.finding.text, evidence=item.evidence) for item in chosen.support),
    )
    return chosen, diagnosis, decision
