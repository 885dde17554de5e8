"""What a finished training job says of the predictor that it made."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from pydantic import ValidationError

from watchkeeper.tools.errors import JobStateError
from watchkeeper.tools.training.folder import JobFolder
from watchkeeper.tools.training.record import TrainingJob, TrainingStatus
from watchkeeper.tools.training.spec import JobSpec
from watchkeeper.tools.versions.records import JobRecord

SPEC = "spec"
"""In the details: what the job was to do."""


def spec_of(record: JobRecord | None) -> JobSpec | None:
    """Return what the job of a version was to do; None where that is not known."""
    try:
        return None if record is None else JobSpec.model_validate(record.details.get(SPEC))
    except ValidationError:
        return None


def job_record(job: TrainingJob, folder: JobFolder, *, cpu_watts: float) -> JobRecord:
    """Return the lineage of what a job made.

    Its energy is estimated from the time that processors computed, as their share of all processors times
    ``cpu_watts``, and what GPUs say that they drew.

    Args:
        job: The job.
        folder: Its folder.
        cpu_watts: Power that the machine draws while all of its processors compute.

    Raises:
        JobStateError: If it is not done.
    """
    if job.status is not TrainingStatus.DONE:
        raise JobStateError(f"job {job.id} is {job.status.value}, so there is no predictor of it yet")
    progress, environment = folder.progress, folder.environment
    found = environment.get("processors")
    processors = found if isinstance(found, int) and found > 0 else 1
    joules = progress.cpu_seconds / processors * cpu_watts + progress.gpu_joules
    gpus = f", and {progress.gpu_joules:.0f} J that GPUs measured" if progress.gpu_joules else ""
    named = ("processor", "processors", "memory", "system", "python")
    return JobRecord(
        id=job.id,
        requested_by=job.submitted_by,
        started_at=job.started_at,
        seconds=progress.seconds,
        hardware={name: str(environment[name]) for name in named if environment.get(name)},
        energy_joules=joules,
        energy_source=f"estimated from {progress.cpu_seconds:.0f} s of computing on {processors} processors "
        f"that draw {cpu_watts:g} W{gpus}",
        code_version=_own_version(),
        details={
            "machine": job.machine,
            "attempts": job.attempts,
            "peak_memory": progress.peak_memory,
            SPEC: job.spec.model_dump(mode="json"),
        },
    )


def _own_version() -> str:
    try:
        return version("watchkeeper")
    except PackageNotFoundError:
        return ""
