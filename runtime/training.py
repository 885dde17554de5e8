"""Training jobs in the store: submitted, begun, ended, cancelled and resumed, each as one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from sqlalchemy import Row, delete, select, update

from watchkeeper.runtime import schema
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.clock import short_id
from watchkeeper.runtime.jobs import Claim, Jobs, JobStatus
from watchkeeper.runtime.store import Store
from watchkeeper.tools.errors import JobSpecError, JobStateError
from watchkeeper.tools.redaction import redact_text
from watchkeeper.tools.text import counted
from watchkeeper.tools.training.folder import JobFolder, JobProgress
from watchkeeper.tools.training.gpus import Gpus, gpus_here
from watchkeeper.tools.training.record import TrainingJob, TrainingStatus
from watchkeeper.tools.training.spec import JobLimits, JobSpec

TRAIN = "training.run"
"""Kind of the job of the queue that trains."""

FOLDER = "training"
"""Folder in the home with a folder for each job."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether there is room for an attempt.

    Attributes:
        waits: Why it must wait, or nothing.
        gpus: GPUs that it gets.
        cluster: Address of the Ray cluster on which it is to run; empty where it runs here.
    """

    waits: str = ""
    gpus: Sequence[str] = ()
    cluster: str = ""


Admit = Callable[[TrainingJob, list[TrainingJob], frozenset[str]], Admission]
"""Told a job, those that run on its machine, and the GPUs that are taken there; says whether it may begin."""

_ID_LENGTH = 6
_LIVE = tuple(status.value for status in TrainingStatus if status.live)


def train_key(job_id: str) -> str:
    """Return the key of the work on a training job in the queue."""
    return f"{TRAIN}:{job_id}"


class TrainingJobs:
    """Training jobs in the store, and their folders in the home.

    Every method that writes is part of the caller's transaction where there is one.

    Args:
        store: Where they are kept.
        home: Folder of Watchkeeper's state.
        audit: Where it is written who submitted, cancelled and resumed what.
        gpus: Tells the GPUs of this machine; asked only about jobs that want some.
    """

    def __init__(self, store: Store, home: Path, audit: AuditLog, *, gpus: Gpus = gpus_here) -> None:
        self._store = store
        self._gpus = gpus
        self._home = home
        self._audit = audit
        self._queue = Jobs(store)

    @property
    def shared(self) -> bool:
        """Whether workers on other machines may do them."""
        return self._store.shared

    def refusal(self, spec: JobSpec) -> str:
        """Say why a job cannot be submitted here, or nothing: no worker of this machine could ever begin it.

        Where the store is one of several machines, another one may have what it wants.
        """
        wanted = spec.limits.gpus
        if not wanted or spec.runs_on == "ray" or self._store.shared:
            return ""
        there = len(self._gpus())
        return "" if wanted <= there else lacks_gpus(wanted, there)

    def submit(self, spec: JobSpec, *, by: str, key: str | None = None) -> TrainingJob:
        """Submit a job; where one was submitted under the key, that one is returned.

        Raises:
            JobSpecError: If this machine lacks the GPUs that it wants.
            JobFolderError: If its folder cannot be made; nothing is submitted then.
            StoreError: If it cannot be written.
            AuditError: If the audit log cannot be written; nothing is submitted then.
        """
        refused = self.refusal(spec)
        if refused:
            raise JobSpecError(f"job {spec.name!r}: {refused}")
        job_id = f"JOB-{short_id(_ID_LENGTH)}"
        folder = JobFolder.create(self._path(job_id), spec)
        with self._store.transaction() as connection:
            # No other transaction writes meanwhile.
            known = None if key is None else self.submitted_under(key)
            if known is not None:
                folder.remove()
                return known
            connection.execute(
                schema.training_jobs.insert().values(
                    id=job_id,
                    key=key,
                    name=spec.name,
                    status=TrainingStatus.QUEUED.value,
                    spec=spec.model_dump_json(),
                    submitted_by=by,
                    created_at=self._store.now(),
                    attempts=0,
                    generation=1,
                )
            )
            self._queue.add(TRAIN, {"training": job_id}, key=train_key(job_id))
            self._tell("training-submitted", job_id, by, trainer=spec.trainer, spec=spec.digest)
            return self.get(job_id)

    def get(self, job_id: str) -> TrainingJob:
        """Return a job.

        Raises:
            JobStateError: If there is none of that id.
        """
        found = self.find(job_id)
        if found is None:
            raise JobStateError(f"there is no training job {job_id!r}: see `watchkeeper jobs list`")
        return found

    def find(self, job_id: str) -> TrainingJob | None:
        """Return a job, or None."""
        table = schema.training_jobs
        with self._store.reading() as connection:
            row = connection.execute(select(table).where(table.c.id == job_id)).first()
        return None if row is None else _job(row)

    def submitted_under(self, key: str) -> TrainingJob | None:
        """Return the job that was submitted under a key, or None."""
        table = schema.training_jobs
        with self._store.reading() as connection:
            row = connection.execute(select(table).where(table.c.key == key)).first()
        return None if row is None else _job(row)

    def list(self, *, status: TrainingStatus | None = None, limit: int = 100) -> tuple[TrainingJob, ...]:
        """Return jobs, the newest first."""
        table = schema.training_jobs
        query = select(table).order_by(table.c.created_at.desc(), table.c.id).limit(limit)
        if status is not None:
            query = query.where(table.c.status == status.value)
        with self._store.reading() as connection:
            return tuple(_job(row) for row in connection.execute(query))

    def folder(self, job_id: str) -> JobFolder:
        """Return a job's folder."""
        return JobFolder(self._path(job_id))

    def progress(self, job_id: str) -> tuple[JobProgress, dict[str, float]]:
        """Return how far a job is, and its last metrics."""
        folder = self.folder(job_id)
        metrics = folder.metrics()
        return folder.progress, metrics[-1] if metrics else {}

    def cancel(self, job_id: str, *, by: str, reason: str = "") -> TrainingJob:
        """Cancel a job; one that has ended is returned as it is.

        Whoever runs it ends its processes within seconds; where nobody does any more, whoever works next ends
        what is left of it.

        Raises:
            JobStateError: If there is none of that id.
        """
        with self._store.transaction():
            job = self.get(job_id)
            if not job.status.live:
                return job
            why = f"cancelled by {by}" + (f": {reason}" if reason else "")
            self._change(
                job_id, status=TrainingStatus.CANCELLED.value, reason=why, ended_at=self._store.now()
            )
            queued = self._queue.find(train_key(job_id))
            if job.held:
                self._have_ended(job_id)
            elif queued is not None and queued.status is JobStatus.QUEUED:
                self._queue.cancel(train_key(job_id))
            self._tell("training-cancelled", job_id, by, reason=reason)
            return self.get(job_id)

    def resume(
        self, job_id: str, *, by: str, attended: bool = False, limits: JobLimits | None = None
    ) -> TrainingJob:
        """Have a failed or cancelled job go on from its last checkpoint; a live one is returned as it is.

        Args:
            job_id: The job.
            by: Who resumes it.
            attended: Whether a person does, so that agents may again try it by themselves.
            limits: What it may use from now on, where that is not as before.

        Raises:
            JobStateError: If there is none of that id, or it is done, or runs within other limits.
            JobSpecError: If this machine lacks the GPUs that it is to have.
        """
        with self._store.transaction():
            job = self.get(job_id)
            if job.status.live and limits not in (None, job.spec.limits):
                raise JobStateError(
                    f"training job {job_id!r} is {job.status.value}: cancel it to resume it within other "
                    "limits"
                )
            if job.status.live:
                return job
            if job.status is TrainingStatus.DONE:
                raise JobStateError(f"training job {job_id!r} is done: submit another one")
            told: dict[str, JsonValue] = {}
            if limits not in (None, job.spec.limits):
                spec = job.spec.model_copy(update={"limits": limits})
                refused = self.refusal(spec)
                if refused:
                    raise JobSpecError(f"job {spec.name!r}: {refused}")
                self._change(job_id, spec=spec.model_dump_json())
                told = {"limits": spec.limits.model_dump(mode="json"), "spec": spec.digest}
            self._change(
                job_id,
                status=TrainingStatus.QUEUED.value,
                how="",
                reason="",
                ended_at=None,
                attempts=0,
                generation=job.generation + 1,
                unattended=0 if attended else job.unattended + 1,
            )
            self._queue.add(TRAIN, {"training": job_id}, key=train_key(job_id))
            self._tell("training-resumed", job_id, by, **told)
            return self.get(job_id)

    def begin(self, claim: Claim, machine: str, admit: Admit) -> str:
        """Begin an attempt, unless there is no room for it; both within one transaction.

        Args:
            claim: The work in the queue.
            machine: Where it is to run.
            admit: Whether there is room.

        Returns:
            Why it must wait, or nothing.

        Raises:
            FencedError: If the work was taken over.
        """
        job_id = str(claim.job.body["training"])
        table = schema.training_jobs
        with self._store.transaction() as connection:
            self._queue.renew(claim)
            job = self.get(job_id)
            if not job.status.live:
                return ""
            here = select(table).where(
                (table.c.status == TrainingStatus.RUNNING.value) | (table.c.gpus != ""),
                table.c.machine == machine,
                table.c.id != job_id,
            )
            others = [_job(row) for row in connection.execute(here)]
            running = [other for other in others if other.status is TrainingStatus.RUNNING]
            # One that was cancelled has its GPUs until its processes are gone.
            taken = frozenset(gpu for other in others for gpu in other.gpus)
            admitted = admit(job, running, taken)
            if admitted.waits:
                self._change(job_id, status=TrainingStatus.QUEUED.value, reason=admitted.waits)
                return admitted.waits
            self._change(
                job_id,
                status=TrainingStatus.RUNNING.value,
                reason="",
                machine=machine,
                attempts=job.attempts + 1,
                started_at=job.started_at or self._store.now(),
                gpus=",".join(admitted.gpus),
                cluster=admitted.cluster,
            )
            return ""

    def let_go(self, job_id: str) -> None:
        """Say that nothing of a job runs any more: its GPUs are free, and no cluster has it."""
        self._change(job_id, gpus="", cluster="")

    def end(self, job_id: str, status: TrainingStatus, *, how: str = "", reason: str = "") -> TrainingJob:
        """Say that a job was done or failed; to be called where its work in the queue is completed.

        What may still run of it is ended by whoever works next.
        """
        with self._store.transaction():
            if self.get(job_id).held:
                self._have_ended(job_id)
            # It may quote the end of a log, and a log may hold anything.
            reason = redact_text(reason)
            self._change(job_id, status=status.value, how=how, reason=reason, ended_at=self._store.now())
            self._tell(f"training-{status.value}", job_id, "watchkeeper", reason=reason)
            return self.get(job_id)

    def put_back(self, job_id: str, *, reason: str = "", counts: bool) -> None:
        """Have an attempt that was cut off followed by another one; it ``counts`` or does not."""
        with self._store.transaction():
            job = self.get(job_id)
            self._change(
                job_id,
                status=TrainingStatus.QUEUED.value,
                reason=redact_text(reason),
                attempts=job.attempts if counts else max(0, job.attempts - 1),
            )

    def remove(self, job_id: str, *, by: str) -> None:
        """Remove a job that has ended, with its folder: checkpoints, artefacts and all.

        Raises:
            JobStateError: If there is none of that id, or it is still to be done or being ended.
        """
        folder = self.folder(job_id)
        with self._store.transaction() as connection:
            job = self.get(job_id)
            work = self._queue.find(train_key(job_id))
            if job.cluster and not job.status.live:
                raise JobStateError(
                    f"training job {job_id!r}: something of it may run on the Ray cluster at "
                    f"{job.cluster!r}; remove it once a worker stopped it there"
                )
            if job.status.live or (work is not None and work.status.live):
                raise JobStateError(
                    f"training job {job_id!r} is {job.status.value}: cancel it, then remove it"
                )
            table = schema.training_jobs
            connection.execute(delete(table).where(table.c.id == job_id))
            self._tell("training-removed", job_id, by)
        if folder.path.is_dir():
            folder.remove()

    def note_incident(self, job_id: str, incident_id: str) -> None:
        """Keep which incident was opened for a job."""
        self._change(job_id, incident_id=incident_id)

    def given_up(self) -> tuple[TrainingJob, ...]:
        """Return live jobs on which nobody works any more, since the queue put their work aside."""
        table = schema.training_jobs
        query = select(table).where(table.c.status.in_(_LIVE)).order_by(table.c.created_at)
        with self._store.reading() as connection:
            live = [_job(row) for row in connection.execute(query)]
        found = [(job, self._queue.find(train_key(job.id))) for job in live]
        return tuple(job for job, work in found if work is None or not work.status.live)

    def left_behind(self) -> tuple[TrainingJob, ...]:
        """Return jobs that are over, something of which may still run, and nobody is to end it."""
        table = schema.training_jobs
        query = select(table).where(
            table.c.status.not_in(_LIVE), (table.c.cluster != "") | (table.c.gpus != "")
        )
        with self._store.reading() as connection:
            over = [_job(row) for row in connection.execute(query)]
        found = [(job, self._queue.find(train_key(job.id))) for job in over]
        return tuple(job for job, work in found if work is None or not work.status.live)

    def have_ended(self, job_id: str) -> None:
        """Have whoever works next end what may still run of a job that is over."""
        with self._store.transaction():
            job = self.find(job_id)
            if job is not None and job.held and not job.status.live:
                self._have_ended(job_id)

    def _have_ended(self, job_id: str) -> None:
        self._queue.add(TRAIN, {"training": job_id}, key=train_key(job_id))
        queued = self._queue.find(train_key(job_id))
        if queued is not None and queued.status is JobStatus.QUEUED:
            self._queue.hurry(train_key(job_id))

    def _path(self, job_id: str) -> Path:
        return self._home / FOLDER / job_id

    def _change(self, job_id: str, **values: object) -> None:
        table = schema.training_jobs
        with self._store.transaction() as connection:
            connection.execute(update(table).where(table.c.id == job_id).values(**values))

    def _tell(self, kind: str, job_id: str, by: str, **values: JsonValue) -> None:
        self._audit.append(kind, {"job": job_id, "by": by, **values})


def _job(row: Row[tuple[object, ...]]) -> TrainingJob:
    values = dict(row._mapping)
    del values["key"]
    spec = JobSpec.model_validate_json(str(values["spec"]))
    gpus = tuple(name for name in str(values["gpus"]).split(",") if name)
    return TrainingJob.model_validate({**values, "spec": spec, "gpus": gpus})


def lacks_gpus(wanted: int, there: int) -> str:
    """Say that a machine lacks the GPUs that a job wants."""
    has = "has none" if not there else f"has {there}"
    return (
        f"it asks for {counted(wanted, 'GPU')}, and this machine {has}: lower its limits.gpus, or use a "
        "machine with more"
    )
