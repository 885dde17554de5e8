"""Showing an incident while it is handled: one line an event, the model's decisions with their odds."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from watchkeeper.runtime.events import (
    ApprovalDecided,
    ApprovalRequested,
    DecisionMade,
    DiagnosisMade,
    EffectDone,
    Escalated,
    Event,
    EvidenceGathered,
    FactsChosen,
    IncidentClosed,
    IncidentOpened,
    PlanProposed,
    PlanRefused,
    PolicyDecided,
    RolledBack,
    SuspiciousText,
    TriageDone,
    Verified,
)
from watchkeeper.runtime.wording import describe_event, visible
from watchkeeper.tools.findings import Severity

_MARK = {Severity.NORMAL: "green", Severity.WARNING: "yellow", Severity.CRITICAL: "red"}
_SHOWN_OPTIONS = 3


class EventView:
    """Writes events to a terminal, or to plain lines where there is none.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, event: Event) -> None:
        """Write an event."""
        match event:
            case IncidentOpened():
                self._line("bold", "alert", f"{event.title}", event.incident_id)
            case TriageDone():
                self._line("cyan", "triage", f"{event.severity.value}: {event.summary}")
            case DecisionMade():
                self._decision(event)
            case FactsChosen():
                pass
            case EvidenceGathered():
                worst = max(
                    (f.severity for f in event.findings), key=list(_MARK).index, default=Severity.NORMAL
                )
                said = " ".join(f.text for f in event.findings) or event.error or "nothing unusual"
                self._line(_MARK[worst], f"{event.evidence_id} {event.fact}", said)
            case SuspiciousText():
                self._line(
                    "magenta", "suspicious", f"quoted, not followed: {event.quote!r}", event.evidence_id
                )
            case DiagnosisMade():
                self._line("bold cyan", "diagnosis", describe_event(event).removeprefix("diagnosis: "))
            case PlanProposed():
                self._line("blue", "plan", f"{event.summary} [{event.reversibility.value}]", event.step_id)
            case PlanRefused():
                self._line("yellow", "refused", f"{event.action or 'no action'}: {event.reason}")
            case PolicyDecided():
                self._line("blue", "policy", f"{event.decision} (tier {event.tier}): {event.reason}")
            case ApprovalRequested():
                self._line(
                    "bold yellow",
                    "approval",
                    f"{event.approval_id} waits: watchkeeper approvals show {event.approval_id}",
                )
            case ApprovalDecided():
                self._line("bold yellow", "answer", describe_event(event))
            case EffectDone():
                self._line("bold" if event.ok else "red", "effect", event.detail)
            case Verified():
                self._line("green" if event.condition_clear else "red", "verified", event.detail)
            case RolledBack():
                self._line("yellow", "rollback", event.detail)
            case Escalated():
                self._line("bold red", "escalated", event.reason)
            case IncidentClosed():
                color = "bold green" if event.status in {"resolved", "closed"} else "bold red"
                self._line(color, event.status, event.summary)
            case _:
                pass

    def _decision(self, event: DecisionMade) -> None:
        ranked = sorted(event.options, key=lambda option: -option.probability)
        shown = "; ".join(f"{o.probability:.0%} {o.text}" for o in ranked[:_SHOWN_OPTIONS])
        more = len(ranked) - _SHOWN_OPTIONS
        self._line("dim", event.role, f"{event.question} {shown}" + (f"; {more} more" if more > 0 else ""))

    def _line(self, style: str, label: str, text: str, note: str = "") -> None:
        end = f" [dim]{escape(visible(note))}[/dim]" if note else ""
        self._console.print(
            f"[{style}]{escape(visible(label)):>14}[/{style}]  {escape(visible(text))}{end}", highlight=False
        )
