"""Two workers on one server: whatever happens to the one, the other goes on, and no effect is done twice.

The lamp's file is written by commands of their own, one line a change: it is the witness.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from tests import fleet
from tests.lamp import ALERT, Lamp, folder_in_memory
from tests.postgres import Server
from watchkeeper.runtime import schema
from watchkeeper.runtime.incident_jobs import submit
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState

LEASE = 1.0


@dataclass
class World:
    """A lamp, a database, and workers."""

    folder: Path
    url: str
    journal: Journal
    workers: list[subprocess.Popen[str]]

    @property
    def lamp(self) -> Lamp:
        return Lamp(self.folder)

    def start(self, **options: float) -> subprocess.Popen[str]:
        # Each has a home of its own, as on machines of their own.
        home = self.folder / f"home-{len(self.workers)}" / "state"
        home.mkdir(parents=True)
        worker = fleet.start(home, self.folder, store=self.url, **({"lease": LEASE} | options))
        self.workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        return worker

    def worker_of(self, number: int = 0) -> subprocess.Popen[str]:
        """The worker that has the only job."""
        wait_for(lambda: bool(self.named()))
        (found,) = (worker for worker in self.workers if f":{worker.pid}:" in self.named())
        return found

    def named(self) -> str:
        return Jobs(self.journal.store).list()[0].worker or ""

    def wait_for_the_end(self, incident_id: str) -> None:
        wait_for(lambda: self.journal.incidents.get(incident_id).status.ended)
        wait_for(lambda: not [job for job in Jobs(self.journal.store).list() if job.status.live])

    def check(self, incident_id: str, *states: EffectState) -> None:
        """The incident has ended well, each effect took place once at most, and one of them did."""
        found = self.journal.incidents.get(incident_id)
        assert found.status.value == "resolved", found.summary
        assert self.lamp.shines()
        changes = self.lamp.changes()
        changes.pop("somebody")
        assert list(changes.values()) == [1], changes
        effects = self.journal.ledger.list(incident_id)
        assert [effect.state for effect in effects] == list(states)
        done = next(effect for effect in effects if effect.state is EffectState.DONE)
        assert changes[done.step_id] == 1

    def content(self) -> dict[str, list[tuple[object, ...]]]:
        """Everything in the database but the leases, which come and go with claims."""
        with self.journal.store.reading() as connection:
            return {
                table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
                for table in schema.metadata.sorted_tables
            }


@pytest.fixture
def world(server: Server) -> Iterator[World]:
    url = server.new_database()
    with folder_in_memory() as folder:
        Lamp.dark(folder, bulb="broken")
        with Journal(folder / "mine", store=url) as journal:
            world = World(folder, url, journal, [])
            yield world
            for worker in world.workers:
                worker.kill()
                worker.wait()
                assert worker.stdout is not None
                worker.stdout.close()
    server.drop(url)


def wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("holds", "reached", "states"),
    [
        # Between the intent and the effect: it did not take place, and a new step is made.
        ("slow", "begun", (EffectState.NOT_DONE, EffectState.DONE)),
        # Between the effect and its outcome: it did, and its probe says so.
        ("slow-after", "changed", (EffectState.DONE,)),
    ],
)
def test_a_worker_that_is_killed_between_intent_and_outcome(
    world: World, holds: str, reached: str, states: tuple[EffectState, ...]
) -> None:
    (world.folder / holds).touch()
    world.start()
    incident = submit(world.journal, ALERT, by="ann")
    wait_for((world.folder / reached).exists)
    doomed = world.worker_of()
    (effect,) = world.journal.ledger.list(incident.id)
    assert effect.state is EffectState.INTENDED
    doomed.kill()
    (world.folder / holds).unlink()
    world.start()
    world.wait_for_the_end(incident.id)
    world.check(incident.id, *states)


def test_a_worker_that_is_killed_while_it_investigates(world: World) -> None:
    first, second = world.start(), world.start()
    incident = submit(world.journal, ALERT, by="ann")
    wait_for(lambda: len(world.journal.incidents.events(incident.id)) > 1)
    world.worker_of().kill()
    world.wait_for_the_end(incident.id)
    world.check(incident.id, EffectState.DONE)
    assert [first.poll(), second.poll()].count(None) == 1


def test_a_worker_that_hangs_before_its_effect_begins_none_when_it_wakes(world: World) -> None:
    (world.folder / "slow").touch()
    world.start()
    incident = submit(world.journal, ALERT, by="ann")
    wait_for((world.folder / "begun").exists)
    hangs = world.worker_of()
    hangs.send_signal(signal.SIGSTOP)
    (world.folder / "slow").unlink()
    world.start()
    # Its session is still there, and it has the incident no more.
    world.wait_for_the_end(incident.id)
    world.check(incident.id, EffectState.NOT_DONE, EffectState.DONE)
    before = world.content()
    hangs.send_signal(signal.SIGCONT)
    said = _said_that_it_lost(hangs)
    assert "taken over" in said or "this claim is void" in said
    time.sleep(2 * LEASE)
    world.check(incident.id, EffectState.NOT_DONE, EffectState.DONE)
    assert world.content() == before


def test_a_worker_that_hangs_while_it_investigates_writes_nothing_when_it_wakes(world: World) -> None:
    world.start(seconds=0.3)
    incident = submit(world.journal, ALERT, by="ann")
    wait_for(lambda: len(world.journal.incidents.events(incident.id)) > 3)
    hangs = world.worker_of()
    hangs.send_signal(signal.SIGSTOP)
    world.start()
    world.wait_for_the_end(incident.id)
    world.check(incident.id, EffectState.DONE)
    before = world.content()
    hangs.send_signal(signal.SIGCONT)
    _said_that_it_lost(hangs)
    time.sleep(2 * LEASE)
    assert world.content() == before
    # It is of use again.
    world.workers[-1].kill()
    world.lamp.put("bulb", "broken")
    again = submit(world.journal, ALERT, by="ann")
    world.wait_for_the_end(again.id)


def _said_that_it_lost(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    for line in worker.stdout:
        if "void" in line or "taken over" in line:
            return line
    raise AssertionError("it ended")
