"""Incidents that no worker can go on with are handed to people: nobody would ever hear of them otherwise."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy import exists, select

from watchkeeper.runtime import schema
from watchkeeper.runtime.approvals import ApprovalStatus
from watchkeeper.runtime.budgets import effects_left, found_out
from watchkeeper.runtime.checkpoints import Checkpoints
from watchkeeper.runtime.errors import ObserveOnlyError, OperationError
from watchkeeper.runtime.events import Escalated, IncidentClosed
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.jobs import JobStatus
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.report import build_report
from watchkeeper.runtime.report_markdown import write_report
from watchkeeper.runtime.wording import visible
from watchkeeper.tools.redaction import redact_text

if TYPE_CHECKING:
    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.orchestrator import Orchestrator


def hand_over(orchestrator: Orchestrator, incident_id: str, reason: str) -> None:
    """End an incident outside of its graph and call people about it; one that has ended stays as it is.

    Args:
        orchestrator: Who ran it.
        incident_id: The incident.
        reason: Why nobody goes on with it.

    Raises:
        IncidentBusyError: If another process runs it.
        AuditError: If that cannot be audited; it is then not handed over.
        OperationError: If its report cannot be written; a later call writes it.
        StoreError: If it cannot be written.
    """
    journal, site = orchestrator.journal, orchestrator.site
    reason = visible(redact_text(reason))
    with journal.incidents.lock(incident_id):
        with journal.store.transaction():
            incident = journal.incidents.get(incident_id)
            if incident.status.ended:
                _report(orchestrator, incident_id)  # a crash may have come before it was written
                return
            for effect in journal.ledger.in_doubt(incident_id):
                if effect.state is EffectState.INTENDED:
                    with suppress(ObserveOnlyError):
                        orchestrator.changes.ask_in_doubt(effect.step_id)
            told = Escalated(
                reason=reason,
                found=tuple(found_out(journal, incident_id)),
                left=tuple(effects_left(journal, incident_id)),
            )
            journal.record(incident_id, told, key="escalated")
            journal.escalations.start_hand_over(
                incident_id, site.escalation, labels=site.labels(incident.alert.host), reason=reason
            )
            status = IncidentStatus.ESCALATED
            journal.incidents.set_status(incident_id, status, summary=reason)
            journal.record(incident_id, IncidentClosed(status=status.value, summary=reason), key="closed")
            Checkpoints(journal.store).delete_thread(incident_id)
        _report(orchestrator, incident_id)


def _report(orchestrator: Orchestrator, incident_id: str) -> None:
    """Write the report of an incident that has ended, where there is none."""
    folder = orchestrator.site.home / "reports"
    if (folder / f"{incident_id}.md").exists() and (folder / f"{incident_id}.json").exists():
        return
    report = build_report(orchestrator.journal, incident_id, watts=orchestrator.settings.cpu_watts)
    try:
        write_report(report, folder)
    except OSError as error:
        raise OperationError(f"the report of incident {incident_id!r} was not written: {error}") from error


def left_alone(journal: Journal, kind: str) -> dict[str, str]:
    """Return the live incidents whose job of a kind was put aside, each with why.

    One with an open question is not left alone: its answer, or its silence, brings a worker.
    """
    jobs, incidents = schema.jobs, schema.incidents
    live = [status.value for status in JobStatus if status.live]
    others = jobs.alias()
    query = (
        select(incidents.c.id, jobs.c.error)
        .join(jobs, jobs.c.key == f"{kind}:" + incidents.c.id)
        .where(
            jobs.c.status == JobStatus.DEAD.value,
            incidents.c.status.not_in(schema.ENDED),
            ~exists().where(others.c.key == jobs.c.key, others.c.status.in_(live)),
        )
        .order_by(jobs.c.id)
    )
    with journal.store.reading() as connection:
        found = {row.id: str(row.error) for row in connection.execute(query)}
    now = journal.now()
    return {
        name: error
        for name, error in found.items()
        if not any(
            asked.waits(now)
            for asked in journal.approvals.list(incident_id=name, status=ApprovalStatus.PENDING)
        )
    }
