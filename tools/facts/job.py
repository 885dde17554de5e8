"""What is known of training jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.schema import known
from watchkeeper.tools.text import span_text
from watchkeeper.tools.training.record import JobBoard, TrainingJob, TrainingStatus

_MOST = 50

PASSING = frozenset({"crashed", "no-space"})
"""Ways to fail that another attempt may mend, once whatever led to them is over."""

_HOW = {
    "crashed": "its process was killed or failed",
    "no-space": "there was no space left on the disk",
    "diverged": "its numbers left the finite ones",
    "data": "its data cannot be learned from",
    "spec": "it cannot be done as it is described",
    "seconds": "it took longer than its limit",
    "memory": "it needed more memory than its limit",
}


def board_of(target: Target, tool: str) -> JobBoard:
    """Return whoever keeps training jobs.

    Raises:
        CollectError: If nobody does.
    """
    if target.jobs is None:
        raise CollectError(f"{tool}: no training jobs are kept where host {target.host.name!r} is looked at")
    return target.jobs


class NoArguments(Arguments):
    """None."""


class JobArguments(Arguments):
    """Which job."""

    job: Annotated[str, known("job", description="id of the training job")]


class JobLine(BaseModel):
    """A training job in a list.

    Attributes:
        id: Its id.
        name: What it is called.
        status: Where it stands.
        how: What went wrong, in a word; empty otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    status: TrainingStatus
    how: str


class JobListResult(Result):
    """The newest training jobs."""

    jobs: tuple[JobLine, ...]


class JobList(Fact[NoArguments, JobListResult]):
    """Which training jobs there are, and where each stands."""

    name: ClassVar[str] = "job.list"
    summary: ClassVar[str] = "which training jobs there are, and where each stands"
    kinds = frozenset({FindingKind.JOB_FAILED, FindingKind.JOB_CRASHED})
    arguments_type = NoArguments
    result_type = JobListResult

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Where training jobs are submitted, it makes sense to look at them."""
        return ({},) if spec.jobs else ()

    def collect(self, target: Target, arguments: NoArguments) -> Raw:  # noqa: ARG002
        """Ask whoever keeps them.

        Raises:
            CollectError: If nobody does.
        """
        found = board_of(target, self.name).list(limit=_MOST + 1)
        fields = {"id", "name", "status", "how"}
        return {"jobs": [job.model_dump(mode="json", include=fields) for job in found]}

    def interpret(self, raw: Raw, arguments: NoArguments) -> JobListResult:  # noqa: ARG002
        """Keep the newest."""
        found = raw["jobs"]
        jobs = tuple(JobLine.model_validate(job) for job in found) if isinstance(found, list) else ()
        return JobListResult(jobs=jobs[:_MOST], cut=len(jobs) > _MOST)

    def findings(self, result: JobListResult, arguments: NoArguments) -> Iterable[Finding]:  # noqa: ARG002
        """Say which have failed."""
        for job in result.jobs:
            if job.status is TrainingStatus.FAILED:
                yield from _failure(job.id, job.name, job.how)

    def offers(self, result: JobListResult) -> dict[str, list[str]]:
        """Offer the jobs to actions."""
        return {"job": [job.id for job in result.jobs]}


class JobStatusResult(Result):
    """Where a training job stands.

    Attributes:
        job: Its id.
        name: What it is called.
        trainer: What trains.
        status: Where it stands.
        how: What went wrong, in a word; empty otherwise.
        reason: Why it failed, waits or was cancelled; it may quote data.
        attempts: How often it was begun.
        done: How far it is, from 0 to 1.
        step: Its last step.
        metrics: Of its last step.
        seconds: Time that it took so far.
        cpu_seconds: Time that processors computed for it.
        peak_memory: Most bytes that it held.
    """

    job: str
    name: str
    trainer: str
    status: TrainingStatus
    how: str
    reason: str
    attempts: int
    done: float
    step: int | None
    metrics: dict[str, float]
    seconds: float
    cpu_seconds: float
    peak_memory: int


class JobStatus(Fact[JobArguments, JobStatusResult]):
    """Where a training job stands, how far it is, and why it failed."""

    name: ClassVar[str] = "job.status"
    summary: ClassVar[str] = "where a training job stands, and why it failed"
    provenance: ClassVar[Provenance] = Provenance.UNTRUSTED
    plain_findings: ClassVar[bool] = True
    kinds = frozenset(
        {
            FindingKind.JOB_FAILED,
            FindingKind.JOB_CRASHED,
            FindingKind.JOB_WAITING,
            FindingKind.JOB_RUNNING,
            FindingKind.JOB_ENDED,
        }
    )
    arguments_type = JobArguments
    result_type = JobStatusResult

    def collect(self, target: Target, arguments: JobArguments) -> Raw:
        """Ask whoever keeps it.

        Raises:
            CollectError: If nobody does, or there is none of that id.
        """
        board = board_of(target, self.name)
        job = board.find(arguments.job)
        if job is None:
            raise CollectError(f"there is no training job {arguments.job!r:.40}: look at job.list")
        progress, metrics = board.progress(job.id)
        return {
            "job": job.model_dump(mode="json"),
            "progress": progress.model_dump(mode="json"),
            "metrics": dict(metrics),
        }

    def interpret(self, raw: Raw, arguments: JobArguments) -> JobStatusResult:  # noqa: ARG002
        """Put together what is worth telling."""
        job = TrainingJob.model_validate(raw["job"])
        progress: Any = raw["progress"]
        metrics: Any = raw["metrics"]
        return JobStatusResult(
            job=job.id,
            name=job.name,
            trainer=job.spec.trainer,
            status=job.status,
            how=job.how,
            reason=job.reason[:1000],
            attempts=job.attempts,
            done=progress["done"],
            step=progress["step"],
            metrics={name: float(value) for name, value in metrics.items() if name != "step"},
            seconds=progress["seconds"],
            cpu_seconds=progress["cpu_seconds"],
            peak_memory=progress["peak_memory"],
        )

    def findings(self, result: JobStatusResult, arguments: JobArguments) -> Iterable[Finding]:  # noqa: ARG002
        """Say where it stands, in words of our own."""
        what = f"training job {result.name} ({result.job})"
        match result.status:
            case TrainingStatus.FAILED:
                yield from _failure(result.job, result.name, result.how)
            case TrainingStatus.QUEUED:
                yield Finding(kind=FindingKind.JOB_WAITING, subject=result.job, text=f"{what} waits")
            case TrainingStatus.RUNNING:
                often = f", in attempt {result.attempts}" if result.attempts > 1 else ""
                yield Finding(
                    kind=FindingKind.JOB_RUNNING,
                    subject=result.job,
                    text=f"{what} has run for {span_text(result.seconds)} and is at {result.done:.0%}{often}",
                )
            case TrainingStatus.DONE | TrainingStatus.CANCELLED:
                yield Finding(
                    kind=FindingKind.JOB_ENDED, subject=result.job, text=f"{what} is {result.status.value}"
                )

    def quotations(self, result: JobStatusResult) -> tuple[str, ...]:
        """Return why it failed: what a trainer says may quote its data."""
        return (result.reason,) if result.reason else ()

    def offers(self, result: JobStatusResult) -> dict[str, list[str]]:
        """Offer the job to actions."""
        return {"job": [result.job]}

    def describe(self, arguments: JobArguments) -> str:
        """Say what this call would tell."""
        return f"where training job {arguments.job} stands, and why it failed"


def _failure(job: str, name: str, how: str) -> Iterable[Finding]:
    text = f"training job {name} ({job}) failed: {_HOW.get(how, 'for a reason of its own')}"
    yield Finding(kind=FindingKind.JOB_FAILED, subject=job, text=text, severity=Severity.CRITICAL)
    if how in PASSING:
        yield Finding(
            kind=FindingKind.JOB_CRASHED,
            subject=job,
            text=f"training job {name} ({job}) can go on from its last checkpoint",
            severity=Severity.WARNING,
        )
