"""One run of an incident: its graph, walked in a thread to the end, a question or a stop."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Interrupt

from watchkeeper.models.errors import CancelledError
from watchkeeper.models.interface import Cancellation
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.checkpoints import Checkpoints
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.doubts import look_again
from watchkeeper.runtime.errors import OperationError
from watchkeeper.runtime.escalation_jobs import EscalationJobs, EscalationWorker
from watchkeeper.runtime.events import Event, IncidentClosed, Progress
from watchkeeper.runtime.graph import build_graph
from watchkeeper.runtime.lifecycles import lifecycle_graph
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.training import TrainingJobs

_POLL = 0.2
"""Seconds between two looks at a question that waits for an answer."""

_TELL_SECONDS = 1.0
"""Seconds between two looks at how far something is that is waited for."""

_STEPS = 500
"""Nodes after which LangGraph gives up; the budgets of an incident end it long before."""


class Runner:
    """Runs incidents from where they stand, each in a thread of its own.

    Args:
        context: What nodes work with.
        changes: The only way in which anything is changed.
        changes_of: Makes that way for another site.
        escalation_jobs: Calls people while an incident runs.
        lease_seconds: Time after which others take over what this process ran.
    """

    def __init__(
        self,
        context: Context,
        changes: Changes,
        changes_of: Callable[[Site], Changes],
        escalation_jobs: EscalationJobs,
        *,
        lease_seconds: float,
    ) -> None:
        self._context = context
        self._journal = context.journal
        self._changes = changes
        self._changes_of = changes_of
        self._escalation_jobs = escalation_jobs
        self._lease_seconds = lease_seconds
        self._runs: list[_Run] = []

    def stop(self, incident_id: str | None = None) -> None:
        """End all runs, or that of one incident: a generation within a token, a graph at its next node."""
        for run in list(self._runs):
            if incident_id in {None, run.incident_id}:
                run.stop()

    def run(self, incident_id: str, *, wait: bool) -> Iterator[Event]:
        """Go on with an incident, and yield its events, from the first one on.

        An error of the thread is raised here; whoever leaves the iterator ends the run.

        Args:
            incident_id: The incident.
            wait: Whether to wait for people, and for training.
        """
        pipe: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        run = _Run(incident_id, wait=wait)

        closed = threading.Event()

        def hand_over(event: Event) -> None:
            # Who is told of the hand-over afterwards is in the store; the last event is that of the end.
            if event.incident_id == incident_id and not closed.is_set():
                pipe.put(event)
                if isinstance(event, IncidentClosed):
                    closed.set()

        def work() -> None:
            try:
                self._work(run)
            except BaseException as error:  # noqa: BLE001 (it is raised again in the consumer)
                pipe.put(error)
            else:
                pipe.put(None)

        yield from self._journal.incidents.events(incident_id)
        forget = self._journal.listen(hand_over)
        self._runs.append(run)
        thread = threading.Thread(target=work, name=f"watchkeeper-{incident_id}", daemon=True)
        thread.start()
        ended = threading.Event()
        watch = threading.Thread(
            target=self._journal.halts.watch, args=(ended, run.stop), name="watchkeeper-halt", daemon=True
        )
        watch.start()
        try:
            while True:
                item = pipe.get()
                if item is None:
                    if run.why is not None:
                        raise run.why
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            run.stop()
            ended.set()
            thread.join()
            watch.join()
            self._runs.remove(run)
            forget()

    def _work(self, run: _Run) -> None:
        incident_id = run.incident_id
        config: RunnableConfig = {
            "configurable": {"thread_id": incident_id},
            "recursion_limit": _STEPS,
        }
        # A run has a flag of its own to be stopped by, so that stopping it leaves others, and a later one
        # of the same incident, alone.
        context = replace(self._context, team=replace(self._context.team, cancel=run.cancel))
        # Of this run alone: what an earlier one kept in memory may be older than what another process wrote.
        checkpoints = Checkpoints(self._journal.store, deferred=True)
        with (
            self._journal.incidents.lock(incident_id, on_lost=run.stop, seconds=self._lease_seconds),
            # Whoever only observes calls nobody, about what others left to be called neither.
            nullcontext() if self._changes.observe_only else EscalationWorker(self._escalation_jobs),
            self._journal.incidents.working(incident_id),
        ):
            graph = lifecycle_graph(context, incident_id, checkpoints, self._changes_of) or build_graph(
                context, self._changes, checkpoints
            )
            try:
                while True:
                    given, going = self._next_input(graph, config, run)
                    if not going:
                        break
                    for _ in graph.stream(given, config, stream_mode="values", durability="sync"):
                        if run.stopping.is_set():
                            return
            except CancelledError:
                if not run.stopping.is_set():
                    raise
                return
            if self._journal.incidents.get(incident_id).status.ended:
                checkpoints.delete_thread(incident_id)
                look_again(self._journal, self._changes, incident_id)

    def _next_input(
        self, graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig, run: _Run
    ) -> tuple[Any, bool]:
        """Read where the graph stands, and say with what it goes on (and whether it does)."""
        snapshot = graph.get_state(config)
        if snapshot.created_at is None:
            # An incident that ended keeps no checkpoints; one that was cut off while it ended has some.
            going = not self._journal.incidents.get(run.incident_id).status.ended
            return {"incident": run.incident_id}, going and not run.stopping.is_set()
        # Not `next`: it leaves out a node whose result was kept right before a crash and not yet taken over.
        if not snapshot.tasks or run.stopping.is_set():
            return None, False
        questions = [question for task in snapshot.tasks for question in task.interrupts]
        if not questions:
            return None, True
        if "approval" not in questions[0].value:
            return self._waited(questions[0], run)
        approval_id = str(questions[0].value["approval"])
        while self._journal.approvals.get(approval_id).waits(self._journal.now()):
            if not run.wait or run.stopping.wait(_POLL):
                self._journal.incidents.rested(run.incident_id)
                return None, False
        self._journal.incidents.rested(run.incident_id)
        return Command(resume={questions[0].id: approval_id}), True

    def _waited(self, pause: Interrupt, run: _Run) -> tuple[Any, bool]:
        """Wait for what a lifecycle waits for, such as the end of a training job."""
        from watchkeeper.runtime.lifecycle_waits import Waits

        home = self._context.settings.home
        waits = Waits(TrainingJobs(self._journal.store, home, self._journal.audit), home, self._journal.now)
        told, tell_at = "", 0.0
        while not waits.over(pause.value):
            if run.wait and time.monotonic() >= tell_at:
                tell_at = time.monotonic() + _TELL_SECONDS
                said = waits.told(pause.value)
                if said and said != told:
                    self._journal.record(run.incident_id, Progress(text=said))
                told = said
            if not run.wait or run.stopping.wait(_POLL):
                self._journal.incidents.rested(run.incident_id)
                return None, False
        self._journal.incidents.rested(run.incident_id)
        return Command(resume={pause.id: True}), True


@dataclass(slots=True)
class _Run:
    """One run of an incident, the flags that end it, and what ended it."""

    incident_id: str
    wait: bool
    why: OperationError | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    cancel: Cancellation = field(default_factory=Cancellation)

    def stop(self, why: OperationError | None = None) -> None:
        """End it at the next node, and a generation within a token."""
        if not self.stopping.is_set():
            self.why = why
        self.stopping.set()
        self.cancel.cancel()
