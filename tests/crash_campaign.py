"""Many kills: whole incidents, each killed somewhere and gone on with, judged by a witness outside.

``python -m tests.crash_campaign`` kills at node boundaries, at events, before lines around an effect, and at
random moments (with ``--kills 0`` at every one of them). What a run has done is kept, so that one that was
cut off goes on. It ends with a count as JSON, and with exit code 1 if anything was done twice, lost, or came
to another end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tests.crashes import Crashes, Job, Place
from tests.lamp import Lamp, folder_in_memory
from watchkeeper.runtime import schema
from watchkeeper.runtime.approvals import ApprovalKind, ApprovalStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.notify import NOTIFICATIONS

PLACES: tuple[Place, ...] = ("node", "line", "event")
_YES = {ApprovalStatus.APPROVED, ApprovalStatus.USED}
DEATHS = 3  # at most, of one incident that is killed at moments
_NEVER = 10**9


@dataclass(frozen=True, slots=True)
class Scenario:
    """An incident that is handled again and again.

    Attributes:
        name: Its name.
        parts: What the parts of the lamp are like.
        job: How it is handled.
        same: Whether it goes the same way whenever nothing is killed.
    """

    name: str
    parts: dict[str, str]
    job: dict[str, Any]
    same: bool = True


# What it decides may be different each time that it is asked.
BY_THE_MOMENT = """
version: 1
rules:
  - {name: even, match: {tools: ["*"]}, when: now.getMilliseconds() % 2 == 0, decision: ask, reason: even}
  - {name: odd, match: {tools: ["*"]}, decision: allow, reason: odd}
"""


CALLED = """
version: 1
people:
  alice: {channels: [file]}
  bob: {channels: [file]}
policies:
  two:
    levels:
      - {who: {users: [alice]}, wait: 10m}
      - {who: {users: [bob]}, wait: 10m}
default: two
"""

SCENARIOS = (
    Scenario("a wrong first choice", {"switch": "off", "bulb": "dusty"}, {}),
    Scenario("probes that cannot tell", {"switch": "off", "bulb": "dusty"}, {"knows": False}),
    Scenario(
        "three actions",
        {"switch": "off", "bulb": "broken", "fuse": "blown"},
        {"surge": True, "likes": ("surge",)},
    ),
    Scenario(
        "three actions, the third fails",
        {"switch": "off", "bulb": "broken", "fuse": "blown", "jinx": "fuse"},
        {"surge": True, "likes": ("surge",)},
    ),
    Scenario(
        "people are called", {"switch": "off", "bulb": "dusty"}, {"escalation": CALLED, "likes": ("switch",)}
    ),
    Scenario("asked by the moment", {"switch": "off", "bulb": "dusty"}, {"rules": BY_THE_MOMENT}, same=False),
    Scenario(
        "refused by the moment",
        {"switch": "off", "bulb": "dusty"},
        {"rules": BY_THE_MOMENT, "answer": "reject"},
        same=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Kill:
    """One place or moment of one scenario; a moment is a share of the time that the scenario takes."""

    scenario: str
    place: Place
    at: float

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.scenario}|{self.place}|{self.at}"


@dataclass(frozen=True, slots=True)
class End:
    """How an incident stands: what must be the same whether or not it was killed, and what must not be."""

    status: str
    steps: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, str], ...]
    twice: int
    lost: int
    replayed: int
    unapproved: int
    doubtful: tuple[str, ...]
    waiting: tuple[tuple[str, str], ...]
    times: tuple[tuple[str, str], ...]
    told_twice: int
    audit_ok: bool

    @classmethod
    def of(cls, job: Job) -> End:
        """Read the store, the audit log, and the witness."""
        lamp = Lamp(Path(job.world))
        with Journal(Path(job.home)) as journal:
            incidents = journal.incidents.list()
            if not incidents:
                return cls(
                    "", (), tuple(sorted(lamp.parts().items())), 0, 0, 0, 0, (), (), (), 0, audit_ok=True
                )
            (incident,) = incidents
            effects = journal.ledger.list(incident.id)
            approvals = journal.approvals.list(incident_id=incident.id, limit=1000)
            with journal.store.reading() as connection:
                jobs = connection.execute(select(schema.jobs.c.id, schema.jobs.c.due_at)).all()
            changes = lamp.changes()
            undone = {effect.step_id for effect in effects if effect.state is EffectState.NOT_DONE}
            happened = {EffectState.DONE, EffectState.ROLLED_BACK, EffectState.ROLLING_BACK}
            used = Counter(effect.approval_id for effect in effects if effect.approval_id)
            yes = {asked.id for asked in approvals if asked.status in _YES}
            questioned = {asked.step_id for asked in approvals if asked.kind is ApprovalKind.ACTION}
            lost = sum(changes[e.step_id] != 1 for e in effects if e.state in happened)
            lost += sum(changes[e.step_id] != 0 for e in effects if e.state is EffectState.NOT_DONE)
            lost += sum(changes[f"undo-{e.step_id}"] != 1 for e in effects if e.state.value == "rolled-back")
            return cls(
                status=incident.status.value,
                steps=tuple(
                    (step.action, step.status.value)
                    for step in journal.steps.list(incident.id)
                    if step.id not in undone
                ),
                parts=tuple(sorted(lamp.parts().items())),
                twice=sum(count > 1 for who, count in changes.items() if who != "somebody"),
                lost=lost,
                replayed=sum(count > 1 for count in used.values()),
                unapproved=sum(e.step_id in questioned and e.approval_id not in yes for e in effects),
                doubtful=tuple(e.step_id for e in effects if e.state is EffectState.INTENDED),
                waiting=tuple(
                    (asked.step_id, asked.kind.value)
                    for asked in approvals
                    if asked.status is ApprovalStatus.PENDING
                ),
                times=(
                    *((asked.id, str(asked.expires_at)) for asked in approvals),
                    *((f"job {row.id}", str(row.due_at)) for row in jobs),
                ),
                told_twice=_told_twice(Path(job.home)),
                audit_ok=journal.audit.verify().ok,
            )


def _told_twice(home: Path) -> int:
    """Count the notifications that people got more than once."""
    path = home / NOTIFICATIONS
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(count > 1 for count in Counter(json.loads(line)["id"] for line in lines).values())


class Campaign:
    """Kills and checks.

    Args:
        memory: Folder for the incidents.
        scenarios: What is killed.
    """

    def __init__(self, memory: Path, scenarios: Sequence[Scenario] = SCENARIOS) -> None:
        self._memory = memory
        self._scenarios = {scenario.name: scenario for scenario in scenarios}
        self._whole: dict[str, End] = {}
        self._seconds: dict[str, float] = {}
        self._prepared = memory / "prepared"
        with Journal(self._prepared) as journal:
            journal.audit.append("prepared", {})

    def survey(self, crashes: Crashes) -> list[Kill]:
        """Run every scenario undisturbed, and list the places that it comes by."""
        found: list[Kill] = []
        for scenario in self._scenarios.values():
            for place in PLACES:
                job = self._fresh(scenario, f"{scenario.name} {place}")
                ran = crashes.ask(dataclasses.replace(job, kill=place, at=_NEVER))
                found += [Kill(scenario.name, place, at) for at in range(1, ran.places + 1)]
            job = self._fresh(scenario, scenario.name)
            self._seconds[scenario.name] = crashes.ask(job).seconds
            self._whole[scenario.name] = End.of(job)
        return found

    def check(self, crashes: Crashes, kill: Kill) -> dict[str, Any]:
        """Kill a scenario, let it go on to its end, and say what was found."""
        scenario = self._scenarios[kill.scenario]
        job = self._fresh(scenario, kill.key.replace("/", " "))
        said: dict[str, Any] = {"key": kill.key, "place": kill.place, "kills": 0, "doubts": 0, "faults": []}
        chance = random.Random(kill.key)
        share = kill.at
        for _ in range(DEATHS if kill.place == "moment" else 1):
            at = int(share * self._seconds[kill.scenario] * 1e6) if kill.place == "moment" else int(kill.at)
            if not crashes.run(dataclasses.replace(job, kill=kill.place, at=at)):
                break
            said["kills"] += 1
            share = chance.random()
        before = End.of(job)
        said["doubts"] += bool(before.doubtful)
        said["twice"], said["lost"], said["replayed"] = before.twice, 0, before.replayed
        crashes.run(job)
        end = End.of(job)
        while end.doubtful:
            # Nothing can tell what happened: it waits for a person, who looks at the lamp.
            step = end.doubtful[0]
            if end.waiting != ((step, "in-doubt"),):
                said["faults"].append(f"in doubt and not asked: {end}")
                break
            said["asked"] = said.get("asked", 0) + 1
            truth = "done" if Lamp(Path(job.world)).changes()[step] else "not-done"
            crashes.run(dataclasses.replace(job, doubt=truth))
            end = End.of(job)
        self._judge(said, before, end, self._whole[kill.scenario], same=scenario.same)
        shutil.rmtree(job.world)
        return said

    def _judge(self, said: dict[str, Any], before: End, end: End, whole: End, *, same: bool) -> None:
        said["twice"] += end.twice
        said["replayed"] += end.replayed
        said["unapproved"] = before.unapproved + end.unapproved
        said["lost"] += end.lost
        moved = set(before.times) - set(end.times)
        said["moved"] = len(moved)
        said["told twice"] = end.told_twice
        for name in ("status", "steps", "parts") if same else ():
            if getattr(end, name) != getattr(whole, name):
                said["faults"].append(f"{name}: {getattr(end, name)} instead of {getattr(whole, name)}")
        if end.waiting or end.doubtful:
            said["faults"].append(f"still waiting: {end.waiting} {end.doubtful}")
        if not (before.audit_ok and end.audit_ok):
            said["faults"].append("the audit log does not verify")

    def _fresh(self, scenario: Scenario, name: str) -> Job:
        folder = self._memory / name
        folder.mkdir()
        Lamp.dark(folder, **scenario.parts)
        shutil.copytree(self._prepared, folder / "home")
        return Job(home=str(folder / "home"), world=str(folder), **scenario.job)


def plan(places: list[Kill], *, moments: int, limit: int | None, seed: int) -> list[Kill]:
    """Say what is killed, in which order: all places, or ``limit`` kills evenly from everywhere.

    Args:
        places: Every place of every scenario.
        moments: Random moments.
        limit: How many kills in all; None for all places and moments.
        seed: Of the moments and the order.
    """
    chance = random.Random(seed)
    names = list(dict.fromkeys(place.scenario for place in places))
    drawn = [Kill(names[n % len(names)], "moment", round(chance.random(), 6)) for n in range(moments)]
    wanted = places + drawn
    chance.shuffle(wanted)
    return wanted if limit is None else wanted[:limit]


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Count what was found."""
    kills = Counter[str]()
    for found in results:
        kills[found["place"]] += found["kills"]
    return {
        "incidents": len(results),
        "kills": sum(kills.values()),
        "kills by place": dict(sorted(kills.items())),
        "effects done twice": sum(found["twice"] for found in results),
        "effects lost or not as the ledger says": sum(found["lost"] for found in results),
        "effects in doubt after a kill": sum(found["doubts"] for found in results),
        "of these undecidable, waiting for a person": sum(found.get("asked", 0) for found in results),
        "effects without the yes that was asked for": sum(found["unapproved"] for found in results),
        "approvals replayed": sum(found["replayed"] for found in results),
        "timers moved": sum(found["moved"] for found in results),
        "people told twice": sum(found["told twice"] for found in results),
        "other ends than undisturbed": sum(bool(found["faults"]) for found in results),
    }


_NONE_OF = ("twice", "lost", "replayed", "unapproved", "moved", "told twice")
"""What must not be, whatever is killed."""


def faults(results: list[dict[str, Any]]) -> list[str]:
    """Say what is wrong."""
    return [
        f"{found['key']}: {'; '.join(found['faults']) or found}"
        for found in results
        if found["faults"] or any(found[count] for count in _NONE_OF)
    ]


def run(
    wanted: list[Kill], campaign: Campaign, servers: list[Crashes], results: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Kill everywhere, a thread for each server; what ``results`` holds is not done again."""
    done: dict[str, dict[str, Any]] = {}
    if results is not None and results.exists():
        lines = results.read_text().splitlines()
        done = {found["key"]: found for found in map(json.loads, lines)}
    free = list(servers)
    lock = threading.Lock()

    def one(kill: Kill) -> dict[str, Any]:
        if kill.key in done:
            return done[kill.key]
        with lock:
            server = free.pop()
        found = campaign.check(server, kill)
        with lock:
            free.append(server)
            if results is not None:
                with results.open("a") as file:
                    file.write(json.dumps(found) + "\n")
        return found

    with ThreadPoolExecutor(len(servers)) as pool:
        yield from pool.map(one, wanted)


def main() -> int:
    """Run a campaign, with progress on standard error and the count on standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=1100, help="incidents to kill, evenly from everywhere; 0: every place"
    )
    parser.add_argument("--moments", type=int, default=400, help="incidents killed at random moments")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--results", type=Path, default=Path(tempfile.gettempdir()) / "watchkeeper-crashes.jsonl"
    )
    parser.add_argument("--anew", action="store_true", help="forget the results of a run that was cut off")
    given = parser.parse_args()
    if given.anew:
        given.results.unlink(missing_ok=True)
    found: list[dict[str, Any]] = []
    began = told = time.monotonic()
    servers = [Crashes() for _ in range(given.workers)]
    try:
        with folder_in_memory() as memory:
            campaign = Campaign(memory)
            places = campaign.survey(servers[0])
            wanted = plan(places, moments=given.moments, limit=given.kills or None, seed=given.seed)
            print(f"{len(places)} places, {given.moments} moments: {len(wanted)} incidents", file=sys.stderr)
            for one in run(wanted, campaign, servers, given.results):
                found.append(one)
                for line in faults([one]):
                    print(line, file=sys.stderr)
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    left = (told - began) / len(found) * (len(wanted) - len(found))
                    kills = sum(one["kills"] for one in found)
                    print(f"{len(found)} of {len(wanted)}, {kills} kills, {left:.0f} s left", file=sys.stderr)
    finally:
        for server in servers:
            server.__exit__(None, None, None)
    print(json.dumps(summary(found) | {"seconds": round(time.monotonic() - began)}, indent=2))
    wrong = faults(found)
    if not wrong:
        given.results.unlink(missing_ok=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
