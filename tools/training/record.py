"""What is known of a training job, and what facts and actions ask of whoever keeps them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.training.folder import JobProgress
from watchkeeper.tools.training.spec import JobSpec


class TrainingStatus(StrEnum):
    """Where a training job stands; a failed or cancelled one can be resumed from its last checkpoint."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def live(self) -> bool:
        """Whether it is still to be done."""
        return self in {TrainingStatus.QUEUED, TrainingStatus.RUNNING}


class TrainingJob(BaseModel):
    """A training job.

    Attributes:
        id: Its id, for example ``JOB-7K3QWX``.
        name: What it is called.
        status: Where it stands.
        how: What went wrong, in a word (see `watchkeeper.tools.training.folder.Ending`); empty otherwise.
        reason: Why it failed, waits or was cancelled; it may quote data.
        spec: What is to be done.
        submitted_by: Who submitted it.
        created_at: When.
        started_at: When it began first.
        ended_at: When it was done, failed or cancelled.
        attempts: How often it was begun since it was submitted or resumed.
        generation: How often it was submitted and resumed.
        machine: Where it runs, or ran last.
        unattended: How often agents resumed it since a person submitted or resumed it.
        incident_id: The incident that was opened when it failed last.
        gpus: GPUs of its machine that it holds, by name, until nothing of it runs there any more.
        cluster: Address of the Ray cluster on which something of it may run; empty for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    status: TrainingStatus
    how: str = ""
    reason: str = ""
    spec: JobSpec
    submitted_by: str
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: int
    generation: int
    machine: str = ""
    unattended: int = 0
    incident_id: str = ""
    gpus: tuple[str, ...] = ()
    cluster: str = ""

    @property
    def held(self) -> bool:
        """Whether something of it may run somewhere, so that whoever ends it must look."""
        return bool(self.gpus or self.cluster)

    @property
    def waits(self) -> str:
        """Why a job that is queued does not run, and what to do where nobody works."""
        return self.reason or (
            "no worker has taken it yet; `watchkeeper serve` and `watchkeeper jobs work` are workers"
        )


class JobBoard(Protocol):
    """Whoever keeps training jobs, as facts and actions see it."""

    def refusal(self, spec: JobSpec) -> str:
        """Say why a job cannot be submitted here, or nothing."""
        ...

    def submit(self, spec: JobSpec, *, by: str, key: str | None = None) -> TrainingJob:
        """Submit a job; where one was submitted under the key, that one is returned."""
        ...

    def find(self, job_id: str) -> TrainingJob | None:
        """Return a job, or None."""
        ...

    def submitted_under(self, key: str) -> TrainingJob | None:
        """Return the job that was submitted under a key, or None."""
        ...

    def list(self, *, limit: int = 100) -> tuple[TrainingJob, ...]:
        """Return jobs, the newest first."""
        ...

    def progress(self, job_id: str) -> tuple[JobProgress, dict[str, float]]:
        """Return how far a job is, and its last metrics."""
        ...

    def cancel(self, job_id: str, *, by: str, reason: str = "") -> TrainingJob:
        """Cancel a job; one that has ended is returned as it is."""
        ...

    def resume(self, job_id: str, *, by: str) -> TrainingJob:
        """Have a failed or cancelled job go on; a live one is returned as it is."""
        ...
