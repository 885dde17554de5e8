"""An incident whose process is killed anywhere goes on to the end it would have had, and repeats nothing.

These look closely at a few places; ``tests.crash_campaign`` looks at all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.crashes import STARTS_BEFORE, Crashes, Job, Place
from tests.lamp import Lamp, folder_in_memory
from watchkeeper.demo.environment import DemoEnvironment
from watchkeeper.demo.errors import DemoError
from watchkeeper.demo.judge import judge
from watchkeeper.runtime.approvals import Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.events import EffectInDoubt, Event, StageEntered
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import Effect, EffectState
from watchkeeper.runtime.report import Report, build_report

LONG = (pytest.mark.crash, pytest.mark.timeout(3600))


@pytest.fixture(scope="module")
def crashes() -> Iterator[Crashes]:
    with Crashes() as server:
        yield server


@dataclass(frozen=True)
class End:
    """What is left of an incident in the store, the audit log and the world."""

    report: Report
    effects: tuple[Effect, ...]
    approvals: tuple[Approval, ...]
    events: tuple[Event, ...]
    lamp: Lamp

    @classmethod
    def of(cls, job: Job) -> End:
        journal = Journal(Path(job.home))
        (incident,) = journal.incidents.list()
        events = journal.incidents.events(incident.id)
        assert journal.audit.verify().ok
        audited = {(entry.kind, _seq(entry.data)) for entry in journal.audit.entries()}
        assert {(event.kind, event.seq) for event in events} <= audited
        end = cls(
            report=build_report(journal, incident.id, watts=65),
            effects=journal.ledger.list(incident.id),
            approvals=journal.approvals.list(incident_id=incident.id),
            events=events,
            lamp=Lamp(Path(job.world)),
        )
        journal.close()
        return end

    def steps(self) -> list[tuple[str, str]]:
        """What was done about the incident; what a crash kept from being done at all is left out."""
        undone = {effect.step_id for effect in self.effects if effect.state is EffectState.NOT_DONE}
        return [(step.action, step.status.value) for step in self.report.steps if step.id not in undone]

    def looked(self) -> list[tuple[str, tuple[str, ...]]]:
        """What was found out."""
        return sorted((item.fact, tuple(f.text for f in item.findings)) for item in self.report.evidence)

    def open_questions(self) -> list[Approval]:
        return [asked for asked in self.approvals if asked.status is ApprovalStatus.PENDING]


def _seq(data: Any) -> int | None:
    return data.get("seq") if isinstance(data, dict) else None


def fresh(folder: Path, **changes: Any) -> Job:
    """Make a dark lamp, for which the model's first guess is wrong and the second right."""
    folder.mkdir()
    Lamp.dark(folder, switch="off", bulb="dusty")
    return dataclasses.replace(Job(home=str(folder / "home"), world=str(folder)), **changes)


def check(end: End, undisturbed: End) -> None:
    """Check that a killed incident ended as an undisturbed one, and that nothing was done twice."""
    assert end.report.outcome == undisturbed.report.outcome == "resolved"
    assert end.lamp.parts() == undisturbed.lamp.parts()
    assert end.steps() == undisturbed.steps()
    assert end.looked() == undisturbed.looked()
    assert end.report.diagnoses == undisturbed.report.diagnoses
    check_effects(end)
    told = [
        event.model_copy(update={"seq": 0, "at": end.events[0].at})
        for event in end.events
        if not isinstance(event, StageEntered)  # the same stage is entered more than once
    ]
    assert all(told.count(event) == 1 for event in told)
    files = Path(end.lamp.log).parent / "home" / "reports"
    assert (
        Report.model_validate_json((files / f"{end.report.incident.id}.json").read_text()).outcome
        == "resolved"
    )
    assert not end.open_questions()


def check_effects(end: End) -> None:
    """Check the ledger against the witness: at most once, once where it says so, and each with its yes."""
    changes = end.lamp.changes()
    assert all(count == 1 for who, count in changes.items() if who != "somebody")
    for effect in end.effects:
        done = effect.state in {EffectState.DONE, EffectState.ROLLED_BACK}
        if effect.settled_by != "bob" and not effect.in_doubt:  # people err, and doubt is doubt
            assert changes[effect.step_id] == (1 if done else 0)
            assert changes[f"undo-{effect.step_id}"] == (1 if effect.state is EffectState.ROLLED_BACK else 0)
    answered = {asked.id: asked for asked in end.approvals if asked.kind is ApprovalKind.ACTION}
    used = [effect.approval_id for effect in end.effects]
    assert len(set(used)) == len(used)
    for effect in end.effects:
        yes = answered[effect.approval_id or ""]
        assert (yes.status, yes.step_id, yes.digest) == (
            ApprovalStatus.USED,
            effect.step_id,
            effect.digest,
        )


@pytest.fixture(scope="module")
def undisturbed(crashes: Crashes) -> Iterator[End]:
    with folder_in_memory() as folder:
        job = fresh(folder / "undisturbed")
        assert not crashes.run(job)
        end = End.of(job)
        assert end.steps() == [("bulb.replace", "rolled-back"), ("switch.set", "verified")]
        check(end, end)
        yield end


@pytest.mark.parametrize(
    ("kill", "stride"),
    [
        ("event", 13),
        ("node", 17),
        ("line", 53),
    ],
)
def test_an_incident_that_is_killed_once_ends_as_if_it_had_not_been(
    crashes: Crashes, undisturbed: End, kill: Place, stride: int
) -> None:
    at, killed = 1, True
    with folder_in_memory() as memory:
        while killed:
            job = fresh(memory / str(at), kill=kill, at=at)
            killed = crashes.run(job)
            assert not crashes.run(dataclasses.replace(job, kill=""))
            try:
                check(End.of(job), undisturbed)
            except AssertionError as error:
                raise AssertionError(f"killed at {kill} {at}") from error
            shutil.rmtree(memory / str(at))
            at += stride
    assert at > 50


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=LONG)])
def test_an_incident_that_is_killed_again_and_again_gets_there(
    crashes: Crashes, undisturbed: End, stride: int
) -> None:
    with folder_in_memory() as memory:
        deaths = 0
        for seed in range(0, 40, stride):
            chance = random.Random(seed)
            job = fresh(memory / str(seed))
            places: list[Place] = ["event", "event", "line"]
            while crashes.run(dataclasses.replace(job, kill=chance.choice(places), at=chance.randint(1, 40))):
                deaths += 1
            check(End.of(job), undisturbed)
        assert deaths > 40 // stride


@pytest.mark.parametrize("stride", [53])
def test_what_no_probe_can_tell_waits_for_a_person_and_goes_on_from_the_answer(
    crashes: Crashes, undisturbed: End, stride: int
) -> None:
    at, killed = 1, True
    with folder_in_memory() as memory:
        while killed:
            job = fresh(memory / str(at), kill="line", at=at, knows=False)
            killed = crashes.run(job)
            doubtful = [e for e in End.of(job).effects if e.state is EffectState.INTENDED]
            waiting = dataclasses.replace(job, kill="")
            assert not crashes.run(waiting)
            if doubtful:
                end = End.of(job)
                assert end.report.outcome == "awaiting-approval"
                (asked,) = end.open_questions()
                assert (asked.kind, asked.step_id) == (ApprovalKind.IN_DOUBT, doubtful[0].step_id)
                assert asked.summary.startswith("A crash hid whether this was done")
                assert any(isinstance(event, EffectInDoubt) for event in end.events)
                # The person looks at the lamp, and says what they see. Their word may be cut off, too.
                truth = "done" if end.lamp.changes()[asked.step_id] else "not-done"
                telling = dataclasses.replace(job, kill="event", at=1 + at % 5, doubt=truth)
                crashes.run(telling)
                assert not crashes.run(dataclasses.replace(telling, kill=""))
            try:
                check(End.of(job), undisturbed)
            except AssertionError as error:
                raise AssertionError(f"killed at line {at}") from error
            shutil.rmtree(memory / str(at))
            at += stride


@pytest.mark.parametrize(
    ("truth", "lie", "outcome"), [("not-done", "done", "escalated"), ("done", "not-done", "closed")]
)
def test_a_person_who_errs_about_an_effect_makes_nothing_happen_twice(
    crashes: Crashes, truth: str, lie: str, outcome: str
) -> None:
    with folder_in_memory() as memory:
        at = 1 if truth == "not-done" else 3
        job = fresh(memory / "lamp", kill="effect", at=at, knows=False, likes=("switch",))
        before = Lamp(Path(job.world)).parts()
        assert crashes.run(job)
        (effect,) = End.of(job).effects
        assert effect.in_doubt
        assert not crashes.run(dataclasses.replace(job, kill="", doubt=lie))
        end = End.of(job)
        assert (end.report.outcome, end.effects[0].settled_by) == (outcome, "bob")
        check_effects(end)
        # What was not done is looked for and missed; what was done leaves nothing to be done again.
        assert end.lamp.parts() == before | ({"switch": "on"} if truth == "done" else {})
        assert end.lamp.changes()[effect.step_id] == (1 if truth == "done" else 0)


def test_silence_about_an_effect_in_doubt_hands_it_over_as_it_is(crashes: Crashes) -> None:
    with folder_in_memory() as memory:
        job = fresh(memory / "lamp", kill="effect", at=3, knows=False, ttl=1)
        assert crashes.run(job)
        assert not crashes.run(dataclasses.replace(job, kill="", doubt="silence"))
        end = End.of(job)
        assert end.report.outcome == "escalated"
        assert "nobody said whether it was done, so it is still in doubt" in end.report.reason
        assert [step.status.value for step in end.report.steps] == ["in-doubt"]
        assert end.lamp.parts()["bulb"] == "new"
        check_effects(end)


# -- the demo's world: real services under a real supervisor, judged from outside --------------------------

SEED = 730_021


@contextmanager
def died(crashes: Crashes, **changes: Any) -> Iterator[Job]:
    """Let a demo environment be made, broken, and handled by a process that dies; clean up afterwards."""
    root = Path(tempfile.mkdtemp(prefix="wk-"))
    try:
        with folder_in_memory() as folder:
            job = Job(home=str(folder / "home"), world=str(root), demo=SEED, **changes)
            assert crashes.run(job) == bool(job.kill)
            yield dataclasses.replace(job, kill="")
    finally:
        with contextlib.suppress(DemoError):
            DemoEnvironment.reattach(root).stop()


def judged(job: Job) -> dict[str, int]:
    """Check that the oracle is content; returns how often each program was started."""
    environment = DemoEnvironment.reattach(Path(job.world))
    verdict = judge(environment)
    assert verdict.ok, verdict.failures
    return environment.starts()


@pytest.fixture(scope="module")
def undisturbed_starts(crashes: Crashes) -> dict[str, int]:
    with died(crashes) as job:
        return judged(job)


@pytest.mark.parametrize(
    "event",
    [
        "effect-intended",
        "effect-done",
        *(
            pytest.param(kind, marks=LONG)
            for kind in (
                "diagnosis-made",
                "approval-requested",
                "approval-decided",
                "verified",
                "incident-closed",
            )
        ),
    ],
)
def test_a_service_is_started_once_whenever_its_watchkeeper_dies(
    crashes: Crashes, undisturbed_starts: dict[str, int], event: str
) -> None:
    with died(crashes, kill="event", only=event, at=1) as job:
        assert not crashes.run(job)
        assert judged(job) == undisturbed_starts
        with Journal(Path(job.home)) as journal:
            (incident,) = journal.incidents.list()
            assert incident.status is IncidentStatus.RESOLVED
            assert journal.audit.verify().ok


@pytest.mark.model
@pytest.mark.parametrize("event", ["effect-done", pytest.param("effect-intended", marks=LONG)])
def test_the_command_line_goes_on_with_what_another_process_began(
    crashes: Crashes, undisturbed_starts: dict[str, int], event: str
) -> None:
    with died(crashes, kill="event", only=event, at=1) as job:
        with Journal(Path(job.home)) as journal:
            (incident,) = journal.incidents.list()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "watchkeeper.cli",
                "run",
                "--resume",
                incident.id,
                "--approve",
                "yes",
                "--json",
            ],
            env=os.environ | {"WATCHKEEPER_HOME": job.home},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert Report.model_validate_json(done.stdout).outcome == "resolved"
        assert judged(job) == undisturbed_starts


@pytest.mark.model
@pytest.mark.crash
@pytest.mark.timeout(4 * 3600)
def test_a_real_model_is_killed_twenty_times_and_no_service_is_started_twice(crashes: Crashes) -> None:
    chance = random.Random(20)
    places: list[Place] = ["node", "event", "line", "moment"]
    most = {"node": 60, "event": 30, "line": 400, "moment": 15_000_000}
    kills, resolved, number = 0, 0, 0
    while kills < 20:
        number += 1
        place = places[number % len(places)]
        root = Path(tempfile.mkdtemp(prefix="wk-"))
        try:
            with folder_in_memory() as folder:
                job = Job(home=str(folder / "home"), world=str(root), demo=SEED + number, model=True)
                at = chance.randint(1, most[place])
                if not (root.is_dir() and crashes.run(dataclasses.replace(job, kill=place, at=at))):
                    continue
                if not (root / STARTS_BEFORE).exists():  # it died while the demo was made: no incident yet
                    continue
                kills += 1
                assert not crashes.run(job)
                resolved += _was_started_as_the_ledger_says(job)
        finally:
            with contextlib.suppress(DemoError):
                DemoEnvironment.reattach(root).stop()
        print(f"{kills} kills ({place} {at}), {resolved} resolved", flush=True)
    # Whatever a model chooses, most of such incidents are mended.
    assert resolved > 15


def _was_started_as_the_ledger_says(job: Job) -> bool:
    """Compare the programs' own notes with the ledger; whether the incident was resolved."""
    environment = DemoEnvironment.reattach(Path(job.world))
    with Journal(Path(job.home)) as journal:
        (incident,) = journal.incidents.list()
        steps = {step.id: step for step in journal.steps.list(incident.id)}
        expected: dict[str, int] = json.loads((Path(job.world) / STARTS_BEFORE).read_text())
        for effect in journal.ledger.list(incident.id):
            step = steps[effect.step_id]
            assert not effect.in_doubt
            if (
                step.action in {"service.start", "service.restart"}
                and effect.state is not EffectState.NOT_DONE
            ):
                expected[str(step.arguments["service"])] += 1
        used = [effect.approval_id for effect in journal.ledger.list(incident.id)]
        assert len(set(used)) == len(used)
        assert journal.audit.verify().ok
        assert environment.starts() == expected
        resolved = incident.status is IncidentStatus.RESOLVED
        assert resolved or incident.status is IncidentStatus.ESCALATED
        assert judge(environment).ok or not resolved
        return resolved
