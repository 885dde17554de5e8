"""The loop that computes for all requests at once, in a thread of its own."""

from __future__ import annotations

import atexit
import itertools
import logging
import queue
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from watchkeeper.models.errors import ModelError
from watchkeeper.models.interface import Cancellation
from watchkeeper.models.memory import give_memory_back
from watchkeeper.models.prefix import PrefixStatistics, PrefixTree, common_prefix
from watchkeeper.models.runner import Runner
from watchkeeper.models.scheduler import Scheduler
from watchkeeper.models.tasks import Task

# A beginning shared with a request under way is waited for from this many tokens on.
_WORTH_WAITING = 32

# An agent's next turn comes sooner than that.
_IDLE_SECONDS = 1.0


log = logging.getLogger(__name__)

_open: weakref.WeakSet[Batch] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads of engines that nobody closed: Python would kill them inside of a pass."""
    for batch in list(_open):
        batch.close()


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What an engine did so far, and what it is doing.

    Attributes:
        prefixes: What the reuse of keys and values saved.
        passes: Forward passes.
        tokens: Tokens that they computed.
        guessed: Tokens that were guessed, of answers that ended.
        guessed_right: Guesses that the model then said.
        running: Requests that are computed now.
        waiting: Requests that wait now.
    """

    prefixes: PrefixStatistics = field(default_factory=PrefixStatistics)
    passes: int = 0
    tokens: int = 0
    guessed: int = 0
    guessed_right: int = 0
    running: int = 0
    waiting: int = 0


class Job:
    """A task on its way through the engine, and the line over which its text comes back.

    Args:
        task: What is to be done.
        weights: What reads its tokens.
        priority: Higher goes first.
        cancel: Ends it within one pass once it is raised.
    """

    def __init__(self, task: Task, weights: str, priority: int, cancel: Cancellation | None) -> None:
        self.task = task
        self.weights = weights
        self.priority = priority
        self._cancel = cancel
        self._abandoned = False
        self._line: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._abandoned or (self._cancel is not None and self._cancel.cancelled)

    def abandon(self) -> None:
        """Say that nobody reads what is still to come."""
        self._abandoned = True

    def say(self, text: str) -> None:
        """Send a piece of text."""
        if text:
            self._line.put(text)

    def end(self, error: BaseException | None = None) -> None:
        """Send the end, or what went wrong."""
        self._line.put(error)

    def texts(self) -> Iterator[str]:
        """Wait for pieces of text until the end.

        Raises:
            ModelError: If the task failed.
        """
        while (item := self._line.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


class Batch:
    """Runs jobs together.

    Args:
        runner: Computes.
        scheduler: Says who is computed next.
        prefixes: Keys and values of earlier requests.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler, prefixes: PrefixTree) -> None:
        self._runner: Runner | None = runner
        self._scheduler = scheduler
        self._prefixes = prefixes
        self._jobs: dict[int, Job] = {}
        self._numbers = itertools.count()
        # Guards all of the below; not held while a pass computes.
        self._lock = threading.Condition()
        self._gone: dict[str, ModelError] = {}
        self._pauses = 0
        self._computing = False
        self._thread: threading.Thread | None = None
        self._passes = self._tokens = self._guessed = self._guessed_right = 0

    @property
    def statistics(self) -> EngineStatistics:
        """What was done so far."""
        with self._lock:
            return EngineStatistics(
                self._prefixes.statistics,
                self._passes,
                self._tokens,
                self._guessed,
                self._guessed_right,
                len(self._scheduler.running),
                len(self._scheduler.waiting),
            )

    def submit(self, job: Job) -> None:
        """Let a job take part.

        Raises:
            CapacityError: If it will never fit.
            BusyError: If too many wait already.
            ModelError: If the engine is closed, or the job's weights were forgotten.
        """
        with self._lock:
            self._refuse_closed()
            if job.weights in self._gone:
                raise self._gone[job.weights]
            number = next(self._numbers)
            self._scheduler.submit(number, job.task.need, job.priority)
            self._jobs[number] = job
            if self._thread is None:
                _open.add(self)
                self._thread = threading.Thread(target=self._work, name="watchkeeper-engine", daemon=True)
                self._thread.start()
            self._lock.notify_all()

    def close(self) -> None:
        """Stop after the pass under way; jobs that are not done fail."""
        with self._lock:
            self._runner = None
            thread, self._thread = self._thread, None
            self._lock.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            for number in list(self._jobs):
                self._end(number, ModelError("the engine was closed before it answered"))
            self._prefixes.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hold passes up while weights change.

        Raises:
            ModelError: If the engine is closed.
        """
        with self._lock:
            self._refuse_closed()
            self._pauses += 1
            while self._computing:
                self._lock.wait()
        try:
            yield
        finally:
            with self._lock:
                self._pauses -= 1
                self._lock.notify_all()

    def forget(self, weights: str, error: ModelError) -> None:
        """Forget what these weights made, and fail the jobs that use them, also those still to come."""
        with self._lock:
            self._gone[weights] = error
            for number, job in list(self._jobs.items()):
                if job.weights == weights:
                    self._end(number, error)
            self._prefixes.forget(weights)

    def welcome(self, weights: str) -> None:
        """Take jobs of these weights, also where they were forgotten before."""
        with self._lock:
            self._gone.pop(weights, None)

    def _refuse_closed(self) -> None:
        if self._runner is None:
            raise ModelError("this engine is closed; open another one")

    def _work(self) -> None:
        while (runner := self._awaited()) is not None:
            try:
                self._step(runner)
            except Exception as error:  # noqa: BLE001 (whatever it is, those who wait must hear of it)
                with self._lock:
                    for number in list(self._jobs):
                        self._end(number, error)
            finally:
                with self._lock:
                    self._computing = False
                    self._lock.notify_all()

    def _awaited(self) -> Runner | None:
        """Wait until there is something to compute with the runner; None once the engine is closed."""

        def due() -> bool:
            return self._runner is None or bool(self._jobs and not self._pauses)

        with self._lock:
            idle = not self._lock.wait_for(due, _IDLE_SECONDS)
        if idle:
            give_memory_back()
        with self._lock:
            self._lock.wait_for(due)
            self._computing = self._runner is not None
            return self._runner

    def _step(self, runner: Runner) -> None:
        """Let jobs leave and join, and run one pass."""
        with self._lock:
            for number, job in list(self._jobs.items()):
                if job.unwanted:
                    self._end(number)
            self._admit(runner)
            running = {number: self._jobs[number] for number in self._scheduler.running}
            planned = self._scheduler.plan({n: job.task.pending() for n, job in running.items()})
            pieces = {number: running[number].task.piece(count) for number, count in planned.items()}
        if not pieces:
            return
        results = dict(zip(pieces, runner.run(list(pieces.values())), strict=True))
        wide: dict[int, torch.Tensor] = {}
        for number, hidden in results.items():
            try:
                if len(hidden) and running[number].task.wants_logits():
                    wide[number] = hidden
            except Exception as error:  # noqa: BLE001 (one request's failure is not another's)
                with self._lock:
                    self._end(number, error)
        logits = self._logits(wide, runner)
        for number, hidden in results.items():
            job = running[number]
            if number not in self._jobs:
                continue
            try:
                job.say(job.task.receive(hidden, logits.get(number), runner))
            except Exception as error:  # noqa: BLE001 (one request's failure is not another's)
                with self._lock:
                    self._end(number, error)
        with self._lock:
            self._passes += 1
            self._tokens += sum(len(piece.tokens) for piece in pieces.values())
            for number in pieces:
                if number in self._jobs and running[number].task.done:
                    self._end(number)

    @staticmethod
    def _logits(wide: dict[int, torch.Tensor], runner: Runner) -> dict[int, torch.Tensor]:
        """Compute logits for several requests at once; where that fails, each has to by itself."""
        if not wide:
            return {}
        try:
            whole = runner.logits(torch.cat(list(wide.values())))
        except (MemoryError, RuntimeError) as error:
            log.warning("logits of %d requests cannot be computed at once: %s", len(wide), error)
            return {}
        return dict(
            zip(wide, torch.split_with_sizes(whole, [len(rows) for rows in wide.values()]), strict=True)
        )

    def _admit(self, runner: Runner) -> None:
        for number in self._scheduler.admit(self._ready):
            job = self._jobs[number]
            task = job.task
            job.say(task.first)
            kv = runner.new_kv(len(task.tokens) + 64)
            source, shared = self._under_way(job)
            if shared > self._prefixes.match(job.weights, task.tokens[: task.prompt_length]):
                assert source is not None
                kv.append(source.task.kv.spans(0, shared))
                self._prefixes.count(task.prompt_length, shared)
            else:
                self._prefixes.fill(job.weights, task.tokens[: task.prompt_length], kv)
            task.begin(kv)
            if task.done:
                self._end(number)

    def _ready(self, number: int) -> bool:
        """Whether a job need not wait for another that is computing the same beginning right now."""
        job = self._jobs[number]
        known = self._prefixes.match(job.weights, job.task.tokens[: job.task.prompt_length])
        source, shared = self._under_way(job, computed=False)
        if source is None or shared - known < _WORTH_WAITING:
            return True
        return source.task.computed >= shared

    def _under_way(self, job: Job, *, computed: bool = True) -> tuple[Job | None, int]:
        """Find the running job that shares the longest beginning, and how much of it.

        Args:
            job: Whose beginning is asked for.
            computed: Whether only what was computed already counts.
        """
        best: tuple[Job | None, int] = (None, 0)
        wanted = np.asarray(job.task.tokens[: job.task.prompt_length - 1], dtype=np.int32)
        for number in self._scheduler.running:
            other = self._jobs[number]
            if other is job or other.weights != job.weights:
                continue
            task = other.task
            known = task.computed if computed else task.prompt_length
            shared = common_prefix(np.asarray(task.tokens[:known], dtype=np.int32), wanted)
            if shared > best[1]:
                best = (other, shared)
        return best

    def _end(self, number: int, error: BaseException | None = None) -> None:
        job = self._jobs.pop(number)
        self._scheduler.leave(number)
        task = job.task
        self._guessed += task.guessed
        self._guessed_right += task.guessed_right
        if task.room is not None:
            self._prefixes.keep(job.weights, task.tokens, task.room)
        job.end(error)
