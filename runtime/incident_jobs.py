"""Incidents as jobs: submitted once, run by whichever worker is free, and gone on with after an answer.

There is one live job of an incident at most. While a question to people is open it is a timer that is due
when the question expires, and an answer makes it due at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from watchkeeper.runtime.approvals import ApprovalStatus
from watchkeeper.runtime.errors import IncidentBusyError
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.worker import LaterError, StoppedError, Task
from watchkeeper.tools.errors import UnknownHostError

if TYPE_CHECKING:
    from watchkeeper.runtime.alerts import Alert
    from watchkeeper.runtime.events import Event
    from watchkeeper.runtime.incidents import Incident
    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.orchestrator import Orchestrator
    from watchkeeper.runtime.store import Store

RUN = "incident.run"
"""Kind of the job that runs an incident from where it stands to its end or to a question."""

_BUSY_SECONDS = 2.0
"""Time until an incident that another process runs is tried again."""

_ELSEWHERE_SECONDS = 5.0
"""Time until an incident of a host that this worker does not know is looked at again."""

_PAUSE_SECONDS = 1.0
"""Time until an incident is looked at again that waits for no person, such as for a training job."""


def run_key(incident_id: str) -> str:
    """Return the key of the job of an incident."""
    return f"{RUN}:{incident_id}"


def submit(journal: Journal, alert: Alert, *, by: str) -> Incident:
    """Open an incident, or group the alert into a live one, and give it to the workers, as one.

    Whoever submits it may not approve what is asked for it: the workers ask in their place.

    Args:
        journal: Where it is written.
        alert: The alert.
        by: Who submits it.

    Raises:
        HaltedError: If everything was stopped.
        StoreError: If it cannot be written.
        AuditError: If the audit log cannot be written; nothing is opened then.
    """
    with journal.store.transaction():
        journal.halts.check()
        incident = journal.open(alert, by=by)
        Jobs(journal.store).add(RUN, {"incident": incident.id}, key=run_key(incident.id))
    return incident


def go_on(store: Store, incident_id: str) -> None:
    """Have workers go on at once with an incident that was given to them; others are left alone.

    Part of the caller's transaction, such as the one that keeps an answer.
    """
    jobs = Jobs(store)
    key = run_key(incident_id)
    with store.transaction():
        if not jobs.hurry(key) and jobs.find(key) is not None:
            jobs.add(RUN, {"incident": incident_id}, key=key)


class IncidentRuns:
    """The handler of jobs that run incidents.

    Args:
        orchestrator: Runs them.
        show: Told every new event.
        say: Told once of each incident that is left to others, for people.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        *,
        show: Callable[[Event], object] = lambda _: None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._orchestrator = orchestrator
        self._show = show
        self._say = say
        self._left: set[str] = set()

    def __call__(self, task: Task) -> None:
        """Run an incident to its end, or to a question: then the job ends, and a timer takes its place."""
        incident_id = str(task.job.body["incident"])
        orchestrator = self._orchestrator
        try:
            orchestrator.site.inventory.host(orchestrator.journal.incidents.get(incident_id).alert.host)
        except UnknownHostError as error:
            raise LaterError(_ELSEWHERE_SECONDS, self._leave(incident_id, error)) from error
        self._left.discard(incident_id)
        orchestrator.journal.escalations.claimed(incident_id)
        task.on_stop(lambda: orchestrator.stop(incident_id))
        known = orchestrator.journal.incidents.events(incident_id)
        before = known[-1].seq if known else 0
        try:
            for event in orchestrator.resume(incident_id, wait=False):
                if event.seq > before:
                    self._show(event)
                if task.stopping.is_set():
                    break
        except IncidentBusyError as error:
            raise LaterError(_BUSY_SECONDS, str(error)) from error
        self._end(task, incident_id)

    def _leave(self, incident_id: str, error: UnknownHostError) -> str:
        """Leave an incident to workers on other machines, which may know its host; people must hear of it."""
        journal = self._orchestrator.journal
        said = f"incident {incident_id!r} waits for a worker that knows its host: {error}"
        if incident_id not in self._left:
            self._left.add(incident_id)
            self._say(said)
        waited = journal.store.now() - journal.incidents.get(incident_id).opened_at
        if waited >= timedelta(seconds=self._orchestrator.settings.unclaimed_seconds):
            journal.escalations.start_unclaimed(
                incident_id, self._orchestrator.site.escalation, reason=str(error)
            )
        return said

    def _end(self, task: Task, incident_id: str) -> None:
        journal = self._orchestrator.journal
        with journal.store.transaction():
            hurried = task.jobs.hurried(task.claim)
            open_questions = journal.approvals.list(incident_id=incident_id, status=ApprovalStatus.PENDING)
            ended = journal.incidents.get(incident_id).status.ended
            if task.stopping.is_set() and not ended and not open_questions:
                raise StoppedError(f"incident {incident_id!r} was stopped half-way")
            if not (ended or open_questions or hurried):
                # The same job again: a training that takes a day must not leave a row for each second of it.
                raise LaterError(_PAUSE_SECONDS, f"incident {incident_id!r} waits for no person")
            task.complete()
            if ended:
                return
            due = now = journal.store.now()
            if open_questions and not hurried:
                expiry = min(question.expires_at for question in open_questions)
                due = max(expiry, now + timedelta(seconds=1))
            task.jobs.add(RUN, {"incident": incident_id}, key=run_key(incident_id), due=due)
