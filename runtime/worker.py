"""A worker: claims jobs, does them, and gives them back where it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from watchkeeper.models.errors import CancelledError
from watchkeeper.runtime.errors import AuditError, FencedError, HaltedError, StoreError
from watchkeeper.runtime.halt import POLL_SECONDS, Halts
from watchkeeper.runtime.jobs import Claim, Job, Jobs, JobStatus
from watchkeeper.runtime.leases import LEASE_SECONDS, new_holder

_IDLE_SECONDS = 0.3
"""Time between two looks for a job where there was none."""


class LaterError(Exception):
    """A job cannot be done now, by no fault of its own; that counts as no attempt.

    Args:
        seconds: Time until it is tried again.
        reason: For people.
    """

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds


class StoppedError(Exception):
    """A job was stopped half-way, and whoever claims it next goes on with it; that counts as no attempt."""


@dataclass(slots=True)
class Task:
    """A claimed job, as its handler sees it.

    Attributes:
        claim: The claim.
        jobs: Where it came from, for what follows.
        stopping: Set when the worker ends or lost the job: a handler that takes long gives up then, with
            StoppedError.
    """

    claim: Claim
    jobs: Jobs
    stopping: threading.Event = field(default_factory=threading.Event)
    _completed: bool = False
    _on_stop: list[Callable[[], object]] = field(default_factory=list)

    @property
    def job(self) -> Job:
        """The job."""
        return self.claim.job

    @property
    def completed(self) -> bool:
        """Whether its handler completed it."""
        return self._completed

    def complete(self) -> None:
        """Complete the job inside a transaction of the handler's, together with what follows from it.

        Raises:
            FencedError: If it was taken over; the transaction must then fail.
        """
        self.jobs.complete(self.claim)
        self._completed = True

    def on_stop(self, stop: Callable[[], object]) -> None:
        """Call ``stop`` from another thread when the handler is to give up; it may be called many times."""
        self._on_stop.append(stop)

    def stop(self) -> None:
        """Tell the handler to give up."""
        self.stopping.set()
        for stop in list(self._on_stop):
            stop()


Handler = Callable[[Task], object]
"""Does a job of one kind. The job is done where it returns; it is tried again later where it raises."""


class Worker:
    """Does jobs of the kinds it knows.

    Args:
        jobs: The jobs.
        halts: What stops it.
        handlers: What to do, by kind of job.
        lease_seconds: Time after which others may take over what this one does, if it goes silent.
        name: Who works; no two workers have the same name.
        say: Told what goes wrong, for people.
        idle: Called about once a ``lease_seconds`` while no job is due.
    """

    def __init__(
        self,
        jobs: Jobs,
        halts: Halts,
        handlers: Mapping[str, Handler],
        *,
        lease_seconds: float = LEASE_SECONDS,
        name: str | None = None,
        say: Callable[[str], object] = lambda _: None,
        idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._jobs = jobs
        self._halts = halts
        self._handlers = dict(handlers)
        self._lease_seconds = lease_seconds
        self.name = name or new_holder()
        self._say = say
        self._idle = idle
        self._stopping = threading.Event()
        self._why: HaltedError | None = None
        self._tasks: dict[int, Task] = {}

    def run(self, *, threads: int = 1, once: bool = False) -> None:
        """Work until it is stopped, or everything is.

        What is under way then is told to give up and given back; an effect that was begun is first brought to
        its end.

        Args:
            threads: How many jobs are done at a time.
            once: End when no job is due.

        Raises:
            HaltedError: If everything was stopped, before or meanwhile.
            StoreError: If the store cannot be read when it begins.
        """
        self._halts.check()
        serving = [
            threading.Thread(
                target=self._serve, args=(once,), name=f"watchkeeper-worker-{number}", daemon=True
            )
            for number in range(threads)
        ]
        watched = threading.Event()
        watch = threading.Thread(
            target=self._halts.watch, args=(watched, self._halted), name="watchkeeper-halt", daemon=True
        )
        for thread in (watch, *serving):
            thread.start()
        try:
            while not self._stopping.wait(POLL_SECONDS) and any(thread.is_alive() for thread in serving):
                pass
        finally:
            watched.set()
            self.stop()
            while any(thread.is_alive() for thread in serving):
                for task in list(self._tasks.values()):
                    task.stop()
                for thread in serving:
                    thread.join(POLL_SECONDS / threads)
            watch.join()
        if self._why is not None:
            raise self._why

    def stop(self) -> None:
        """Claim nothing more, and give up what is under way; it can be called from a signal handler."""
        self._stopping.set()

    def _halted(self, why: HaltedError) -> None:
        self._why = why
        self.stop()

    def _serve(self, once: bool) -> None:
        tidied = time.monotonic()
        while not self._stopping.is_set():
            try:
                claim = self._jobs.claim(
                    self.name, kinds=self._handlers.keys(), lease_seconds=self._lease_seconds
                )
                if claim is not None:
                    self._do(claim)
                elif once:
                    return
                else:
                    if time.monotonic() - tidied >= self._lease_seconds:
                        self._idle()
                        tidied = time.monotonic()
                    self._stopping.wait(_IDLE_SECONDS)
            except (StoreError, AuditError) as error:
                # Whatever was claimed runs out, and is claimed again.
                self._say(str(error))
                self._stopping.wait(1)

    def _do(self, claim: Claim) -> None:
        task = Task(claim, self._jobs)
        self._tasks[claim.job.id] = task
        ended = threading.Event()
        keeper = threading.Thread(
            target=self._keep, args=(task, ended), name="watchkeeper-lease", daemon=True
        )
        keeper.start()
        try:
            self._handle(task)
        except FencedError as error:
            self._say(str(error))
        finally:
            ended.set()
            keeper.join()
            del self._tasks[claim.job.id]

    def _handle(self, task: Task) -> None:
        try:
            self._handlers[task.job.kind](task)
            if not task.completed:
                task.complete()
        except LaterError as later:
            self._jobs.release(task.claim, again_in=later.seconds)
        except (StoppedError, CancelledError):
            self._jobs.release(task.claim)
        except HaltedError as halted:
            self._jobs.release(task.claim)
            self._halted(halted)
        except FencedError:
            self._let_go(task)
            raise
        except Exception as error:  # noqa: BLE001 (whatever went wrong, the job is tried again)
            said = " ".join(f"{type(error).__name__}: {error}".split())
            failed = self._jobs.fail(task.claim, said)
            then = (
                "put aside" if failed.status is JobStatus.DEAD else f"again at {failed.due_at:%H:%M:%S} UTC"
            )
            self._say(f"job {failed.id} ({failed.kind!r}), attempt {failed.attempts}: {said}; {then}")

    def _let_go(self, task: Task) -> None:
        """Give back a job whose work was taken over elsewhere: who has that work may have no job for it."""
        self._jobs.release(task.claim, again_in=self._lease_seconds / 3)

    def _keep(self, task: Task, ended: threading.Event) -> None:
        while not ended.wait(self._lease_seconds / 3):
            try:
                self._jobs.renew(task.claim)
            except FencedError:
                if not ended.is_set():
                    task.stop()
                return
            except StoreError:
                continue
