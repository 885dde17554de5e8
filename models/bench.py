"""How fast a hosted model answers on this machine, and what each of the engine's savings is worth.

Ratios compare what took turns in the same run, so that they hold on a busy machine too.
"""

from __future__ import annotations

import itertools
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from watchkeeper.models import bench_requests
from watchkeeper.models.bandwidth import MemoryReader, memory_reader, token_bytes
from watchkeeper.models.bench_report import (
    Bound,
    Choices,
    Decode,
    Gains,
    Machine,
    Memory,
    Prefill,
    Report,
    ToolCalls,
    Turns,
    Validity,
)
from watchkeeper.models.engine import Hosted, LocalEngine
from watchkeeper.models.errors import BudgetExceededError, GrammarError, ModelError
from watchkeeper.models.interface import Generation, GenerationRequest, JsonSchema, Progress, user
from watchkeeper.models.loading import Quantization, load
from watchkeeper.models.memory import peak_memory
from watchkeeper.models.options import EngineOptions
from watchkeeper.models.schemas import fault

log = logging.getLogger(__name__)

Work = Callable[[], object]
# Reading memory, turns, a tool call and a choice.
_OTHER_WORKS = 1 + 2 + 4 + 3


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        prompts: Lengths of prompts; those that the model cannot attend to are left out.
        requests: Numbers of requests at the same time.
        tokens: Tokens of each answer that is timed.
        calls: Calls whose validity is judged.
        repeat: How many times everything is timed; the shortest time counts.
    """

    prompts: tuple[int, ...] = (128, 512, 2048)
    requests: tuple[int, ...] = (1, 2, 4, 8, 16)
    tokens: int = 48
    calls: int = 20
    repeat: int = 3


QUICK = Plan(prompts=(128, 512), requests=(1, 4), tokens=24, calls=5, repeat=1)
"""For a look."""


@dataclass(frozen=True, slots=True)
class Loading:
    """What is known before anything was asked.

    Attributes:
        seconds: From the files to a model in memory.
        memory: Bytes that the process held at most by then.
    """

    seconds: float = 0.0
    memory: int = 0


def bench(
    model_id: str | None = None,
    quantization: Quantization = "auto",
    *,
    threads: int | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> Report:
    """Load a model that was pulled before, and measure it.

    Args:
        model_id: An id of the catalog or a folder; the default model where ``None``.
        quantization: How the weights are held; see :func:`watchkeeper.models.loading.load`.
        threads: Threads of a CPU's matmuls, for the whole process; torch's own choice where ``None``.
        plan: How much is measured.
        progress: Told of each stage.

    Raises:
        UnknownModelError: If there is no such model.
        ModelError: If it was not pulled, or cannot be loaded or asked that way.
        IntegrityError: If its files are damaged.
    """
    started = time.perf_counter()
    loaded = load(model_id, quantization=quantization, threads=threads, progress=progress)
    loading = Loading(time.perf_counter() - started, peak_memory())
    return measure(loaded, plan, loading, progress)


def measure(
    hosted: Hosted,
    plan: Plan | None = None,
    loading: Loading | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a model that is loaded; see :func:`bench`."""
    plan, loading = plan or Plan(), loading or Loading()
    options = EngineOptions(running=max(EngineOptions().running, *plan.requests))
    with ExitStack() as opened:

        def engine(options: EngineOptions) -> LocalEngine:
            return opened.enter_context(closing(LocalEngine(hosted, options)))

        engines = _Engines(
            engine(options),
            engine(replace(options, prefix_bytes=0)),
            engine(replace(options, guesses=0)),
            engine(replace(options, guesses=0, fast_forward=False)),
        )
        return _report(hosted, _Stages(engines, plan, progress), loading)


def _reader(model: Any) -> AbstractContextManager[MemoryReader | None]:
    """Read the memory that the weights are in; none of a GPU's."""
    return memory_reader(torch.get_num_threads()) if model.device.type == "cpu" else nullcontext()


@dataclass(frozen=True, slots=True)
class _Engines:
    """Ways to ask one model.

    Attributes:
        usual: With all savings.
        fresh: Without reuse of prompts.
        careful: Without guesses.
        stepwise: Without guesses and fast-forward.
    """

    usual: LocalEngine
    fresh: LocalEngine
    careful: LocalEngine
    stepwise: LocalEngine

    @property
    def all(self) -> tuple[LocalEngine, ...]:
        """Each of them."""
        return self.usual, self.fresh, self.careful, self.stepwise


def _report(hosted: Hosted, stages: _Stages, loading: Loading) -> Report:
    stages.warm_up()
    prefill = stages.prefill()
    with _reader(hosted.model) as reader:
        decode, bandwidth = stages.decode(reader)
    turns = stages.turns()
    calls, choice = stages.calls(), stages.choice()
    validity = stages.validity()
    return Report(
        model=hosted.identity.id,
        quantization=hosted.identity.quantization,
        digest=hosted.identity.digest,
        machine=_machine(hosted.model),
        repeat=stages.plan.repeat,
        load_seconds=loading.seconds,
        prefill=prefill,
        decode=decode,
        turns=turns,
        calls=calls,
        validity=validity,
        choice=choice,
        gains=Gains(
            prefix_reuse=calls.first_seconds / calls.later_seconds,
            fast_forward=calls.stepwise_seconds / calls.careful_seconds,
            guesses=calls.careful_seconds / calls.later_seconds,
            one_pass=choice.apart_seconds / choice.later_seconds,
        ),
        bound=_bound(hosted.model, bandwidth, decode),
        memory=Memory(loaded=loading.memory, peak=peak_memory(), kept=stages.kept),
    )


class _Stages:
    """What is measured, one stage after the other.

    Args:
        engines: Ways to ask the model.
        plan: How much is measured.
        progress: Told of each piece of work.
    """

    def __init__(self, engines: _Engines, plan: Plan, progress: Progress | None) -> None:
        self.plan = plan
        self._engines = engines
        self._count = engines.usual.count_tokens
        context = engines.usual.context_length
        self._prompts = tuple(tokens for tokens in plan.prompts if tokens < context)
        self._progress = progress
        self._done = 0
        works = len(self._prompts) + len(plan.requests) + _OTHER_WORKS
        self._total = works * plan.repeat + plan.calls

    @property
    def kept(self) -> int:
        """Bytes that are kept for reuse."""
        return sum(engine.prefixes.nbytes for engine in self._engines.all)

    def warm_up(self) -> None:
        """Compile what is compiled at the first use: kernels and grammars."""
        self._tell("warm-up")
        for engine in self._engines.all:
            engine.generate(GenerationRequest((user("warm up"),), max_tokens=2))
            engine.generate(bench_requests.calling())

    def prefill(self) -> tuple[Prefill, ...]:
        """Read prompts of several lengths."""
        fresh = self._engines.fresh
        requests = [bench_requests.reading(self._count, tokens) for tokens in self._prompts]
        taken = self._seconds("prefill", *(partial(fresh.generate, request) for request in requests))
        lengths = [self._count(request.messages) for request in requests]
        return tuple(
            Prefill(tokens=tokens, seconds=seconds, tokens_per_second=tokens / seconds)
            for tokens, seconds in zip(lengths, taken, strict=True)
        )

    def decode(self, reader: MemoryReader | None) -> tuple[tuple[Decode, ...], float | None]:
        """Write several answers at the same time, and read memory in turn with that.

        Returns:
            How fast that is, and how many bytes per second memory gives.
        """
        careful = self._engines.careful
        requests = [
            bench_requests.writing(number, self.plan.tokens) for number in range(max(self.plan.requests))
        ]
        # With the prompts known, each token of an answer is one row of one pass, and nothing else is.
        _together(careful, [replace(request, max_tokens=1) for request in requests])
        written: dict[int, int] = {}
        bandwidths: list[float] = []

        def write(count: int) -> None:
            answers = _together(careful, requests[:count])
            written[count] = sum(answer.usage.generated_tokens for answer in answers)

        def read() -> None:
            if reader is None:
                return
            # A process that may not hold so much memory fails; the rest is measured all the same.
            try:
                bandwidths.append(reader.read())
            except ModelError as error:
                log.warning("%s", error)

        read()
        works = (partial(write, count) for count in self.plan.requests)
        *taken, _ = self._seconds("decode", *works, read)
        rows = tuple(
            Decode(
                requests=count,
                tokens=written[count],
                seconds=seconds,
                tokens_per_second=written[count] / seconds,
                each=written[count] / seconds / count,
            )
            for count, seconds in zip(self.plan.requests, taken, strict=True)
        )
        return rows, max(bandwidths, default=None)

    def turns(self) -> Turns:
        """Let an agent go on, of which nothing is known before its first turn."""
        usual = self._engines.usual
        agents = [bench_requests.turns(self._count, number + 1) for number in range(self.plan.repeat)]
        firsts, laters = iter(agents), iter(agents)
        answers: list[Generation] = []
        first, later = self._seconds(
            "turns",
            lambda: usual.generate(next(firsts).first),
            lambda: answers.append(usual.generate(next(laters).later)),
        )
        usage = answers[-1].usage
        return Turns(
            first_tokens=self._count(agents[-1].first.messages),
            first_seconds=first,
            later_tokens=usage.prompt_tokens,
            later_seconds=later,
            reused_share=usage.cached_tokens / usage.prompt_tokens,
        )

    def calls(self) -> ToolCalls:
        """Force a tool call."""
        engines, request = self._engines, bench_requests.calling()
        usage = engines.usual.generate(request).usage
        ways = (engines.fresh, engines.usual, engines.careful, engines.stepwise)
        first, later, careful, stepwise = self._seconds(
            "tool calls", *(partial(engine.generate, request) for engine in ways)
        )
        return ToolCalls(
            prompt_tokens=usage.prompt_tokens,
            tokens=usage.generated_tokens,
            forced_share=usage.forced_tokens / max(1, usage.generated_tokens),
            first_seconds=first,
            later_seconds=later,
            careful_seconds=careful,
            stepwise_seconds=stepwise,
        )

    def choice(self) -> Choices:
        """Ask a closed question."""
        usual, fresh, request = self._engines.usual, self._engines.fresh, bench_requests.choosing(self._count)
        single = [replace(request, options=(option,)) for option in request.options]
        usage = usual.choose(request).usage
        first, later, apart = self._seconds(
            "choice",
            partial(fresh.choose, request),
            partial(usual.choose, request),
            lambda: [usual.choose(one) for one in single],
        )
        return Choices(
            options=len(request.options),
            prompt_tokens=usage.prompt_tokens,
            first_seconds=first,
            later_seconds=later,
            apart_seconds=apart,
        )

    def validity(self) -> Validity:
        """Force calls of different tools, and judge each from outside of the engine."""
        judged_by, judge = _judge()
        faults: list[str] = []
        cut = 0
        for number in range(self.plan.calls):
            self._tell("validity")
            request = bench_requests.varied_call(number)
            try:
                answer = self._engines.usual.generate(request)
                reason = _fault_of(answer, request, judge)
            except (BudgetExceededError, GrammarError) as error:
                reason = str(error)
            if reason is not None:
                faults.append(f"{request.tools[0].name}: {reason}")
            else:
                cut += answer.finish_reason != "stop"
            self._done += 1
        asked = self.plan.calls
        self._tell("validity")
        return Validity(
            asked=asked, valid=asked - len(faults), cut=cut, judged_by=judged_by, faults=tuple(faults)
        )

    def _seconds(self, stage: str, *works: Work) -> list[float]:
        """Return the shortest time of each work; they take turns, so that a busy moment hits all."""
        shortest = [float("inf")] * len(works)
        for _, (index, work) in itertools.product(range(self.plan.repeat), enumerate(works)):
            self._tell(stage)
            started = time.perf_counter()
            work()
            shortest[index] = min(shortest[index], time.perf_counter() - started)
            self._done += 1
        return shortest

    def _tell(self, stage: str) -> None:
        if self._progress is not None:
            self._progress(f"bench: {stage}", self._done, self._total)


def _together(engine: LocalEngine, requests: Sequence[GenerationRequest]) -> list[Generation]:
    """Answer requests at the same time; each is under way before the first answer is read."""
    streams = [engine.stream(request) for request in requests]
    answers = [[chunk.final for chunk in stream if chunk.final is not None] for stream in streams]
    return [answer for (answer,) in answers]


def _judge() -> tuple[str, Callable[[Any, JsonSchema], str | None]]:
    """Return who validates a value against a schema, and how: the reason why it is not valid, or ``None``."""
    try:
        from jsonschema import Draft202012Validator, FormatChecker
    except ImportError:
        return "watchkeeper", fault

    def judge(value: Any, schema: JsonSchema) -> str | None:
        validator = Draft202012Validator(schema, format_checker=FormatChecker())
        error = next(validator.iter_errors(value), None)
        return None if error is None else f"{error.json_path}: {error.message}"

    return "jsonschema", judge


def _fault_of(
    answer: Generation, request: GenerationRequest, judge: Callable[[Any, JsonSchema], str | None]
) -> str | None:
    (tool,) = request.tools
    if [call.name for call in answer.tool_calls] != [tool.name]:
        return f"the answer is not one call of it but {answer.tool_calls or answer.text!r}"
    return judge(dict(answer.tool_calls[0].arguments), tool.parameters)


def _bound(model: Any, bandwidth: float | None, decode: Sequence[Decode]) -> Bound:
    read = token_bytes(model)
    if bandwidth is None:
        return Bound(bandwidth=None, token_bytes=read, tokens_per_second=None, decode_share=None)
    possible = bandwidth / read
    alone = next((row.tokens_per_second for row in decode if row.requests == 1), None)
    share = None if alone is None else alone / possible
    return Bound(bandwidth=bandwidth, token_bytes=read, tokens_per_second=possible, decode_share=share)


def _machine(model: Any) -> Machine:
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        device=str(model.device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
