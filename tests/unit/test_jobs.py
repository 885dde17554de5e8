"""Jobs are done by one worker at a time, at their time, and never forgotten."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.clocks import FakeClock
from watchkeeper.runtime import schema
from watchkeeper.runtime.errors import FencedError
from watchkeeper.runtime.jobs import AWAITED, Job, Jobs, JobStatus
from watchkeeper.runtime.store import Store

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def time() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "w.db") as store:
        yield store


@pytest.fixture
def jobs(store: Store, time: FakeClock) -> Jobs:
    return Jobs(store, now=time, attempts=3)


def test_a_job_is_claimed_once_and_done_once(jobs: Jobs) -> None:
    added = jobs.add("toy", {"number": 1})
    claim = jobs.claim("a")
    assert claim is not None
    assert claim.job.id == added.id
    assert claim.job.body == {"number": 1}
    assert jobs.claim("b") is None
    jobs.complete(claim)
    assert jobs.get(added.id).status is JobStatus.DONE
    assert jobs.claim("b") is None
    with pytest.raises(FencedError, match="is 'done' since"):
        jobs.complete(claim)


def test_what_is_due_longest_comes_first_and_nothing_before_its_time(jobs: Jobs, time: FakeClock) -> None:
    later = jobs.add("toy", {}, due=START + timedelta(seconds=20))
    sooner = jobs.add("toy", {}, due=START + timedelta(seconds=10))
    assert jobs.claim("a") is None
    time.forward(seconds=30)
    assert [claim.job.id for claim in (jobs.claim("a"), jobs.claim("a")) if claim] == [sooner.id, later.id]


def test_a_due_time_survives_a_restart(jobs: Jobs, store: Store, time: FakeClock) -> None:
    jobs.add("toy", {}, due=START + timedelta(seconds=60), key="timer")
    with Store(store.place) as again:
        found = Jobs(again, now=time).find("timer")
        assert found is not None
        assert found.due_at == START + timedelta(seconds=60)


def test_a_due_time_without_a_zone_is_refused(jobs: Jobs) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        jobs.add("toy", {}, due=datetime(2026, 1, 1))


def test_one_live_job_a_key(jobs: Jobs) -> None:
    first = jobs.add("toy", {}, key="k")
    assert jobs.add("toy", {"other": True}, key="k") == first
    claim = jobs.claim("a")
    assert claim is not None
    assert jobs.add("toy", {}, key="k").id == first.id
    jobs.complete(claim)
    assert jobs.add("toy", {}, key="k").id != first.id


def test_a_job_of_a_transaction_that_fails_was_never_added(jobs: Jobs, store: Store) -> None:
    with contextlib.suppress(RuntimeError), store.transaction():
        jobs.add("toy", {})
        raise RuntimeError
    assert jobs.list() == ()


def test_what_follows_is_added_with_the_end_or_not_at_all(jobs: Jobs, store: Store) -> None:
    jobs.add("first", {}, key="k")
    claim = jobs.claim("a")
    assert claim is not None
    with contextlib.suppress(RuntimeError), store.transaction():
        jobs.complete(claim)
        jobs.add("second", {}, key="k")
        raise RuntimeError
    assert [(job.kind, job.status.value) for job in jobs.list()] == [("first", "running")]
    with store.transaction():
        jobs.complete(claim)
        jobs.add("second", {}, key="k")
    assert [(job.kind, job.status.value) for job in jobs.list()] == [("second", "queued"), ("first", "done")]


def test_a_silent_worker_loses_its_job_and_cannot_end_it(jobs: Jobs, time: FakeClock) -> None:
    jobs.add("toy", {})
    old = jobs.claim("a", lease_seconds=10)
    assert old is not None
    time.forward(seconds=9)
    jobs.renew(old)
    time.forward(seconds=9)
    assert jobs.claim("b") is None
    time.forward(seconds=1)
    new = jobs.claim("b", lease_seconds=10)
    assert new is not None
    assert new.fence > old.fence
    assert new.job.attempts == 2
    for late in (jobs.renew, jobs.complete, jobs.release):
        with pytest.raises(FencedError, match="'running' by 'b' since"):
            late(old)
    with pytest.raises(FencedError):
        jobs.fail(old, "late")
    jobs.complete(new)


def test_what_a_clock_that_was_ahead_claimed_is_claimed_again(jobs: Jobs, time: FakeClock) -> None:
    jobs.add("toy", {})
    time.forward(seconds=40 * 86_400)
    assert jobs.claim("a", lease_seconds=30) is not None
    time.forward(seconds=-40 * 86_400)
    claim = jobs.claim("b", lease_seconds=30)
    assert claim is not None
    assert jobs.claim("c", lease_seconds=30) is None
    jobs.complete(claim)


def test_the_claim_of_another_worker_is_void_though_its_numbers_fit(jobs: Jobs) -> None:
    jobs.add("toy", {})
    claim = jobs.claim("a")
    assert claim is not None
    with pytest.raises(FencedError, match="'running' by 'a' since"):
        jobs.complete(dataclasses.replace(claim, worker="b"))
    jobs.complete(claim)


def test_a_lease_begins_once_it_can_be_written(jobs: Jobs, store: Store, time: FakeClock) -> None:
    jobs.add("toy", {})
    claim = jobs.claim("a", lease_seconds=30)
    assert claim is not None
    holds, waits = threading.Event(), threading.Event()

    def write() -> None:
        with store.transaction() as connection:
            connection.execute(schema.meta.insert().values(name="x", value=""))
            holds.set()
            waits.wait(10)

    writer = threading.Thread(target=write)
    writer.start()
    assert holds.wait(10)
    renewing = threading.Thread(target=jobs.renew, args=(claim,))
    renewing.start()
    threading.Event().wait(0.2)
    time.forward(seconds=25)
    waits.set()
    for thread in (renewing, writer):
        thread.join(10)
    assert jobs.get(claim.job.id).lease_until == START + timedelta(seconds=55)


def test_a_failed_attempt_is_repeated_later_and_later_until_it_is_put_aside(
    jobs: Jobs, time: FakeClock
) -> None:
    jobs.add("toy", {})
    for pause in (2, 4):
        claim = jobs.claim("a")
        assert claim is not None
        assert jobs.fail(claim, "no luck").due_at == time() + timedelta(seconds=pause)
        assert jobs.claim("a") is None
        time.forward(seconds=pause)
    claim = jobs.claim("a")
    assert claim is not None
    assert jobs.fail(claim, "no luck") == jobs.list(status=JobStatus.DEAD)[0]
    time.forward(seconds=1000)
    assert jobs.claim("a") is None


def test_crashes_count_as_attempts(jobs: Jobs, time: FakeClock) -> None:
    jobs.add("toy", {})
    for _ in range(3):
        assert jobs.claim("a", lease_seconds=1)
        time.forward(seconds=1)
    assert jobs.claim("a") is None
    (dead,) = jobs.list()
    assert (dead.status, dead.error) == (JobStatus.DEAD, "its worker 'a' went silent in attempt 3")


def test_giving_back_counts_as_no_attempt(jobs: Jobs, time: FakeClock) -> None:
    jobs.add("toy", {})
    for _ in range(10):
        claim = jobs.claim("a")
        assert claim is not None
        jobs.release(claim, again_in=1)
        assert jobs.claim("a") is None
        time.forward(seconds=1)
    assert jobs.list()[0].attempts == 0


def test_what_is_given_back_at_once_keeps_its_place(jobs: Jobs, time: FakeClock) -> None:
    first = jobs.add("toy", {})
    time.forward(seconds=1)
    jobs.add("toy", {})
    time.forward(seconds=60)
    claim = jobs.claim("a")
    assert claim is not None
    jobs.release(claim)
    again = jobs.claim("a")
    assert again is not None
    assert again.job.id == first.id


@pytest.mark.parametrize("kind", sorted(AWAITED))
def test_what_people_wait_for_is_never_put_aside(jobs: Jobs, time: FakeClock, kind: str) -> None:
    jobs.add(kind, {})
    for how in 20 * ("fail", "silence"):
        claim = jobs.claim("a", lease_seconds=30)
        assert claim is not None
        if how == "fail":
            assert jobs.fail(claim, "no luck").due_at <= time() + timedelta(minutes=1)
        time.forward(minutes=1)


def test_a_job_that_nothing_mends_is_put_aside_at_once(jobs: Jobs) -> None:
    jobs.add("toy", {})
    claim = jobs.claim("a")
    assert claim is not None
    assert jobs.bury(claim, "nonsense").status is JobStatus.DEAD


@pytest.mark.parametrize("running", [False, True])
def test_a_cancelled_job_is_not_done(jobs: Jobs, running: bool) -> None:
    jobs.add("toy", {}, key="k")
    claim = jobs.claim("a") if running else None
    assert jobs.cancel("k")
    assert not jobs.cancel("k")
    assert jobs.claim("a") is None
    if claim is not None:
        with pytest.raises(FencedError, match="is 'cancelled' since"):
            jobs.complete(claim)


def test_a_timer_may_be_brought_forward(jobs: Jobs) -> None:
    assert not jobs.hurry("k")
    jobs.add("toy", {}, key="k", due=START + timedelta(hours=1))
    assert jobs.claim("a") is None
    assert jobs.hurry("k")
    assert jobs.claim("a") is not None
    assert jobs.hurry("k")


def test_a_worker_takes_only_its_kinds(jobs: Jobs) -> None:
    jobs.add("one", {})
    jobs.add("two", {})
    assert jobs.claim("a", kinds=()) is None
    claim = jobs.claim("a", kinds={"two"})
    assert claim is not None
    assert claim.job.kind == "two"


def test_jobs_are_listed_the_newest_first(jobs: Jobs) -> None:
    added: list[Job] = [jobs.add(kind, {}) for kind in ("one", "two", "one")]
    assert jobs.list() == tuple(reversed(added))
    assert jobs.list(kind="one") == (added[2], added[0])
    assert jobs.list(limit=1) == (added[2],)
