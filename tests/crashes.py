"""Runs of incidents in processes of their own, each killed where it is told to be.

Run as a program it is a server: it imports everything once and then forks a process for each job, so that
every run begins as a fresh process does and hundreds of them take minutes, not hours. Each may be killed by
itself, at a chosen place, or by its parent, at a chosen moment; SIGKILL it is in both cases.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Literal, Self

from tests.lamp import ALERT, CAUSES, SURGE, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Alert, Orchestrator, Settings
from watchkeeper.demo.environment import DemoEnvironment
from watchkeeper.demo.faults import inject
from watchkeeper.demo.site import Site
from watchkeeper.models.interface import ChoiceRequest, Engine
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.runtime import changes, ending, investigation, ledger, mitigation, permits
from watchkeeper.runtime.approvals import Answer, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.events import ApprovalRequested
from watchkeeper.runtime.runs import RunFile

Place = Literal["event", "node", "line", "effect", "moment"]
"""After an event was written; where a node begins or ends; before a line of what surrounds an effect, or of
what asks for the effect itself (1: before it, 3: after it); or after so many microseconds, wherever it is."""

ROOT = Path(__file__).parent.parent
STARTS_BEFORE = "starts-before.json"
"""File, in the world of a demo, of how often each program had been started when its incident began."""

REPEATS = 2  # of a line that count: once for the first step of an incident, once for the second
_LINES = {
    str(changes.__file__): None,
    str(ledger.__file__): None,
    str(permits.__file__): None,
    str(Path(__file__).with_name("lamp.py")): {"change", "_apply", "_verify", "_probe", "_rollback"},
}
_NODES = {str(module.__file__) for module in (investigation, mitigation, ending)}


@dataclass(frozen=True)
class Job:
    """A run of an incident, from where it stands to its end, to a question nobody answers, or to its death.

    Attributes:
        home: Folder of Watchkeeper's state.
        world: Folder of the lamp; or of a demo environment, where ``demo`` is set.
        kill: Where it is killed; empty if it is not.
        at: At the how-manieth of those places.
        only: The kind of events that count; empty: all.
        likes: Which causes the model prefers.
        knows: Whether the probes of the lamp's actions can tell what happened.
        rules: The policy, if not the one that comes along.
        answer: What is answered where people are asked whether something may be done.
        doubt: What is answered where people are asked whether something was done; ``silence`` waits until
            that is a no; empty leaves the question open.
        ttl: Seconds to answer.
        surge: Whether the one cause is a surge, whose remedy takes three actions.
        escalation: Rules of who is called and when; empty: nobody is.
        demo: Seed of a demo environment, which this job makes and breaks where it is not there.
        model: Whether a real model decides there.
    """

    home: str
    world: str
    kill: Place | Literal[""] = ""
    at: int = 0
    only: str = ""
    likes: tuple[str, ...] = ("bulb",)
    knows: bool = True
    rules: str | None = None
    answer: str = Answer.APPROVE.value
    doubt: str = ""
    ttl: float = 3600
    surge: bool = False
    escalation: str = ""
    demo: int | None = None
    model: bool = False


@dataclass(frozen=True, slots=True)
class Ran:
    """How a job went.

    Attributes:
        killed: Whether it was killed.
        places: How many places it came by at which it could have been killed; 0 if it was.
        seconds: Time that it took.
    """

    killed: bool
    places: int
    seconds: float


class Crashes:
    """The server, as tests use it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def run(self, job: Job) -> bool:
        """Run a job to its end; whether it was killed.

        Raises:
            AssertionError: If it failed in another way.
        """
        return self.ask(job).killed

    def ask(self, job: Job) -> Ran:
        """Run a job to its end, and say how that went.

        Raises:
            AssertionError: If it failed in another way than by being killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        assert said["status"] in {0, -signal.SIGKILL}, said
        return Ran(killed=bool(said["status"]), places=said["places"], seconds=said["seconds"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Killer:
    """Kills its own process at a chosen place.

    Args:
        job: Says where.
    """

    def __init__(self, job: Job) -> None:
        self._kill = job.kill
        self._at = job.at
        self._only = job.only
        self.places = 0
        self._visits: dict[tuple[CodeType, int], int] = {}
        self._lock = threading.Lock()

    def arm(self, o: Orchestrator) -> None:
        """Begin to count."""
        if self._kill == "event":
            o.journal.listen(lambda e: self._reach() if self._only in {"", e.kind} else None)
        elif self._kill in {"node", "line", "effect"}:
            # Nodes run in threads of their own.
            traces: dict[str, Any] = {"node": self._node, "line": self._line, "effect": self._effect}
            threading.settrace(traces[self._kill])

    def _reach(self) -> None:
        with self._lock:
            self.places += 1
            if self.places == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _node(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in _NODES or code.co_name.startswith(("_", "<")):
            return None
        if event in {"call", "return"}:
            self._reach()
        return self._node

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in _LINES:
            return None
        names = _LINES[code.co_filename]
        if names is not None and code.co_name not in names:
            return None
        place = (code, frame.f_lineno)
        if event == "line" and self._visits.setdefault(place, 0) < REPEATS:
            self._visits[place] += 1
            self._reach()
        return self._line

    def _effect(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is not Lamp.change.__code__:
            return None
        if event == "line":
            self._reach()
        return self._effect


def run(job: Job) -> int:
    """Do a job in this process; returns how many places it came by at which it could have been killed."""
    if job.demo is not None:
        with demo_orchestrator(job) as (o, alert):
            return _handle(job, o, alert)
    lamp = Lamp(Path(job.world))
    engine = prefers(*job.likes)
    with orchestrator(
        Path(job.home),
        lamp,
        engine,
        rules=job.rules,
        knows=job.knows,
        causes=SURGE if job.surge else CAUSES,
        escalation=job.escalation or None,
        approval_ttl_seconds=job.ttl,
    ) as o:
        return _handle(job, o, ALERT)


def _handle(job: Job, o: Orchestrator, alert: Alert) -> int:
    known = o.journal.incidents.list()
    incident = known[0] if known else o.open(alert)
    killer = Killer(job)
    killer.arm(o)
    for event in o.resume(incident.id):
        if isinstance(event, ApprovalRequested) and not _answered(job, o, event.approval_id):
            break
    return killer.places


def _answered(job: Job, o: Orchestrator, approval_id: str) -> bool:
    asked = o.journal.approvals.get(approval_id)
    if asked.status is not ApprovalStatus.PENDING:
        return True
    answer = job.doubt if asked.kind is ApprovalKind.IN_DOUBT else job.answer
    if answer and answer != "silence":
        o.answer(approval_id, answer, by="bob", reason="not now" if answer == Answer.REJECT else "")
    return bool(answer)


@contextmanager
def demo_orchestrator(job: Job) -> Iterator[tuple[Orchestrator, Alert]]:
    """Open an orchestrator of a demo environment, which outlives this process."""
    root, home = Path(job.world), Path(job.home)
    assert job.demo is not None
    if any(root.iterdir()):
        environment = DemoEnvironment.reattach(root)
    else:
        host = Site.drawn(job.demo, root, 1).host
        environment = DemoEnvironment.create(root, job.demo, state=home / "hosts" / host)
        environment.start()
        inject(environment, "killed")
        (root / STARTS_BEFORE).write_text(json.dumps(environment.starts()))
    settings = Settings(home=home, solo=True, reading_pause_seconds=0.1)
    inventory = root / "inventory.yaml"
    RunFile.write_inventory(inventory, environment.inventory())
    engine = None if job.model else sensible()
    with Orchestrator(inventory=inventory, engine=engine, settings=settings) as o:
        # One that ended before the crash is looked at again, and not raised anew.
        known = o.journal.incidents.list()
        incident = known[0] if known else o.open(environment.alert())
        RunFile.of(settings, inventory=inventory).write(home, incident.id)
        yield o, environment.alert()


def sensible() -> Engine:
    """An engine that takes a process that stopped for the cause."""

    def choose(request: ChoiceRequest) -> int | None:
        fitting = [i for i, text in enumerate(request.options) if "stopped" in text]
        return fitting[0] if fitting else None

    return ScriptedEngine(choose=choose)


def _forked(job: Job) -> dict[str, Any]:
    """Do a job in a process of its own, kill it where it is to die at a moment, and say how it ended."""
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.write(writing, str(run(job)).encode())
            status = 0
        except BaseException:  # noqa: BLE001 (whatever it is, it ends this process and is told)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    if job.kill == "moment":
        # What it writes is read only at its end, so this also notices one that ended before.
        ready, _, _ = select.select([reading], [], [], job.at / 1e6)
        if not ready:
            os.kill(child, signal.SIGKILL)
    _, ended = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        places = pipe.read()
    seconds = time.monotonic() - began
    return {"status": os.waitstatus_to_exitcode(ended), "places": int(places or 0), "seconds": seconds}


def _warmed() -> None:
    """Do what every first run of a process does, once, so that no fork has to."""
    with folder_in_memory() as folder:
        Lamp.dark(folder, switch="off")
        run(Job(home=str(folder / "home"), world=str(folder)))
    assert threading.active_count() == 1  # what a fork would lose
    gc.collect()
    gc.freeze()


def main() -> None:
    """Serve jobs: a line of JSON in, a line of JSON out."""
    _warmed()
    for line in sys.stdin:
        values = json.loads(line)
        values["likes"] = tuple(values["likes"])
        print(json.dumps(_forked(Job(**values))), flush=True)


if __name__ == "__main__":
    main()
