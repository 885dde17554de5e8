"""Killing a process at a chosen line of a program, as a crash would."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

SURVIVED = 7
REPEATS = 2  # of a line that count: a loop is killed in its first and its second turn


def killed_at(line: int, files: frozenset[str], work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that kills itself before the n-th line of ``files``; whether it died."""
    child = os.fork()
    if child == 0:
        count = 0
        visits: dict[tuple[CodeType, int], int] = {}

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal count
            if frame.f_code.co_filename not in files:
                return None
            place = (frame.f_code, frame.f_lineno)
            if event == "line" and visits.setdefault(place, 0) < REPEATS:
                visits[place] += 1
                count += 1
                if count == line:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(None)
            os._exit(SURVIVED)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == SURVIVED
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True
