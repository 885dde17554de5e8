"""A backup that is made while an incident runs is restored elsewhere, goes on there, and repeats nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crashes import ROOT, Job
from tests.lamp import ALERT, ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Settings
from watchkeeper.runtime.approvals import ApprovalStatus
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.backup import Backup, back_up
from watchkeeper.runtime.checkpoints import Checkpoints
from watchkeeper.runtime.errors import BackupError
from watchkeeper.runtime.events import ApprovalRequested
from watchkeeper.runtime.restoring import restore
from watchkeeper.runtime.steps import Steps

RUN = "import json, sys; from tests import crashes; job = json.loads(sys.argv[1]); "
RUN += "job['likes'] = tuple(job['likes']); crashes.run(crashes.Job(**job))"


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


def begin(job: Job) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-c", RUN, json.dumps(dataclasses.asdict(job))]
    return subprocess.Popen(program, cwd=ROOT, env={**os.environ, "PYTHONPATH": _path()})


def _path() -> str:
    return os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])


def save(home: Path, target: Path) -> Backup:
    return back_up(Settings(home=home), target, by="ann", version="0", with_key=True)


def go_on(home: Path, lamp: Lamp, rules: str | None, likes: tuple[str, ...]) -> str:
    """Lift the stop of a restored home, resume its incident to the end, and return how it ended."""
    with orchestrator(home, lamp, prefers(*likes), rules=rules) as o:
        assert o.journal.halts.lift(by="ann") is not None
        (incident,) = o.journal.incidents.list()
        for event in o.resume(incident.id):
            if isinstance(event, ApprovalRequested):
                asked = o.journal.approvals.get(event.approval_id)
                if asked.status is ApprovalStatus.PENDING:
                    o.answer(asked.id, "approve", by="bob")
        return o.journal.incidents.get(incident.id).status.value


@pytest.mark.parametrize(("rules", "ends"), [(None, True), (ALLOW, False)])
def test_backups_of_a_running_incident_are_restored_and_go_on(
    folder: Path, rules: str | None, ends: bool
) -> None:
    lamp = Lamp.dark(folder, switch="off", bulb="dusty")
    job = Job(home=str(folder / "home"), world=str(folder), rules=rules)
    process = begin(job)
    backups: list[Backup] = []
    try:
        deadline = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < deadline:
            if (folder / "home" / "audit").exists() and _has_incident(folder / "home"):
                backups.append(save(folder / "home", folder / f"{len(backups)}.tar.gz"))
                if not ends and len(lamp.changes()) > 1:
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.02)
        assert process.wait(timeout=60) == (0 if ends else -signal.SIGKILL)
    finally:
        process.kill()
    live = [made for made in backups if made.manifest.live]
    assert len(live) > 2
    for number, made in enumerate(live[:: max(1, len(live) // 3)]):
        world = lamp.log.read_bytes()
        home = folder / f"restored-{number}" / "home"
        restore(made.path, home, by="ann")
        assert AuditLog(home).verify().ok
        outcome = go_on(home, lamp, rules, job.likes)
        assert outcome in {"resolved", "closed"}, outcome
        assert lamp.shines()
        changes = lamp.changes()
        assert all(count == 1 for who, count in changes.items() if who != "somebody"), changes
        assert AuditLog(home).verify().ok
        lamp.log.write_bytes(world)  # the next begins in the same world


@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.crash), pytest.param(4, id="every fourth")]
)
@pytest.mark.parametrize("rules", [None, ALLOW], ids=["asked", "allowed"])
def test_backups_of_every_moment_are_restored_into_what_the_world_became(
    folder: Path, rules: str | None, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original goes on after each backup and does more than that one knows of."""
    lamp = Lamp.dark(folder, switch="off", bulb="dusty")
    home = folder / "home"
    backups: list[Backup] = []

    def moment(*_: object) -> None:
        backups.append(save(home, folder / f"{len(backups)}.tar.gz"))

    with orchestrator(home, lamp, prefers("bulb"), rules=rules) as o:
        incident = o.open(ALERT).id
        o.journal.listen(moment)
        for owner, name in ((Steps, "add"), (Steps, "update"), (Checkpoints, "put")):
            monkeypatch.setattr(owner, name, _then(getattr(owner, name), moment))
        for event in o.resume(incident):
            if isinstance(event, ApprovalRequested):
                o.answer(event.approval_id, "approve", by="bob")
    monkeypatch.undo()
    assert [who.rpartition("-")[2] for who in lamp.changes()] == ["somebody", "S1", "S1", "S2"]
    live = [made for made in backups if made.manifest.live]
    assert len(live) > 40
    world = lamp.log.read_bytes()
    for number, made in enumerate(live[::every]):
        elsewhere = folder / f"restored-{number}" / "home"
        restore(made.path, elsewhere, by="ann")
        outcome = go_on(elsewhere, lamp, rules, ("bulb",))
        changes = lamp.changes()
        assert all(count == 1 for who, count in changes.items() if who != "somebody"), (number, changes)
        assert outcome in {"resolved", "closed"}, outcome
        assert lamp.shines()
        lamp.log.write_bytes(world)


def _then(function: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    def both(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        after()
        return result

    return both


def _has_incident(home: Path) -> bool:
    try:
        return bool((home / "audit" / "audit.jsonl").read_bytes().count(b"\n") > 2)
    except FileNotFoundError:
        return False


def test_a_home_in_use_is_not_replaced(folder: Path) -> None:
    lamp = Lamp.dark(folder, switch="off")
    home = folder / "home"
    with orchestrator(home, lamp, prefers("switch")) as o:
        incident = o.open(ALERT).id
        list(o.resume(incident, wait=False))
    made = save(home, folder / "one.tar.gz")
    waiting = subprocess.Popen(
        [sys.executable, "-c", WAIT, str(home), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": _path()},
        stdout=subprocess.PIPE,
    )
    try:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"open\n"
        with pytest.raises(BackupError, match="another process has its database open"):
            restore(made.path, home, by="ann", replace=True)
    finally:
        waiting.kill()
        waiting.wait()
        assert waiting.stdout is not None
        waiting.stdout.close()
    done = restore(made.path, home, by="ann", replace=True)
    assert done.aside is not None
    assert (done.aside / "watchkeeper.db").exists()


WAIT = (
    "import sys, time; from pathlib import Path; from watchkeeper.runtime.journal import Journal; "
    "j = Journal(Path(sys.argv[1])); j.incidents.list(); print('open', flush=True); time.sleep(60)"
)
