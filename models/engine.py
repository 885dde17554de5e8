"""The engine: one hosted model that answers the requests of many threads together.

A thread of its own runs forward passes. Requests join and leave between two of them, and every pass computes
tokens of all that run: some of a new prompt, one of each answer, and whatever a grammar forces after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import llguidance.hf

from watchkeeper.models import scoring
from watchkeeper.models.adapters import AdapterBank
from watchkeeper.models.batch import Batch, EngineStatistics, Job
from watchkeeper.models.calibration import Calibration, read_calibration
from watchkeeper.models.closing import Closer
from watchkeeper.models.detokenize import AnswerReader
from watchkeeper.models.errors import AdapterError, CalibrationError, CancelledError, PromptTooLongError
from watchkeeper.models.grammar import Grammar, GrammarCompiler, call_grammar, schema_grammar
from watchkeeper.models.interface import (
    Cancellation,
    Choice,
    ChoiceRequest,
    Chunk,
    Generation,
    GenerationRequest,
    Message,
    ModelIdentity,
    ScoredOption,
    ToolSpec,
    Usage,
)
from watchkeeper.models.lookup import Lookup
from watchkeeper.models.options import EngineOptions
from watchkeeper.models.prefix import PrefixStatistics, PrefixTree
from watchkeeper.models.requests import callable_schemas, check_generation, check_options
from watchkeeper.models.runner import Runner
from watchkeeper.models.sampling import TokenMask
from watchkeeper.models.scheduler import Limits, Scheduler
from watchkeeper.models.tasks import AnswerTask, Dialect, ScoringTask
from watchkeeper.models.templates import ChatFormat


class Hosted(Protocol):
    """What the engine needs of a loaded model."""

    @property
    def model(self) -> Any:
        """A causal language model of transformers."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Its fast tokenizer."""
        ...

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is."""
        ...


class LocalEngine:
    """Answers with a model in this process.

    Args:
        loaded: The model.
        options: How it uses the machine.

    Raises:
        ModelError: If the model cannot be hosted.
    """

    def __init__(self, loaded: Hosted, options: EngineOptions | None = None) -> None:
        self.options = options or EngineOptions()
        self._identity = loaded.identity
        self._adapters = AdapterBank(loaded.model)
        self._calibrations: dict[str, Calibration] = {}
        runner = Runner(loaded.model, self._adapters)
        self._context = int(runner.config.max_position_embeddings)
        self._format = ChatFormat(loaded.tokenizer)
        size = int(runner.config.vocab_size)
        self._vocabulary = llguidance.hf.from_tokenizer(
            loaded.tokenizer, n_vocab=size, eos_token=sorted(self._format.end_ids)
        )
        self._grammars = GrammarCompiler(self._vocabulary)
        text = TokenMask.all_but(self._format.control_ids - self._format.end_ids, size)
        closer = Closer(self._vocabulary)
        # Where a token's bits depend on its company, a guess could change an answer.
        guesses = self.options.guesses if runner.exact and self.options.fast_forward else 0
        self._dialect = Dialect(self._format, closer, text, size, self.options.fast_forward, guesses)
        self._words: dict[int, bytes] = {}
        limits = Limits(
            self.options.step_tokens,
            self.options.running,
            self.options.waiting,
            max(1, self.options.running_bytes // runner.bytes_per_token),
        )
        self._batch = Batch(runner, Scheduler(limits), PrefixTree(self.options.prefix_bytes))

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers."""
        return self._identity

    @property
    def context_length(self) -> int:
        """Tokens that the model can attend to, prompt and answer together."""
        return self._context

    @property
    def prefixes(self) -> PrefixStatistics:
        """What the reuse of keys and values saved so far."""
        return self._batch.statistics.prefixes

    @property
    def statistics(self) -> EngineStatistics:
        """What the engine did so far, and what it is doing."""
        return self._batch.statistics

    def count_tokens(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        """Return the length of the prompt that a conversation makes."""
        return len(self._format.prompt(messages, tools))

    def close(self) -> None:
        """Release the memory of the model; the engine answers no more."""
        self._batch.close()
        self._adapters.close()

    def load_adapter(self, name: str, folder: Path | str, *, calibrated: bool = True) -> None:
        """Load a LoRA adapter that requests may then name.

        Args:
            name: What requests call it.
            folder: Where peft saved it.
            calibrated: Whether a calibration that lies there is used.

        Raises:
            AdapterError: If it does not fit this model.
            CalibrationError: If the calibration beside it is damaged, or of other weights.
        """
        with self._batch.paused():
            self._adapters.load(name, folder)
            try:
                if calibrated:
                    digest = self._adapters.digest(name)
                    self._calibrations[name] = read_calibration(Path(folder), self._identity, adapter=digest)
            except CalibrationError:
                self._adapters.unload(name)
                raise
            self._batch.welcome(self._weights(name))

    def unload_adapter(self, name: str) -> None:
        """Release an adapter; requests that use it fail.

        Raises:
            AdapterError: If there is none of that name.
        """
        with self._batch.paused():
            weights = self._weights(name)
            self._adapters.unload(name)
            self._calibrations.pop(name, None)
            self._batch.forget(weights, AdapterError(f"adapter {name!r} was unloaded"))

    def adapter_digest(self, name: str) -> str:
        """SHA-256 over an adapter's configuration and weights.

        Raises:
            AdapterError: If none of that name is loaded.
        """
        return self._adapters.digest(name)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded."""
        return self._adapters.names()

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        """Answer with a text, a JSON value or tool calls.

        Where a free text is cancelled, the text so far comes back with ``finish_reason="cancelled"``.

        Raises:
            ValueError: If the budget or the temperature makes no sense.
            GrammarError: If the schema cannot be enforced.
            AdapterError: If no adapter of that name is loaded.
            BudgetExceededError: If a constrained answer did not end within ``max_tokens`` and nothing short
                ends it.
            CancelledError: If a constrained answer was cancelled.
            PromptTooLongError: If the prompt and the budget exceed what the model can attend to.
            CapacityError: If they exceed the memory for keys and values.
            BusyError: If too many requests wait already.
        """
        for chunk in self.stream(request, cancel=cancel):
            if chunk.final is not None:
                return chunk.final
        raise AssertionError("a stream ends with the whole answer")

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        """Answer piece by piece; the last chunk has ``final`` set.

        The text of a tool call is not streamed. Errors are those of :meth:`generate`; what is wrong with the
        request is raised at once, the rest while iterating.
        """
        check_generation(request)
        grammar = self._grammar(request)
        matcher = self._grammars.matcher(grammar) if grammar else None
        weights = self._weights(request.adapter)
        prompt = self._format.prompt(request.messages, request.tools)
        self._check_length(len(prompt) + request.max_tokens)
        kind = grammar.kind if grammar else None
        stop = (*request.stop, *self._format.stop_texts)
        reader = AnswerReader(kind, self._format.tags, self._bytes_of, stop)
        lookup = self._lookup(request, prompt)
        task = AnswerTask(request, prompt, self._dialect, grammar, matcher, reader, lookup)
        job = Job(task, weights, request.priority, cancel)
        self._batch.submit(job)
        return self._follow(job, task)

    def choose(self, request: ChoiceRequest, *, cancel: Cancellation | None = None) -> Choice:
        """Score every option of a closed question.

        Raises:
            ValueError: If there is no option, one is empty, or two are the same.
            AdapterError: If no adapter of that name is loaded.
            CancelledError: If it was cancelled.
            PromptTooLongError: If the conversation and an option exceed what the model can attend to.
            CapacityError: If they exceed the memory for keys and values.
            BusyError: If too many requests wait already.
        """
        check_options(request)
        parts = scoring.split(self._format.plain, request.lead, request.options)
        weights = self._weights(request.adapter)
        conversations = [request.messages] if request.neutral is None else [request.messages, request.neutral]
        jobs: list[Job] = []
        tasks: list[ScoringTask] = []
        for messages in conversations:
            prompt = [*self._format.prompt(messages), *parts.stem]
            task = ScoringTask(prompt, parts.tails, request.adapter)
            self._check_length(task.need)
            tasks.append(task)
            jobs.append(Job(task, weights, request.priority, cancel))
        # Both conversations are computed together.
        try:
            for job in jobs:
                self._batch.submit(job)
            for job in jobs:
                for _ in job.texts():
                    pass
        finally:
            for job in jobs:
                job.abandon()
        if not all(task.done for task in tasks):
            raise CancelledError("cancelled before the question was answered")
        neutral = tasks[1].logprobs if len(tasks) > 1 else None
        return self._choice(request, tasks[0].logprobs, neutral, parts, [task.usage() for task in tasks])

    def _choice(
        self,
        request: ChoiceRequest,
        logprobs: Sequence[float],
        neutral: Sequence[float] | None,
        parts: scoring.Continuations,
        usages: Sequence[Usage],
    ) -> Choice:
        # An adapter is another model: what its base's shares are worth says nothing of its own.
        own = self._calibrations.get(request.adapter or "")
        known = self.options.calibration if request.adapter is None else own
        calibration, weight = known or Calibration(), request.neutral_weight
        lengths = [len(tail) for tail in parts.tails]
        corrected = calibration.scores(logprobs, neutral, neutral_weight=weight)
        shares = calibration.shares(logprobs, neutral, lengths, neutral_weight=weight)
        options = zip(request.options, logprobs, shares, corrected, lengths, strict=True)
        seconds = max(usage.seconds for usage in usages)
        total = Usage(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.cached_tokens for usage in usages),
            seconds=seconds,
        )
        return Choice(
            tuple(ScoredOption(*option) for option in options),
            total,
            calibration=calibration.digest,
            adapter=self._weights(request.adapter),
        )

    def _follow(self, job: Job, task: AnswerTask) -> Iterator[Chunk]:
        try:
            for text in job.texts():
                yield Chunk(text)
            if not task.done:
                task.cancel()
            yield Chunk("", task.result())
        finally:
            job.abandon()

    def _lookup(self, request: GenerationRequest, prompt: Sequence[int]) -> Lookup | None:
        """Read the prompt for guesses here, in the thread of who asks."""
        if self._dialect.guesses < 1 or request.max_tokens < 2 or request.adapter is not None:
            return None
        lookup = Lookup(self._bytes_of, frozenset(self._format.control_ids))
        lookup.read(prompt)
        return lookup

    def _grammar(self, request: GenerationRequest) -> Grammar | None:
        if request.schema is not None:
            return schema_grammar(request.schema)
        allowed = callable_schemas(request.tools, request.tool_choice, request.call_schemas)
        if not allowed:
            return None
        or_text = request.tool_choice == "auto"
        return call_grammar(allowed, self._format.tags, or_text=or_text, max_calls=request.max_calls)

    def _weights(self, adapter: str | None) -> str:
        """Name what reads the tokens: keys and values of other weights are no use."""
        return "" if adapter is None else f"{adapter}:{self._adapters.digest(adapter)}"

    def _bytes_of(self, token: int) -> bytes:
        data = self._words.get(token)
        if data is None:
            data = self._words[token] = self._vocabulary.decode_bytes([token])
        return data

    def _check_length(self, tokens: int) -> None:
        if tokens > self._context:
            raise PromptTooLongError(
                f"prompt and budget are {tokens} tokens, but {self._identity.id!r} attends to "
                f"{self._context}; shorten the conversation or lower max_tokens"
            )
