"""Workers are processes: one takes over what another left, and all of them stop at a word."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import fleet
from tests.lamp import ALERT, Lamp, folder_in_memory
from watchkeeper.runtime.incident_jobs import run_key, submit
from watchkeeper.runtime.jobs import Jobs, JobStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState

LEASE = 1.0
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def world() -> Iterator[Path]:
    with folder_in_memory() as folder:
        Lamp.dark(folder, bulb="broken")
        yield folder


@pytest.fixture
def journal(world: Path) -> Iterator[Journal]:
    with Journal(world / "home") as journal:
        yield journal


@pytest.fixture
def start(world: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def starting(**options: float) -> subprocess.Popen[str]:
        worker = fleet.start(world / "home", world, **({"lease": LEASE} | options))
        started.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        return worker

    yield starting
    for worker in started:
        worker.kill()
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def kill_and_take_over(world: Path, journal: Journal, start: Start, chance: random.Random) -> None:
    lamp = Lamp(world)
    workers = [start(), start()]
    incident = submit(journal, ALERT, by="ann")
    jobs = Jobs(journal.store)
    wait_for(lambda: jobs.list()[0].status is not JobStatus.QUEUED)
    time.sleep(chance.uniform(0, 0.6))
    name = jobs.list()[0].worker or ""
    (doomed,) = (worker for worker in workers if f":{worker.pid}:" in name)
    doomed.kill()
    killed = time.monotonic()
    wait_for(lambda: journal.incidents.get(incident.id).status.ended)
    ended = journal.incidents.get(incident.id)
    assert ended.status.value == "resolved", ended.summary
    # The lease, the work itself, and much patience with a busy machine.
    assert time.monotonic() - killed < LEASE + 15
    assert lamp.shines()
    changes = lamp.changes()
    assert all(count == 1 for who, count in changes.items() if who != "somebody"), changes
    assert [effect.state for effect in journal.ledger.list(incident.id)].count(EffectState.DONE) == 1
    wait_for(lambda: not [job for job in jobs.list() if job.status.live])


def test_a_worker_takes_over_what_a_killed_one_left_and_no_effect_is_done_twice(
    world: Path, journal: Journal, start: Start
) -> None:
    kill_and_take_over(world, journal, start, random.Random(7))


@pytest.mark.crash
@pytest.mark.parametrize("seed", range(25))
def test_many_workers_are_killed_at_random_moments(
    world: Path, journal: Journal, start: Start, seed: int
) -> None:
    kill_and_take_over(world, journal, start, random.Random(seed))


def test_a_generation_is_halted_within_a_second_in_every_process(
    world: Path, journal: Journal, start: Start
) -> None:
    workers = [start(seconds=60), start(seconds=60)]
    incident = submit(journal, ALERT, by="ann")
    wait_for(lambda: "running" in {job.status.value for job in Jobs(journal.store).list()})
    wait_for(lambda: any(event.kind == "stage-entered" for event in journal.incidents.events(incident.id)))
    time.sleep(0.3)
    stopped = time.monotonic()
    journal.halts.stop(by="ann", reason="smoke")
    for worker in workers:
        assert worker.stdout is not None
        *_, last = worker.stdout
        said, at = last.split()
        assert said == "halted"
        assert float(at) - stopped < 1
        assert worker.wait(timeout=60) == fleet.HALTED
    job = Jobs(journal.store).find(run_key(incident.id))
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    refused = fleet.start(world / "home", world, lease=LEASE)
    assert refused.wait(timeout=60) == fleet.HALTED
    assert refused.stdout is not None
    refused.stdout.close()
    journal.halts.lift(by="ann")
    start()
    wait_for(lambda: journal.incidents.get(incident.id).status.ended)
    assert Lamp(world).shines()


def test_an_effect_under_way_is_completed_and_recorded_when_all_is_halted(
    world: Path, journal: Journal, start: Start
) -> None:
    (world / "slow").touch()
    worker = start()
    incident = submit(journal, ALERT, by="ann")
    wait_for((world / "begun").exists)
    journal.halts.stop(by="ann", reason="smoke")
    time.sleep(1)
    assert worker.poll() is None
    (world / "slow").unlink()
    assert worker.wait(timeout=60) == fleet.HALTED
    (effect,) = journal.ledger.list(incident.id)
    assert effect.state is EffectState.DONE
    assert Lamp(world).shines()
    assert not journal.incidents.get(incident.id).status.ended
    journal.halts.lift(by="ann")
    start()
    wait_for(lambda: journal.incidents.get(incident.id).status.ended)
    assert journal.incidents.get(incident.id).status.value == "resolved"
    assert Lamp(world).changes()[effect.step_id] == 1
