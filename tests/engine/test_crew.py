"""Parts of a loop are computed once each, whoever of the crew is awake, held up, or not there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from watchkeeper.models import crew as crews
from watchkeeper.models.compiled import LOOPS, Part, compiled, words_at
from watchkeeper.models.crew import Crew, crew, lead

# Room for what the loop below is given: how slow parts are, which one fails, something to do, counts.
ROOM = 1 << 17
_SLOWNESS, _FAILS, _SOMETHING, _COUNTS = 0, 1, 2, 3


@Part
def count_part(given: int, number: int) -> int:
    """Count that a part was computed, after a while that no compiler can foresee."""
    words = carray(words_at(given), ROOM)
    value = number + 1
    for _ in range((number % 7) * words[_SLOWNESS]):
        value ^= value << 13
        value ^= value >> 7
        value ^= value << 17
    if value == 0:
        words[_SOMETHING] = value
    words[_COUNTS + number] += 1
    return 0 if number + 1 == words[_FAILS] else 1


@compiled()
def compute(given: NDArray[np.int64], parts: int, address: int, work: int) -> int:
    return lead(address, work, given.ctypes.data, parts)


def counts(parts: int, slowness: int = 0, fails: int = 0) -> tuple[NDArray[np.int64], int]:
    """Count how often each part was computed, and how many were left to who led."""
    given = np.zeros(ROOM, dtype=np.int64)
    given[_SLOWNESS], given[_FAILS] = slowness, fails
    with crew:
        own = compute(given, parts, crew.address, count_part.address)
    return given[_COUNTS : _COUNTS + 1 + parts], own


def once_each(parts: int, slowness: int = 0) -> bool:
    found, own = counts(parts, slowness)
    return bool((found[:parts] == 1).all()) and found[parts] == 0 and 0 <= own <= parts


@pytest.fixture(params=[1, 2, 3, 6])
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(autouse=True)
def as_many(threads: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have more members than this machine has cores, too."""
    monkeypatch.setattr(crews, "_cores", lambda: threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("parts", [1, 2, 5, 64, 60_000])
def test_every_part_is_computed_once(parts: int, threads: int) -> None:
    assert once_each(parts)
    assert once_each(parts, 10)
    assert crew.members == threads


def test_helpers_take_parts_also_after_they_slept(threads: int) -> None:
    others = 0
    for _ in range(20):
        time.sleep(0.005)  # longer than a helper looks for work
        found, own = counts(70, 20_000)
        assert (found[:70] == 1).all()
        others += 70 - own
    assert (others > 0) == (threads > 1)


def test_loops_that_follow_closely_do_not_mix() -> None:
    # A helper that still looks at the last loop must not take a part of the next one by it.
    assert all(once_each(1 + turn % 9, turn % 3) for turn in range(3000))


def test_many_threads_take_turns() -> None:
    fine: list[bool] = []

    def work(parts: int) -> None:
        fine.extend(once_each(parts) for _ in range(200))

    callers = [threading.Thread(target=work, args=(3 + index,)) for index in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert fine == [True] * 1000


def test_a_part_that_fails_fails_the_loop_and_not_the_next() -> None:
    with pytest.raises(MemoryError):
        counts(9, fails=4)
    assert once_each(9)


def test_a_crew_that_may_hire_nobody_computes_alone(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    alone, given = Crew(), np.zeros(ROOM, dtype=np.int64)
    for _ in range(2):
        with alone:
            assert compute(given, 9, alone.address, count_part.address) == 9
        assert alone.members == 1
    assert (given[_COUNTS : _COUNTS + 9] == 2).all()


def test_who_is_interrupted_while_entering_leaves_the_crew_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_num_threads", interrupted)
        with pytest.raises(KeyboardInterrupt):
            crew.__enter__()
    assert once_each(5)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_crew_of_its_own() -> None:
    assert once_each(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(once_each(10, 100) for _ in range(50)) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert once_each(10)


def test_an_idle_crew_uses_no_processor() -> None:
    assert once_each(10)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def test_a_process_ends_while_helpers_look_for_work() -> None:
    script = (
        "import numpy as np, torch; torch.set_num_threads(2)\n"
        "from watchkeeper.models import crew; crew._cores = lambda: 2\n"
        "from watchkeeper.models.rowwise import gate\n"
        "print(gate(np.ones((40, 8), np.float32)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(40, 4)\n", "")


def test_what_was_kept_of_loops_is_left_when_any_module_of_them_changes() -> None:
    modules = {
        path.stem: path.read_text(encoding="utf-8") for path in Path(crews.__file__).parent.glob("*.py")
    }
    marks = ("@compiled(", "@Part\n", "@instruction\n")
    assert {name for name, text in modules.items() if any(mark in text for mark in marks)} == set(LOOPS)
