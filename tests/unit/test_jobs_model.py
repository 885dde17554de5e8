"""Jobs and leases against a simple model: any order of claims, crashes, moves of the clock and late ends."""

from __future__ import annotations

import os
import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.lamp import folder_in_memory
from watchkeeper.runtime.errors import FencedError
from watchkeeper.runtime.jobs import Claim, Jobs, JobStatus
from watchkeeper.runtime.leases import Lease, Leases
from watchkeeper.runtime.store import Store

ROUNDS = int(os.environ.get("WATCHKEEPER_RACES", "80"))
ATTEMPTS = 3
LEASE = 10
KEYS = st.sampled_from(["a", "b", None])
WORKERS = st.sampled_from(["one", "two"])


class Expected:
    """What the model knows of a job."""

    def __init__(self, number: int, key: str | None, due: datetime) -> None:
        self.number = number
        self.key = key
        self.due = due
        self.status = JobStatus.QUEUED
        self.attempts = 0
        self.claim: Claim | None = None
        self.until = due


class Machine(RuleBasedStateMachine):
    """Two workers that share jobs and a name, and may be silent for any time."""

    claims: Bundle[Claim] = Bundle("claims")
    leases: Bundle[Lease] = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.folder = folder_in_memory()
        self.at = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = Store(self.folder.__enter__() / "w.db")
        self.jobs = Jobs(self.store, now=lambda: self.at, attempts=ATTEMPTS)
        self.names = Leases(self.store, now=lambda: self.at)
        self.expected: dict[int, Expected] = {}
        self.done: list[int] = []
        self.held: Lease | None = None
        self.held_until = self.at

    def teardown(self) -> None:
        self.store.close()
        self.folder.__exit__(None, None, None)

    @rule(key=KEYS, wait=st.integers(0, 30))
    def add(self, key: str | None, wait: int) -> None:
        due = self.at + timedelta(seconds=wait)
        job = self.jobs.add("toy", {}, key=key, due=due)
        live = [e for e in self.expected.values() if key is not None and e.key == key and e.status.live]
        if live:
            assert job.id == live[0].number
        else:
            assert job.id not in self.expected
            self.expected[job.id] = Expected(job.id, key, due)

    @rule(target=claims, worker=WORKERS)
    def claim(self, worker: str) -> Any:
        ready = sorted((e for e in self.expected.values() if self._ready(e)), key=lambda e: (e.due, e.number))
        wanted = None
        for job in ready:
            if job.attempts < ATTEMPTS:
                wanted = job
                break
            job.status = JobStatus.DEAD
        claim = self.jobs.claim(worker, lease_seconds=LEASE)
        if wanted is None:
            assert claim is None
            return multiple()
        assert claim is not None
        assert claim.job.id == wanted.number
        wanted.status, wanted.claim = JobStatus.RUNNING, claim
        wanted.attempts += 1
        wanted.until = self.at + timedelta(seconds=LEASE)
        return claim

    @rule(claim=claims, how=st.sampled_from(["complete", "renew", "fail", "release"]))
    def end(self, claim: Claim, how: str) -> None:
        job = self.expected[claim.job.id]
        if job.status is not JobStatus.RUNNING or job.claim is not claim:
            with pytest.raises(FencedError):
                self._call(claim, how)
            return
        self._call(claim, how)
        if how == "complete":
            job.status = JobStatus.DONE
            self.done.append(job.number)
        elif how == "renew":
            job.until = self.at + timedelta(seconds=LEASE)
        elif how == "fail" and job.attempts >= ATTEMPTS:
            job.status = JobStatus.DEAD
        else:
            job.status, job.due = JobStatus.QUEUED, self.at + timedelta(seconds=5)
            job.attempts -= how == "release"

    @rule(key=st.sampled_from(["a", "b"]))
    def cancel(self, key: str) -> None:
        live = [e for e in self.expected.values() if e.key == key and e.status.live]
        assert self.jobs.cancel(key) == bool(live)
        for job in live:
            job.status = JobStatus.CANCELLED

    @rule(key=st.sampled_from(["a", "b"]))
    def hurry(self, key: str) -> None:
        live = [e for e in self.expected.values() if e.key == key and e.status.live]
        assert self.jobs.hurry(key) == bool(live)
        for job in live:
            job.due = self.at if job.status is JobStatus.RUNNING else min(job.due, self.at)

    @rule(seconds=st.sampled_from([-3, 1, 4, 9, 10, 40]))
    def move_the_clock(self, seconds: int) -> None:
        self.at += timedelta(seconds=seconds)

    @rule(target=leases, worker=WORKERS)
    def acquire(self, worker: str) -> Any:
        lease = self.names.acquire("x", worker, seconds=LEASE)
        if self.held is not None and self.held_until > self.at:
            assert lease is None
            return multiple()
        assert lease is not None
        self.held, self.held_until = lease, self.at + timedelta(seconds=LEASE)
        return lease

    @rule(lease=leases)
    def renew_name(self, lease: Lease) -> None:
        if lease is self.held:
            self.names.renew(lease)
            self.held_until = self.at + timedelta(seconds=LEASE)
        else:
            with pytest.raises(FencedError):
                self.names.renew(lease)

    @rule(lease=leases)
    def release_name(self, lease: Lease) -> None:
        assert self.names.release(lease) == (lease is self.held)
        if lease is self.held:
            self.held = None

    @rule(lease=leases)
    def write_under_a_name(self, lease: Lease) -> None:
        with self.store.fenced(lease):
            if lease is self.held:
                assert not self.jobs.cancel("nothing of this name")
            else:
                with pytest.raises(FencedError):
                    self.jobs.cancel("nothing of this name")

    @invariant()
    def the_store_agrees(self) -> None:
        found = {job.id: job for job in self.jobs.list(limit=1000)}
        assert found.keys() == self.expected.keys()
        for number, job in self.expected.items():
            assert (found[number].status, found[number].attempts) == (job.status, job.attempts)
        assert len(self.done) == len(set(self.done))

    def _ready(self, job: Expected) -> bool:
        if job.status is JobStatus.QUEUED:
            return job.due <= self.at
        return job.status is JobStatus.RUNNING and job.until <= self.at

    def _call(self, claim: Claim, how: str) -> None:
        match how:
            case "complete":
                self.jobs.complete(claim)
            case "renew":
                self.jobs.renew(claim)
            case "fail":
                self.jobs.fail(claim, "no luck", retry_in=5)
            case _:
                self.jobs.release(claim, again_in=5)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def interleavings(home: Path, count: int) -> None:
    """Have two workers, each with a store of its own, want the same incident and the same job at once."""
    with Store(home / "w.db") as one, Store(home / "w.db") as two:
        for seed in range(count):
            chance = random.Random(seed)
            Jobs(one).add("toy", {}, key=f"job-{seed}")
            waits = [chance.uniform(0, 0.002) for _ in range(2)]
            order = chance.sample(["job", "name"], 2)
            won: dict[str, list[str]] = {"job": [], "name": []}
            together = threading.Barrier(2)

            def want(store: Store, who: str, wait: float) -> None:
                together.wait()  # noqa: B023 (the threads end within the turn)
                threading.Event().wait(wait)
                for what in order:  # noqa: B023
                    if what == "name":
                        got = Leases(store).acquire(f"incident-{seed}", who) is not None  # noqa: B023
                    else:
                        claim = Jobs(store).claim(who)
                        got = claim is not None
                        if claim is not None:
                            Jobs(store).complete(claim)
                    if got:
                        won[what].append(who)  # noqa: B023

            threads = [
                threading.Thread(target=want, args=(store, who, wait))
                for store, who, wait in ((one, "one", waits[0]), (two, "two", waits[1]))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert {what: len(winners) for what, winners in won.items()} == {"job": 1, "name": 1}, seed


def test_of_two_workers_exactly_one_gets_it() -> None:
    with folder_in_memory() as home:
        interleavings(home, ROUNDS)


@pytest.mark.crash
def test_of_two_workers_exactly_one_gets_it_in_a_thousand_interleavings() -> None:
    with folder_in_memory() as home:
        interleavings(home, 1000)
