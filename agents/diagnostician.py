"""The diagnostician: which of the supported hypotheses is the root cause, and why."""

from __future__ import annotations

from collections.abc import Sequence

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.case import Case
from watchkeeper.agents.decision import Decision
from watchkeeper.agents.hypotheses import Hypothesis
from watchkeeper.agents.outputs import Claim, Diagnosis, DiagnosisStatus
from watchkeeper.agents.prompts import trusted_prompt
from watchkeeper.models.interface import Cancellation, ChoiceRequest, Engine, Message
from watchkeeper.tools.passages import Trusted, passage

NEUTRAL_WEIGHT = 0.5
"""Share of a cause's log-probability without any observation that is taken off its score.

Full PMI (1) favours causes whose wording is rare as such, none (0) those that the model likes to name; half
was best on demo incidents drawn from other seeds than those that are measured (design/0004).
"""


def _prompt(
    agent: Agent, case: Case, hypotheses: Sequence[Hypothesis], *, observations: bool
) -> tuple[Message, ...]:
    seen = case.observations() if observations else Trusted("")
    said = [passage("Alert: {condition}.", condition=case.condition)]
    said += [Trusted("Observations:"), seen or Trusted("- none"), Trusted("Possible causes:")]
    said += [passage("- {cause}", cause=hypothesis.told(case)) for hypothesis in hypotheses]
    if observations:
        if case.attempts:
            said.append(Trusted("Tried already:"))
            said += [
                passage(
                    "- {action}, because {cause}: {result}",
                    action=attempt.action,
                    cause=attempt.hypothesis,
                    result=attempt.result,
                )
                for attempt in case.attempts
            ]
        said += case.remarks
        said += [case.state] if case.state else []
    return trusted_prompt(agent, *said, Trusted("What is the root cause of the alert?"))


def diagnosis_request(agent: Agent, case: Case, hypotheses: Sequence[Hypothesis]) -> ChoiceRequest:
    """Put the question for the root cause as an engine is asked it.

    Args:
        agent: What it is told, and the adapter that it answers with.
        case: The evidence.
        hypotheses: What the evidence supports; not empty.
    """
    return ChoiceRequest(
        messages=_prompt(agent, case, hypotheses, observations=True),
        lead="The root cause is that",
        options=tuple(hypothesis.told(case) for hypothesis in hypotheses),
        neutral=_prompt(agent, case, hypotheses, observations=False),
        neutral_weight=NEUTRAL_WEIGHT,
        adapter=agent.adapter,
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
    request = diagnosis_request(agent, case, hypotheses)
    choice = engine.choose(request, cancel=cancel)
    decision = Decision.of_choice(
        choice,
        role=agent.title,
        question="What is the root cause?",
        messages=request.messages,
        evidence=case.evidence_ids,
        identity=engine.identity,
    )
    chosen = hypotheses[choice.best]
    probability = choice.options[choice.best].probability
    return chosen, diagnosis_of(chosen, probability, min_confidence=min_confidence), decision


def diagnosis_of(hypothesis: Hypothesis, probability: float, *, min_confidence: float) -> Diagnosis:
    """Put a hypothesis as a diagnosis whose claims cite what supports it."""
    sure = probability >= min_confidence
    return Diagnosis(
        cause=hypothesis.cause.id,
        subject=hypothesis.subject,
        text=hypothesis.text,
        status=DiagnosisStatus.LIKELY if sure else DiagnosisStatus.INCONCLUSIVE,
        probability=probability,
        claims=tuple(
            Claim(statement=item.finding.text, evidence=item.evidence) for item in hypothesis.support
        ),
    )
