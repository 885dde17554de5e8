"""A worker does what is due, gives back what it cannot do, and is stopped by a word."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.lamp import ALERT, INVENTORY, Lamp, orchestrator, prefers
from watchkeeper import Inventory, Orchestrator
from watchkeeper.cli.jobs_work import beside
from watchkeeper.models.errors import BusyError, CancelledError, RemoteError
from watchkeeper.runtime.errors import ApprovalError, AuditError, HaltedError, OperationError, StoreError
from watchkeeper.runtime.escalation_states import EscalationStatus
from watchkeeper.runtime.events import Event, StageEntered
from watchkeeper.runtime.handing_over import hand_over
from watchkeeper.runtime.incident_jobs import RUN, IncidentRuns, go_on, run_key, submit
from watchkeeper.runtime.incidents import Incident, IncidentStatus
from watchkeeper.runtime.jobs import Job, Jobs, JobStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.worker import Handler, LaterError, StoppedError, Task, Worker


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "home") as journal:
        yield journal


@pytest.fixture
def jobs(journal: Journal) -> Jobs:
    return Jobs(journal.store)


def worker(journal: Journal, handler: Handler, said: list[str] | None = None) -> Worker:
    say: Callable[[str], object] = (lambda _: None) if said is None else said.append
    return Worker(Jobs(journal.store), journal.halts, {"toy": handler}, name="w", say=say)


def raising(error: BaseException) -> Handler:
    def handler(task: Task) -> None:
        raise error

    return handler


def outlast(journal: Journal, *, outages: int, say: Callable[[str], object]) -> None:
    """Run a worker until its job is done, which the audit log keeps from ending so many times."""
    left = iter(range(outages))

    def handler(task: Task) -> None:
        if next(left, None) is not None:
            raise AuditError("the disk is full")
        one.stop()

    one = Worker(Jobs(journal.store), journal.halts, {"toy": handler}, say=say)
    one.run()


def test_what_is_due_is_done_and_what_follows_too(journal: Journal, jobs: Jobs) -> None:
    done: list[object] = []

    def handler(task: Task) -> None:
        done.append(task.job.body["number"])
        if task.job.body["number"] == 1:
            with journal.store.transaction():
                task.complete()
                task.jobs.add("toy", {"number": 3})

    jobs.add("toy", {"number": 1})
    jobs.add("toy", {"number": 2})
    jobs.add("other", {})
    jobs.add("toy", {"number": 4}, due=journal.store.now() + timedelta(hours=1))
    worker(journal, handler).run(once=True)
    assert done == [1, 2, 3]
    assert [job.status.value for job in jobs.list()] == ["done", "queued", "queued", "done", "done"]


def test_what_goes_wrong_is_tried_again_and_told(journal: Journal, jobs: Jobs) -> None:
    said: list[str] = []
    jobs.add("toy", {})
    worker(journal, raising(ValueError("no\nluck")), said).run(once=True)
    (job,) = jobs.list()
    assert (job.status, job.attempts, job.error) == (JobStatus.QUEUED, 1, "ValueError: no luck")
    assert job.due_at > journal.store.now()
    assert len(said) == 1
    assert "'toy'" in said[0]


def test_what_cannot_be_audited_or_kept_now_counts_as_no_attempt(journal: Journal, jobs: Jobs) -> None:
    added = jobs.add("toy", {})
    with pytest.raises(AuditError, match="full"):
        worker(journal, raising(AuditError("the disk is full"))).run(once=True)
    (job,) = jobs.list()
    assert (job.status, job.attempts, job.due_at) == (JobStatus.QUEUED, 0, added.due_at)
    said: list[str] = []
    worker(journal, raising(StoreError("the disk is full")), said).run(once=True)
    (job,) = jobs.list()
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert job.due_at > journal.store.now()
    assert len(said) == 1


def test_an_outage_is_told_once_and_waited_for(
    journal: Journal, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.runtime.worker._OUTAGE_SECONDS", 0.01)
    said: list[str] = []
    jobs.add("toy", {})
    outlast(journal, outages=19, say=said.append)
    assert jobs.list()[0].status is JobStatus.DONE
    assert said == ["the disk is full"]


def test_whatever_goes_wrong_between_two_jobs_keeps_nobody_from_the_next(
    journal: Journal, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.runtime.worker._OUTAGE_SECONDS", 0.01)
    said: list[str] = []
    tidied, claimed = threading.Semaphore(0), jobs.claim

    def idle() -> None:
        tidied.release()
        raise FileExistsError("reports is no folder")

    def claim(*given: object, **more: object) -> object:
        if not said:
            raise ValueError("a row of a newer release")
        return claimed(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "claim", claim)
    one = Worker(
        jobs,
        journal.halts,
        {"toy": lambda _: one.stop()},
        lease_seconds=0.1,
        say=said.append,
        idle=idle,
    )
    thread = threading.Thread(target=one.run)
    thread.start()
    assert tidied.acquire(timeout=10)
    assert tidied.acquire(timeout=10)
    assert thread.is_alive()
    jobs.add("toy", {})
    thread.join(10)
    assert not thread.is_alive()
    assert jobs.list()[0].status is JobStatus.DONE
    assert "FileExistsError: reports is no folder" in said
    assert "ValueError: a row of a newer release" in said


def test_a_log_that_cannot_be_written_stops_no_work(
    journal: Journal, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.runtime.worker._OUTAGE_SECONDS", 0.01)
    jobs.add("toy", {})
    with Path("/dev/full").open("wb", buffering=0) as full:
        outlast(journal, outages=2, say=lambda text: full.write(text.encode()))
    assert jobs.list()[0].status is JobStatus.DONE


def test_what_cannot_be_done_now_counts_as_no_attempt(journal: Journal, jobs: Jobs) -> None:
    jobs.add("toy", {})
    worker(journal, raising(LaterError(60, "busy"))).run(once=True)
    (job,) = jobs.list()
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert job.due_at > journal.store.now() + timedelta(seconds=30)


@pytest.mark.parametrize("error", [StoppedError(), CancelledError("stopped")])
def test_what_was_stopped_half_way_is_given_back(journal: Journal, jobs: Jobs, error: Exception) -> None:
    started = threading.Event()

    def handler(task: Task) -> None:
        started.set()
        assert task.stopping.wait(10)
        raise error

    jobs.add("toy", {})
    one = worker(journal, handler)
    running = threading.Thread(target=one.run)
    running.start()
    assert started.wait(10)
    one.stop()
    running.join(10)
    assert not running.is_alive()
    (job,) = jobs.list()
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_who_lost_a_job_is_told_and_ends_nothing(journal: Journal, jobs: Jobs) -> None:
    said: list[str] = []

    def handler(task: Task) -> None:
        jobs.cancel("k")
        assert task.stopping.wait(10)

    jobs.add("toy", {}, key="k")
    short = Worker(jobs, journal.halts, {"toy": handler}, lease_seconds=0.3, say=said.append)
    short.run(once=True)
    assert jobs.list()[0].status is JobStatus.CANCELLED
    assert any("void" in line for line in said)


@pytest.mark.parametrize("shared", [True, False])
def test_where_the_store_is_away_for_a_lease_work_is_given_up_only_if_others_may_have_it(
    journal: Journal, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    stopped: list[bool] = []

    def away(self: Jobs, claim: object) -> None:
        raise StoreError("the server does not answer")

    def handler(task: Task) -> None:
        stopped.append(task.stopping.wait(1.5))

    # What a PostgreSQL server does whose network is gone for so long.
    monkeypatch.setattr(Jobs, "renew", away)
    monkeypatch.setattr(Jobs, "shared", shared)
    jobs.add("toy", {})
    Worker(jobs, journal.halts, {"toy": handler}, lease_seconds=0.3).run(once=True)
    assert stopped == [shared]


def test_a_halt_ends_a_worker_and_keeps_it_from_beginning(journal: Journal, jobs: Jobs) -> None:
    def handler(task: Task) -> None:
        journal.halts.stop(by="ann", reason="smoke")
        assert task.stopping.wait(10)
        raise StoppedError

    jobs.add("toy", {})
    with pytest.raises(HaltedError, match="smoke"):
        worker(journal, handler).run()
    assert jobs.list()[0].status is JobStatus.QUEUED
    with pytest.raises(HaltedError, match="smoke"):
        worker(journal, handler).run()


@pytest.fixture
def lamp(tmp_path: Path) -> Lamp:
    return Lamp.dark(tmp_path, bulb="broken")


@pytest.fixture
def o(tmp_path: Path, lamp: Lamp) -> Iterator[Orchestrator]:
    with orchestrator(tmp_path / "home", lamp, prefers("bulb"), approval_ttl_seconds=600) as o:
        yield o


def serve_once(o: Orchestrator, events: list[Event] | None = None) -> None:
    show: Callable[[Event], object] = (lambda _: None) if events is None else events.append
    Worker(Jobs(o.journal.store), o.journal.halts, {RUN: IncidentRuns(o, show=show)}).run(once=True)


def test_an_incident_that_waits_frees_its_worker_until_it_is_answered(o: Orchestrator, lamp: Lamp) -> None:
    jobs = Jobs(o.journal.store)
    incident = submit(o.journal, ALERT, by="cat")
    assert submit(o.journal, ALERT, by="dan").id == incident.id
    assert len(jobs.list()) == 1
    serve_once(o)
    (asked,) = o.journal.approvals.list(incident_id=incident.id)
    waiting = jobs.find(run_key(incident.id))
    assert waiting is not None
    assert (waiting.status, waiting.due_at) == (JobStatus.QUEUED, asked.expires_at)
    serve_once(o)
    assert o.journal.incidents.get(incident.id).status is IncidentStatus.AWAITING_APPROVAL
    for submitter in ("cat", "Dan "):
        with pytest.raises(ApprovalError, match="had handled: another person must approve it"):
            o.answer(asked.id, "approve", by=submitter)
    o.answer(asked.id, "approve", by="bob")
    events: list[Event] = []
    serve_once(o, events)
    assert o.journal.incidents.get(incident.id).status is IncidentStatus.RESOLVED
    assert lamp.shines()
    assert "incident-opened" not in {event.kind for event in events}
    assert not [job for job in jobs.list() if job.status.live]


def test_an_incident_of_a_host_that_a_worker_does_not_know_is_left_to_others(o: Orchestrator) -> None:
    incident = submit(o.journal, ALERT.model_copy(update={"host": "elsewhere"}), by="ann")
    said: list[str] = []
    runs = IncidentRuns(o, say=said.append)
    for _ in range(2):
        Worker(Jobs(o.journal.store), o.journal.halts, {RUN: runs}).run(once=True)
        Jobs(o.journal.store).hurry(run_key(incident.id))
    assert said == [said[0]]
    assert incident.id in said[0]
    assert "'elsewhere'" in said[0]
    serve_once(o)
    job = Jobs(o.journal.store).find(run_key(incident.id))
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert job.due_at > o.journal.store.now()
    assert o.journal.incidents.get(incident.id).status is IncidentStatus.OPEN


def test_people_are_called_once_about_an_incident_that_no_worker_takes(tmp_path: Path, lamp: Lamp) -> None:
    with orchestrator(tmp_path / "home", lamp, prefers("bulb"), unclaimed_seconds=0.5) as o:
        incident = submit(o.journal, ALERT.model_copy(update={"host": "elsewhere"}), by="ann")
        jobs = Jobs(o.journal.store)
        serve_once(o)
        assert o.journal.escalations.list() == ()
        time.sleep(0.5)
        for _ in range(2):
            jobs.hurry(run_key(incident.id))
            serve_once(o)
        (called,) = o.journal.escalations.list(incident_id=incident.id)
        assert called.subject.startswith(f"{incident.id} is worked on by nobody: ")
        assert "'elsewhere'" in called.subject
        assert len(o.journal.escalations.outbox.list(called.id)) == 1
        assert o.journal.incidents.get(incident.id).status is IncidentStatus.OPEN
        # Another worker knows the host: nobody is called any more.
        spec = INVENTORY.host("house").model_copy(update={"name": "elsewhere"})
        with orchestrator(
            tmp_path / "home", lamp, prefers("bulb"), inventory=Inventory(hosts=(spec,))
        ) as other:
            jobs.hurry(run_key(incident.id))
            serve_once(other)
        assert o.journal.escalations.get(called.id).status is EscalationStatus.ANSWERED


def test_a_worker_that_does_not_know_the_host_forgets_no_outage_of_the_one_that_does(o: Orchestrator) -> None:
    incident = submit(o.journal, ALERT.model_copy(update={"host": "elsewhere"}), by="ann")
    jobs, key = Jobs(o.journal.store), run_key(incident.id)
    claim = jobs.claim("the other")
    assert claim is not None
    jobs.release(claim, body={"incident": incident.id, "out_since": "2026-01-01T00:00:00+00:00"})
    serve_once(o)
    job = jobs.find(key)
    assert job is not None
    assert job.body["out_since"] == "2026-01-01T00:00:00+00:00"
    assert job.body["left_since"]


def test_people_are_called_again_where_no_worker_takes_it_any_more(tmp_path: Path, lamp: Lamp) -> None:
    with orchestrator(tmp_path / "home", lamp, prefers("bulb"), unclaimed_seconds=1) as o:
        incident = submit(o.journal, ALERT.model_copy(update={"host": "elsewhere"}), by="ann")
        jobs, called = Jobs(o.journal.store), []

        def left_for(seconds: float) -> int:
            for pause in (0, seconds):
                time.sleep(pause)
                jobs.hurry(run_key(incident.id))
                serve_once(o)
            called[:] = o.journal.escalations.list(incident_id=incident.id)
            return len(called)

        assert left_for(1.1) == 1
        o.journal.escalations.claimed(incident.id)
        o.journal.record(incident.id, StageEntered(stage="triage"), key="worked")
        assert left_for(0) == 1  # it was worked on since, so the time begins anew
        assert left_for(1.1) == 2
        assert left_for(1.1) == 2
        assert {one.status for one in called} == {EscalationStatus.ANSWERED, EscalationStatus.WAITING}


def test_an_answer_that_cannot_be_audited_brings_no_worker(o: Orchestrator) -> None:
    incident = submit(o.journal, ALERT, by="ann")
    serve_once(o)
    (asked,) = o.journal.approvals.list(incident_id=incident.id)
    o.journal.audit.path.write_text("nonsense\n")
    with pytest.raises(Exception, match="audit log"):
        o.answer(asked.id, "approve", by="bob")
    job = Jobs(o.journal.store).find(run_key(incident.id))
    assert job is not None
    assert job.due_at == asked.expires_at


def test_silence_brings_a_worker_too(tmp_path: Path, lamp: Lamp) -> None:
    with orchestrator(tmp_path / "home", lamp, prefers("bulb"), approval_ttl_seconds=4) as o:
        incident = submit(o.journal, ALERT, by="ann")
        serve_once(o)
        jobs = Jobs(o.journal.store)
        waiting = jobs.find(run_key(incident.id))
        assert waiting is not None
        assert waiting.status is JobStatus.QUEUED
        threading.Event().wait(max(0, (waiting.due_at - o.journal.store.now()).total_seconds()) + 0.01)
        serve_once(o)
        assert o.journal.incidents.get(incident.id).status is IncidentStatus.ESCALATED
    assert not lamp.shines()


def test_an_answer_while_the_job_still_runs_is_not_missed(o: Orchestrator) -> None:
    jobs = Jobs(o.journal.store)
    incident = submit(o.journal, ALERT, by="ann")

    def answer_at_once(event: Event) -> None:
        if event.kind == "approval-requested":
            o.answer(event.approval_id, "approve", by="bob")  # type: ignore[attr-defined, unused-ignore]

    Worker(jobs, o.journal.halts, {RUN: IncidentRuns(o, show=answer_at_once)}).run(once=True)
    assert o.journal.incidents.get(incident.id).status is IncidentStatus.RESOLVED


def test_an_incident_that_was_not_submitted_is_left_to_whoever_runs_it(o: Orchestrator) -> None:
    incident = o.open(ALERT)
    go_on(o.journal.store, incident.id)
    assert Jobs(o.journal.store).list() == ()


def test_an_incident_that_another_process_runs_is_tried_later(o: Orchestrator) -> None:
    incident = submit(o.journal, ALERT, by="ann")
    with o.journal.incidents.lock(incident.id):
        serve_once(o)
    job = Jobs(o.journal.store).find(run_key(incident.id))
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_nothing_is_submitted_while_everything_is_stopped(o: Orchestrator) -> None:
    o.journal.halts.stop(by="ann")
    with pytest.raises(HaltedError):
        submit(o.journal, ALERT, by="ann")
    assert o.journal.incidents.list() == ()


class Gone:
    """A model that raises instead of answering, until it is back."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self._engine = prefers("bulb")

    def __getattr__(self, name: str) -> object:
        if self.error is not None and name in {"choose", "generate"}:
            raise self.error
        return getattr(self._engine, name)


def job_of(o: Orchestrator, incident: Incident) -> Job:
    job = Jobs(o.journal.store).find(run_key(incident.id))
    assert job is not None
    return job


@pytest.mark.parametrize("error", [RemoteError("refused"), BusyError("later"), StoreError("no")])
def test_an_incident_waits_for_a_model_that_is_out_of_reach(
    tmp_path: Path, lamp: Lamp, error: Exception
) -> None:
    engine = Gone(error)
    said: list[str] = []
    with orchestrator(tmp_path / "home", lamp, engine) as o:  # type: ignore[arg-type]  # it stands for one
        incident = submit(o.journal, ALERT, by="ann")
        runs = IncidentRuns(o, say=said.append)
        for _ in range(10):
            Worker(Jobs(o.journal.store), o.journal.halts, {RUN: runs}).run(once=True)
            waiting = job_of(o, incident)
            assert (waiting.status, waiting.attempts) == (JobStatus.QUEUED, 0)
            assert waiting.due_at > o.journal.store.now()
            Jobs(o.journal.store).hurry(run_key(incident.id))
        assert len(said) == 1
        assert "waits, at most until" in said[0]
        engine.error = None
        serve_once(o)
        assert o.journal.incidents.get(incident.id).status is IncidentStatus.AWAITING_APPROVAL
        assert job_of(o, incident).body == {"incident": incident.id}


def test_an_incident_whose_model_stays_out_of_reach_is_handed_over_with_the_reason(
    tmp_path: Path, lamp: Lamp
) -> None:
    engine = Gone(RemoteError("nobody listens at port 9"))
    with orchestrator(tmp_path / "home", lamp, engine, outage_seconds=0.5) as o:  # type: ignore[arg-type]
        incident = submit(o.journal, ALERT, by="ann")
        serve_once(o)
        time.sleep(0.5)
        assert o.journal.incidents.get(incident.id).status is IncidentStatus.INVESTIGATING
        Jobs(o.journal.store).hurry(run_key(incident.id))
        serve_once(o)
        reason = "nothing could be done for 0.5 s: RemoteError: nobody listens at port 9"
        ended = o.journal.incidents.get(incident.id)
        assert (ended.status, ended.summary) == (IncidentStatus.ESCALATED, reason)
        (called,) = o.journal.escalations.list(incident_id=incident.id)
        assert called.subject == f"{incident.id} was handed to people: {reason}"
        assert o.report(incident.id).reason == reason
        assert (tmp_path / "home" / "reports" / f"{incident.id}.md").exists()
        assert job_of(o, incident).status is JobStatus.DONE
        # It has ended: nothing is begun anew.
        engine.error = None
        events = list(o.resume(incident.id))
        assert events == list(o.journal.incidents.events(incident.id))
        assert o.journal.incidents.get(incident.id).status is IncidentStatus.ESCALATED


def test_an_outage_that_ended_counts_no_more(tmp_path: Path, lamp: Lamp) -> None:
    engine = Gone(RemoteError("refused"))
    with orchestrator(tmp_path / "home", lamp, engine, outage_seconds=0.5) as o:  # type: ignore[arg-type]
        incident = submit(o.journal, ALERT, by="ann")
        serve_once(o)
        time.sleep(0.5)
        Jobs(o.journal.store).hurry(run_key(incident.id))
        resume = o.resume

        def worked(incident_id: str, *, wait: bool) -> Iterator[Event]:
            o.journal.record(incident_id, StageEntered(stage="diagnose"), key="worked")
            return resume(incident_id, wait=wait)

        o.resume = worked  # type: ignore[method-assign]
        serve_once(o)
        assert o.journal.incidents.get(incident.id).status is IncidentStatus.INVESTIGATING
        time.sleep(0.5)
        Jobs(o.journal.store).hurry(run_key(incident.id))
        serve_once(o)  # nothing new this time
        assert o.journal.incidents.get(incident.id).status is IncidentStatus.ESCALATED


def test_a_report_that_could_not_be_written_is_written_later(
    tmp_path: Path, lamp: Lamp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with orchestrator(tmp_path / "home", lamp, prefers("bulb")) as o:
        incident = submit(o.journal, ALERT, by="ann")
        (tmp_path / "home" / "reports").write_text("no folder")
        with pytest.raises(OperationError, match="was not written"):
            hand_over(o, incident.id, "nobody goes on")
        assert o.journal.incidents.get(incident.id).status is IncidentStatus.ESCALATED
        (tmp_path / "home" / "reports").unlink()
        hand_over(o, incident.id, "nobody goes on")
        assert (tmp_path / "home" / "reports" / f"{incident.id}.md").exists()


def test_an_incident_whose_job_is_put_aside_is_handed_over(
    o: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(incident_id: str, *, wait: bool) -> Iterator[Event]:
        raise ValueError("a bug")

    incident = submit(o.journal, ALERT, by="ann")
    said: list[str] = []
    runs = IncidentRuns(o, say=said.append)
    with monkeypatch.context() as bug:
        bug.setattr(o, "resume", broken)
        Worker(Jobs(o.journal.store, attempts=1), o.journal.halts, {RUN: runs}).run(once=True)
    assert job_of(o, incident).status is JobStatus.DEAD
    with monkeypatch.context() as outage:
        outage.setattr(o.journal.audit, "append", lambda *_: raising(AuditError("full"))(None))  # type: ignore[arg-type]
        runs.sweep()
    assert said == [f"incident {incident.id!r} could not be handed over: full"]
    assert not o.journal.incidents.get(incident.id).status.ended
    with o.journal.incidents.lock(incident.id):
        runs.sweep()
    assert not o.journal.incidents.get(incident.id).status.ended
    for _ in range(2):
        runs.sweep()
    assert o.journal.incidents.get(incident.id).status is IncidentStatus.ESCALATED
    (called,) = o.journal.escalations.list(incident_id=incident.id)
    assert called.subject.endswith("no worker could go on with it: ValueError: a bug")
    assert len(said) == 2


def test_an_incident_that_a_person_went_on_with_to_a_question_is_not_handed_over(o: Orchestrator) -> None:
    incident = submit(o.journal, ALERT, by="ann")
    jobs = Jobs(o.journal.store)
    claim = jobs.claim("w")
    assert claim is not None
    jobs.bury(claim, "a bug")
    list(o.resume(incident.id, wait=False))
    IncidentRuns(o).sweep()
    assert o.journal.incidents.get(incident.id).status is IncidentStatus.AWAITING_APPROVAL
    (asked,) = o.journal.approvals.list(incident_id=incident.id)
    o.answer(asked.id, "approve", by="bob")
    IncidentRuns(o).sweep()
    serve_once(o)
    assert o.journal.incidents.get(incident.id).status is IncidentStatus.RESOLVED


def test_an_idle_worker_tidies_up_now_and_then(journal: Journal, jobs: Jobs) -> None:
    tidied = threading.Semaphore(0)
    idle = Worker(jobs, journal.halts, {}, lease_seconds=0.1, idle=tidied.release)
    thread = threading.Thread(target=idle.run)
    thread.start()
    try:
        assert tidied.acquire(timeout=10)
        assert tidied.acquire(timeout=10)
    finally:
        idle.stop()
        thread.join()


def test_what_ends_training_beside_other_work_is_raised_where_that_ends(journal: Journal, jobs: Jobs) -> None:
    with journal.store.transaction() as connection:
        connection.execute(text("DROP TABLE halts"))
    worker = Worker(jobs, journal.halts, {})
    with pytest.raises(StoreError, match="no such table: halts"), beside(worker, threads=1, once=True):
        pass
