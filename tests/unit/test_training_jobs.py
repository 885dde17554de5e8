"""Training jobs are records of the store: submitted once, changed as a whole, and never lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchkeeper.runtime import training_runs
from watchkeeper.runtime.errors import FencedError
from watchkeeper.runtime.job_lineage import job_record, spec_of
from watchkeeper.runtime.jobs import Claim, Jobs, JobStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.training import TRAIN, Admission, TrainingJobs, train_key
from watchkeeper.runtime.training_room import Room
from watchkeeper.runtime.training_runs import TrainingRuns
from watchkeeper.runtime.worker import Worker
from watchkeeper.tools.errors import ClusterError, JobSpecError, JobStateError
from watchkeeper.tools.training.folder import Ending, JobFolder
from watchkeeper.tools.training.gpus import visible_of
from watchkeeper.tools.training.record import TrainingJob, TrainingStatus
from watchkeeper.tools.training.spec import JobLimits, JobSpec
from watchkeeper.tools.versions.records import JobRecord

GB = 10**9
GPUS = ("0", "1")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "home") as journal:
        yield journal


@pytest.fixture
def jobs(journal: Journal) -> TrainingJobs:
    return TrainingJobs(journal.store, journal.home, journal.audit, gpus=lambda: GPUS)


def spec(name: str = "a", **limits: int) -> JobSpec:
    return JobSpec(name=name, trainer="t:T", data=Path("/d"), limits=JobLimits(**limits), launcher="python")


def begin(journal: Journal, jobs: TrainingJobs) -> TrainingJob:
    """Begin an attempt at the oldest job, as a worker does."""
    claim = Jobs(journal.store).claim("w", kinds=[TRAIN])
    assert claim is not None
    assert jobs.begin(claim, "m", lambda *_: Admission()) == ""
    return jobs.get(str(claim.job.body["training"]))


def test_a_submitted_job_waits_in_the_queue_and_has_a_folder(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(), by="ann")
    assert job.status is TrainingStatus.QUEUED
    assert job.submitted_by == "ann"
    assert jobs.folder(job.id).spec == spec()
    queued = Jobs(journal.store).find(train_key(job.id))
    assert queued is not None
    assert queued.body == {"training": job.id}
    assert [entry.kind for entry in journal.audit.entries()] == ["training-submitted"]
    assert "`watchkeeper serve`" in jobs.get(job.id).waits


def test_what_is_submitted_twice_under_a_key_is_one_job(journal: Journal, jobs: TrainingJobs) -> None:
    first = jobs.submit(spec(), by="ann", key="step-1")
    assert jobs.submit(spec("b"), by="ann", key="step-1") == first
    assert jobs.submitted_under("step-1") == first
    assert len(jobs.list()) == 1
    assert [path.name for path in (journal.home / "training").iterdir()] == [first.id]


def test_why_a_job_ended_holds_no_secret(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(), by="ann")
    begin(journal, jobs)
    jobs.put_back(job.id, reason="the log ends with 'password=hunter2'", counts=True)
    assert jobs.get(job.id).reason == "the log ends with 'password=[redacted]'"
    jobs.end(job.id, TrainingStatus.FAILED, how="crashed", reason="no way in: token=hunter2")
    assert jobs.get(job.id).reason == "no way in: token=[redacted]"


def test_a_cancelled_job_is_out_of_the_queue_and_can_be_resumed(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(), by="ann")
    cancelled = jobs.cancel(job.id, by="bob", reason="too early")
    assert (cancelled.status, cancelled.reason) == (TrainingStatus.CANCELLED, "cancelled by bob: too early")
    assert jobs.cancel(job.id, by="bob") == cancelled
    queue = Jobs(journal.store)
    assert queue.claim("w") is None
    resumed = jobs.resume(job.id, by="ann")
    assert (resumed.status, resumed.generation, resumed.reason) == (TrainingStatus.QUEUED, 2, "")
    assert jobs.resume(job.id, by="ann") == resumed
    assert queue.claim("w") is not None


def test_a_job_that_is_cancelled_and_resumed_while_it_runs_is_done_once_more(
    journal: Journal, jobs: TrainingJobs
) -> None:
    job = jobs.submit(spec(), by="ann")
    begin(journal, jobs)
    jobs.cancel(job.id, by="ann")
    queued = Jobs(journal.store).find(train_key(job.id))
    assert queued is not None
    assert queued.status is JobStatus.RUNNING
    assert jobs.resume(job.id, by="ann").generation == 2


def test_a_job_that_used_up_its_time_goes_on_with_more(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(seconds=60), by="ann")
    begin(journal, jobs)
    more = JobLimits(seconds=120)
    with pytest.raises(JobStateError, match="is running: cancel it to resume it within other limits"):
        jobs.resume(job.id, by="ann", limits=more)
    jobs.end(job.id, TrainingStatus.FAILED, how="seconds", reason="too long")
    if not jobs.shared:  # another machine may have more GPUs
        with pytest.raises(JobSpecError, match="GPU"):
            jobs.resume(job.id, by="ann", limits=JobLimits(gpus=9))
    assert jobs.get(job.id).status is TrainingStatus.FAILED
    resumed = jobs.resume(job.id, by="ann", limits=more)
    assert (resumed.status, resumed.spec.limits) == (TrainingStatus.QUEUED, more)
    assert resumed.spec == spec(seconds=120)
    *_, last = journal.audit.entries()
    assert last.kind == "training-resumed"
    assert isinstance(last.data, dict)
    assert last.data["spec"] == resumed.spec.digest


def test_a_job_resumed_within_the_same_limits_keeps_its_spec(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(), by="ann")
    jobs.cancel(job.id, by="ann")
    assert jobs.resume(job.id, by="ann", limits=job.spec.limits).spec == job.spec
    *_, last = journal.audit.entries()
    assert last.data == {"job": job.id, "by": "ann"}


def test_a_done_job_is_not_resumed(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(), by="ann")
    jobs.end(job.id, TrainingStatus.DONE)
    with pytest.raises(JobStateError, match="is done"):
        jobs.resume(job.id, by="ann")
    with pytest.raises(JobStateError, match="JOB-NONE"):
        jobs.cancel("JOB-NONE", by="ann")


def test_a_job_that_has_ended_is_removed_with_its_folder(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(), by="ann")
    begin(journal, jobs)
    with pytest.raises(JobStateError, match="cancel it, then"):
        jobs.remove(job.id, by="ann")
    jobs.cancel(job.id, by="ann")
    with pytest.raises(JobStateError, match="cancel it, then"):
        # Whoever runs it is still ending it.
        jobs.remove(job.id, by="ann")
    other = jobs.submit(spec(), by="ann")
    jobs.cancel(other.id, by="ann")
    jobs.remove(other.id, by="ann")
    assert jobs.find(other.id) is None
    assert not jobs.folder(other.id).path.exists()
    assert [entry.kind for entry in journal.audit.entries()][-1] == "training-removed"


def test_a_worker_that_lost_a_job_cannot_begin_it(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(), by="ann")
    queue = Jobs(journal.store)
    stale = queue.claim("old", lease_seconds=0)
    assert stale is not None
    assert queue.claim("new") is not None
    with pytest.raises(FencedError):
        jobs.begin(stale, "m", lambda *_: Admission())
    assert jobs.get(job.id).attempts == 0


def test_a_job_that_must_wait_is_told_those_that_run_here(journal: Journal, jobs: TrainingJobs) -> None:
    first = jobs.submit(spec("first"), by="ann")
    begin(journal, jobs)
    second = jobs.submit(spec("second"), by="ann")
    claim = Jobs(journal.store).claim("w", kinds=[TRAIN])
    assert claim is not None
    seen: list[str] = []

    def admit(job: TrainingJob, running: list[TrainingJob], _: frozenset[str]) -> Admission:
        seen.extend([job.id, *(other.id for other in running)])
        return Admission("no room")

    assert jobs.begin(claim, "m", admit) == "no room"
    assert seen == [second.id, first.id]
    waiting = jobs.get(second.id)
    assert (waiting.status, waiting.reason, waiting.attempts) == (TrainingStatus.QUEUED, "no room", 0)
    # Another machine has room of its own.
    assert jobs.begin(claim, "other", lambda _, running, __: Admission("taken" * len(running))) == ""


ROOM = Room(memory=8 * GB, processors=4, machine="m", available=lambda: 8 * GB, gpus=lambda: GPUS)


def record(name: str, **limits: int) -> TrainingJob:
    return TrainingJob.model_validate(
        {
            "id": name,
            "name": name,
            "status": "running",
            "spec": spec(name, **limits),
            "submitted_by": "ann",
            "created_at": "2026-01-05T12:00:00Z",
            "attempts": 1,
            "generation": 1,
        }
    )


def test_what_fits_together_runs_together() -> None:
    running = [record("a", memory=3 * GB)]
    assert ROOM.waits(record("b", memory=5 * GB), running, lambda _: 0) == ""
    assert "waits for memory" in ROOM.waits(record("b", memory=6 * GB), running, lambda _: 0)


def test_what_others_will_still_take_counts_as_taken() -> None:
    room = Room(memory=8 * GB, processors=4, machine="m", available=lambda: 4 * GB)
    running = [record("a", memory=3 * GB)]
    wanted = record("b", memory=3 * GB)
    # It holds all that it may: the 4 GB are free. It holds nothing yet: 1 GB will be.
    assert room.waits(wanted, running, lambda _: 3 * GB) == ""
    assert "1.00 GB are free" in room.waits(wanted, running, lambda _: 0)


def test_processors_are_shared_out_but_one_job_alone_may_have_them_all() -> None:
    assert ROOM.waits(record("b", threads=4), [], lambda _: 0) == ""
    assert "waits for processors" in ROOM.waits(
        record("b", threads=4), [record("a", threads=1)], lambda _: GB
    )


def test_what_never_fits_is_told_at_once() -> None:
    assert "limits.memory" in ROOM.never_fits(record("a", memory=9 * GB))
    assert "limits.threads" in ROOM.never_fits(record("a", threads=5))
    assert "it asks for 3 GPUs, and this machine has 2" in ROOM.never_fits(record("a", gpus=3))
    assert ROOM.never_fits(record("a", memory=8 * GB, threads=4, gpus=2)) == ""


def never() -> tuple[str, ...]:
    raise AssertionError("nobody wants a GPU, so nobody asks for them")


def test_gpus_are_asked_for_only_where_a_job_wants_some(journal: Journal) -> None:
    room = Room(memory=8 * GB, processors=4, available=lambda: 8 * GB, gpus=never)
    assert (room.never_fits(record("a")), room.share_gpus(record("a"), frozenset())) == ("", ())
    TrainingJobs(journal.store, journal.home, journal.audit, gpus=never).submit(spec(), by="ann")


@pytest.mark.parametrize(
    ("variable", "count", "names"),
    [
        (None, 2, ("0", "1")),
        (None, 0, ()),
        ("", 0, ()),
        ("3, 1", 2, ("3", "1")),
        ("GPU-8a,GPU-9b", 2, ("GPU-8a", "GPU-9b")),
        ("0,7", 1, ("0",)),  # there is no GPU 7
    ],
)
def test_a_gpu_is_called_as_the_variable_names_it(
    variable: str | None, count: int, names: tuple[str, ...]
) -> None:
    assert visible_of(variable, count) == names


@pytest.mark.sqlite
def test_a_job_that_wants_more_gpus_than_there_are_is_not_submitted(
    journal: Journal, jobs: TrainingJobs
) -> None:
    with pytest.raises(JobSpecError, match="job 'a': it asks for 3 GPUs, and this machine has 2: lower its"):
        jobs.submit(spec(gpus=3), by="ann")
    none = TrainingJobs(journal.store, journal.home, journal.audit, gpus=lambda: ())
    with pytest.raises(JobSpecError, match="it asks for 1 GPU, and this machine has none"):
        none.submit(spec(gpus=1), by="ann")
    assert jobs.list() == ()
    assert not (journal.home / "training").exists()
    elsewhere = spec(gpus=3).model_copy(update={"runs_on": "ray"})
    assert jobs.submit(elsewhere, by="ann").status is TrainingStatus.QUEUED


def admit(job: TrainingJob, _: list[TrainingJob], taken: frozenset[str]) -> Admission:
    gpus = ROOM.share_gpus(job, taken)
    return Admission(waits=gpus) if isinstance(gpus, str) else Admission(gpus=gpus)


def attempt(journal: Journal, jobs: TrainingJobs, machine: str = "m") -> tuple[TrainingJob, str]:
    claim = Jobs(journal.store).claim("w", kinds=[TRAIN])
    assert claim is not None
    waits = jobs.begin(claim, machine, admit)
    return jobs.get(str(claim.job.body["training"])), waits


def test_a_gpu_is_held_by_one_job_until_nothing_of_that_runs(journal: Journal, jobs: TrainingJobs) -> None:
    for name in ("first", "second", "third", "fourth"):
        jobs.submit(spec(name, gpus=1), by="ann")
    first, _ = attempt(journal, jobs)
    second, _ = attempt(journal, jobs)
    assert (first.gpus, second.gpus) == (("0",), ("1",))
    third, waits = attempt(journal, jobs)
    assert (third.status, third.gpus) == (TrainingStatus.QUEUED, ())
    assert waits == third.reason == "waits for GPUs: it asks for 1, and 2 of 2 are taken"
    # Those of another machine are others.
    assert attempt(journal, jobs, "other")[0].gpus == ("0",)
    fifth = jobs.submit(spec("fifth", gpus=1), by="ann")
    jobs.cancel(second.id, by="ann")
    assert attempt(journal, jobs)[1], "its processes may still be there"
    jobs.let_go(second.id)
    jobs.submit(spec("sixth", gpus=1), by="ann")
    assert attempt(journal, jobs)[0].gpus == ("1",)
    assert jobs.get(fifth.id).gpus == ()


def test_a_cancelled_job_whose_worker_died_gives_its_gpus_back(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(gpus=2), by="ann")
    doomed = Jobs(journal.store).claim("doomed", kinds=[TRAIN], lease_seconds=0)
    assert doomed is not None
    assert jobs.begin(doomed, "m", admit) == ""
    jobs.cancel(job.id, by="ann")
    assert jobs.get(job.id).gpus == GPUS
    work(journal)
    assert jobs.get(job.id).gpus == ()
    jobs.remove(job.id, by="ann")


class Cluster:
    """Stands for what is said to a cluster, in the order in which it is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, answers: bool = True) -> None:
        self.answers = answers
        self.told: list[tuple[str, str]] = []
        monkeypatch.setattr(training_runs, "stop_on_ray", self.stop)

    def stop(self, folder: JobFolder, *, address: str) -> None:
        self.told.append((folder.path.name, address))
        if not self.answers:
            raise ClusterError("no answer")


def on_ray(journal: Journal, jobs: TrainingJobs) -> tuple[TrainingJob, Claim]:
    """A job that runs on a cluster, begun by a worker that is silent since."""
    job = jobs.submit(spec().model_copy(update={"runs_on": "ray"}), by="ann")
    claim = Jobs(journal.store).claim("doomed", kinds=[TRAIN], lease_seconds=0)
    assert claim is not None
    assert jobs.begin(claim, "m", lambda *_: Admission(cluster="http://ray:8265")) == ""
    return jobs.get(job.id), claim


def test_whoever_works_next_stops_a_cancelled_job_on_its_cluster(
    journal: Journal, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(monkeypatch)
    job, _ = on_ray(journal, jobs)
    jobs.cancel(job.id, by="ann")
    work(journal)
    assert cluster.told == [(job.id, "http://ray:8265")]
    assert jobs.get(job.id).cluster == ""
    work(journal)
    assert len(cluster.told) == 1
    jobs.remove(job.id, by="ann")


def test_a_job_that_waits_for_its_next_attempt_is_stopped_on_its_cluster_too(
    journal: Journal, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(monkeypatch)
    job, claim = on_ray(journal, jobs)
    # The cluster did not answer, so that it was given back and is to be begun again in a while.
    jobs.put_back(job.id, reason="no answer", counts=True)
    Jobs(journal.store).release(claim, again_in=300)
    jobs.cancel(job.id, by="ann")
    work(journal)
    assert cluster.told == [(job.id, "http://ray:8265")]


def test_a_cluster_that_does_not_answer_is_told_again_and_the_job_is_not_forgotten(
    journal: Journal, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(monkeypatch, answers=False)
    job, _ = on_ray(journal, jobs)
    jobs.cancel(job.id, by="ann")
    work(journal)
    assert jobs.get(job.id).cluster == "http://ray:8265"
    with pytest.raises(JobStateError, match="may run on the Ray cluster at 'http://ray:8265'"):
        jobs.remove(job.id, by="ann")
    cluster.answers = True
    Jobs(journal.store).hurry(train_key(job.id))
    work(journal)
    assert (len(cluster.told), jobs.get(job.id).cluster) == (2, "")


def test_the_sweep_finds_what_is_left_of_jobs_that_nobody_is_to_end(
    journal: Journal, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(monkeypatch)
    job, _ = on_ray(journal, jobs)
    Jobs(journal.store).cancel(train_key(job.id))  # as where the queue put it aside
    runs = TrainingRuns(journal, ROOM, host=None)
    runs.sweep()
    assert jobs.get(job.id).status is TrainingStatus.FAILED
    Jobs(journal.store).cancel(train_key(job.id))
    runs.sweep()
    work(journal)
    assert cluster.told == [(job.id, "http://ray:8265")]


def test_a_job_that_failed_while_its_cluster_was_silent_is_stopped_there(
    journal: Journal, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(monkeypatch)
    job = jobs.submit(spec().model_copy(update={"runs_on": "ray", "retries": 0}), by="ann")

    def silent(_: JobFolder, number: int, **__: object) -> Ending:
        return Ending(attempt=number, how="crashed", reason="no answer", left=True)

    monkeypatch.setattr(training_runs, "supervise_on_ray", silent)
    runs = TrainingRuns(journal, ROOM, host=None, ray_address="http://ray:8265")
    Worker(Jobs(journal.store), journal.halts, runs.handlers(), name="w").run(once=True)
    assert jobs.get(job.id).status is TrainingStatus.FAILED
    assert cluster.told == [(job.id, "http://ray:8265")]


def test_one_that_is_resumed_before_it_was_stopped_goes_on(
    journal: Journal, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = on_ray(journal, jobs)
    jobs.cancel(job.id, by="ann")
    cluster = Cluster(monkeypatch)
    monkeypatch.setattr(
        training_runs, "stop_on_ray", lambda *_, **__: jobs.resume(job.id, by="ann", attended=True)
    )
    done: list[str] = []

    def ends(folder: JobFolder, number: int, **_: object) -> Ending:
        done.append(folder.path.name)
        return Ending(attempt=number, how="done")

    monkeypatch.setattr(training_runs, "supervise_on_ray", ends)
    work(journal)
    assert (done, cluster.told, jobs.get(job.id).status) == ([job.id], [], TrainingStatus.DONE)


def work(journal: Journal, *, host: str | None = "here") -> TrainingRuns:
    runs = TrainingRuns(journal, ROOM, host=host)
    Worker(Jobs(journal.store), journal.halts, runs.handlers(), name="w").run(once=True)
    return runs


def test_a_job_that_never_fits_fails_and_opens_an_incident(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(memory=9 * GB), by="ann")
    work(journal)
    failed = jobs.get(job.id)
    assert (failed.status, failed.how) == (TrainingStatus.FAILED, "spec")
    (incident,) = journal.incidents.list()
    assert incident.id == failed.incident_id
    assert incident.alert.condition.arguments == {"job": job.id}
    assert incident.alert.host == "here"


def test_a_job_that_fails_again_is_the_same_alert_and_agents_tries_are_counted(
    journal: Journal, jobs: TrainingJobs
) -> None:
    job = jobs.submit(spec(memory=9 * GB), by="ann")
    work(journal)
    first = jobs.get(job.id).incident_id
    jobs.resume(job.id, by="an agent")
    work(journal)
    assert jobs.get(job.id).status is TrainingStatus.FAILED
    assert jobs.get(job.id).unattended == 1
    assert journal.incidents.get(first).alert_count == 2
    assert jobs.resume(job.id, by="ann", attended=True).unattended == 0


def test_a_job_whose_workers_died_too_often_fails(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec().model_copy(update={"retries": 1}), by="ann")
    queue = Jobs(journal.store)
    for _ in range(2):
        claim = queue.claim("doomed", kinds=[TRAIN], lease_seconds=0)
        assert claim is not None
        assert jobs.begin(claim, "m", lambda *_: Admission()) == ""
    work(journal)
    failed = jobs.get(job.id)
    assert (failed.status, failed.how) == (TrainingStatus.FAILED, "crashed")
    assert "each of 2 attempts" in failed.reason
    assert failed.incident_id


def test_what_a_job_was_to_do_is_known_of_the_version_that_it_made(
    journal: Journal, jobs: TrainingJobs
) -> None:
    wanted = spec(memory=5 * GB).model_copy(update={"modules": Path("/own"), "retries": 1})
    job = jobs.submit(wanted, by="ann")
    jobs.end(job.id, TrainingStatus.DONE)
    record = job_record(jobs.get(job.id), jobs.folder(job.id), cpu_watts=65)
    assert spec_of(JobRecord.model_validate_json(record.model_dump_json())) == wanted
    assert spec_of(record.model_copy(update={"details": {}})) is None
    assert spec_of(None) is None


def test_a_job_that_the_queue_put_aside_fails_too(journal: Journal, jobs: TrainingJobs) -> None:
    job = jobs.submit(spec(), by="ann")
    queue = Jobs(journal.store, attempts=1)
    claim = queue.claim("doomed", lease_seconds=0)
    assert claim is not None
    assert queue.claim("other") is None
    TrainingRuns(journal, ROOM, host="here").sweep()
    assert jobs.get(job.id).status is TrainingStatus.FAILED
    assert len(journal.incidents.list()) == 1
    TrainingRuns(journal, ROOM, host="here").sweep()
    assert journal.incidents.list()[0].alert_count == 1


def test_a_job_that_is_being_completed_is_not_swept_away(
    journal: Journal, jobs: TrainingJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.submit(spec(), by="ann")
    queue = Jobs(journal.store)
    claim = queue.claim("w", kinds=[TRAIN])
    assert claim is not None
    assert jobs.begin(claim, "m", lambda *_: Admission()) == ""

    def complete() -> None:
        with journal.store.transaction():
            queue.complete(claim)
            jobs.end(job.id, TrainingStatus.DONE)

    other = threading.Thread(target=complete)
    original = Jobs.find

    def find(found: Jobs, key: str) -> object:
        if other.ident is None:
            other.start()
            other.join(0.3)  # where nothing keeps it waiting, it is done by now
        return original(found, key)

    monkeypatch.setattr(Jobs, "find", find)
    TrainingRuns(journal, ROOM, host="here").sweep()
    other.join()
    assert jobs.get(job.id).status is TrainingStatus.DONE
    assert not journal.incidents.list()
