"""A real model gives the same answers alone and in company, with what is saved and without.

`WATCHKEEPER_REQUESTS` says how many requests are compared; two hundred take minutes.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator

import pytest

from tests.tool_schemas import Generator
from watchkeeper.models.enforceable import unenforceable
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import CancelledError
from watchkeeper.models.interface import (
    Cancellation,
    ChoiceRequest,
    Generation,
    GenerationRequest,
    ToolSpec,
    system,
    user,
)
from watchkeeper.models.loading import LoadedModel, load
from watchkeeper.models.options import EngineOptions

pytestmark = [pytest.mark.model, pytest.mark.timeout(4 * 3600)]

MODEL = os.environ.get("WATCHKEEPER_MODEL", "smollm2-135m-instruct")
COUNT = int(os.environ.get("WATCHKEEPER_REQUESTS", "6"))
LEAST = {"none": 1.0, "int8": 0.995}
WAYS = {
    "together": EngineOptions(),
    "together, without reuse": EngineOptions(prefix_bytes=0),
    "together, in small steps": EngineOptions(step_tokens=24),
    "together, without fast-forward": EngineOptions(fast_forward=False),
}
WORDS = ("disk", "web", "slow", "error", "database", "full", "queue", "late", "mail", "certificate")
RULES = system("You watch the servers of a small site, and you change nothing that is healthy. " * 3)
Request = GenerationRequest | ChoiceRequest


@pytest.fixture(scope="module", params=["none", "int8"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    return load(MODEL, quantization=request.param)


def mixed(count: int) -> Iterator[Request]:
    """Texts, calls of generated tools and closed questions; half of them begin alike."""
    for number in range(count):
        rng, generator = random.Random(number), Generator(number)
        said = user(" ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 80))))
        talk = (RULES, said) if rng.random() < 0.5 else (said,)
        schema = generator.tool()
        kind = number % 3
        if kind == 0 or unenforceable(schema) is not None:
            yield GenerationRequest(talk, max_tokens=rng.randint(8, 32))
        elif kind == 1:
            tool = ToolSpec("act", "Act on it.", schema)
            yield GenerationRequest(talk, (tool,), "required", max_tokens=120)
        else:
            yield ChoiceRequest(talk, "The cause is", ("a full disk", "a slow database", "a late queue"))


def answer(engine: LocalEngine, request: Request, cancel: Cancellation | None = None) -> object:
    """What is said, without what it cost."""
    if isinstance(request, ChoiceRequest):
        return engine.choose(request, cancel=cancel).ranking
    said: Generation = engine.generate(request, cancel=cancel)
    calls = [(call.name, call.arguments) for call in said.tool_calls]
    return said.text, calls, said.finish_reason


def at_once(engine: LocalEngine, requests: list[Request]) -> list[object]:
    answers: list[object] = [None] * len(requests)

    def work(mine: int) -> None:
        answers[mine] = answer(engine, requests[mine])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_answers_do_not_depend_on_company_or_savings(loaded: LoadedModel) -> None:
    requests = list(mixed(COUNT))
    alone = LocalEngine(loaded, EngineOptions(prefix_bytes=0, fast_forward=False, step_tokens=4096))
    expected = [answer(alone, request) for request in requests]
    alone.close()
    shares: dict[str, float] = {}
    for way, options in WAYS.items():
        engine = LocalEngine(loaded, options)
        found = at_once(engine, requests)
        engine.close()
        shares[way] = sum(a == b for a, b in zip(found, expected, strict=True)) / COUNT
    print(f"\n{loaded.identity.quantization}: identical of {COUNT} requests: {shares}")

    assert min(shares.values()) >= LEAST[loaded.identity.quantization], shares


def test_cancelling_one_changes_no_other(loaded: LoadedModel) -> None:
    requests = list(mixed(6))
    engine = LocalEngine(loaded, EngineOptions(prefix_bytes=0))
    expected = at_once(engine, requests)
    flag, gone = Cancellation(), threading.Event()
    lost = GenerationRequest((user("Write a very long story."),), max_tokens=400)

    def leave() -> None:
        with contextlib.suppress(CancelledError):
            answer(engine, lost, flag)
        gone.set()

    threading.Thread(target=leave).start()
    threading.Timer(1.0, flag.cancel).start()
    found = at_once(engine, requests)

    assert gone.wait(60)
    assert found == expected
    engine.close()
