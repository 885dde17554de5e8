"""The engine: one hosted model that answers requests of several threads.

The model itself holds no state; every request owns its keys and values. One forward pass runs at a time,
and requests of other threads go on between two passes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher
from numpy.typing import NDArray
from transformers import DynamicCache

from watchkeeper.models import scoring
from watchkeeper.models.detokenize import AnswerReader
from watchkeeper.models.errors import (
    BudgetExceededError,
    CancelledError,
    GrammarError,
    ModelError,
    PromptTooLongError,
)
from watchkeeper.models.grammar import (
    AnswerKind,
    Grammar,
    GrammarCompiler,
    call_grammar,
    schema_grammar,
)
from watchkeeper.models.interface import (
    Cancellation,
    Choice,
    ChoiceRequest,
    Chunk,
    FinishReason,
    Generation,
    GenerationRequest,
    Message,
    ModelIdentity,
    ScoredOption,
    ToolCall,
    Usage,
)
from watchkeeper.models.kv import SequenceCache, is_supported
from watchkeeper.models.prefix import PrefixStatistics, PrefixStore
from watchkeeper.models.requests import callable_schemas, check_generation, check_options
from watchkeeper.models.sampling import Sampler, all_but, unpack
from watchkeeper.models.templates import ChatFormat

_GIB = 1 << 30
_ROOM = 256


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


@dataclass(slots=True)
class _Sequence:
    """One answer under way: the tokens decided, and the keys and values of those that were computed."""

    tokens: list[int]
    prompt_length: int
    kv: Any
    computed: int
    cached: int
    started: float
    forced: int = 0

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    def usage(self) -> Usage:
        seconds = time.monotonic() - self.started
        return Usage(self.prompt_length, self.cached, self.generated, self.forced, seconds)


class LocalEngine:
    """Answers with a model in this process.

    Args:
        loaded: The model.
        prefix_bytes: Memory for keys and values that later requests may reuse; 0 turns reuse off.
        prefill_chunk: Prompt tokens computed in one pass; a cancellation waits for at most one pass.
        fast_forward: Append tokens that the grammar forces in one pass instead of one pass each.

    Raises:
        ValueError: If ``prefill_chunk`` is not positive.
    """

    def __init__(
        self,
        loaded: Hosted,
        *,
        prefix_bytes: int = _GIB,
        prefill_chunk: int = 256,
        fast_forward: bool = True,
    ) -> None:
        if prefill_chunk < 1:
            raise ValueError(f"prefill_chunk must be at least 1, got {prefill_chunk!r}")
        self._identity = loaded.identity
        self._model: Any = loaded.model.eval()
        self._config = self._model.config.get_text_config()
        self._reusable = is_supported(
            getattr(self._config, "layer_types", None), getattr(self._config, "sliding_window", None)
        )
        self._chunk = prefill_chunk
        self._fast_forward = fast_forward
        self._format = ChatFormat(loaded.tokenizer)
        self._vocabulary_size = int(self._config.vocab_size)
        self._vocabulary = llguidance.hf.from_tokenizer(
            loaded.tokenizer, n_vocab=self._vocabulary_size, eos_token=sorted(self._format.end_ids)
        )
        self._grammars = GrammarCompiler(self._vocabulary)
        self._text_ids = all_but(self._format.control_ids - self._format.end_ids, self._vocabulary_size)
        self._prefixes: PrefixStore[SequenceCache] = PrefixStore(prefix_bytes if self._reusable else 0)
        self._forward_lock = threading.Lock()

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers."""
        return self._identity

    @property
    def prefixes(self) -> PrefixStatistics:
        """What the reuse of keys and values saved so far."""
        return self._prefixes.statistics

    def close(self) -> None:
        """Release the memory of the model; the engine answers no more."""
        with self._forward_lock:
            self._model = None
            self._prefixes.clear()

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        """Answer with a text, a JSON value or tool calls.

        Where a free text is cancelled, the text so far comes back with ``finish_reason="cancelled"``.

        Raises:
            ValueError: If the budget or the temperature makes no sense.
            GrammarError: If the schema cannot be enforced.
            BudgetExceededError: If a constrained answer did not end within ``max_tokens``.
            CancelledError: If a constrained answer was cancelled.
            PromptTooLongError: If the prompt and the budget exceed what the model can attend to.
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
        prompt = self._format.prompt(request.messages, request.tools)
        self._check_length(len(prompt) + request.max_tokens)
        kind = grammar.kind if grammar else None
        stop = (*request.stop, *self._format.stop_texts)
        reader = AnswerReader(kind, self._format.tags, self._bytes_of, stop)
        sampler = Sampler(request.temperature, request.seed)
        return self._decode(request, prompt, kind, matcher, reader, sampler, cancel)

    def choose(self, request: ChoiceRequest, *, cancel: Cancellation | None = None) -> Choice:
        """Score every option of a closed question.

        Raises:
            ValueError: If there is no option, one is empty, or two are the same.
            CancelledError: If it was cancelled.
            PromptTooLongError: If the conversation and an option exceed what the model can attend to.
        """
        check_options(request)
        parts = scoring.split(self._format.plain, request.lead, request.options)
        logprobs, usage = self._score(request.messages, parts, cancel)
        scores = logprobs
        if request.neutral is not None:
            neutral, more = self._score(request.neutral, parts, cancel)
            usage += more
            weight = request.neutral_weight
            scores = [given - weight * without for given, without in zip(logprobs, neutral, strict=True)]
        shares = scoring.softmax(scores)
        options = zip(request.options, logprobs, shares, strict=True)
        return Choice(tuple(ScoredOption(*option) for option in options), usage)

    def _grammar(self, request: GenerationRequest) -> Grammar | None:
        if request.schema is not None:
            return schema_grammar(request.schema)
        allowed = callable_schemas(request.tools, request.tool_choice, request.call_schemas)
        if not allowed:
            return None
        return call_grammar(allowed, self._format.tags, or_text=request.tool_choice == "auto")

    def _decode(
        self,
        request: GenerationRequest,
        prompt: list[int],
        kind: AnswerKind | None,
        matcher: LLMatcher | None,
        reader: AnswerReader,
        sampler: Sampler,
        cancel: Cancellation | None,
    ) -> Iterator[Chunk]:
        sequence = self._begin(prompt, request.max_tokens)
        try:
            reason: FinishReason | None = None
            while reason is None:
                if matcher is not None:
                    shown = self._append_forced(sequence, matcher, reader)
                    if shown:
                        yield Chunk(shown)
                    if matcher.is_stopped():
                        reason = "stop"
                        break
                if sequence.generated >= request.max_tokens:
                    reason = "length"
                    break
                logits = self._advance(sequence, cancel)
                if logits is None:
                    reason = "cancelled"
                    break
                allowed = (
                    unpack(matcher.compute_bitmask(), self._vocabulary_size) if matcher else self._text_ids
                )
                token = sampler.pick(logits, allowed)
                ended = token in self._format.end_ids
                if matcher is not None and not (
                    matcher.is_accepting() if ended else matcher.consume_token(token)
                ):
                    raise GrammarError(f"the grammar failed while decoding: {matcher.get_error():.200}")
                if ended:
                    reason = "stop"
                    break
                sequence.tokens.append(token)
                shown = reader.push(token)
                if shown:
                    yield Chunk(shown)
                if reader.stopped:
                    reason = "stop"
        finally:
            self._keep(sequence)
        if reason != "stop" and (kind in {AnswerKind.JSON, AnswerKind.CALL} or reader.in_call):
            if reason == "cancelled":
                raise CancelledError(f"cancelled after {sequence.generated} tokens of a constrained answer")
            raise BudgetExceededError(
                f"the answer did not end within max_tokens={request.max_tokens}; "
                f"ask again with more, or bound the schema's strings and arrays"
            )
        rest = reader.finish()
        if rest:
            yield Chunk(rest)
        calls = self._calls(reader.call, sequence)
        yield Chunk("", Generation(reader.text, calls, reason, sequence.usage()))

    def _allowed(self, matcher: LLMatcher | None) -> NDArray[np.int64]:
        if matcher is None:
            return self._text_ids
        return unpack(matcher.compute_bitmask(), self._vocabulary_size)

    def _append_forced(self, sequence: _Sequence, matcher: LLMatcher, reader: AnswerReader) -> str:
        """Append what the grammar leaves no choice about and return the text that can be shown."""
        forced = matcher.compute_ff_tokens()
        if matcher.validate_tokens(forced) < len(forced):
            # llguidance takes a forced text that spells a control token for that token, and then refuses it.
            forced = self._format.plain(matcher.compute_ff_bytes().decode("utf-8", "ignore"))
        if not matcher.consume_tokens(forced):
            raise GrammarError(f"the grammar failed while decoding: {matcher.get_error():.200}")
        sequence.forced += len(forced)
        sequence.tokens += forced
        return "".join([reader.push(token) for token in forced])

    def _calls(self, call: Any, sequence: _Sequence) -> tuple[ToolCall, ...]:
        if call is None:
            return ()
        # The same conversation gives the same id, and another turn of it another one.
        digest = hashlib.sha256(repr(sequence.tokens).encode()).hexdigest()
        return (ToolCall(call["name"], call["arguments"], f"call_{digest[:16]}"),)

    def _bytes_of(self, token: int) -> bytes:
        data: bytes = self._vocabulary.decode_bytes([token])
        return data

    def _check_length(self, tokens: int) -> None:
        limit = int(self._config.max_position_embeddings)
        if tokens > limit:
            raise PromptTooLongError(
                f"prompt and budget are {tokens} tokens, but {self._identity.id!r} attends to {limit}; "
                f"shorten the conversation or lower max_tokens"
            )

    def _begin(self, prompt: list[int], budget: int) -> _Sequence:
        started = time.monotonic()
        capacity = len(prompt) + min(budget, _ROOM)
        kv: Any
        if self._reusable:
            kv = self._prefixes.take(prompt, capacity) or SequenceCache.empty(
                int(self._config.num_hidden_layers), capacity
            )
            cached = kv.length
        else:
            kv, cached = DynamicCache(config=self._config), 0
        return _Sequence(list(prompt), len(prompt), kv, cached, cached, started)

    def _keep(self, sequence: _Sequence) -> None:
        if self._reusable:
            # A pass that failed half-way leaves some layers longer than others.
            sequence.kv.truncate(sequence.computed)
            self._prefixes.keep(sequence.tokens, sequence.kv)

    def _advance(self, sequence: _Sequence, cancel: Cancellation | None) -> torch.Tensor | None:
        """Compute all tokens decided so far; return the last one's logits, or None where cancelled."""
        logits: torch.Tensor | None = None
        while sequence.computed < len(sequence.tokens):
            if cancel is not None and cancel.cancelled:
                return None
            step = self._chunk
            if not self._fast_forward and sequence.computed >= sequence.prompt_length:
                step = 1
            elif not self._fast_forward:
                step = min(step, sequence.prompt_length - sequence.computed)
            ids = sequence.tokens[sequence.computed : sequence.computed + step]
            output = self._forward(torch.tensor([ids]), past_key_values=sequence.kv, logits_to_keep=1)
            logits = output[0, -1]
            sequence.computed += len(ids)
        return logits

    def _forward(self, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Run one pass and return its logits."""
        with self._forward_lock, torch.inference_mode():
            if self._model is None:
                raise ModelError(f"engine {self._identity.id!r} is closed; open another one")
            device = self._model.device
            placed = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in inputs.items()
            }
            logits: torch.Tensor = self._model(input_ids=ids.to(device), use_cache=True, **placed).logits
            return logits

    def _score(
        self, messages: Sequence[Message], parts: scoring.Continuations, cancel: Cancellation | None
    ) -> tuple[list[float], Usage]:
        """Return the summed log-probability of every option after a conversation."""
        prompt = [*self._format.prompt(messages), *parts.stem]
        self._check_length(len(prompt) + max(len(tail) for tail in parts.tails))
        sequence = self._begin(prompt, 2 * scoring.GROUP_TOKENS)
        results: list[float] = []
        try:
            if self._reusable:
                for group in scoring.groups(parts.tails):
                    tails = [parts.tails[index] for index in group]
                    results += self._score_packed(sequence, tails, cancel)
            else:
                for tail in parts.tails:
                    _refuse_cancelled(cancel)
                    ids = torch.tensor([[*prompt, *tail[:-1]]])
                    logits = self._forward(ids, logits_to_keep=len(tail))
                    results += scoring.sums(logits[0], [list(enumerate(tail))])
        finally:
            self._keep(sequence)
        return results, sequence.usage()

    def _score_packed(
        self, sequence: _Sequence, tails: Sequence[Sequence[int]], cancel: Cancellation | None
    ) -> list[float]:
        # The last token is computed again for every group: the first token of each option depends on it.
        sequence.computed = min(sequence.computed, sequence.prompt_length - 1)
        sequence.kv.truncate(sequence.computed)
        while sequence.prompt_length - sequence.computed > self._chunk:
            _refuse_cancelled(cancel)
            ids = sequence.tokens[sequence.computed : sequence.computed + self._chunk]
            self._forward(torch.tensor([ids]), past_key_values=sequence.kv, logits_to_keep=1)
            sequence.computed += len(ids)
        _refuse_cancelled(cancel)
        packed = scoring.pack(sequence.tokens[sequence.computed :], tails, sequence.computed)
        logits = self._forward(
            packed.ids,
            position_ids=packed.positions,
            attention_mask=packed.mask,
            past_key_values=sequence.kv,
            logits_to_keep=packed.rows,
        )
        sequence.computed = sequence.prompt_length
        return scoring.sums(logits[0], packed.targets)


def _refuse_cancelled(cancel: Cancellation | None) -> None:
    if cancel is not None and cancel.cancelled:
        raise CancelledError("cancelled before the question was answered")
