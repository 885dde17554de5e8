"""The tests of `tests.unit.test_training_jobs`, on PostgreSQL."""

from tests.unit.test_training_jobs import *  # noqa: F403
from tests.unit.test_training_jobs import spec, work
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.tools.training.record import TrainingStatus


def test_a_job_that_lacks_gpus_here_waits_for_a_machine_that_has_them(
    journal: Journal, jobs: TrainingJobs
) -> None:
    job = jobs.submit(spec(gpus=3), by="ann")
    work(journal)
    waiting = jobs.get(job.id)
    assert (waiting.status, waiting.attempts) == (TrainingStatus.QUEUED, 0)
    assert waiting.reason == "waits for a machine with 3 GPUs: 'm' has 2"
