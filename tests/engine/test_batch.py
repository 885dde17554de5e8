"""Many requests at once over a real, tiny transformer: together each answers as it would alone."""

from __future__ import annotations

import dataclasses
import gc
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import tiny
from watchkeeper.models import batch
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import AdapterError, BusyError, CancelledError, CapacityError, ModelError
from watchkeeper.models.interface import (
    Cancellation,
    Choice,
    ChoiceRequest,
    Generation,
    GenerationRequest,
    ToolSpec,
    system,
    user,
)
from watchkeeper.models.options import EngineOptions

RESTART = ToolSpec(
    "service.restart",
    "Restart a service.",
    {
        "type": "object",
        "properties": {
            "service": {"enum": ["web", "db", "cache"]},
            "delay": {"type": "integer", "minimum": 0, "maximum": 600},
        },
        "required": ["service", "delay"],
    },
)
ROOT = Path(__file__).parents[2]
Request = GenerationRequest | ChoiceRequest
RULES = system("You watch servers. " + "Never restart what is healthy. " * 12)


@pytest.fixture(scope="module")
def hosted() -> tiny.Hosted:
    return tiny.hosted()


@pytest.fixture(scope="module", params=["fp32", "int8"])
def either(
    request: pytest.FixtureRequest, hosted: tiny.Hosted, tmp_path_factory: pytest.TempPathFactory
) -> tiny.Hosted:
    return hosted if request.param == "fp32" else tiny.in_int8(hosted, tmp_path_factory.mktemp("int8"))


def mixed(count: int, seed: int = 0) -> list[Request]:
    """Requests of every kind and of different lengths, some of which begin alike."""
    rng = random.Random(seed)
    requests: list[Request] = []
    for number in range(count):
        words = " ".join(
            rng.choice(["disk", "web", "slow", "error", "db"]) for _ in range(rng.randint(1, 60))
        )
        talk = (RULES, user(words)) if rng.random() < 0.5 else (user(f"{number} {words}"),)
        kind = rng.choice(["text", "sampled", "call", "json", "choice"])
        match kind:
            case "text":
                requests.append(GenerationRequest(talk, max_tokens=rng.randint(1, 30)))
            case "sampled":
                requests.append(GenerationRequest(talk, max_tokens=20, temperature=1.0, seed=number))
            case "call":
                requests.append(GenerationRequest(talk, (RESTART,), "required", max_tokens=200))
            case "json":
                requests.append(GenerationRequest(talk, schema=RESTART.parameters, max_tokens=200))
            case _:
                neutral = (user("?"),) if rng.random() < 0.5 else None
                requests.append(ChoiceRequest(talk, "It is", ("a disk", "a leak", "the db"), neutral))
    return requests


def ask(engine: LocalEngine, request: Request, cancel: Cancellation | None = None) -> Generation | Choice:
    if isinstance(request, ChoiceRequest):
        return engine.choose(request, cancel=cancel)
    return engine.generate(request, cancel=cancel)


def essence(answer: Generation | Choice) -> object:
    """What an answer says, without what it cost."""
    if isinstance(answer, Choice):
        return [(option.text, round(option.logprob, 3)) for option in answer.options]
    return answer.text, answer.tool_calls, answer.finish_reason


def at_once(engine: LocalEngine, requests: Sequence[Request]) -> list[object]:
    answers: list[object] = [None] * len(requests)

    def work(index: int) -> None:
        answers[index] = essence(ask(engine, requests[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(prefix_bytes=0),
        EngineOptions(step_tokens=5),
        EngineOptions(fast_forward=False),
        EngineOptions(running=3, step_tokens=1000),
        EngineOptions(guesses=0),
        EngineOptions(guesses=16, running=2),
    ],
    ids=[
        *("as it is", "without reuse", "in small steps", "without fast-forward", "few at a time"),
        *("without guesses", "with many guesses"),
    ],
)
def test_together_everyone_is_answered_as_alone(either: tiny.Hosted, options: EngineOptions) -> None:
    requests = mixed(24)
    alone = LocalEngine(either, EngineOptions(prefix_bytes=0, step_tokens=1000, guesses=0))
    expected = [essence(ask(alone, request)) for request in requests]

    engine = LocalEngine(either, options)

    assert at_once(engine, requests) == expected
    assert at_once(engine, requests[::-1]) == expected[::-1]


def test_requests_share_passes(hosted: tiny.Hosted) -> None:
    requests = [
        GenerationRequest((user(f"{n}"),), schema={"type": "string", "minLength": 40}) for n in range(8)
    ]
    alone, together = LocalEngine(hosted), LocalEngine(hosted)
    for request in requests:
        alone.generate(request)
    at_once(together, requests)
    assert together.statistics.passes < alone.statistics.passes / 2


def test_a_beginning_that_is_being_computed_is_waited_for_and_copied(hosted: tiny.Hosted) -> None:
    engine = LocalEngine(hosted, EngineOptions(step_tokens=32))
    requests = [GenerationRequest((RULES, user(f"number {n}")), max_tokens=2) for n in range(8)]
    at_once(engine, requests)
    found = engine.prefixes
    assert found.tokens_reused > 0.8 * found.tokens_asked * 7 / 8


def test_cancelling_one_changes_no_other(hosted: tiny.Hosted) -> None:
    requests = mixed(16, seed=1)
    engine = LocalEngine(hosted, EngineOptions(step_tokens=24))
    expected = [essence(ask(engine, request)) for request in requests]
    flags = [Cancellation() for _ in requests]
    answers: dict[int, object] = {}

    def work(index: int) -> None:
        try:
            answers[index] = essence(ask(engine, requests[index], flags[index]))
        except CancelledError:
            answers[index] = None

    for seed in range(3):
        rng = random.Random(seed)
        flags[:] = [Cancellation() for _ in requests]
        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(requests))]
        for thread in threads:
            thread.start()
        cancelled = set(rng.sample(range(len(requests)), 6))
        for index in cancelled:
            flags[index].cancel()
        for thread in threads:
            thread.join()
        for index in set(range(len(requests))) - cancelled:
            assert answers[index] == expected[index]
    assert engine.statistics.running == engine.statistics.waiting == 0


def test_a_request_that_cannot_fit_is_refused_with_what_would(hosted: tiny.Hosted) -> None:
    engine = LocalEngine(hosted, EngineOptions(running_bytes=200 * 2 * 2 * 2 * 8 * 4))
    with pytest.raises(CapacityError, match="200 fit"):
        engine.generate(GenerationRequest((user("x"),), max_tokens=500))
    with pytest.raises(CapacityError, match="200 fit"):
        engine.choose(ChoiceRequest((user("x " * 200),), "", ("a", "b")))
    # Ten that fit one by one wait for one another.
    requests = [GenerationRequest((user(f"{number}"),), max_tokens=100) for number in range(10)]
    assert all(at_once(engine, requests))


def test_more_than_may_wait_are_refused(hosted: tiny.Hosted) -> None:
    engine = LocalEngine(hosted, EngineOptions(running=1, waiting=1))
    request = GenerationRequest((user("x"),), schema={"type": "string", "minLength": 300}, max_tokens=400)
    first = engine.stream(request)
    next(first)
    second = engine.stream(request)
    with pytest.raises(BusyError, match="wait already"):
        engine.stream(request)
    engine.close()
    for stream in (first, second):
        with pytest.raises(ModelError, match="closed"):
            list(stream)


def test_one_whose_grammar_fails_takes_nobody_along(
    hosted: tiny.Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(hosted)
    good = GenerationRequest((user("good"),), max_tokens=30)
    expected = essence(engine.generate(good))
    bad = GenerationRequest((user("bad"),), max_tokens=30, temperature=1.0, seed=1)
    from watchkeeper.models.sampling import Sampler

    pick = Sampler.pick

    def failing(sampler: Sampler, logits: object) -> int:
        if sampler._temperature:
            raise ZeroDivisionError("inside of one request")
        return pick(sampler, logits)  # type: ignore[arg-type]

    monkeypatch.setattr(Sampler, "pick", failing)
    stream = engine.stream(bad)
    assert essence(engine.generate(good)) == expected
    with pytest.raises(ZeroDivisionError):
        list(stream)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_adapters_are_mixed_in_one_batch(hosted: tiny.Hosted, tmp_path: Path) -> None:
    folders = {name: adapter(tmp_path / name, seed) for seed, name in enumerate(("red", "blue"), start=1)}
    engine = LocalEngine(tiny.hosted())
    for name, folder in folders.items():
        engine.load_adapter(name, folder)
    assert engine.adapters == ("blue", "red") or engine.adapters == ("red", "blue")
    base = [dataclasses.replace(r, adapter=None) for r in mixed(9, seed=2)]
    requests = [dataclasses.replace(r, adapter=(None, "red", "blue")[i % 3]) for i, r in enumerate(base)]

    expected = [essence(ask(engine, request)) for request in requests]
    together = at_once(engine, requests)

    assert together == expected
    assert expected != [essence(ask(engine, request)) for request in base]
    assert [e for i, e in enumerate(expected) if i % 3 == 0] == [
        essence(ask(LocalEngine(hosted), r)) for i, r in enumerate(base) if i % 3 == 0
    ]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_an_adapter_that_is_not_there_is_named(hosted: tiny.Hosted, tmp_path: Path) -> None:
    engine = LocalEngine(tiny.hosted())
    with pytest.raises(AdapterError, match="'red'"):
        engine.generate(GenerationRequest((user("x"),), adapter="red"))
    engine.load_adapter("red", adapter(tmp_path / "red", 1))
    stream = engine.stream(
        GenerationRequest(
            (user("x"),), schema={"type": "string", "minLength": 500}, max_tokens=600, adapter="red"
        )
    )
    engine.unload_adapter("red")
    with pytest.raises(AdapterError, match="unloaded"):
        list(stream)
    assert engine.generate(GenerationRequest((user("x"),), max_tokens=3)).usage.generated_tokens == 3
    with pytest.raises(AdapterError, match="'red'"):
        engine.choose(ChoiceRequest((user("x"),), "", ("a", "b"), adapter="red"))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_request_that_meets_an_unloaded_adapter_fails_alone(tmp_path: Path) -> None:
    engine = LocalEngine(tiny.hosted())
    folder = adapter(tmp_path / "red", 1)
    engine.load_adapter("red", folder)
    late = GenerationRequest((user("x"),), max_tokens=3, adapter="red")
    weights = engine._weights

    def overtaken(name: str | None) -> str:
        found = weights(name)
        engine._weights = weights  # type: ignore[method-assign]
        engine.unload_adapter("red")
        return found

    engine._weights = overtaken  # type: ignore[method-assign]
    with pytest.raises(AdapterError, match="unloaded"):
        engine.generate(late)
    assert engine.generate(dataclasses.replace(late, adapter=None)).usage.generated_tokens == 3
    engine.load_adapter("red", folder)
    assert engine.generate(late).usage.generated_tokens == 3


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_closed_engine_holds_no_model(tmp_path: Path) -> None:
    hosted = tiny.hosted()
    model = weakref.ref(hosted.model)
    engine = LocalEngine(hosted)
    engine.load_adapter("red", adapter(tmp_path / "red", 1))
    engine.generate(GenerationRequest((user("x"),), max_tokens=3, adapter="red"))
    del hosted

    engine.close()

    gc.collect()
    assert model() is None
    with pytest.raises(ModelError, match="closed"):
        engine.load_adapter("blue", tmp_path / "red")


def adapter(folder: Path, seed: int) -> Path:
    """A random adapter for the tiny model, saved by peft."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    wrapped = get_peft_model(
        tiny.hosted().model,
        LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False),
    )
    wrapped.save_pretrained(folder)
    return folder


def test_hundreds_of_requests_with_random_cancels_leave_nothing_behind(hosted: tiny.Hosted) -> None:
    engine = LocalEngine(hosted, EngineOptions(prefix_bytes=1 << 20, step_tokens=64))
    requests = mixed(500, seed=3)
    rng = random.Random(3)
    queue = iter(requests)
    lock = threading.Lock()
    outcomes: list[str] = []

    def work() -> None:
        while True:
            with lock:
                request = next(queue, None)
                doomed = rng.random() < 0.3
            if request is None:
                return
            cancel = Cancellation()
            timer = threading.Timer(rng.random() / 50, cancel.cancel) if doomed else None
            if timer:
                timer.start()
            try:
                ask(engine, request, cancel)
                outcome = "answered"
            except CancelledError:
                outcome = "cancelled"
            if timer:
                timer.join()
            with lock:
                outcomes.append(outcome)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)

    assert len(outcomes) == 500
    assert outcomes.count("answered") > 300
    found = engine.statistics
    assert (found.running, found.waiting) == (0, 0)
    assert found.prefixes.nbytes <= 1 << 20
    engine.close()
    gc.collect()
    assert engine.prefixes.nbytes == 0


def test_a_program_that_forgets_to_close_its_engine_ends_in_peace() -> None:
    script = (
        "import threading, time\n"
        "from tests import tiny\n"
        "from watchkeeper.models.engine import LocalEngine\n"
        "from watchkeeper.models.interface import GenerationRequest, user\n"
        "engine = LocalEngine(tiny.hosted())\n"
        "request = GenerationRequest((user('x'),), max_tokens=3000)\n"
        "threading.Thread(target=engine.generate, args=(request,), daemon=True).start()\n"
        "while not engine.statistics.passes: time.sleep(0.01)\n"
        "print('bye')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120
    )

    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr


def test_an_idle_engine_gives_memory_back_once(hosted: tiny.Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    given = threading.Semaphore(0)
    monkeypatch.setattr(batch, "_IDLE_SECONDS", 0.05)
    monkeypatch.setattr(batch, "give_memory_back", given.release)
    engine = LocalEngine(hosted)
    try:
        for _ in range(2):
            engine.generate(GenerationRequest((user("disk"),), max_tokens=2))
            assert given.acquire(timeout=10)
            assert not given.acquire(timeout=0.3)  # nothing was computed since
    finally:
        engine.close()
