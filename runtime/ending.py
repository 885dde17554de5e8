"""Nodes that end: escalate and report."""

from __future__ import annotations

from typing import Any

from watchkeeper.models.errors import ModelError
from watchkeeper.runtime.budgets import handover
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.events import IncidentClosed, StageEntered
from watchkeeper.runtime.good_configs import keep_after_resolved
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.report import build_report, record_lines
from watchkeeper.runtime.report_markdown import write_report
from watchkeeper.runtime.restoring_records import EXPIRED_BY_RESTORE
from watchkeeper.runtime.state import IncidentState

Update = dict[str, Any]
_STATUS = {
    "resolved": IncidentStatus.RESOLVED,
    "closed": IncidentStatus.CLOSED,
    "escalate": IncidentStatus.ESCALATED,
}


class Ending:
    """The nodes that hand over or sum up."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def escalate(self, state: IncidentState) -> Update:
        """Hand the incident to people, with the reason and what was found, spent and left undone."""
        context, reason = self._context, state.get("reason") or "no reason was given"
        context.journal.record(state["incident"], StageEntered(stage="escalate"), key="stage:escalate")
        labels = context.site.labels(context.incident(state).alert.host)
        told = handover(context, state)
        with context.journal.store.transaction():
            context.journal.record(state["incident"], told, key="escalated")
            context.journal.escalations.start_hand_over(
                state["incident"], context.site.escalation, labels=labels, reason=reason
            )
        return {"verdict": "escalate"}

    def report(self, state: IncidentState) -> Update:
        """Sum up: the end state, the model's summary where it is faithful, and the report's files."""
        context = self._context
        incident = context.incident(state)
        context.journal.record(incident.id, StageEntered(stage="report"), key="stage:report")
        verdict = state["verdict"]
        reason = state.get("reason", "")
        lines = record_lines(context.journal, incident.id, verdict=verdict, reason=reason)
        try:
            summary, decision = context.team.summarize(lines, context.site.names())
            context.journal.decide(incident.id, decision, key="summary")
        except ModelError:
            # The incident has ended; a summary that could not be written must not keep it open.
            summary = ""
        # What is not faithful gives way to the record itself.
        summary = summary or " ".join(lines)
        if verdict != "resolved" and self._changed_nothing(incident.id):
            # A model writes of what was proposed as if it were done.
            summary = f"Watchkeeper changed nothing. {summary}"
        with context.journal.store.transaction():
            context.journal.incidents.set_status(incident.id, _STATUS[verdict], summary=summary)
            context.journal.record(
                incident.id,
                IncidentClosed(status=_STATUS[verdict].value, summary=summary),
                key="closed",
            )
        write_report(
            build_report(context.journal, incident.id, watts=context.settings.cpu_watts),
            context.site.home / "reports",
        )
        if verdict == "resolved":
            keep_after_resolved(context.site, incident.alert)
        return {}

    def _changed_nothing(self, incident_id: str) -> bool:
        """Whether no effect took place, as far as is known: after a restore that is not."""
        journal = self._context.journal
        if any(step.detail == EXPIRED_BY_RESTORE for step in journal.steps.list(incident_id)):
            return False
        return journal.ledger.taken(incident_id) == 0
