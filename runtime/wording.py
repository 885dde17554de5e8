"""Events in words, one line each: for timelines and terminals."""

from __future__ import annotations

from watchkeeper.runtime.events import (
    Acknowledged,
    ApprovalDecided,
    ApprovalRequested,
    CausePutOff,
    CausesRuledOut,
    Delegated,
    DiagnosisMade,
    EffectDone,
    EffectInDoubt,
    Escalated,
    EscalationEnded,
    EscalationStarted,
    Event,
    EvidenceGathered,
    IncidentClosed,
    IncidentOpened,
    LevelReached,
    LifecycleEnded,
    NotificationLost,
    Notified,
    PlanProposed,
    PlanRefused,
    PolicyDecided,
    RetrainingAsked,
    RolledBack,
    StageJudged,
    SuspiciousText,
    TriageDone,
    Verified,
    WouldHaveCalled,
    WouldHaveDone,
)


def visible(text: str) -> str:
    """Replace what a terminal would obey (control characters, escapes) by a mark."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def describe_event(event: Event) -> str:
    """Say an event in one line; empty for events that a timeline leaves out."""
    match event:
        case IncidentOpened():
            return f"alert: {event.title} ({event.host}{f', {event.service}' if event.service else ''})"
        case TriageDone():
            why = f" ({event.note})" if event.note else ""
            return f"triage: {event.severity.value}{why}; the alert is about {event.summary}"
        case EvidenceGathered():
            found = [finding.text for finding in event.findings]
            found[:-1] = [text.rstrip(".") for text in found[:-1]]
            said = "; ".join(found) or event.error or "nothing unusual"
            return f"{event.evidence_id} {event.fact}: {said}"
        case SuspiciousText():
            return f"suspicious text in {event.evidence_id}, quoted below and not followed"
        case DiagnosisMade():
            sure = f"{event.status.value} (p = {event.probability:.2f})"
            return f"diagnosis: {event.cause} of {event.subject}, {sure}"
        case CausePutOff():
            return f"later: {event.cause}, since {event.reason}"
        case CausesRuledOut():
            return "diagnosis: inconclusive, no cause is left that evidence supports"
        case PlanProposed():
            return f"plan {event.step_id}: {event.summary}"
        case PlanRefused():
            return f"refused: {event.action or 'no action'}: {event.reason}"
        case PolicyDecided():
            return f"policy: {event.decision} (rule {event.rule}, tier {event.tier}): {event.reason}"
        case ApprovalRequested():
            return f"approval {event.approval_id} asked"
        case ApprovalDecided():
            own = ", self-approved" if event.self_approved else ""
            return f"approval {event.approval_id}: {event.answer} by {event.by}{own}"
        case WouldHaveDone():
            return f"only observed: {event.step_id} would have been done: {event.summary} ({event.asked})"
        case EffectDone():
            return f"effect of {event.step_id}: {'done' if event.ok else 'failed'}: {event.detail}"
        case EffectInDoubt():
            return (
                f"effect of {event.step_id} was in doubt after a crash; its probe says {event.answer.value}"
            )
        case Verified():
            return f"verified: {event.detail}"
        case RolledBack():
            return f"rollback of {event.step_id}: {event.detail}"
        case Escalated():
            return f"escalated to a person: {event.reason}"
        case WouldHaveCalled():
            people = ", ".join(event.called)
            return f"only observed: {people} would have been called by policy {event.policy}: {event.subject}"
        case EscalationStarted():
            return f"escalation {event.escalation_id} by policy {event.policy}: {event.subject}"
        case LevelReached():
            again = f", time {event.round + 1}" if event.round else ""
            due = f"; the next call is due at {event.due_at:%H:%M:%S}" if event.due_at else ""
            return f"{event.escalation_id} calls level {event.level}{again}: {', '.join(event.called)}{due}"
        case Notified():
            return f"{event.recipient} was told by {event.channel} ({event.notification_id})"
        case NotificationLost():
            what = "was not told" if event.outcome == "failed" else "was perhaps told, and is not told again,"
            where = f"{event.channel} ({event.notification_id})"
            return f"{event.recipient} {what} by {where}: {event.detail}"
        case Acknowledged():
            why = f": {event.reason}" if event.reason else ""
            return f"{event.by} is on it ({event.escalation_id}){why}"
        case Delegated():
            why = f": {event.reason}" if event.reason else ""
            return f"{event.by} handed {event.escalation_id} to {event.to}{why}"
        case EscalationEnded():
            return f"escalation {event.escalation_id} ended: {event.detail}"
        case RetrainingAsked():
            return f"predictor {event.predictor} is to be retrained"
        case StageJudged():
            return f"{event.stage}: {event.detail}"
        case LifecycleEnded():
            return f"{event.predictor}: {event.outcome}: {event.reason}"
        case IncidentClosed():
            return f"ended: {event.status}"
        case _:
            return ""
