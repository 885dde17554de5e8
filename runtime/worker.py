"""A worker: claims jobs, does them, and gives them back where it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import JsonValue

from watchkeeper.models.errors import CancelledError
from watchkeeper.runtime.errors import AuditError, FencedError, HaltedError, OperationError, StoreError
from watchkeeper.runtime.halt import POLL_SECONDS, Halts
from watchkeeper.runtime.jobs import Claim, Job, Jobs, JobStatus
from watchkeeper.runtime.leases import LEASE_SECONDS, new_holder

T = TypeVar("T")

_IDLE_SECONDS = 0.3
"""Time between two looks for a job where there was none."""

_OUTAGE_SECONDS = 1.0
"""Time until it is gone on where the audit log or the store could not be written."""

_STORE_SECONDS = 10.0
"""Time until a job is tried again that could not be written into the store."""


class LaterError(Exception):
    """A job cannot be done now, by no fault of its own; that counts as no attempt.

    Args:
        seconds: Time until it is tried again.
        reason: For people.
        body: What it is about from then on, where that is not what it was.
    """

    def __init__(self, seconds: float, reason: str, body: dict[str, JsonValue] | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.body = body


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


def failure(error: Exception) -> str:
    """Say in one line what went wrong."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def unfailing(tell: Callable[[T], object]) -> Callable[[T], object]:
    """Return a way to tell people that fails nobody's work: their log may lie on a disk that is full."""

    def told(what: T) -> None:
        with suppress(OSError, ValueError):
            tell(what)

    return told


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
        idle: Called about once a ``lease_seconds``, between two jobs.
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
        self._say = unfailing(say)
        self._idle = idle
        self._stopping = threading.Event()
        self._why: OperationError | None = None
        self._tasks: dict[tuple[int, int], Task] = {}

    def run(self, *, threads: int = 1, once: bool = False) -> None:
        """Work until it is stopped, or everything is.

        What is under way then is told to give up and given back; an effect that was begun is first brought to
        its end.

        Args:
            threads: How many jobs are done at a time.
            once: End when no job is due.

        Raises:
            HaltedError: If everything was stopped, before or meanwhile.
            AuditError: If the audit log cannot be written where it is to end; else that is waited for.
            StoreError: If the store cannot be read when it begins, or be written where it is to end.
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

    def _halted(self, why: OperationError) -> None:
        self._why = why
        self.stop()

    def _serve(self, once: bool) -> None:
        tidied, told = time.monotonic(), ""
        while not self._stopping.is_set():
            try:
                if time.monotonic() - tidied >= self._lease_seconds:
                    tidied = time.monotonic()
                    self._tidy()
                claim = self._jobs.claim(
                    self.name, kinds=self._handlers.keys(), lease_seconds=self._lease_seconds
                )
                if claim is not None:
                    self._do(claim)
                elif once:
                    return
                else:
                    self._stopping.wait(_IDLE_SECONDS)
                told = ""
            except (StoreError, AuditError) as error:
                # What was claimed and could not be given back runs out, and is claimed again.
                if once:
                    self._halted(error)
                elif str(error) != told:
                    told = str(error)
                    self._say(told)
                self._stopping.wait(_OUTAGE_SECONDS)
            except Exception as error:  # noqa: BLE001 (a thread that ends in silence does no job any more)
                said = failure(error)
                if once:
                    self._halted(OperationError(said))
                elif said != told:
                    told = said
                    self._say(said)
                self._stopping.wait(_OUTAGE_SECONDS)

    def _tidy(self) -> None:
        """Do what is done between two jobs; what goes wrong there keeps nobody from the next."""
        try:
            self._idle()
        except (StoreError, AuditError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, jobs are waiting)
            self._say(failure(error))

    def _do(self, claim: Claim) -> None:
        # After a pause of the machine another thread may have claimed what this one still does.
        task, number = Task(claim, self._jobs), (claim.job.id, claim.fence)
        self._tasks[number] = task
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
            del self._tasks[number]

    def _handle(self, task: Task) -> None:
        try:
            self._handlers[task.job.kind](task)
            if not task.completed:
                task.complete()
        except LaterError as later:
            self._jobs.release(task.claim, again_in=later.seconds, body=later.body)
        except (StoppedError, CancelledError):
            self._jobs.release(task.claim)
        except HaltedError as halted:
            self._jobs.release(task.claim)
            self._halted(halted)
        except FencedError:
            self._let_go(task)
            raise
        except AuditError:
            # No fault of the job's, and of no other that waits: all keep their places.
            self._jobs.release(task.claim)
            raise
        except StoreError as error:
            self._jobs.release(task.claim, again_in=_STORE_SECONDS)
            self._say(
                f"job {task.job.id} ({task.job.kind!r}): {failure(error)}; again in {_STORE_SECONDS:g} s"
            )
        except Exception as error:  # noqa: BLE001 (whatever went wrong, the job is tried again)
            said = failure(error)
            failed = self._jobs.fail(task.claim, said)
            then = (
                "put aside" if failed.status is JobStatus.DEAD else f"again at {failed.due_at:%H:%M:%S} UTC"
            )
            self._say(f"job {failed.id} ({failed.kind!r}), attempt {failed.attempts}: {said}; {then}")

    def _let_go(self, task: Task) -> None:
        """Give back a job whose work was taken over elsewhere: who has that work may have no job for it."""
        self._jobs.release(task.claim, again_in=self._lease_seconds / 3)

    def _keep(self, task: Task, ended: threading.Event) -> None:
        renewed = time.monotonic()
        while not ended.wait(self._lease_seconds / 3):
            begun = time.monotonic()
            try:
                self._jobs.renew(task.claim)
                renewed = begun
            except FencedError:
                if not ended.is_set():
                    task.stop()
                return
            except StoreError:
                # Others may have it by now, where there are others: two must not do the same for long.
                if self._jobs.shared and time.monotonic() - renewed >= self._lease_seconds:
                    task.stop()
