"""Threads that ask the engine, a bounded number of them, each for one client that may go away."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeVar

from watchkeeper.models.interface import Cancellation, Chunk
from watchkeeper.models.server.errors import ClientGoneError, busy, closing

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Workers:
    """Runs the engine's blocking calls.

    Args:
        running: How many calls are in the engine at once; it batches them.
        waiting: How many more may wait for their turn; beyond that clients are told to come back.
    """

    def __init__(self, *, running: int, waiting: int) -> None:
        self._most_running = running
        self._most = running + waiting
        self._pool = concurrent.futures.ThreadPoolExecutor(running, thread_name_prefix="watchkeeper-serve")
        self._lock = threading.Lock()
        self._active: set[Cancellation] = set()
        self._begun = 0
        self._closing = False

    @property
    def running(self) -> int:
        """Calls that the engine works on."""
        return self._begun

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return max(0, len(self._active) - self._begun)

    @property
    def closing(self) -> bool:
        """Whether no more work is taken."""
        return self._closing

    def refuse(self) -> None:
        """Take no more work; what is under way goes on."""
        self._closing = True

    def cancel_all(self) -> None:
        """End what is under way, within a token."""
        with self._lock:
            active = list(self._active)
        for cancel in active:
            cancel.cancel()

    def close(self) -> None:
        """End everything and wait for it."""
        self.refuse()
        self.cancel_all()
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def run(self, work: Callable[[Cancellation], T], receive: Receive) -> T:
        """Run a call, unless its client goes away.

        Raises:
            HttpError: If there is no room, or the server is being stopped.
            ClientGoneError: If the client went away; the call is cancelled.
        """
        cancel = Cancellation()
        future = asyncio.wrap_future(self._submit(work, cancel))
        watcher = asyncio.ensure_future(_disconnected(receive))
        either: set[asyncio.Future[Any]] = {future, watcher}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise ClientGoneError
            return await future
        finally:
            cancel.cancel()
            future.cancel()
            await _ended(watcher)

    async def stream(
        self, work: Callable[[Cancellation], Iterator[Chunk]], receive: Receive
    ) -> AsyncGenerator[Chunk, None]:
        """Run a call that answers piece by piece; it is cancelled where the iteration ends early.

        Raises:
            HttpError: If there is no room, or the server is being stopped.
            ClientGoneError: If the client went away.
        """
        cancel = Cancellation()
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Chunk | None] = asyncio.Queue()

        def deliver(chunk: Chunk | None) -> None:
            # The loop is gone where the server was stopped the hard way.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(arrived.put_nowait, chunk)

        def pump(cancel: Cancellation) -> None:
            try:
                for chunk in work(cancel):
                    deliver(chunk)
            finally:
                deliver(None)

        future = asyncio.wrap_future(self._submit(pump, cancel))
        watcher = asyncio.ensure_future(_disconnected(receive))
        try:
            while True:
                getter = asyncio.ensure_future(arrived.get())
                await asyncio.wait({getter, watcher}, return_when=asyncio.FIRST_COMPLETED)
                if not getter.done():
                    await _ended(getter)
                    raise ClientGoneError
                chunk = getter.result()
                if chunk is None:
                    break
                yield chunk
            await future
        finally:
            cancel.cancel()
            future.cancel()
            await _ended(watcher)

    def _submit(
        self, work: Callable[[Cancellation], T], cancel: Cancellation
    ) -> concurrent.futures.Future[T]:
        with self._lock:
            if self._closing:
                raise closing()
            if len(self._active) >= self._most:
                raise busy(
                    f"{self._most_running} requests are answered and {self._most - self._most_running} wait: "
                    f"come back later"
                )
            self._active.add(cancel)

        def counted() -> T:
            with self._lock:
                self._begun += 1
            try:
                return work(cancel)
            finally:
                with self._lock:
                    self._begun -= 1

        def over(_: object) -> None:
            with self._lock:
                self._active.discard(cancel)

        try:
            future = self._pool.submit(counted)
        except RuntimeError:
            over(None)
            raise closing() from None
        future.add_done_callback(over)
        return future


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
