"""Blocking work of an engine beside an event loop, ended when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from watchkeeper.models.interface import Cancellation

T = TypeVar("T")


def in_a_thread_that_ends(work: Callable[[], T]) -> T:
    """Do work in a thread of its own, and wait for it.

    OpenMP keeps helpers for every thread that ever computed in parallel. Where that makes more threads than
    cores, helpers sleep between two matmuls instead of waiting for the next, and every matmul is late by the
    time it takes to wake them. With the thread its helpers are gone.

    Args:
        work: What is done, in seconds: it is waited for also where the caller is interrupted.

    Raises:
        BaseException: Whatever the work raises.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised again by who waits)
            result.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    thread.start()
    try:
        return result.result()
    finally:
        # Also after Ctrl-C: Python ends threads that are in the middle of C++ by aborting.
        thread.join()


async def iterate(make: Callable[[Cancellation], Iterator[T]]) -> AsyncGenerator[T, None]:
    """Iterate in a thread of its own, so that many answers can be awaited at once.

    The event loop's shared pool of threads is not used: it is small, and an engine that batches is quick
    only if all requests reach it.

    Args:
        make: Begins the work; called in the thread. Its cancellation is raised when the consumer stops,
            closes the iterator or is cancelled itself.

    Raises:
        Exception: Whatever the work raises.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[T | Future[None]] = asyncio.Queue()
    cancel = Cancellation()

    def deliver(item: T | Future[None]) -> None:
        try:
            loop.call_soon_threadsafe(arrived.put_nowait, item)
        except RuntimeError:  # The loop is closed, so nobody listens.
            cancel.cancel()

    def work() -> None:
        for item in make(cancel):
            if cancel.cancelled:
                return
            deliver(item)

    executor = ThreadPoolExecutor(1, thread_name_prefix="watchkeeper-answer")
    future = executor.submit(contextvars.copy_context().run, work)
    executor.shutdown(wait=False)
    future.add_done_callback(deliver)
    try:
        while True:
            item = await arrived.get()
            if item is future:
                future.result()
                return
            yield item  # type: ignore[misc]  # the only future that is delivered is the one above
    finally:
        # Without effect where the work is done. It is not waited for: the consumer wants to go on.
        cancel.cancel()


async def call(work: Callable[[Cancellation], T]) -> T:
    """Run one blocking call in a thread of its own; as :func:`iterate`.

    Raises:
        Exception: Whatever the work raises.
    """

    def once(cancel: Cancellation) -> Iterator[T]:
        yield work(cancel)

    results = [result async for result in iterate(once)]
    return results[0]
