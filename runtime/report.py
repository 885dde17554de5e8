"""The report of an incident, built from the journal alone: Markdown for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from watchkeeper.agents.causes import NOTHING_WRONG
from watchkeeper.runtime.approvals import Approval
from watchkeeper.runtime.decisions import DecisionRecord
from watchkeeper.runtime.events import (
    CausesRuledOut,
    Claim,
    DecisionMade,
    DiagnosisMade,
    Escalated,
    Event,
    LifecycleEnded,
    PlanRefused,
    RuledOut,
    SuspiciousText,
    Verified,
    WouldHaveCalled,
    WouldHaveDone,
)
from watchkeeper.runtime.incidents import Incident
from watchkeeper.runtime.journal import Journal, total_usage
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.steps import Step, StepStatus
from watchkeeper.tools.evidence import Evidence


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReportedDiagnosis(_Part):
    """A diagnosis that was made on the way, the last one being the one that stands."""

    cause: str
    subject: str
    status: str
    probability: float
    claims: tuple[Claim, ...]


class Counts(_Part):
    """What the structure did for the model, so that its work is not taken for the model's.

    Attributes:
        first_choice_right: Whether the first cause that the model chose was the one that was confirmed;
            None where none was confirmed.
        hypotheses_tried: Causes that had their turn.
        actions_applied: Effects that were begun.
        rollbacks: Effects that were taken back.
        plans_refused: Plans that lint, policy or the target refused.
        escalations: 1 where the incident was handed to people.
    """

    first_choice_right: bool | None
    hypotheses_tried: int
    actions_applied: int
    rollbacks: int
    plans_refused: int
    escalations: int


class Cost(_Part):
    """What the incident cost.

    Attributes:
        prompt_tokens: Tokens of all prompts.
        cached_tokens: Those of them that were reused.
        generated_tokens: Tokens that were generated.
        model_seconds: Seconds in which the model computed.
        seconds: Seconds from the alert to the end.
        energy_wh: Estimated energy in watt-hours: model seconds times the configured power of the processor.
    """

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    model_seconds: float
    seconds: float
    energy_wh: float


class Report(_Part):
    """Everything about one incident.

    Attributes:
        diagnoses: What was thought on the way, the last one being what stands, unless it was ruled out.
        ruled_out: What was tried before no cause was left that evidence supports; empty if one stands.
    """

    incident: Incident
    outcome: str
    reason: str
    summary: str
    diagnoses: tuple[ReportedDiagnosis, ...]
    ruled_out: tuple[RuledOut, ...] = ()
    evidence: tuple[Evidence, ...]
    steps: tuple[Step, ...]
    approvals: tuple[Approval, ...]
    decisions: tuple[DecisionRecord, ...]
    suspicious: tuple[SuspiciousText, ...]
    timeline: tuple[Event, ...]
    would_have_done: tuple[WouldHaveDone, ...] = ()
    would_have_called: tuple[WouldHaveCalled, ...] = ()
    counts: Counts
    cost: Cost


def build_report(journal: Journal, incident_id: str, *, watts: float) -> Report:
    """Put a report together.

    Args:
        journal: What was written down.
        incident_id: The incident.
        watts: Power of the processor while the model computes.
    """
    incident = journal.incidents.get(incident_id)
    events = journal.incidents.events(incident_id)
    diagnoses = _diagnoses(events)
    decisions = journal.decisions.list(incident_id)
    effects = journal.ledger.list(incident_id)
    escalated = [event for event in events if isinstance(event, Escalated)]
    usage = total_usage(decisions)
    end = incident.ended_at or journal.now()
    confirmed = [d for d in diagnoses if d.status == "confirmed"]
    # An alert that is closed as stale is confirmed by readings, not by a remedy.
    if incident.status.value == "closed" and diagnoses and diagnoses[-1].cause == NOTHING_WRONG.id:
        confirmed = [diagnoses[-1]]
    first = diagnoses[0] if diagnoses else None
    return Report(
        incident=incident,
        outcome=incident.status.value,
        reason=escalated[-1].reason if escalated else _last_reason(events),
        summary=incident.summary,
        diagnoses=diagnoses,
        ruled_out=ruled_out(events),
        evidence=journal.incidents.evidence(incident_id),
        steps=journal.steps.list(incident_id),
        approvals=tuple(reversed(journal.approvals.list(incident_id=incident_id))),
        decisions=decisions,
        suspicious=tuple(event for event in events if isinstance(event, SuspiciousText)),
        timeline=tuple(event for event in events if not isinstance(event, DecisionMade)),
        would_have_done=tuple(event for event in events if isinstance(event, WouldHaveDone)),
        would_have_called=tuple(event for event in events if isinstance(event, WouldHaveCalled)),
        counts=Counts(
            first_choice_right=(
                (first.cause, first.subject) == (confirmed[-1].cause, confirmed[-1].subject)
                if first and confirmed
                else None
            ),
            hypotheses_tried=len({(d.cause, d.subject) for d in diagnoses}),
            actions_applied=len([e for e in effects if e.state is not EffectState.NOT_DONE]),
            rollbacks=len([e for e in effects if e.state is EffectState.ROLLED_BACK]),
            plans_refused=len([event for event in events if isinstance(event, PlanRefused)]),
            escalations=len(escalated),
        ),
        cost=Cost(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            generated_tokens=usage.generated_tokens,
            model_seconds=round(usage.seconds, 2),
            seconds=round((end - incident.opened_at).total_seconds(), 2),
            energy_wh=round(usage.seconds * watts / 3600, 4),
        ),
    )


def record_lines(journal: Journal, incident_id: str, *, verdict: str, reason: str) -> list[str]:
    """Write what happened as short statements from trusted values: what the reporter may sum up."""
    incident = journal.incidents.get(incident_id)
    where = f"service {incident.alert.service}" if incident.alert.service else f"host {incident.alert.host}"
    lines = [f"An alert was raised for {where}."]
    events = journal.incidents.events(incident_id)
    diagnoses = _diagnoses(events)
    if ruled_out(events):
        lines.append("The diagnosis is inconclusive.")
    elif diagnoses:
        last = diagnoses[-1]
        lines.append(f"The diagnosis is {last.cause} of {last.subject} ({last.status}).")
        lines += [f"Evidence: {claim.text.rstrip('.')}." for claim in diagnoses[-1].claims[:3]]
    for step in journal.steps.list(incident_id):
        what = {
            StepStatus.VERIFIED: "was applied and verified",
            StepStatus.ROLLED_BACK: "was applied, did not help and was taken back",
            StepStatus.REFUSED: "was not done",
            StepStatus.OBSERVED: "was only proposed: nothing is applied where Watchkeeper observes",
            StepStatus.FAILED: "failed",
            StepStatus.IN_DOUBT: "is in doubt",
        }.get(step.status)
        if what:
            lines.append(f"The action {step.action} {what}.")
    end = {"resolved": "resolved", "closed": "closed", "escalate": "handed to a person"}[verdict]
    lines.append(f"The incident was {end}: {reason}.")
    return lines


def ruled_out(events: Sequence[Event]) -> tuple[RuledOut, ...]:
    """Return the causes that had their turn in vain, if none is left that could be the root."""
    for event in reversed(events):
        if isinstance(event, DiagnosisMade):
            return ()
        if isinstance(event, CausesRuledOut):
            return event.tried
    return ()


def _diagnoses(events: tuple[Event, ...]) -> tuple[ReportedDiagnosis, ...]:
    found: list[ReportedDiagnosis] = []
    for event in events:
        if isinstance(event, DiagnosisMade):
            claims = event.claims
            if not claims and found:
                claims = found[-1].claims
            found.append(
                ReportedDiagnosis(
                    cause=event.cause,
                    subject=event.subject,
                    status=event.status.value,
                    probability=event.probability,
                    claims=claims,
                )
            )
    return tuple(found)


def _last_reason(events: tuple[Event, ...]) -> str:
    for event in reversed(events):
        if isinstance(event, Verified):
            return event.detail
        if isinstance(event, LifecycleEnded):
            return f"{event.predictor}: {event.outcome}: {event.reason}"
    return ""
