"""Teach Watchkeeper something of your own: two facts, two actions, two causes and an agent for a job queue.

    python examples/own_tools.py                  # the model of your settings decides
    python examples/own_tools.py --scripted       # without a model: a script takes its place

The queue is a folder. Its worker takes no job while a file named `paused` is there (somebody paused it), or
while `worker.lock` is (a worker that died left it behind). Here it is the second, and a pause flag of another
queue lies around, so that there is something to choose.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchkeeper import (
    ActionPlan,
    Agent,
    AgentRole,
    Alert,
    Cause,
    Finding,
    Inventory,
    Orchestrator,
    Outcome,
    ProbeAnswer,
    Result,
    ScriptedEngine,
    Settings,
    Severity,
    Target,
    Verification,
    action,
    fact,
)
from watchkeeper.runtime.wording import describe_event
from watchkeeper.tools.durable import private_folder

QUEUE = Path(tempfile.gettempdir()) / f"watchkeeper-example-queue-{os.getuid()}"
JOBS, PAUSED, LOCK = QUEUE / "jobs", QUEUE / "paused", QUEUE / "worker.lock"


# -- facts: what can be read. A result is data; its findings say what a plain analyzer sees in it. ---------


class Backlog(Result):
    """How many jobs wait."""

    waiting: int


def see_backlog(backlog: Backlog) -> Iterator[Finding]:
    """Say whether too many jobs wait."""
    if backlog.waiting > 3:
        text = f"{backlog.waiting} jobs wait in the queue."
        yield Finding(kind="queue-stuck", subject="queue", text=text, severity=Severity.CRITICAL)


@fact("queue.backlog", summary="how many jobs wait in the queue", findings=see_backlog)
def backlog(target: Target) -> Backlog:
    """Count the jobs."""
    return Backlog(waiting=len(list(JOBS.iterdir())))


class Holds(Result):
    """What keeps the worker from taking jobs."""

    paused_for: str
    locked: bool


def see_holds(holds: Holds) -> Iterator[Finding]:
    """Say what holds the worker."""
    if holds.paused_for:
        text = f"A pause flag is set; it names queue {holds.paused_for!r}."
        yield Finding(kind="queue-paused", subject="queue", text=text, severity=Severity.WARNING)
    if holds.locked:
        text = "The worker's lock file is held by a process that does not exist any more."
        yield Finding(kind="lock-left", subject="worker", text=text, severity=Severity.CRITICAL)


@fact("queue.holds", summary="what keeps the worker from taking jobs", findings=see_holds)
def holds(target: Target) -> Holds:
    """Look for the pause flag and for a lock whose process is gone."""
    paused = PAUSED.read_text().strip() if PAUSED.exists() else ""
    locked = LOCK.exists() and not Path("/proc", LOCK.read_text().strip()).exists()
    return Holds(paused_for=paused, locked=locked)


# -- actions: what can be changed. `plan` shows it, `apply` does it at most once, `verify` looks whether it -
# -- is there, `probe` tells after a crash whether it happened, `rollback` takes it back. -------------------


class Removing:
    """Put a file aside; everything but `plan` works from the plan alone, in whatever process."""

    file: Path

    def plan(self, target: Target, key: str) -> ActionPlan:
        """Say which file would go."""
        there = self.file.exists()
        content = self.file.read_text().strip() if there else ""
        return ActionPlan(
            key=key,
            summary=f"put {self.file} aside",
            diff=f"- {self.file} ({content})" if there else "",
            preconditions={"content": content},  # bound into the approval, and read again before apply
            details={"aside": str(self.file.with_name(f"{self.file.name}.{key}"))},
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Rename it."""
        self.file.rename(str(plan.details["aside"]))
        return Outcome(detail=f"{self.file} is put aside", changed=(str(self.file),))

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Look whether it is gone."""
        gone = not self.file.exists()
        return Verification(ok=gone, detail=f"{self.file} is {'gone' if gone else 'still there'}")

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """The file that was put aside tells that it was done."""
        done = Path(str(plan.details["aside"])).exists()
        return ProbeAnswer.DONE if done else ProbeAnswer.NOT_DONE

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        """Put it back; safe to repeat."""
        aside = Path(str(plan.details["aside"]))
        if aside.exists():
            aside.rename(self.file)
        return Outcome(detail=f"{self.file} is back", changed=(str(self.file),))


@action("queue.resume", summary="resume the queue by removing its pause flag", reversibility="reversible")
class Resume(Removing):
    """Remove the pause flag."""

    file = PAUSED


@action("queue.unlock", summary="free the worker by removing its stale lock", reversibility="reversible")
class Unlock(Removing):
    """Remove the lock."""

    file = LOCK


# -- causes: which findings speak for them, and which actions may mend them. --------------------------------

PAUSED_BY_SOMEBODY = Cause(
    id="queue-paused",
    text="somebody paused the queue and did not resume it",
    supported_by=("queue-paused",),
    remedies=("queue.resume",),
)
LOCK_LEFT = Cause(
    id="lock-left",
    text="a worker died and left its lock file behind, so that no worker takes jobs",
    supported_by=("lock-left",),
    remedies=("queue.unlock",),
)

# -- agents: a role of the graph, what it is told, and what it may use. -------------------------------------

AGENTS = (
    Agent(
        role=AgentRole.DIAGNOSTICIAN,
        instructions="You run job queues, and find out why a queue does not move.",
        causes=(PAUSED_BY_SOMEBODY, LOCK_LEFT),
    ),
    Agent(
        role=AgentRole.INVESTIGATOR,
        instructions="You look at a job queue.",
        facts=frozenset({"queue.backlog", "queue.holds"}),
    ),
)
TOOLS = (backlog, holds, Resume, Unlock)
INVENTORY = Inventory.model_validate({"hosts": [{"name": "here", "labels": {"environment": "test"}}]})
ALERT = Alert.model_validate(
    {
        "title": "the queue does not move",
        "host": "here",
        "condition": {"fact": "queue.backlog", "firing": ["queue-stuck"]},
    }
)


# -- the world: a queue with a worker. ----------------------------------------------------------------------


@contextmanager
def queue_with_a_worker() -> Iterator[None]:
    """Make a stuck queue, let a worker work on it, and remove it all in the end."""
    private_folder(QUEUE)  # its name can be guessed, and anybody may write beside it
    JOBS.mkdir(exist_ok=True)
    for number in range(8):
        (JOBS / f"{number}.job").touch()
    PAUSED.write_text("newsletter\n")
    LOCK.write_text("999999999\n")  # no process has this number
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            # The flag of another queue does not stop this one.
            if LOCK.exists() or (PAUSED.exists() and PAUSED.read_text().strip() == "mail"):
                continue
            for job in sorted(JOBS.iterdir())[:1]:
                job.unlink()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()
        for path in sorted(QUEUE.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        QUEUE.rmdir()


def main() -> int:
    """Let the stuck queue be mended; 0 where it was."""
    parser = argparse.ArgumentParser(description="Facts, actions, causes and agents of your own.")
    parser.add_argument("--scripted", action="store_true", help="use a script instead of a model")
    given = parser.parse_args()
    # This script prefers the wrong cause, to show that what does not help is taken back.
    script = ScriptedEngine(choose=lambda request: 0)
    with (
        tempfile.TemporaryDirectory(prefix="wk-home-") as home,
        queue_with_a_worker(),
        Orchestrator(
            inventory=INVENTORY,
            engine=script if given.scripted else None,
            tools=TOOLS,
            agents=AGENTS,
            settings=Settings(home=Path(home), solo=True, settle_seconds=3),
        ) as orchestrator,
    ):
        for event in orchestrator.run(ALERT):
            if said := describe_event(event):
                print(said)
            if event.kind == "approval-requested":
                orchestrator.answer(event.approval_id, "approve", reason="it is a toy")
        report = orchestrator.report(event.incident_id)
        print(f"\n{report.outcome}; jobs that wait: {len(list(JOBS.iterdir()))}; lock there: {LOCK.exists()}")
        for step in report.steps:
            print(f"  {step.action}: {step.status.value}")
    return 0 if report.outcome == "resolved" else 1


if __name__ == "__main__":
    sys.exit(main())
