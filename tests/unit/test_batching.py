"""Requests that are answered together: nobody's mistake is another's, and nobody waits on at the end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Sequence

import pytest

from watchkeeper.tools.serving.batching import Asked, Batcher


@pytest.mark.asyncio
async def test_who_waits_for_a_thread_and_behind_that_when_the_server_ends_is_told() -> None:
    gate, told = threading.Event(), []

    def answer(batch: Sequence[Asked]) -> list[str]:
        assert gate.wait(10)
        return [one.id for one in batch]

    pool = concurrent.futures.ThreadPoolExecutor(1)
    busy, other = (Batcher(answer, pool, window=0) for _ in range(2))
    asking = [
        asyncio.create_task(batcher.submit(Asked(name, [{}])))
        for batcher, name in ((busy, "a"), (other, "b"), (other, "c"))
    ]
    await asyncio.sleep(0.05)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.set()
    told = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 5)
    assert told[0] == "a"
    assert [str(error) for error in told[1:]] == ["the server ends"] * 2


@pytest.mark.asyncio
async def test_what_one_request_breaks_costs_the_others_few_batches() -> None:
    asked: list[int] = []

    def answer(batch: Sequence[Asked]) -> list[str]:
        asked.append(len(batch))
        if any(one.id == "bad" for one in batch):
            raise ValueError("it is broken")
        return [one.id for one in batch]

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        batcher = Batcher(answer, pool, window=0.05)
        names = ["bad", *(f"r{number}" for number in range(63))]
        asking = [batcher.submit(Asked(name, [{}])) for name in names]
        told = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(one) for one in told] == ["it is broken", *names[1:]]
    assert asked == [64, 32, 16, 8, 4, 2, 1, 1, 2, 4, 8, 16, 32]
