"""Showing an incident while it is handled: one line an event, the model's decisions with their odds."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from watchkeeper.runtime.escalation_rules import EVERYONE, TERMINAL
from watchkeeper.runtime.events import (
    Acknowledged,
    ApprovalDecided,
    ApprovalRequested,
    CausePutOff,
    CausesRuledOut,
    DecisionMade,
    Delegated,
    DiagnosisMade,
    EffectDone,
    Escalated,
    EscalationEnded,
    Event,
    EvidenceGathered,
    FactsChosen,
    IncidentClosed,
    IncidentOpened,
    LevelReached,
    LifecycleEnded,
    NotificationLost,
    Notified,
    PlanProposed,
    PlanRefused,
    PolicyDecided,
    Progress,
    RolledBack,
    StageEntered,
    StageJudged,
    SuspiciousText,
    TriageDone,
    Verified,
    WouldHaveCalled,
    WouldHaveDone,
)
from watchkeeper.runtime.wording import describe_event, visible
from watchkeeper.tools.findings import Severity

_MARK = {Severity.NORMAL: "green", Severity.WARNING: "yellow", Severity.CRITICAL: "red"}
_SHOWN_OPTIONS = 3
_LABEL = 15


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
                known = "; joins the incident that is open for the same" if event.grouped else ""
                self._line("bold", "alert", event.title, event.incident_id + known)
            case TriageDone():
                self._line("cyan", "triage", describe_event(event).removeprefix("triage: "))
            case StageEntered(stage="report"):
                self._line("dim", "report", "the summary is being written")
            case DecisionMade():
                self._decision(event)
            case FactsChosen():
                pass
            case EvidenceGathered():
                worst = max(
                    (f.severity for f in event.findings), key=list(_MARK).index, default=Severity.NORMAL
                )
                said = "; ".join(f.text.rstrip(".") for f in event.findings)
                said = said or event.error or "nothing unusual"
                self._line(_MARK[worst], event.fact, said, event.evidence_id)
            case SuspiciousText():
                self._line(
                    "magenta", "suspicious", f"quoted, not followed: {event.quote!r}", event.evidence_id
                )
            case CausePutOff():
                self._line("cyan", "later", describe_event(event).removeprefix("later: "))
            case DiagnosisMade() | CausesRuledOut():
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
            case WouldHaveDone():
                self._line(
                    "bold magenta", "observed", f"would do: {event.summary} ({event.asked})", event.step_id
                )
            case EffectDone():
                self._line("bold" if event.ok else "red", "effect", event.detail)
            case Verified():
                self._line("green" if event.condition_clear else "red", "verified", event.detail)
            case RolledBack():
                self._line("yellow", "rollback", event.detail)
            case Escalated():
                self._line("bold red", "escalated", event.reason)
            case WouldHaveCalled():
                self._line("bold magenta", "observed", f"would call: {', '.join(event.called)}")
            case LevelReached() if event.called != (EVERYONE,):
                self._line("bold yellow", "call", describe_event(event))
            case NotificationLost():
                self._line("red", "not told", describe_event(event))
            case Notified() if event.channel != TERMINAL:
                self._line("yellow", "told", describe_event(event))
            case Acknowledged() | Delegated():
                self._line("bold yellow", "on it", describe_event(event))
            case EscalationEnded() if event.outcome == "silent":
                self._line("bold red", "silence", event.detail)
            case StageJudged():
                self._line("green" if event.ok else "bold yellow", event.stage, event.detail)
            case LifecycleEnded():
                self._line("bold", "outcome", event.outcome)
            case Progress():
                self._line("dim", "waits", event.text)
            case IncidentClosed():
                color = "bold green" if event.status in {"resolved", "closed"} else "bold red"
                self._line(color, event.status, event.summary)
            case _:
                pass

    def _decision(self, event: DecisionMade) -> None:
        if len(event.options) == 1:
            # Nothing was weighed: what comes of it is shown by the next line.
            return
        ranked = sorted(event.options, key=lambda option: -option.probability)
        shown = "; ".join(f"{o.probability:.0%} {o.text}" for o in ranked[:_SHOWN_OPTIONS])
        more = len(ranked) - _SHOWN_OPTIONS
        self._line("dim", event.role, f"{event.question} {shown}" + (f"; {more} more" if more > 0 else ""))

    def _line(self, style: str, label: str, text: str, note: str = "") -> None:
        said = Text(visible(text))
        if note:
            said.append(f" {visible(note)}", style="dim")
        name = Text(f"{visible(label):>{_LABEL}}", style=style)
        if self._console.is_terminal:
            row = Table.grid(padding=(0, 2))
            row.add_column(no_wrap=True)
            row.add_column(overflow="fold")
            row.add_row(name, said)
            self._console.print(row)
        else:
            # One event, one line.
            self._console.print(name.append("  ", style="none").append_text(said), soft_wrap=True)
