"""Engines without weights, for tests: answers from a script, and answers by chance.

Neither imports torch. Both check every structured answer against its schema exactly as a hosted model's
grammar would enforce it, so a test cannot script an answer that a model could not have given.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from watchkeeper.models.errors import CancelledError, GrammarError, ModelError
from watchkeeper.models.interface import (
    Cancellation,
    Choice,
    ChoiceRequest,
    Chunk,
    Generation,
    GenerationRequest,
    JsonSchema,
    Message,
    ModelIdentity,
    Role,
    ScoredOption,
    ToolCall,
    Usage,
)
from watchkeeper.models.requests import callable_schemas, check_generation, check_options
from watchkeeper.models.schemas import SchemaError, fault, sample, shortest

ChoiceAnswer = int | str | Sequence[float] | None
"""An option's index, a part of its text, one probability per option, or None for the default."""

GenerationAnswer = str | ToolCall | Sequence[ToolCall] | Mapping[str, Any] | None
"""A text, calls, a JSON object (the value where a schema was given, else the arguments of the one tool that
``tool_choice`` forces), or None for the default."""

ChoiceScript = Callable[[ChoiceRequest], ChoiceAnswer] | Mapping[str, ChoiceAnswer]
GenerationScript = Callable[[GenerationRequest], GenerationAnswer] | Mapping[str, GenerationAnswer]

_SURE = 0.9


class ScriptError(ModelError):
    """A script gave an answer that no model could have given (mend the script)."""


class _WeightlessEngine:
    """What the engines without weights share: records, checks, streaming."""

    def __init__(self, identity: ModelIdentity) -> None:
        self._identity = identity
        self._closed = False
        self._seconds = 0.0
        self._calls = 0
        self.requests: list[GenerationRequest | ChoiceRequest] = []
        """Everything that was asked, in order."""

    @property
    def identity(self) -> ModelIdentity:
        """Which script answers."""
        return self._identity

    def close(self) -> None:
        """Answer no more."""
        self._closed = True

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        """Answer word by word."""
        answer = self.generate(request, cancel=cancel)
        pieces = answer.text.split(" ")
        for index, piece in enumerate(pieces):
            if answer.text:
                yield Chunk(piece + (" " if index < len(pieces) - 1 else ""))
        yield Chunk("", final=answer)

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        """Answer with a text, a JSON value or tool calls.

        Raises:
            ScriptError: If the script's answer is none that a model could have given.
            GrammarError: If the request cannot be enforced.
        """
        check_generation(request)
        arguments_of = _argument_schemas(request)
        if cancel is not None and cancel.cancelled and request.schema is None and not arguments_of:
            return Generation("", (), "cancelled", Usage())
        self._begin(request, cancel)
        answer = self._answer(request)
        text, calls = _as_answer(answer, request, arguments_of)
        if request.schema is not None:
            _check_json(text, request.schema)
        _check_calls(calls, request, arguments_of)
        numbered: list[ToolCall] = []
        for call in calls:
            self._calls += 1
            numbered.append(ToolCall(call.name, call.arguments, call.id or f"call_{self._calls}"))
        usage = Usage(_words(request.messages), 0, len(text.split()) + len(numbered), 0, 0.0)
        return Generation(text, tuple(numbered), "stop", usage)

    def choose(self, request: ChoiceRequest, *, cancel: Cancellation | None = None) -> Choice:
        """Score every option of a closed question.

        Raises:
            ValueError: If there is no option, or two are the same.
        """
        check_options(request)
        self._begin(request, cancel)
        shares = self._shares(request)
        options = tuple(
            ScoredOption(text, math.log(share) if share > 0 else -math.inf, share)
            for text, share in zip(request.options, shares, strict=True)
        )
        return Choice(options, Usage(prompt_tokens=_words(request.messages)))

    def _begin(self, request: GenerationRequest | ChoiceRequest, cancel: Cancellation | None) -> None:
        if self._closed:
            raise ModelError(f"engine {self._identity.id!r} is closed; open another one")
        if cancel is not None and cancel.cancelled:
            raise CancelledError("cancelled before the answer began")
        self.requests.append(request)
        if self._seconds and (cancel or Cancellation()).wait(self._seconds):
            raise CancelledError("cancelled while the answer was being written")

    def _answer(self, request: GenerationRequest) -> GenerationAnswer:
        raise NotImplementedError

    def _shares(self, request: ChoiceRequest) -> Sequence[float]:
        raise NotImplementedError


class ScriptedEngine(_WeightlessEngine):
    """Answers from a script, always the same.

    Args:
        choose: What to answer to closed questions: a function of the request, or a mapping whose keys are
            looked for in the conversation (first key found wins). An answer is an option's index, a part
            of its text (it must fit exactly one option), or probabilities. None, or no rule that fits:
            the first option.
        generate: What to generate, in the same two forms. None, or no rule that fits: the shortest value
            that the schema (or the forced tool's schema) allows, and ``"ok"`` where free text is wanted.
        seconds: How long each answer takes; where it is cancelled meanwhile, it ends at once, as a model's
            does.
        id: Catalog id to answer as.
    """

    def __init__(
        self,
        *,
        choose: ChoiceScript | None = None,
        generate: GenerationScript | None = None,
        seconds: float = 0,
        id: str = "scripted",  # noqa: A002 (the field of ModelIdentity has this name)
    ) -> None:
        digest = hashlib.sha256(f"{id}|{_stable(choose)}|{_stable(generate)}".encode()).hexdigest()
        super().__init__(ModelIdentity(id, "-", digest))
        self._seconds = seconds
        self._choose = choose
        self._generate = generate

    def _answer(self, request: GenerationRequest) -> GenerationAnswer:
        answer = _look_up(self._generate, request)
        return _default(request, shortest) if answer is None else answer

    def _shares(self, request: ChoiceRequest) -> Sequence[float]:
        answer = _look_up(self._choose, request)
        count = len(request.options)
        if isinstance(answer, Sequence) and not isinstance(answer, str):
            if len(answer) != count or min(answer) < 0 or not math.isclose(sum(answer), 1, abs_tol=1e-6):
                raise ScriptError(f"{list(answer)!r} are no probabilities of {count} options")
            return answer
        best = _index(answer, request.options)
        if count == 1:
            return [1.0]
        return [_SURE if index == best else (1 - _SURE) / (count - 1) for index in range(count)]


class RandomEngine(_WeightlessEngine):
    """Answers by chance: every option and every enum value is equally likely.

    The baseline that a real model has to beat, and a way to walk through states that no script thinks of.

    Args:
        seed: The same seed and the same requests give the same answers.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(ModelIdentity("random", "-", hashlib.sha256(f"random|{seed}".encode()).hexdigest()))
        self._rng = random.Random(seed)

    def _answer(self, request: GenerationRequest) -> GenerationAnswer:
        return _default(request, lambda schema: sample(schema, self._rng), self._rng)

    def _shares(self, request: ChoiceRequest) -> Sequence[float]:
        # Exponential weights, normalized, are uniform on the simplex: every option is best equally often.
        weights = [self._rng.expovariate(1.0) for _ in request.options]
        return [weight / sum(weights) for weight in weights]


def _default(
    request: GenerationRequest, make: Callable[[JsonSchema], Any], rng: random.Random | None = None
) -> GenerationAnswer:
    if request.schema is not None:
        return json.dumps(_made(make, request.schema))
    if request.tool_choice in {"none", "auto"}:
        return "ok"
    schemas = _argument_schemas(request)
    name = rng.choice(sorted(schemas)) if rng else next(iter(schemas))
    return ToolCall(name, _made(make, schemas[name]))


def _made(make: Callable[[JsonSchema], Any], schema: JsonSchema) -> Any:
    try:
        return make(schema)
    except SchemaError as error:
        raise GrammarError(str(error)) from error


def _argument_schemas(request: GenerationRequest) -> dict[str, JsonSchema]:
    return callable_schemas(request.tools, request.tool_choice, request.call_schemas)


def _as_answer(
    answer: GenerationAnswer, request: GenerationRequest, arguments_of: Mapping[str, JsonSchema]
) -> tuple[str, tuple[ToolCall, ...]]:
    match answer:
        case str():
            return answer, ()
        case ToolCall():
            return "", (answer,)
        case Mapping():
            if request.schema is None and len(arguments_of) == 1:
                return "", (ToolCall(next(iter(arguments_of)), answer),)
            if request.schema is None:
                raise ScriptError(
                    f"{answer!r:.80} is a JSON object, but neither a schema nor one tool asks for it"
                )
            return json.dumps(answer), ()
        case None:
            raise ScriptError("the script gave no answer")
        case _:
            return "", tuple(answer)


def _check_json(text: str, schema: JsonSchema) -> None:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ScriptError(f"a schema asks for JSON, but the script answered {text!r:.80}") from error
    _check(value, schema, "the answer")


def _check_calls(
    calls: Sequence[ToolCall], request: GenerationRequest, arguments_of: Mapping[str, JsonSchema]
) -> None:
    if calls and request.schema is not None:
        raise ScriptError("a schema asks for JSON, but the script answered with a tool call")
    if not calls and request.tool_choice not in {"none", "auto"} and request.schema is None:
        raise ScriptError(f"tool_choice {request.tool_choice!r} forces a call, but the script gave none")
    if len(calls) > request.max_calls:
        raise ScriptError(f"the script gave {len(calls)} calls, and max_calls allows {request.max_calls}")
    for call in calls:
        if call.name not in arguments_of:
            raise ScriptError(
                f"the script called {call.name!r}, which tool_choice {request.tool_choice!r} does not allow "
                f"(allowed: {', '.join(arguments_of) or 'nothing'})"
            )
        _check(call.arguments, arguments_of[call.name], f"the arguments of {call.name!r}")


def _check(value: Any, schema: JsonSchema, what: str) -> None:
    try:
        reason = fault(value, schema)
    except SchemaError as error:
        raise GrammarError(f"{what}: {error}") from error
    if reason is not None:
        raise ScriptError(f"{what} would never pass the schema: {reason}")


def _look_up(script: Any, request: GenerationRequest | ChoiceRequest) -> Any:
    if script is None or callable(script):
        return script(request) if script else None
    conversation = "\n".join(message.content for message in request.messages)
    if isinstance(request, ChoiceRequest):
        conversation += "\n" + request.lead
    return next((answer for key, answer in script.items() if key in conversation), None)


def _index(answer: int | str | None, options: Sequence[str]) -> int:
    if answer is None:
        return 0
    if isinstance(answer, int):
        if not 0 <= answer < len(options):
            raise ScriptError(f"the script chose option {answer!r} of {len(options)}")
        return answer
    if answer in options:
        return options.index(answer)
    fitting = [index for index, option in enumerate(options) if answer in option]
    if len(fitting) != 1:
        raise ScriptError(
            f"{answer!r} is part of {len(fitting)} options of {list(options)!r:.300}, not of one"
        )
    return fitting[0]


def _stable(script: Any) -> str:
    if script is None or callable(script):
        return getattr(script, "__qualname__", "") if script else ""
    return repr(list(script.items()))


def _words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages if message.role is not Role.TOOL)
