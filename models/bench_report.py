"""What a measurement of a hosted model says; a report is JSON for programs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Machine(_Frozen):
    """What was measured on.

    Attributes:
        processor: Name of the processor.
        cores: Its logical cores.
        device: Where the weights are, as torch names it.
        threads: Threads of a CPU's matmuls.
        torch: Version of torch.
    """

    processor: str
    cores: int = Field(ge=1)
    device: str
    threads: int = Field(ge=1)
    torch: str


class Prefill(_Frozen):
    """How fast a prompt of one length is read, of which nothing is known.

    Attributes:
        tokens: Its length.
        seconds: Time to the first token of the answer.
        tokens_per_second: Tokens of the prompt by that time.
    """

    tokens: int = Field(ge=1)
    seconds: Amount
    tokens_per_second: Amount


class Decode(_Frozen):
    """How fast answers of requests at the same time are written; their prompts are known.

    Attributes:
        requests: How many at the same time.
        tokens: Tokens of all answers.
        seconds: Time until the last one is there.
        tokens_per_second: Of all requests together.
        each: Tokens per second of one of them.
    """

    requests: int = Field(ge=1)
    tokens: Count
    seconds: Amount
    tokens_per_second: Amount
    each: Amount


class Turns(_Frozen):
    """An agent's turns, each timed to the first token of its answer.

    Attributes:
        first_tokens: Length of the first prompt, of which nothing is known.
        first_seconds: Time of that turn.
        later_tokens: Length of the next prompt, which repeats the first one and goes on.
        later_seconds: Time of that turn.
        reused_share: Share of the later prompt whose keys and values were reused.
    """

    first_tokens: int = Field(ge=1)
    first_seconds: Amount
    later_tokens: int = Field(ge=1)
    later_seconds: Amount
    reused_share: Share


class ToolCalls(_Frozen):
    """One forced tool call.

    Attributes:
        prompt_tokens: Length of the prompt.
        tokens: Length of the call.
        forced_share: Share of its tokens that the grammar left no choice about.
        first_seconds: Time where nothing of the prompt is known.
        later_seconds: Time where the prompt is known.
        careful_seconds: Likewise, without guesses.
        stepwise_seconds: Likewise, and with one pass for each forced token.
    """

    prompt_tokens: int = Field(ge=1)
    tokens: Count
    forced_share: Share
    first_seconds: Amount
    later_seconds: Amount
    careful_seconds: Amount
    stepwise_seconds: Amount


class Validity(_Frozen):
    """Whether calls of different tools are what their schemas ask for.

    Attributes:
        asked: Calls that were asked for, each with a prompt and a schema of its own.
        valid: Calls that were parsed and are valid against their schema.
        cut: Valid calls among them that spent their budget and were given a shortest end.
        judged_by: What they were validated with: ``"jsonschema"``, or ``"watchkeeper"`` where that package
            is not installed.
        faults: What is wrong with the others.
    """

    asked: Count
    valid: Count
    cut: Count
    judged_by: str
    faults: tuple[str, ...] = ()


class Choices(_Frozen):
    """One closed question.

    Attributes:
        options: Number of its options.
        prompt_tokens: Length of the conversation and the lead.
        first_seconds: Time where nothing of the conversation is known.
        later_seconds: Time where the conversation is known.
        apart_seconds: Likewise, with one question for each option.
    """

    options: int = Field(ge=2)
    prompt_tokens: int = Field(ge=1)
    first_seconds: Amount
    later_seconds: Amount
    apart_seconds: Amount


class Gains(_Frozen):
    """How many times as fast each saving makes its work; both ways took turns in the same run.

    Attributes:
        prefix_reuse: A tool call whose prompt is known, against one whose prompt is computed.
        fast_forward: A tool call whose forced tokens are computed in one pass, against one pass each.
        guesses: A tool call whose next tokens are guessed from what was said, against one that guesses none.
        one_pass: Options of a question that are scored together, against one after the other.
    """

    prefix_reuse: Amount
    fast_forward: Amount
    guesses: Amount
    one_pass: Amount


class Bound(_Frozen):
    """What memory allows: every token of an answer reads all weights once.

    Attributes:
        bandwidth: Bytes per second that this machine's memory gives to as many threads; ``None`` where it was
            not measured: the weights are on a GPU, or too little memory was free.
        token_bytes: Bytes of weights that are read for one token, as wide as they are stored.
        tokens_per_second: Tokens of one answer per second, were nothing but weights read.
        decode_share: Decoding of one request as a share of that.
    """

    bandwidth: Amount | None
    token_bytes: int = Field(ge=1)
    tokens_per_second: Amount | None
    decode_share: Amount | None


class Memory(_Frozen):
    """Bytes of main memory that the process held.

    Attributes:
        loaded: At most, until the model was loaded.
        peak: At most, until all was measured.
        kept: For keys and values that later requests may reuse, in the end; part of the peak.
    """

    loaded: Count
    peak: Count
    kept: Count


class Report(_Frozen):
    """All that was measured of one model; of every time, the shortest of a few.

    Attributes:
        format: Version of this layout.
        model: Id of the model.
        quantization: How its weights are held.
        digest: SHA-256 of the weights.
        machine: What was measured on.
        repeat: How many times everything was measured.
        load_seconds: From the files to a model in memory.
        prefill: By length of the prompt.
        decode: By number of requests.
        turns: What prefix reuse does for an agent.
        calls: A forced tool call.
        validity: Whether calls are valid.
        choice: A closed question.
        gains: What each saving is worth.
        bound: What memory allows.
        memory: What the process took.
    """

    format: int = FORMAT
    model: str
    quantization: str
    digest: str
    machine: Machine
    repeat: int = Field(ge=1)
    load_seconds: Amount
    prefill: tuple[Prefill, ...]
    decode: tuple[Decode, ...]
    turns: Turns
    calls: ToolCalls
    validity: Validity
    choice: Choices
    gains: Gains
    bound: Bound
    memory: Memory
