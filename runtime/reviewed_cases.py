"""Decisions that people reviewed, as questions with known answers: what a site's own model can learn from."""

from __future__ import annotations

from collections.abc import Iterator

from watchkeeper.agents import AgentRole, Case, Hypothesis, supported
from watchkeeper.agents.decision import prompt_digest
from watchkeeper.agents.diagnostician import diagnosis_request
from watchkeeper.models.calibration_cases import LabelledCase
from watchkeeper.models.interface import ChoiceRequest
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.decisions import DecisionRecord
from watchkeeper.runtime.reviews import Review, Reviews, ReviewVerdict
from watchkeeper.tools.errors import ToolError
from watchkeeper.tools.redaction import redact_text


def reviewed_cases(context: Context) -> tuple[tuple[LabelledCase, ...], int]:
    """Put every reviewed diagnosis as it was asked, with the answer that people gave.

    A record holds no prompt but its digest. The prompt is built again from the evidence that was kept, and a
    decision whose prompt does not come out the same to the last byte is left out: one that was made after
    remedies were tried, or under another inventory or other causes than now. Secrets were taken out of the
    evidence when it was kept; what looks like one is taken out once more.

    Args:
        context: The site as it is now, its agents and its records.

    Returns:
        The cases, the newest first, and how many reviewed diagnoses were left out.
    """
    cases: list[LabelledCase] = []
    left_out = 0
    title = context.team.agents[AgentRole.DIAGNOSTICIAN].title
    for record, review in Reviews(context.journal.store, context.journal.audit).latest():
        right = _right(record, review)
        if record.role != title or right is None or len(record.options) < 2:
            continue
        asked = _asked(context, record)
        if asked is None:
            left_out += 1
        else:
            request, hypotheses = asked
            cases.append(_case(request, right, topic=hypotheses[right].cause.id))
    return tuple(cases), left_out


def _right(record: DecisionRecord, review: Review | None) -> int | None:
    """Index of the option that is right as people say; None where nobody could say."""
    if review is None or review.verdict is ReviewVerdict.UNSURE:
        return None
    return record.chosen if review.verdict is ReviewVerdict.RIGHT else review.should_be


def _asked(context: Context, record: DecisionRecord) -> tuple[ChoiceRequest, tuple[Hypothesis, ...]] | None:
    """The question as it was asked, and its hypotheses; None where it cannot be built again."""
    options = [option.text for option in record.options]
    agent = context.team.agents[AgentRole.DIAGNOSTICIAN]
    try:
        for case in _moments(context, record):
            found = supported(context.team.causes, case)
            kept = tuple(hypothesis for hypothesis in found if hypothesis.told(case) in options)
            if [hypothesis.told(case) for hypothesis in kept] != options:
                continue
            request = diagnosis_request(agent, case, kept)
            if prompt_digest(request.messages) == record.prompt_digest:
                return request, kept
    except ToolError:
        return None
    return None


def _moments(context: Context, record: DecisionRecord) -> Iterator[Case]:
    """What was known when the decision was made, with and without what people had answered by then."""
    shown = set(record.evidence_ids)
    kept = context.journal.incidents.evidence(record.incident_id)
    evidence = tuple(item for item in kept if item.id in shown)
    if len(evidence) < len(shown):
        return
    for answered in (True, False):
        yield context.case_of(record.incident_id, evidence, answered=answered)


def _case(request: ChoiceRequest, right: int, *, topic: str) -> LabelledCase:
    case = LabelledCase.of(request, request.options[right], topic=topic)
    options = tuple(redact_text(option) for option in case.options)
    return case.model_copy(
        update={
            "question": redact_text(case.question),
            "neutral": None if case.neutral is None else redact_text(case.neutral),
            "options": options,
            "answer": options[right],
        }
    )
