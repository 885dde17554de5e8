"""Parts of a loop are computed once each, whoever of the crew is awake, held up, or not there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from watchkeeper.models.compiled import compiled, compiled_part, words_at
from watchkeeper.models.crew import crew, lead


@compiled_part
def count_part(given: int, number: int) -> None:
    """Count that a part was computed, after a while that depends on it."""
    words = carray(words_at(given), 1 << 17)
    total = 0
    for step in range((number % 7) * words[0]):
        total += step
    words[1] = max(words[1], total)
    words[2 + number] += 1


@compiled()
def compute(given: NDArray[np.int64], parts: int, address: int, work: int) -> None:
    lead(address, work, given.ctypes.data, parts)


def counts(parts: int, slowness: int = 0) -> NDArray[np.int64]:
    given = np.zeros(1 << 17, dtype=np.int64)
    given[0] = slowness
    with crew:
        compute(given, parts, crew.address, count_part)
    return given[2 : 3 + parts]


@pytest.fixture(params=[1, 2, 3, 6])
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(autouse=True)
def as_many(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("parts", [1, 2, 5, 64, 60_000])
def test_every_part_is_computed_once(parts: int, threads: int) -> None:
    for slowness in (0, 10):
        found = counts(parts, slowness)
        assert (found[:parts] == 1).all()
        assert found[parts] == 0
    assert crew.members == threads


def test_loops_that_follow_closely_do_not_mix() -> None:
    # A helper that still looks at the last loop must not take a part of the next one by it.
    for turn in range(3000):
        parts = 1 + turn % 9
        found = counts(parts)
        assert (found[:parts] == 1).all(), turn
        assert found[parts] == 0, turn


def test_helpers_that_slept_are_woken_and_do_not_work_twice() -> None:
    for _ in range(5):
        time.sleep(0.02)  # longer than a helper looks for work
        found = counts(40, 1000)
        assert (found[:40] == 1).all()


def test_many_threads_take_turns() -> None:
    wrong: list[int] = []

    def work(parts: int) -> None:
        wrong.extend(parts for _ in range(200) if not (counts(parts)[:parts] == 1).all())

    callers = [threading.Thread(target=work, args=(3 + index,)) for index in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_crew_of_its_own() -> None:
    counts(10)
    child = os.fork()
    if child == 0:
        fine = all((counts(10, 100)[:10] == 1).all() for _ in range(50))
        os._exit(0 if fine else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (counts(10)[:10] == 1).all()


def test_an_idle_crew_uses_no_processor() -> None:
    counts(10)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
