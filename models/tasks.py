"""What the engine has under way: answers and questions as small state machines, one step a forward pass."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from llguidance import LLMatcher

from watchkeeper.models import scoring
from watchkeeper.models.closing import Closer
from watchkeeper.models.detokenize import AnswerReader
from watchkeeper.models.errors import BudgetExceededError, CancelledError, GrammarError
from watchkeeper.models.grammar import AnswerKind, Grammar
from watchkeeper.models.interface import FinishReason, Generation, GenerationRequest, ToolCall, Usage
from watchkeeper.models.kv import SequenceKV
from watchkeeper.models.lookup import Lookup
from watchkeeper.models.packed import Piece
from watchkeeper.models.runner import Runner
from watchkeeper.models.sampling import Sampler, TokenMask
from watchkeeper.models.scheduler import Pending
from watchkeeper.models.templates import ChatFormat

CLOSING_TOKENS = 256
"""Tokens that the end of an answer may take beyond its budget."""

_CONTROL = b"\xff"


class Task(ABC):
    """One request under way.

    Args:
        prompt: Tokens of its prompt.
        need: Tokens it may come to hold, the prompt included.
        adapter: The adapter that reads and answers it.
    """

    def __init__(self, prompt: Sequence[int], need: int, adapter: str | None) -> None:
        self.tokens = list(prompt)
        self.prompt_length = len(prompt)
        self.need = need
        self.adapter = adapter
        self.cached = 0
        """Prompt tokens whose keys and values were reused."""
        self.started = time.monotonic()
        self.first = ""
        """Text that is known before anything is computed."""
        self.guessed = 0
        """Tokens that were guessed."""
        self.guessed_right = 0
        """Guesses that the model then said."""
        self.room: SequenceKV | None = None
        """Keys and values of the tokens that were computed; ``None`` before it runs."""

    @property
    def kv(self) -> SequenceKV:
        """Keys and values of a task that runs."""
        assert self.room is not None, "a task that runs was given room"
        return self.room

    def begin(self, kv: SequenceKV) -> None:
        """Take the room for keys and values, in which those of a known beginning may be."""
        self.room = kv
        self.cached = kv.length

    @property
    def computed(self) -> int:
        """Tokens whose keys and values are there."""
        return 0 if self.room is None else self.room.length

    @property
    def prompt_left(self) -> int:
        """Prompt tokens to compute."""
        return max(0, self.prompt_length - self.kv.length)

    def usage(self, generated: int = 0, forced: int = 0) -> Usage:
        """Return what the request cost so far."""
        seconds = time.monotonic() - self.started
        return Usage(self.prompt_length, self.cached, generated, forced, seconds)

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nothing is left to compute."""

    @abstractmethod
    def pending(self) -> Pending:
        """Return what the task waits for."""

    @abstractmethod
    def piece(self, count: int) -> Piece:
        """Return the next tokens to compute."""

    @abstractmethod
    def wants_logits(self) -> bool:
        """Whether logits of the whole vocabulary are needed for the results of the piece.

        Those of all tasks are computed at once, since the output layer is read once for all of them.
        """

    @abstractmethod
    def receive(self, hidden: torch.Tensor, logits: torch.Tensor | None, runner: Runner) -> str:
        """Go on with the results of the piece, and return the text that can be shown now.

        Args:
            hidden: The last layer's results, shape (rows of the piece, hidden size).
            logits: Those of the whole vocabulary for the same rows, where they are wanted.
            runner: Computes what else is needed.

        Raises:
            ModelError: If the task failed; the others go on.
        """


@dataclass(frozen=True, slots=True)
class Dialect:
    """What all answers of one engine share: how the model writes and ends them.

    Attributes:
        format: How its family writes conversations.
        closer: Ends answers that ran out of their budget.
        text: The tokens of a free text.
        vocabulary_size: Number of tokens.
        fast_forward: Whether forced tokens are computed in one pass instead of one pass each.
        guesses: Tokens that an answer guesses at most.
    """

    format: ChatFormat
    closer: Closer
    text: TokenMask
    vocabulary_size: int
    fast_forward: bool = True
    guesses: int = 0


class AnswerTask(Task):
    """A text, a JSON value or tool calls, token by token.

    Args:
        request: What was asked.
        prompt: Its tokens.
        dialect: How the model writes.
        grammar: What the answer is kept to; a free text where ``None``.
        matcher: The grammar's state.
        reader: Parts the answer into text and calls.
        lookup: Guesses what comes next; it knows the prompt already. Nothing is guessed where ``None``.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt: Sequence[int],
        dialect: Dialect,
        grammar: Grammar | None,
        matcher: LLMatcher | None,
        reader: AnswerReader,
        lookup: Lookup | None = None,
    ) -> None:
        super().__init__(prompt, len(prompt) + request.max_tokens, request.adapter)
        self._request = request
        self._dialect = dialect
        self._grammar = grammar
        self._kind = grammar.kind if grammar else None
        self._matcher = matcher
        self._reader = reader
        self._lookup = lookup
        self._guess: list[int] = []
        self._mask: TokenMask | None = None
        self._sampler = Sampler(request.temperature, request.seed)
        self._forced = 0
        self._reason: FinishReason | None = None
        self._closed = False
        # What the grammar forces at once is computed along with the prompt.
        self.first = self._settle()

    @property
    def done(self) -> bool:
        """Whether the answer ended."""
        return self._reason is not None

    @property
    def generated(self) -> int:
        """Tokens of the answer."""
        return len(self.tokens) - self.prompt_length

    def pending(self) -> Pending:
        """Return what the task waits for."""
        left = self.prompt_left
        if self._dialect.fast_forward or not left:
            count = len(self.tokens) - self.kv.length
            guesses = 0 if left else len(self._guess)
            return Pending(count if self._dialect.fast_forward else 1, prompt=left > 0, guesses=guesses)
        return Pending(left, prompt=True)

    def piece(self, count: int) -> Piece:
        """Return the next tokens to compute: those that are known, and guesses behind them."""
        start, known = self.kv.length, len(self.tokens) - self.kv.length
        tokens = self.tokens[start : start + count]
        tokens += self._guess[: count - len(tokens)]
        return Piece(self.kv, tokens, range(known - 1, count), adapter=self.adapter)

    def wants_logits(self) -> bool:
        """Whether more than a few tokens may come next."""
        self._mask = self._allowed()
        return self._mask.few is None

    def receive(self, hidden: torch.Tensor, logits: torch.Tensor | None, runner: Runner) -> str:
        """Choose the next tokens, as far as guesses were right, and append what the grammar forces."""
        if not len(hidden) or self.done:
            return ""
        known, guess = len(self.tokens), self._guess[: len(hidden) - 1]
        # What is computed for wrong guesses does not count, and is written over.
        self.kv.length, right = known, 0
        shown = self._choose(0, hidden, logits, runner)
        while not self.done:
            chosen = self.tokens[known:]
            if guess[: len(chosen)] != chosen:
                break
            shown += self._choose(len(chosen), hidden, logits, runner)
        for chosen_token, guessed in zip(self.tokens[known:], guess, strict=False):
            if chosen_token != guessed:
                break
            right += 1
        self.kv.length = known + right
        self.guessed, self.guessed_right = self.guessed + len(guess), self.guessed_right + right
        self._guess = [] if self.done else self._guess_next()
        return shown

    def _choose(self, row: int, hidden: torch.Tensor, logits: torch.Tensor | None, runner: Runner) -> str:
        """Choose the token that a row of the results says, and append what the grammar forces after it."""
        token = self._pick(hidden[row], None if logits is None else logits[row], runner)
        ended = token in self._dialect.format.end_ids
        matcher = self._matcher
        if matcher is not None and not (matcher.is_accepting() if ended else matcher.consume_token(token)):
            raise GrammarError(f"the grammar failed while decoding: {matcher.get_error():.200}")
        if ended:
            self._reason = "stop"
            return self._reader.finish()
        self.tokens.append(token)
        shown = self._reader.push(token)
        return shown + ("" if self._stopped() else self._settle())

    def _guess_next(self) -> list[int]:
        most = min(self._dialect.guesses, self._request.max_tokens - self.generated - 1)
        if self._lookup is None or most < 1:
            return []
        guess = self._lookup.guess(self.tokens, most)
        if guess and self._matcher is not None:
            del guess[self._matcher.validate_tokens(guess) :]
        return guess

    def cancel(self) -> None:
        """End the answer where it is."""
        self._reason = "cancelled"

    def result(self) -> Generation:
        """Return the answer.

        Raises:
            BudgetExceededError: If a constrained answer ran out of its budget and could not be closed.
            CancelledError: If a constrained answer was cancelled.
        """
        constrained = self._kind in {AnswerKind.JSON, AnswerKind.CALL} or self._reader.in_call
        if constrained and self._reason == "cancelled":
            raise CancelledError(f"cancelled after {self.generated} tokens of a constrained answer")
        if constrained and self._reason == "length" and not self._closed:
            raise BudgetExceededError(
                f"the answer did not end within max_tokens={self._request.max_tokens}, and no short end "
                f"makes it valid; ask again with more, or bound the schema's strings and arrays"
            )
        assert self._reason is not None, "a result is asked for at the end"
        usage = self.usage(self.generated, self._forced)
        return Generation(self._reader.text, self._calls(), self._reason, usage)

    def _allowed(self) -> TokenMask:
        if self._matcher is None:
            return self._dialect.text
        return TokenMask(self._matcher.compute_bitmask(), self._dialect.vocabulary_size)

    def _pick(self, hidden: torch.Tensor, logits: torch.Tensor | None, runner: Runner) -> int:
        mask, self._mask = self._mask or self._allowed(), None
        few = mask.few
        if few is None:
            return self._sampler.pick(
                mask.apply(runner.logits(hidden[None])[0] if logits is None else logits)
            )
        return int(few[0 if len(few) == 1 else self._sampler.pick(runner.logits_of(hidden, few))])

    def _settle(self) -> str:
        """Append what is forced, and end the answer where it is whole or its budget is spent."""
        shown = self._append_forced() if self._matcher is not None else ""
        if self._stopped():
            return shown
        if self._matcher is not None and self._matcher.is_stopped():
            self._reason = "stop"
        elif self.generated >= self._request.max_tokens:
            self._reason = "length"
            shown += self._close()
        return shown + (self._reader.finish() if self.done else "")

    def _stopped(self) -> bool:
        if self._reader.stopped:
            self._reason = "stop"
        return self._reader.stopped

    def _append_forced(self) -> str:
        """Append what the grammar leaves no choice about."""
        matcher = self._matcher
        assert matcher is not None
        forced, more = matcher.compute_ff_tokens(), False
        if matcher.validate_tokens(forced) < len(forced):
            # llguidance takes a forced text that spells a control token for that token, and then refuses it.
            # A control token that is really meant is a byte that no text has, and its number.
            text, control, _ = matcher.compute_ff_bytes().partition(_CONTROL)
            forced = self._dialect.format.plain(text.decode("utf-8", "ignore"))
            more = bool(forced and control)
        if not matcher.consume_tokens(forced):
            raise GrammarError(f"the grammar failed while decoding: {matcher.get_error():.200}")
        self._forced += len(forced)
        return self._append(forced) + (self._append_forced() if more else "")

    def _close(self) -> str:
        """End a constrained answer whose budget is spent with a shortest text that makes it whole."""
        matcher = self._matcher
        if matcher is None or not (self._kind is not AnswerKind.TEXT_OR_CALL or self._reader.in_call):
            return ""
        end = self._dialect.closer.close(matcher, limit=CLOSING_TOKENS, grammar=self._grammar)
        if end is None:
            return ""
        self._closed = True
        self._forced += len(end)
        return self._append(end)

    def _append(self, tokens: Sequence[int]) -> str:
        self.tokens += tokens
        return "".join([self._reader.push(token) for token in tokens])

    def _calls(self) -> tuple[ToolCall, ...]:
        # The same conversation gives the same ids, and another turn of it other ones.
        digest = hashlib.sha256(repr(self.tokens).encode()).hexdigest()[:16]
        return tuple(
            ToolCall(call["name"], call["arguments"], f"call_{digest}" + (f"_{index}" if index else ""))
            for index, call in enumerate(self._reader.calls)
        )


class ScoringTask(Task):
    """The log-probabilities of a closed set of texts after one conversation.

    Args:
        prompt: Tokens of the conversation and the lead.
        tails: Tokens of each option.
        adapter: The adapter that reads them.
    """

    def __init__(
        self, prompt: Sequence[int], tails: Sequence[Sequence[int]], adapter: str | None = None
    ) -> None:
        widest = max(sum(len(tails[index]) for index in group) for group in scoring.groups(tails))
        super().__init__(prompt, len(prompt) + widest, adapter)
        self._tails = tails
        self._groups = scoring.groups(tails)
        self._packed: scoring.Packed | None = None
        self.logprobs: list[float] = []
        """Summed log-probability of each option, in nats; whole at the end."""

    @property
    def done(self) -> bool:
        """Whether all options are scored."""
        return len(self.logprobs) == len(self._tails)

    def begin(self, kv: SequenceKV) -> None:
        """Take the room for keys and values."""
        super().begin(kv)
        # The last token is always computed: the first token of each option depends on its result.
        assert kv.length < self.prompt_length

    def pending(self) -> Pending:
        """Return what the task waits for: its prompt but the last token, then whole groups of options."""
        left = self.prompt_length - 1 - self.kv.length
        if left > 0:
            return Pending(left, prompt=True)
        tails = [self._tails[index] for index in self._groups[0]]
        self._packed = scoring.pack(self.tokens[-1:], tails, self.kv.length)
        return Pending(len(self._packed.tokens), whole=True)

    def piece(self, count: int) -> Piece:
        """Return the next tokens to compute."""
        start = self.kv.length
        if self._packed is None:
            return Piece(self.kv, self.tokens[start : start + count], adapter=self.adapter)
        packed = self._packed
        return Piece(self.kv, packed.tokens, packed.rows, packed.positions, packed.mask, self.adapter)

    def wants_logits(self) -> bool:
        """Whether options were computed: what each token is given depends on all others."""
        return self._packed is not None

    def receive(self, hidden: torch.Tensor, logits: torch.Tensor | None, runner: Runner) -> str:
        """Add up what a group's tokens were given, and forget the group's keys and values."""
        if self._packed is not None:
            self.kv.length = self.prompt_length - 1
            logits = runner.logits(hidden) if logits is None else logits
            self.logprobs += scoring.sums(logits, self._packed.targets)
            self._packed = None
            del self._groups[0]
        return ""
