"""The work that escalations leave behind: timers that come due, and notifications to send.

Any process may do it, `watchkeeper serve` or a run that waits for an answer. What a crash cuts off is
claimed again by another worker, and changes nothing that was done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from watchkeeper.runtime.clock import Clock, short_id
from watchkeeper.runtime.errors import AuditError, EscalationError, FencedError, OperationError
from watchkeeper.runtime.escalation import Escalations
from watchkeeper.runtime.escalation_states import CallDue, EscalationStatus, QuestionDue
from watchkeeper.runtime.events import NotificationLost, Notified
from watchkeeper.runtime.jobs import CALL, NOTIFY, QUESTION, Claim, Job, Jobs
from watchkeeper.runtime.notify import Sinks
from watchkeeper.runtime.outbox import Delivery, NotificationStatus, try_to_send
from watchkeeper.runtime.store import Store
from watchkeeper.runtime.worker import LaterError, Task, failure

_POLL = 0.5
"""Seconds between two looks for what is due."""

Handler = Callable[[dict[str, JsonValue]], datetime | None]
"""Does a job; returns when to do it again, or None where it is done."""


class EscalationJobs:
    """Does the jobs of escalations.

    Args:
        store: Where the jobs are.
        escalations: Those of that store.
        sinks: Ways to people.
        now: The time; by default the store's, which is one for all machines.
    """

    def __init__(
        self,
        store: Store,
        escalations: Escalations,
        sinks: Sinks,
        *,
        now: Clock | None = None,
    ) -> None:
        self._store = store
        self._escalations = escalations
        self._sinks = sinks
        self._now = now or store.now
        self._jobs = Jobs(store, now=now)
        self.handlers: dict[str, Handler] = {CALL: self.call, QUESTION: self.question, NOTIFY: self.notify}

    def call(self, body: dict[str, JsonValue]) -> datetime | None:
        """The time of a call is over: the next one follows, or silence."""
        step = int(str(body["step"]))
        now = self._escalations.on_time(str(body["escalation"]), CallDue(step))
        # A clock that was set back has brought the timer too early.
        return now.due_at if now.status is EscalationStatus.WAITING and now.step == step else None

    def question(self, body: dict[str, JsonValue]) -> datetime | None:
        """A question has expired."""
        now = self._escalations.on_time(str(body["escalation"]), QuestionDue())
        return None if now.status.ended else now.ends_at

    def notify(self, body: dict[str, JsonValue]) -> datetime | None:
        """Send a notification, at most once where its way cannot tell what it has sent."""
        outbox = self._escalations.outbox
        notification = outbox.get(str(body["notification"]))
        escalation = self._escalations.get(notification.escalation_id)
        pending = notification.status is NotificationStatus.PENDING
        if pending and escalation.status is not EscalationStatus.WAITING:
            outbox.withdraw(notification.id, self._now())
            return None
        sink = self._sinks(notification.channel, escalation.rules)
        with self._store.transaction():
            found = outbox.take(notification.id, repeatable=sink.repeatable, at=self._now())
            if found is not None:
                self._tell(found)
                return found.again_at
        taken = outbox.get(notification.id)
        error = try_to_send(sink, taken.message)
        with self._store.transaction():
            found = outbox.settle(taken, error, self._now())
            self._tell(found)
        return found.again_at

    def tasks(self) -> dict[str, Callable[[Task], object]]:
        """Return the handlers as a worker takes them."""
        return {kind: partial(self._task, handler) for kind, handler in self.handlers.items()}

    def work_off(self, worker: str) -> int:
        """Do what is due until nothing is, and return how many jobs that were.

        One that cannot be done is tried again later, and holds up no other.

        Raises:
            AuditError: If the audit log cannot be written: nothing is done then, and all keep their places.
            StoreError: If the store cannot be written.
        """
        count = 0
        while (claim := self._jobs.claim(worker, kinds=self.handlers)) is not None:
            count += self._do(claim)
        return count

    def _do(self, claim: Claim) -> bool:
        """Do a job; whether it could be done."""
        # Another worker may have taken it over, or it was taken back: what was done stays done.
        lost = suppress(FencedError)
        try:
            again_at = self._handle(self.handlers[claim.job.kind], claim.job)
        except AuditError:
            with lost:
                self._jobs.release(claim)
            raise
        except Exception as error:  # noqa: BLE001 (whatever went wrong, the job is tried again)
            with lost:
                self._jobs.fail(claim, failure(error))
            return False
        with lost:
            if again_at is None:
                self._jobs.complete(claim)
            else:
                self._jobs.release(claim, again_in=self._seconds_until(again_at))
        return True

    def _handle(self, handler: Handler, job: Job) -> datetime | None:
        try:
            return handler(job.body)
        except EscalationError:
            # It was removed with its incident.
            return None

    def _task(self, handler: Handler, task: Task) -> None:
        again_at = self._handle(handler, task.job)
        if again_at is not None:
            raise LaterError(self._seconds_until(again_at), f"its time is {again_at:%H:%M:%S} UTC")

    def _seconds_until(self, at: datetime) -> float:
        return max(0.0, (at - self._now()).total_seconds())

    def _tell(self, delivery: Delivery) -> None:
        told = delivery.notification
        if not delivery.news:
            return
        names = {
            "escalation_id": told.escalation_id,
            "notification_id": told.id,
            "recipient": told.recipient,
            "channel": told.channel,
        }
        escalation = self._escalations.get(told.escalation_id)
        if told.status is NotificationStatus.SENT:
            self._escalations.record(escalation, Notified(**names), key=f"notified:{told.id}")
            return
        outcome = "unknown" if told.status is NotificationStatus.UNKNOWN else "failed"
        self._escalations.record(
            escalation,
            NotificationLost.model_validate({**names, "outcome": outcome, "detail": told.detail}),
            key=f"notified:{told.id}",
        )


class EscalationWorker:
    """Does the jobs of escalations in a thread of its own while a run goes on, and what is due at its end.

    Args:
        jobs: What is to be done.
    """

    def __init__(self, jobs: EscalationJobs) -> None:
        self._jobs = jobs
        self._name = f"escalations-{os.getpid()}-{short_id(4)}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._work_off()

    def _work(self) -> None:
        while not self._stopping.wait(_POLL):
            # Calls of people hang on this thread: it tries again, and what lasts is raised by `__exit__`.
            with suppress(Exception):
                self._work_off()

    def _work_off(self) -> None:
        # What cannot be written now is claimed again; a run does not end for it.
        with suppress(OperationError):
            self._jobs.work_off(self._name)
