"""The work on training jobs: begun where there is room, watched, gone on with after a crash, and ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from watchkeeper.runtime.alerts import Alert, Condition
from watchkeeper.runtime.errors import StoreError
from watchkeeper.runtime.incident_jobs import submit as open_incident
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.training import TRAIN, Admission, TrainingJobs, train_key
from watchkeeper.runtime.training_room import Room
from watchkeeper.runtime.worker import Handler, LaterError, StoppedError, Task, unfailing
from watchkeeper.tools.errors import ClusterError, JobFolderError
from watchkeeper.tools.findings import FindingKind, Severity
from watchkeeper.tools.training import processes
from watchkeeper.tools.training.folder import Ending, JobFolder
from watchkeeper.tools.training.process import GRACE_SECONDS, supervise
from watchkeeper.tools.training.ray_jobs import stop_on_ray, supervise_on_ray
from watchkeeper.tools.training.record import TrainingJob, TrainingStatus

BY = "watchkeeper"
"""In whose name incidents of failed jobs are opened."""

_WAIT_SECONDS = 2.0
_CLUSTER_SECONDS = 10.0
"""Time until a cluster that did not stop a job is told again."""
_LOOK_SECONDS = 0.5
_LONGEST_PAUSE = 300.0


class TrainingRuns:
    """The handler of training jobs.

    Args:
        journal: Where they and their incidents are kept.
        room: What there is for them on this machine.
        host: Name of this machine in the inventory, on which incidents are opened; None opens none.
        ray_address: Of the dashboard of a Ray cluster, for jobs that are to run there; empty for none.
        grace: Seconds that a job's processes are given to end by themselves.
        show: Told in a line what happens to jobs.
    """

    def __init__(
        self,
        journal: Journal,
        room: Room,
        *,
        host: str | None,
        ray_address: str = "",
        grace: float = GRACE_SECONDS,
        show: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.jobs = TrainingJobs(journal.store, journal.home, journal.audit)
        self._journal = journal
        self._room = room
        self._host = host
        self._ray_address = ray_address
        self._grace = grace
        self._show = unfailing(show)

    def handlers(self) -> dict[str, Handler]:
        """Return what a worker does, by kind of job."""
        return {TRAIN: self}

    def sweep(self) -> None:
        """End jobs whose work the queue has put aside: nobody would ever go on with them.

        What may still run of jobs that are over is given to whoever works next.
        """
        # What is looked at and what is written are one: another worker may be completing the job right now.
        with self._journal.store.transaction():
            for job in self.jobs.given_up():
                self._fail(job, "crashed", "whoever worked on it ended too often without a word")
            for job in self.jobs.left_behind():
                self.jobs.have_ended(job.id)

    def __call__(self, task: Task) -> None:
        """Do an attempt of a job."""
        job_id = str(task.job.body["training"])
        job = self.jobs.find(job_id)
        if job is None:
            return
        if not job.status.live:
            self._end_what_is_left(task, job)
            return
        alone = not self._journal.store.shared
        never = "" if job.spec.runs_on == "ray" else self._room.never_fits(job, alone=alone)
        if never:
            ending = Ending(attempt=job.attempts, how="spec", reason=never, left=job.held)
            self._end(task, job, ending)
            return
        if job.attempts > job.spec.retries:
            reason = f"whoever ran it ended in each of {job.attempts} attempts"
            ending = Ending(attempt=job.attempts, how="crashed", reason=reason, left=job.held)
            self._end(task, job, ending)
            return
        waits = self.jobs.begin(task.claim, self._room.machine, self._admit)
        if waits:
            raise LaterError(_WAIT_SECONDS, waits)
        job = self.jobs.get(job_id)
        if job.status is not TrainingStatus.RUNNING:
            return
        self._show(f"{job.id} ({job.name}): attempt {job.attempts} begins")
        self._end(task, job, self._attempt(task, job))

    def _attempt(self, task: Task, job: TrainingJob) -> Ending:
        try:
            folder = JobFolder.create(self.jobs.folder(job.id).path, job.spec)
            wanted = _Wanted(self.jobs, task, job)
            if job.spec.runs_on == "ray":
                return supervise_on_ray(folder, job.attempts, address=job.cluster, wanted=wanted)
            return supervise(folder, job.attempts, gpus=job.gpus, wanted=wanted, grace=self._grace)
        except JobFolderError as error:
            return Ending(attempt=job.attempts, how="no-space", reason=str(error))

    def _end_what_is_left(self, task: Task, job: TrainingJob) -> None:
        """End what may still run of a job that is over: whoever ran it went silent.

        Raises:
            LaterError: If its cluster does not do it now.
        """
        if job.held and job.machine == self._room.machine:
            processes.kill(processes.marked(str(self.jobs.folder(job.id).path.absolute())))
        if job.cluster:
            try:
                stop_on_ray(self.jobs.folder(job.id), address=job.cluster)
            except ClusterError as error:
                self._show(f"{job.id} ({job.name}): not stopped yet: {error}")
                raise LaterError(_CLUSTER_SECONDS, str(error)) from error
            self._show(f"{job.id} ({job.name}): nothing of it is left on the Ray cluster at {job.cluster!r}")
        with self._journal.store.transaction():
            task.complete()
            now = self.jobs.find(job.id)
            if now is None:
                return
            if now.status.live:
                # It was resumed meanwhile.
                task.jobs.add(TRAIN, {"training": job.id}, key=train_key(job.id))
            else:
                self.jobs.let_go(job.id)

    def _admit(self, job: TrainingJob, running: list[TrainingJob], taken: frozenset[str]) -> Admission:
        if job.spec.runs_on == "ray":
            return Admission(cluster=self._ray_address or job.cluster)
        here = [other for other in running if other.spec.runs_on == "here"]
        waits = self._room.waits(job, here, lambda other: self.jobs.folder(other).progress.memory)
        if waits:
            return Admission(waits=waits)
        gpus = self._room.share_gpus(job, taken)
        return Admission(waits=gpus) if isinstance(gpus, str) else Admission(gpus=gpus)

    def _end(self, task: Task, job: TrainingJob, ending: Ending) -> None:
        """Write what came of an attempt, together with what follows from it."""
        later: Exception | None = None
        with self._journal.store.transaction():
            task.jobs.renew(task.claim)
            if not ending.left:
                self.jobs.let_go(job.id)
            now = self.jobs.get(job.id)
            if now.generation != job.generation or not now.status.live:
                task.complete()
                if now.status.live:
                    task.jobs.add(TRAIN, {"training": job.id}, key=train_key(job.id))
                self.jobs.have_ended(job.id)
            elif ending.how == "done":
                task.complete()
                self.jobs.end(job.id, TrainingStatus.DONE)
            elif ending.how == "stopped":
                self.jobs.put_back(job.id, reason="stopped; it goes on where a worker is", counts=False)
                later = StoppedError(ending.reason)
            elif ending.may_pass and now.attempts <= job.spec.retries:
                pause = min(_LONGEST_PAUSE, 2.0**now.attempts)
                self.jobs.put_back(job.id, reason=f"{ending.reason}; it is begun again", counts=True)
                later = LaterError(pause, ending.reason)
            else:
                task.complete()
                self._fail(now, ending.how, ending.reason)
        self._show(f"{job.id} ({job.name}): {ending.how}{f': {ending.reason}' if ending.reason else ''}")
        if later is not None:
            raise later

    def _fail(self, job: TrainingJob, how: str, reason: str) -> None:
        """Say that a job failed, and open an incident, or group it into the one that is live."""
        self.jobs.end(job.id, TrainingStatus.FAILED, how=how, reason=reason)
        if self._host is None:
            return
        incident = open_incident(self._journal, failure_alert(job, how, reason, host=self._host), by=BY)
        self.jobs.note_incident(job.id, incident.id)


class _Wanted:
    """Whether an attempt is still wanted; the store is asked only so often."""

    def __init__(self, jobs: TrainingJobs, task: Task, job: TrainingJob) -> None:
        self._jobs = jobs
        self._task = task
        self._job = job
        self._look_at = 0.0

    def __call__(self) -> bool:
        if self._task.stopping.is_set():
            return False
        if time.monotonic() < self._look_at:
            return True
        self._look_at = time.monotonic() + _LOOK_SECONDS
        try:
            now = self._jobs.find(self._job.id)
        except StoreError:
            return True
        same = now is not None and now.generation == self._job.generation
        return same and now is not None and now.status is TrainingStatus.RUNNING


def failure_alert(job: TrainingJob, how: str, reason: str, *, host: str) -> Alert:
    """Return the alert of a job that failed: one for each job, firing while it is failed."""
    return Alert(
        title=f"training job {job.name} ({job.id}) failed: {how}",
        host=host,
        severity=Severity.WARNING,
        condition=Condition(
            fact="job.status", arguments={"job": job.id}, firing=(FindingKind.JOB_FAILED.value,)
        ),
        description=reason,
        labels={"job": job.id, "how": how},
    )
