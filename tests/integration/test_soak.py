"""Many mixed requests, many of them given up midway, leave no request stuck and no memory taken."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.tool_schemas import Generator
from watchkeeper.models.enforceable import unenforceable
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import BudgetExceededError, CancelledError
from watchkeeper.models.interface import (
    Cancellation,
    ChoiceRequest,
    GenerationRequest,
    ToolSpec,
    system,
    user,
)
from watchkeeper.models.loading import load
from watchkeeper.models.options import EngineOptions

pytestmark = [pytest.mark.model, pytest.mark.timeout(7200)]

MODEL = os.environ.get("WATCHKEEPER_MODEL", "smollm2-135m-instruct")
COUNT = int(os.environ.get("WATCHKEEPER_REQUESTS", "60"))
AT_ONCE = 6
# Grammars are kept, up to some hundreds of them: with fewer tools they are all there after the first parts.
TOOLS = 30
# An engine that has been idle for a second gives freed memory back.
IDLE = 3.0
# Prefixes that are kept, and holes in memory, are of another size after each part.
SLACK = 32 << 20


def serve(engine: LocalEngine, number: int) -> str:
    """Ask one of many kinds of things, and give up on a third of them after a random time."""
    rng = random.Random(number)
    cancel = Cancellation()
    timer = threading.Timer(rng.uniform(0, 2), cancel.cancel) if rng.random() < 1 / 3 else None
    if timer is not None:
        timer.start()
    asking = Generator(number)
    said = user(" ".join(asking.question() for _ in range(rng.randint(1, 8))))
    talk = (system("You watch servers."), said) if rng.random() < 0.5 else (said,)
    kind = rng.choice(("text", "call", "stream", "choice"))
    try:
        if kind == "choice":
            engine.choose(
                ChoiceRequest(talk, "The cause is", ("a full disk", "a slow database")), cancel=cancel
            )
            return kind
        schema = Generator(number % TOOLS).tool()
        if kind == "call" and unenforceable(schema) is None:
            tool = ToolSpec("act", "Act on it.", schema)
            request = GenerationRequest(talk, (tool,), "required", max_tokens=80)
            engine.generate(request, cancel=cancel)
            return kind
        request = GenerationRequest(talk, max_tokens=rng.randint(1, 48), temperature=rng.choice((0, 1.0)))
        if kind == "stream":
            chunks = engine.stream(request, cancel=cancel)
            for _ in range(rng.randint(0, 6)):  # who listens goes away
                next(chunks, None)
            chunks.close()  # type: ignore[attr-defined]  # it is a generator
            return kind
        return engine.generate(request, cancel=cancel).finish_reason
    except (CancelledError, BudgetExceededError) as error:
        return type(error).__name__
    finally:
        if timer is not None:
            timer.cancel()


def empty_soon(engine: LocalEngine) -> bool:
    """Whether nothing is left under way; what nobody listens to any more is dropped with the next pass."""
    deadline = time.monotonic() + 30
    while (engine.statistics.running, engine.statistics.waiting) != (0, 0):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_mixed_requests_leave_nothing_behind() -> None:
    options = EngineOptions(prefix_bytes=32 << 20, running_bytes=256 << 20)
    engine = LocalEngine(load(MODEL, quantization="int8"), options)
    process, ends, held = psutil.Process(), Counter[str](), list[int]()
    parts = 6
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for part in range(parts):
            numbers = range(part * COUNT // parts, (part + 1) * COUNT // parts)
            ends.update(threads.map(lambda number: serve(engine, number), numbers, timeout=3600))
            assert empty_soon(engine), engine.statistics
            assert engine.statistics.prefixes.nbytes <= options.prefix_bytes
            gc.collect()
            time.sleep(IDLE)
            held.append(process.memory_info().rss)
    engine.close()
    print(f"\n{dict(ends)}; MiB held after each of {parts} parts: {[size >> 20 for size in held]}")
    assert ends["CancelledError"] + ends["cancelled"] > 0
    assert ends["call"] > 0
    # The first parts fill caches (prefixes, grammars, arenas) up to their bounds.
    assert max(held[-2:]) <= max(held[: parts // 2]) + SLACK
