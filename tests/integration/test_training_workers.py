"""Workers train: one goes on where another was killed, a cancelled job is gone, and all share the memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lamp import folder_in_memory
from tests.trainers import write_points
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.training import TrainingJobs, train_key
from watchkeeper.runtime.training_room import Room
from watchkeeper.runtime.training_runs import TrainingRuns
from watchkeeper.runtime.worker import Worker
from watchkeeper.tools.training import processes
from watchkeeper.tools.training.record import TrainingStatus
from watchkeeper.tools.training.spec import JobSpec

ROOT = Path(__file__).parents[2]
MB = 10**6
GPUS = ("GPU-a", "GPU-b")


@pytest.fixture
def base() -> Iterator[Path]:
    with folder_in_memory() as folder:
        write_points(folder / "points.csv")
        yield folder


@pytest.fixture
def journal(base: Path) -> Iterator[Journal]:
    with Journal(base / "home") as journal:
        yield journal


@pytest.fixture
def jobs(journal: Journal) -> TrainingJobs:
    return TrainingJobs(journal.store, journal.home, journal.audit, gpus=lambda: GPUS)


def spec(
    base: Path,
    *,
    trainer: str = "Line",
    memory: int = 300 * MB,
    gpus: int = 0,
    retries: int = 2,
    **parameters: Any,
) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": trainer.lower(),
            "trainer": f"tests.trainers:{trainer}",
            "modules": ROOT,
            "data": base / "points.csv",
            "parameters": parameters,
            "launcher": "python",
            "retries": retries,
            "limits": {"memory": memory, "gpus": gpus},
        }
    )


def command(base: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "watchkeeper.cli", "jobs", *words]


def environment(base: Path) -> dict[str, str]:
    return {**os.environ, "WATCHKEEPER_HOME": str(base / "home")}


@contextmanager
def worker(base: Path) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        command(base, "work", "--lease", "1", "--jobs", "1"), env=environment(base), stderr=subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        started.terminate()
        started.wait(30)


def wait_for(what: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def work(journal: Journal, *, memory: int = 10**10, threads: int = 1) -> None:
    """Do in this process what is due, until nothing is."""
    room = Room(memory=memory, processors=4, available=lambda: memory)
    runs = TrainingRuns(journal, room, host="here", grace=0.5)
    doing = Worker(Jobs(journal.store), journal.halts, runs.handlers())
    doing.run(threads=threads, once=True)


def nothing_left(jobs: TrainingJobs, job_id: str) -> bool:
    return not processes.marked(str(jobs.folder(job_id).path))


def test_a_killed_worker_s_job_is_gone_on_with_and_ends_as_if_nothing_had_been(
    base: Path, jobs: TrainingJobs
) -> None:
    undisturbed = jobs.submit(spec(base, pause=0.0, epochs=60), by="ann")
    with worker(base):
        wait_for(lambda: jobs.get(undisturbed.id).status is TrainingStatus.DONE)
    disturbed = jobs.submit(spec(base, pause=0.05, epochs=60), by="ann")
    folder = jobs.folder(disturbed.id)
    with worker(base) as doomed:
        wait_for(lambda: len(folder.metrics()) > 12)
        trainer = folder.progress.pid
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
    wait_for(lambda: nothing_left(jobs, disturbed.id), 10)
    assert jobs.get(disturbed.id).status is TrainingStatus.RUNNING
    with worker(base):
        wait_for(lambda: folder.progress.attempt == 2 and folder.progress.pid not in {0, trainer})
        # Once more, now the process that trains.
        wait_for(lambda: len(folder.metrics()) > 25)
        os.kill(folder.progress.pid, signal.SIGKILL)
        wait_for(lambda: not jobs.get(disturbed.id).status.live)
    ended = jobs.get(disturbed.id)
    assert (ended.status, ended.attempts) == (TrainingStatus.DONE, 3), ended
    whole = jobs.folder(undisturbed.id)
    assert folder.metrics() == whole.metrics()
    assert (folder.artefacts / "line.json").read_bytes() == (whole.artefacts / "line.json").read_bytes()


def test_a_stopped_worker_gives_its_job_back_and_that_is_no_attempt(base: Path, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(base, pause=0.05, epochs=1000), by="ann")
    with worker(base):
        wait_for(lambda: len(jobs.folder(job.id).metrics()) > 6)
    given_back = jobs.get(job.id)
    assert (given_back.status, given_back.attempts) == (TrainingStatus.QUEUED, 0)
    assert nothing_left(jobs, job.id)
    assert jobs.folder(job.id).checkpoint() is not None


def test_a_cancelled_job_leaves_no_process(base: Path, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(base, pause=0.05, epochs=1000), by="ann")
    with worker(base):
        wait_for(lambda: len(jobs.folder(job.id).metrics()) > 2)
        said = subprocess.run(
            command(base, "cancel", job.id, "--reason", "enough", "--json"),
            env=environment(base),
            capture_output=True,
            check=True,
        )
        assert json.loads(said.stdout)["status"] == "cancelled"
        assert nothing_left(jobs, job.id)
        queued = Jobs(jobs._store).find(train_key(job.id))
        wait_for(lambda: queued is not None and not Jobs(jobs._store).get(queued.id).status.live)
    assert jobs.get(job.id).status is TrainingStatus.CANCELLED


def test_a_word_that_stops_everything_stops_training_too(
    base: Path, journal: Journal, jobs: TrainingJobs
) -> None:
    job = jobs.submit(spec(base, pause=0.05, epochs=30), by="ann")
    with worker(base) as working:
        wait_for(lambda: len(jobs.folder(job.id).metrics()) > 6)
        journal.halts.stop(by="ann")
        working.wait(20)
    assert nothing_left(jobs, job.id)
    assert jobs.get(job.id).status is TrainingStatus.QUEUED
    journal.halts.lift(by="ann")
    work(journal)
    assert jobs.get(job.id).status is TrainingStatus.DONE
    assert [line["step"] for line in jobs.folder(job.id).metrics()] == list(range(1, 31))


def test_a_job_that_diverges_fails_once_and_opens_an_incident(
    base: Path, journal: Journal, jobs: TrainingJobs
) -> None:
    job = jobs.submit(spec(base, learning_rate=50.0), by="ann")
    work(journal)
    failed = jobs.get(job.id)
    assert (failed.status, failed.how, failed.attempts) == (TrainingStatus.FAILED, "diverged", 1)
    assert "loss is inf in step" in failed.reason
    (incident,) = journal.incidents.list()
    assert incident.id == failed.incident_id
    assert journal.incidents.get(incident.id).alert.labels == {"job": job.id, "how": "diverged"}
    work(journal)
    assert jobs.get(job.id) == failed


def test_a_job_that_always_crashes_is_given_up(base: Path, journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(base, kill_at=1, retries=1), by="ann")
    work(journal)
    waiting = jobs.get(job.id)
    assert (waiting.status, waiting.attempts) == (TrainingStatus.QUEUED, 1)
    assert journal.incidents.list() == ()
    Jobs(journal.store).hurry(train_key(job.id))
    work(journal)
    failed = jobs.get(job.id)
    assert (failed.status, failed.how, failed.attempts) == (TrainingStatus.FAILED, "crashed", 2)
    assert len(journal.incidents.list()) == 1


def sees(jobs: TrainingJobs, job_id: str) -> str:
    """What the process of a job said of the GPUs that it sees."""
    return next(line for line in jobs.folder(job_id).log.read_text().splitlines() if line.startswith("sees "))


@pytest.mark.parametrize(("memory", "gpus", "what"), [(500, 0, "memory"), (2000, 2, "GPUs")])
def test_jobs_that_do_not_fit_beside_each_other_run_one_after_the_other(
    base: Path, journal: Journal, jobs: TrainingJobs, memory: int, gpus: int, what: str
) -> None:
    both = [
        jobs.submit(spec(base, trainer="Sighted", gpus=gpus, pause=0.2, epochs=6), by="ann") for _ in range(2)
    ]
    waited: list[str] = []
    seen_running = 0
    room = Room(memory=memory * MB, processors=4, available=lambda: 10**10, gpus=lambda: GPUS)
    runs = TrainingRuns(journal, room, host=None, grace=0.5)
    doing = Worker(Jobs(journal.store), journal.halts, runs.handlers())
    thread = threading.Thread(target=doing.run, kwargs={"threads": 2})
    thread.start()
    try:
        while any(job.status.live for job in jobs.list()):
            now = jobs.list()
            seen_running = max(seen_running, sum(job.status is TrainingStatus.RUNNING for job in now))
            waited += [job.reason for job in now if job.reason.startswith(f"waits for {what}")]
            time.sleep(0.1)
    finally:
        doing.stop()
        thread.join()
    assert seen_running == 1
    assert waited
    first, second = sorted((jobs.get(job.id) for job in both), key=lambda job: str(job.started_at))
    assert (first.status, second.status) == (TrainingStatus.DONE, TrainingStatus.DONE)
    assert first.ended_at is not None
    assert second.started_at is not None
    assert second.started_at >= first.ended_at
    assert {sees(jobs, job.id) for job in both} == {"sees 'GPU-a,GPU-b'" if gpus else "sees ''"}
    assert [jobs.get(job.id).gpus for job in both] == [(), ()]


def test_each_process_sees_its_own_gpus_and_who_wants_none_sees_none(
    base: Path, journal: Journal, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    wanting = [
        jobs.submit(spec(base, trainer="Sighted", gpus=1, pause=0.1, epochs=8), by="ann") for _ in range(2)
    ]
    blind = jobs.submit(spec(base, trainer="Sighted", epochs=2), by="ann")
    room = Room(memory=10**10, processors=4, available=lambda: 10**10, gpus=lambda: GPUS)
    runs = TrainingRuns(journal, room, host=None, grace=0.5)
    Worker(Jobs(journal.store), journal.halts, runs.handlers()).run(threads=2, once=True)
    assert {sees(jobs, job.id) for job in wanting} == {"sees 'GPU-a'", "sees 'GPU-b'"}
    assert sees(jobs, blind.id) == "sees ''"
    assert {jobs.get(job.id).status for job in [*wanting, blind]} == {TrainingStatus.DONE}
