"""What an engine is asked and what it answers: the seam between models and everything above."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable

JsonSchema = Mapping[str, Any]
FinishReason = Literal["stop", "length", "cancelled"]
Basis = Literal["scored", "derived", "unknown"]


class Role(StrEnum):
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, as a model wrote it.

    Attributes:
        name: Registered name of the tool.
        arguments: Arguments, valid against the tool's schema.
        id: Identifier that a tool's answer refers to.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: What is said. Control tokens in it are always encoded as plain text, so no
            content can open a turn or a tool call of its own.
        tool_calls: Calls that an assistant turn made.
        tool_call_id: The call that a tool turn answers.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it: its name, what it does, and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: JsonSchema


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Prompt tokens whose keys and values were reused instead of computed.
        generated_tokens: Tokens of the answer.
        forced_tokens: Tokens of the answer that the grammar left no choice about.
        seconds: Wall-clock time.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    forced_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.generated_tokens + other.generated_tokens,
            self.forced_tokens + other.forced_tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A text, a JSON value or a tool call to be generated.

    At most one of ``schema`` and ``tool_choice`` constrains the answer; with neither it is free text.

    Attributes:
        messages: The conversation so far.
        tools: Tools that the prompt describes.
        tool_choice: ``"auto"`` lets the model decide between text and a call, ``"required"`` forces a
            call of one of ``tools``, ``"none"`` forbids calls, any other value forces that tool by name.
        schema: JSON schema that the answer must validate against.
        call_schemas: Narrower argument schemas by tool name, used for the grammar only, so that the
            prompt (and its cached prefix) holds the canonical ones.
        max_tokens: Budget of generated tokens.
        temperature: 0 is greedy.
        seed: Seed of the sampling; required to repeat an answer where ``temperature`` is above 0.
        stop: Texts that end the answer; they are not part of it.
        max_calls: How many tool calls the answer may hold where calls are possible at all.
        adapter: Name of a LoRA adapter that the engine has loaded; the base model where ``None``.
        priority: Requests of a higher one are computed first while several wait.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "none"
    schema: JsonSchema | None = None
    call_schemas: Mapping[str, JsonSchema] = field(default_factory=dict)
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_calls: int = 1
    adapter: str | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer.

    Attributes:
        text: The answer as text (the JSON text where a schema was given, empty for a pure tool call).
        tool_calls: Calls, already parsed and valid.
        finish_reason: ``"stop"`` where the answer ended by itself, ``"length"`` where its budget was spent: a
            text is then cut, and a constrained answer was given a shortest valid end.
        usage: What it cost.
    """

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer while it is being generated; the last one carries the whole."""

    text: str
    final: Generation | None = None


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """A closed question: which of these texts continues the conversation best.

    Attributes:
        messages: The conversation, ending with the question.
        lead: Beginning of the answer that every option continues, e.g. ``"The root cause is that"``.
        options: Texts of the options; distinct and not empty.
        neutral: The same conversation without its evidence. Where given, an option's score is the
            log-probability under ``messages`` minus the one under ``neutral``, which removes the
            preference a model has for some wordings as such (PMI scoring, Holtzman et al. 2021,
            https://arxiv.org/abs/2104.08315).
        neutral_weight: Share of the neutral log-probability that is taken off; 1 is PMI, 0 ignores it.
        adapter: Name of a LoRA adapter that the engine has loaded; the base model where ``None``.
        priority: Requests of a higher one are computed first while several wait.
    """

    messages: tuple[Message, ...]
    lead: str
    options: tuple[str, ...]
    neutral: tuple[Message, ...] | None = None
    neutral_weight: float = 1.0
    adapter: str | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ScoredOption:
    """An option of a closed question.

    Attributes:
        text: The option.
        logprob: Summed log-probability of its tokens after the lead, in nats.
        probability: Share of it among the options; all shares of one choice sum to 1. With a calibration of
            the model it is how often such an answer was right on labelled cases, without one the softmax
            of ``corrected``.
        corrected: ``logprob`` minus the weighted log-probability under the neutral conversation, in nats;
            ``logprob`` itself where the question had none.
        tokens: Number of tokens that were scored.
    """

    text: str
    logprob: float
    probability: float
    corrected: float = math.nan
    tokens: int = 1

    def __post_init__(self) -> None:
        if math.isnan(self.corrected):
            object.__setattr__(self, "corrected", self.logprob)


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to a closed question: the options in the order in which they were asked.

    Attributes:
        options: The options with their shares.
        usage: What it cost.
        basis: Where the shares come from: ``"scored"`` where the model's log-probability of every option is
            known, ``"derived"`` where it was put together from what an endpoint told of one answer, and
            ``"unknown"`` where an endpoint told nothing but its answer: then the shares are as flat as the
            order allows, and mean nothing.
        calibration: Digest of the calibration that made the shares; empty where there was none.
        adapter: Name and digest of the adapter that answered, ``name:SHA-256``, where it is hosted here; the
            name alone where an endpoint hosts it; empty for the base model.
    """

    options: tuple[ScoredOption, ...]
    usage: Usage
    basis: Basis = "scored"
    calibration: str = ""
    adapter: str = ""

    @property
    def best(self) -> int:
        """Index of the most probable option (the first of equals)."""
        return max(range(len(self.options)), key=lambda i: self.options[i].probability)

    @property
    def ranking(self) -> list[int]:
        """Indices of the options from the most to the least probable (stable)."""
        return sorted(range(len(self.options)), key=lambda i: -self.options[i].probability)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model answered: what a decision record names.

    Attributes:
        id: Catalog id.
        quantization: ``int8``, ``nf4``, ``none``, or ``-`` where no weights are involved.
        digest: SHA-256 of the weights, or a digest of the script for an engine without weights.
    """

    id: str
    quantization: str
    digest: str


class Cancellation:
    """A flag that another thread may raise to end a generation within a token."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Raise the flag."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether the flag is up."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the flag at most so long; whether it is up."""
        return self._event.wait(seconds)


@runtime_checkable
class Engine(Protocol):
    """Something that answers: a hosted model, a remote endpoint, or a script in a test."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers."""
        ...

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        """Answer with a text, a JSON value or tool calls.

        Raises:
            GrammarError: If the schema cannot be enforced.
            BudgetExceededError: If a constrained answer did not end within ``max_tokens``.
        """
        ...

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        """Answer piece by piece; the last chunk has ``final`` set."""
        ...

    def choose(self, request: ChoiceRequest, *, cancel: Cancellation | None = None) -> Choice:
        """Score every option of a closed question.

        Raises:
            ValueError: If there is no option, or two are the same.
        """
        ...

    def close(self) -> None:
        """Release the memory of the model; the engine answers no more."""
        ...


Progress = Callable[[str, int, int], None]
"""Reports ``(stage, done, total)``; bytes for downloads, tensors for a conversion."""


def system(content: str) -> Message:
    """A system turn."""
    return Message(Role.SYSTEM, content)


def user(content: str) -> Message:
    """A user turn."""
    return Message(Role.USER, content)


def assistant(content: str, tool_calls: Sequence[ToolCall] = ()) -> Message:
    """An assistant turn."""
    return Message(Role.ASSISTANT, content, tuple(tool_calls))
