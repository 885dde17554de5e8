"""Micro-batches: what clients ask within a few milliseconds is answered together."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from watchkeeper.tools.predictors.interface import Row

T = TypeVar("T")


class QueueFullError(Exception):
    """More rows wait than may."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The rows of one client.

    Attributes:
        id: Id of the request.
        rows: At least one.
        since: When they came to whom answers them, on the monotonic clock, in seconds.
    """

    id: str
    rows: Sequence[Row]
    since: float = 0.0


Answering = Callable[[Sequence[Asked]], list[T]]
"""Answers requests together, one answer for each. Where it raises, each half is asked
again, down to single ones, so that nobody's mistake is another's."""


@dataclass(slots=True)
class _Waiting(Generic[T]):
    asked: Asked
    future: asyncio.Future[T]


class Batcher(Generic[T]):
    """Collects requests and has them answered together, one batch at a time.

    While a batch is computed the next one collects by itself; the window is only waited for where nothing
    is computed. Everything but the answering happens in the event loop.

    Args:
        answer: Answers a batch; called in a thread.
        pool: Where.
        window: Seconds that the first of a batch waits for others; 0 answers every request alone.
        most_rows: Rows of a batch, where more than one request is in it.
        waiting_rows: Rows that may wait; beyond that clients are told to come back.
        seen: Told the rows of every batch.
    """

    def __init__(
        self,
        answer: Answering[T],
        pool: concurrent.futures.Executor,
        *,
        window: float = 0.002,
        most_rows: int = 256,
        waiting_rows: int = 4096,
        seen: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._answer = answer
        self._pool = pool
        self._window = window
        self._most_rows = most_rows
        self._waiting_rows = waiting_rows
        self._seen = seen
        self._queue: deque[_Waiting[T]] = deque()
        self._rows = 0
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Rows that wait for their turn."""
        return self._rows

    async def submit(self, asked: Asked) -> T:
        """Have rows answered.

        Raises:
            QueueFullError: If too many rows wait.
            DataError: If one of these rows is wrong.
        """
        if self._rows + len(asked.rows) > self._waiting_rows:
            raise QueueFullError(f"{self._rows} rows wait and {self._waiting_rows} may")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(replace(asked, since=time.monotonic()), future))
        self._rows += len(asked.rows)
        if self._rows >= self._most_rows:
            self._full.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        computed = False
        while self._queue:
            # What came while a batch was computed has waited already.
            if self._window > 0 and self._rows < self._most_rows and not computed:
                self._full.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._window)
            batch = self._take()
            if batch:
                await self._answered(batch)
                computed = True

    def _take(self) -> list[_Waiting[T]]:
        batch: list[_Waiting[T]] = []
        rows = 0
        while self._queue:
            following = len(self._queue[0].asked.rows)
            if batch and (self._window <= 0 or rows + following > self._most_rows):
                break
            waiting = self._queue.popleft()
            self._rows -= following
            # Whose client went away is not worked for.
            if not waiting.future.done():
                batch.append(waiting)
                rows += following
        return batch

    async def _answered(self, batch: list[_Waiting[T]]) -> None:
        self._seen(sum(len(waiting.asked.rows) for waiting in batch))
        loop = asyncio.get_running_loop()
        try:
            computing = loop.run_in_executor(self._pool, self._answer, [one.asked for one in batch])
        except RuntimeError:  # nothing is begun any more
            _fail(batch, QueueFullError("the server ends"))
            return
        try:
            answers = await computing
        except asyncio.CancelledError:
            # It was waiting for a thread when the server ended: whoever asked is told.
            _fail(batch, QueueFullError("the server ends"))
            return
        except Exception as error:  # noqa: BLE001 (every error is an answer to those who asked)
            if len(batch) == 1:
                _fail(batch, error)
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                # Whose client went away meanwhile is not worked for.
                if asking := [waiting for waiting in half if not waiting.future.done()]:
                    await self._answered(asking)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(answer)


def _fail(batch: Sequence[_Waiting[T]], error: Exception) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)
