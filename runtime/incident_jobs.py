"""Incidents as jobs: submitted once, run by whichever worker is free, and gone on with after an answer.

There is one live job of an incident at most. While a question to people is open it is a timer that is due
when the question expires, and an answer makes it due at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import JsonValue

from watchkeeper.models.errors import BusyError, RemoteError
from watchkeeper.runtime.approvals import ApprovalStatus
from watchkeeper.runtime.errors import IncidentBusyError, OperationError, StoreError
from watchkeeper.runtime.events import DecisionMade, EffectDone, EvidenceGathered, StageEntered, StageJudged
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.worker import LaterError, StoppedError, Task, failure, unfailing
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

_OUTAGE_SECONDS = 15.0
"""Time until an incident is tried again whose model, or whose store, could not be reached."""

_OUT_SINCE = "out_since"
_LEFT_SINCE = "left_since"
"""In the body of the job: since when that is so."""

_WORK = (StageEntered, StageJudged, EvidenceGathered, DecisionMade, EffectDone)
"""What happens where an incident gets on."""

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
        jobs, key = Jobs(journal.store), run_key(incident.id)
        job = jobs.add(RUN, {"incident": incident.id}, key=key)
        if job.due_at > journal.store.now() + timedelta(days=1):
            jobs.hurry(key)  # that of a clock that was ahead would wait for its time
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
        say: Told once of each incident that is left to others, waits or is handed over, for people.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        *,
        show: Callable[[Event], object] = lambda _: None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._orchestrator = orchestrator
        self._show = unfailing(show)
        self._say = unfailing(say)
        self._told: dict[str, str] = {}

    def __call__(self, task: Task) -> None:
        """Run an incident to its end, or to a question: then the job ends, and a timer takes its place."""
        incident_id = str(task.job.body["incident"])
        began = self._orchestrator.journal.now()
        try:
            self._run(task, incident_id)
        except (RemoteError, BusyError, StoreError) as error:
            self._wait_out(task, incident_id, error, anew=self._worked(incident_id, began))
        else:
            self._told.pop(incident_id, None)

    def _run(self, task: Task, incident_id: str) -> None:
        orchestrator = self._orchestrator
        try:
            orchestrator.site.inventory.host(orchestrator.journal.incidents.get(incident_id).alert.host)
        except UnknownHostError as error:
            raise self._left(task, incident_id, error) from error
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

    def sweep(self) -> None:
        """Hand incidents to people whose jobs were put aside: nobody would ever go on with them."""
        from watchkeeper.runtime.handing_over import left_alone

        for incident_id, error in left_alone(self._orchestrator.journal, RUN).items():
            try:
                self._hand_over(incident_id, f"no worker could go on with it: {error}")
            except IncidentBusyError:
                continue
            except OperationError as failed:
                self._say(f"incident {incident_id!r} could not be handed over: {failed}")

    def _worked(self, incident_id: str, since: datetime) -> bool:
        """Whether an incident got on since a moment: an outage that ended counts no more."""
        with suppress(StoreError):
            events = self._orchestrator.journal.incidents.events(incident_id)
            return any(event.at >= since and isinstance(event, _WORK) for event in events)
        return False

    def _wait_out(self, task: Task, incident_id: str, error: Exception, *, anew: bool) -> None:
        """Wait for a model or a store that is out of reach, and hand the incident over after long enough."""
        limit, now = self._orchestrator.settings.outage_seconds, self._orchestrator.journal.now()
        known = None if anew else task.job.body.get(_OUT_SINCE)
        since = datetime.fromisoformat(str(known)) if known else now
        end = since + timedelta(seconds=limit)
        if now < end:
            said = f"incident {incident_id!r} waits, at most until {end:%H:%M:%S} UTC: {failure(error)}"
            body: dict[str, JsonValue] = {"incident": incident_id, _OUT_SINCE: since.isoformat()}
            raise LaterError(_OUTAGE_SECONDS, self._tell(incident_id, said), body) from error
        try:
            self._hand_over(incident_id, f"nothing could be done for {limit:g} s: {failure(error)}")
        except IncidentBusyError as busy:
            raise LaterError(_BUSY_SECONDS, str(busy)) from busy

    def _hand_over(self, incident_id: str, reason: str) -> None:
        from watchkeeper.runtime.handing_over import hand_over

        hand_over(self._orchestrator, incident_id, reason)
        self._told.pop(incident_id, None)
        self._say(f"incident {incident_id!r} was handed to people: {reason}")

    def _tell(self, incident_id: str, said: str) -> str:
        if self._told.get(incident_id) != said:
            self._told[incident_id] = said
            self._say(said)
        return said

    def _left(self, task: Task, incident_id: str, error: UnknownHostError) -> LaterError:
        """Leave an incident to workers on other machines, which may know its host; people must hear of it."""
        journal = self._orchestrator.journal
        said = self._tell(
            incident_id, f"incident {incident_id!r} waits for a worker that knows its host: {error}"
        )
        now, known = journal.store.now(), task.job.body.get(_LEFT_SINCE)
        since = datetime.fromisoformat(str(known)) if known else now
        if self._worked(incident_id, since):
            since = now
        if now - since >= timedelta(seconds=self._orchestrator.settings.unclaimed_seconds):
            journal.escalations.start_unclaimed(
                incident_id, self._orchestrator.site.escalation, reason=str(error)
            )
        body = {**task.job.body, _LEFT_SINCE: since.isoformat()}
        return LaterError(_ELSEWHERE_SECONDS, said, body)

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
                body: dict[str, JsonValue] = {"incident": incident_id}
                raise LaterError(_PAUSE_SECONDS, f"incident {incident_id!r} waits for no person", body)
            task.complete()
            if ended:
                return
            due = now = journal.store.now()
            if open_questions and not hurried:
                expiry = min(question.expires_at for question in open_questions)
                due = max(expiry, now + timedelta(seconds=1))
            task.jobs.add(RUN, {"incident": incident_id}, key=run_key(incident_id), due=due)
