"""The engine over an OpenAI-compatible endpoint, for those who outgrow one machine.

vLLM, SGLang, llama.cpp's server and `watchkeeper models serve` understand it. Everything that comes back is
checked here as if nobody had constrained it there. Our own server is also told what only it understands, and
scores closed questions; see :mod:`watchkeeper.models.derived` for the others.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from watchkeeper.models import derived
from watchkeeper.models.endpoint import Endpoint
from watchkeeper.models.errors import (
    CancelledError,
    InvalidReplyError,
    UnknownModelError,
)
from watchkeeper.models.interface import (
    Basis,
    Cancellation,
    Choice,
    ChoiceRequest,
    Chunk,
    Generation,
    GenerationRequest,
    Message,
    ModelIdentity,
    ScoredOption,
    Usage,
)
from watchkeeper.models.openai_format import (
    EXTENSION,
    ToolNames,
    chat_body,
    choice_body,
    messages,
    names_for,
)
from watchkeeper.models.refusals import RefusedError
from watchkeeper.models.replies import Reply, StreamedReply, checked, read_reply, read_usage, usage
from watchkeeper.models.requests import callable_schemas, check_generation, check_options
from watchkeeper.models.wire import Retries, Timeouts, Wire

_CHAT = "/chat/completions"
_CHOOSE = "/choose"
_MODELS = "/models"


@dataclass(frozen=True, slots=True)
class _Served:
    """The model at the other end: its name, and whether our own server serves it."""

    model: str
    own: bool


class RemoteEngine:
    """Answers with a model that an endpoint serves.

    Nothing is sent before `connect` or the first question, and what the endpoint serves is looked up once.

    Args:
        endpoint: Where it is: an address like ``http://host:port/v1#model``, or a parsed one.
        api_key: Sent as a bearer token; never shown or recorded.
        timeouts: How long it is waited for.
        retries: How often a request is sent again where the endpoint is busy or the connection broke. A
            question changes nothing at the other end, so asking twice costs time only.

    Raises:
        UnknownModelError: If the address is none.
    """

    def __init__(
        self,
        endpoint: str | Endpoint,
        *,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
    ) -> None:
        self._endpoint = Endpoint.parse(endpoint) if isinstance(endpoint, str) else endpoint
        self._wire = Wire(self._endpoint, api_key=api_key, timeouts=timeouts, retries=retries)
        self._lock = threading.Lock()
        self._found: _Served | None = None
        self._logprobs = True

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers: its address, since its weights cannot be seen from here.

        Raises:
            ModelError: If the address names no model, and the endpoint does not serve exactly one.
        """
        model = self._endpoint.model or self._served().model
        return ModelIdentity(f"{self._endpoint.url}#{model}", "-", self._endpoint.digest(model))

    def connect(self) -> None:
        """Look up what the endpoint serves, so that one that is not there is found out before it is needed.

        Raises:
            ModelError: If it cannot be reached, refuses, or does not serve what its address names.
        """
        self._served()

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        """Answer with a text, a JSON value or tool calls.

        Raises:
            ValueError: If the budget or the temperature makes no sense.
            GrammarError: If the schema cannot be enforced or checked.
            BudgetExceededError: If a constrained answer did not end within ``max_tokens``.
            CancelledError: If a constrained answer was cancelled.
            PromptTooLongError: If the prompt does not fit into what the model can attend to.
            CapacityError: If it does not fit into the memory of the endpoint.
            BusyError: If too many wait there, also after the retries.
            RemoteError: If the endpoint cannot be reached or refuses.
            InvalidReplyError: If its answer is none that the request allows.
        """
        allowed = _check(request)
        started = time.monotonic()
        try:
            served = self._served(cancel)
            names = names_for(request, own=served.own)
            body = chat_body(request, served.model, own=served.own, names=names, stream=False)
            value = self._wire.ask("POST", _CHAT, body, cancel=_flag(cancel))
        except CancelledError:
            if request.schema is not None or (allowed and request.tool_choice != "auto"):
                raise
            return Generation("", (), "cancelled", Usage(seconds=time.monotonic() - started))
        return checked(read_reply(value), request, allowed, names, seconds=time.monotonic() - started)

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        """Answer piece by piece; the last chunk has ``final`` set.

        What is wrong with the request is raised at once; other errors, those of :meth:`generate`, while
        iterating. Ending the iteration early closes the connection, and so ends the work at the other end.
        """
        allowed = _check(request)
        return self._stream(request, allowed, cancel)

    def choose(self, request: ChoiceRequest, *, cancel: Cancellation | None = None) -> Choice:
        """Score every option of a closed question.

        Only our own server scores; of another one the shares are derived from what it tells of its answer,
        or unknown: see :attr:`Choice.basis`.

        Raises:
            ValueError: If there is no option, one is empty, or two are the same.
            CancelledError: If it was cancelled.
            ModelError: As for :meth:`generate`.
        """
        check_options(request)
        started = time.monotonic()
        served = self._served(cancel)
        if served.own:
            value = self._wire.ask("POST", _CHOOSE, choice_body(request, served.model), cancel=_flag(cancel))
            choice = _read_choice(value, request.options, time.monotonic() - started)
            return replace(choice, adapter=request.adapter or "")
        if len(request.options) == 1:
            return Choice((ScoredOption(request.options[0], 0.0, 1.0),), Usage())
        model = request.adapter or served.model
        return replace(self._derive(request, model, cancel), adapter=request.adapter or "")

    def close(self) -> None:
        """Close the connections; the engine answers no more."""
        self._wire.close()

    def _stream(
        self, request: GenerationRequest, allowed: Mapping[str, Any], cancel: Cancellation | None
    ) -> Iterator[Chunk]:
        started = time.monotonic()
        parts = StreamedReply()
        try:
            served = self._served(cancel)
            names = names_for(request, own=served.own)
            body = chat_body(request, served.model, own=served.own, names=names, stream=True)
            for event in self._wire.events(_CHAT, body, cancel=_flag(cancel)):
                text = parts.add(event)
                if text:
                    yield Chunk(text)
        except CancelledError:
            forced = allowed and request.tool_choice != "auto"
            if request.schema is not None or forced or parts.in_call:
                raise
            so_far = Reply(parts.text, (), "stop", None)
            spent = usage(so_far, request, time.monotonic() - started)
            yield Chunk("", Generation(parts.text, (), "cancelled", spent))
            return
        seconds = time.monotonic() - started
        yield Chunk("", checked(parts.reply(), request, allowed, names, seconds=seconds))

    def _served(self, cancel: Cancellation | None = None) -> _Served:
        with self._lock:
            if self._found is None:
                self._found = self._look_up(cancel)
            return self._found

    def _look_up(self, cancel: Cancellation | None) -> _Served:
        wanted = self._endpoint.model
        try:
            listed = self._wire.ask("GET", _MODELS, cancel=_flag(cancel))
        except RefusedError as error:
            if wanted is None or error.status not in {404, 405, 501}:
                raise
            # It lists nothing; whether it has the model shows at the first question.
            return _Served(wanted, own=False)
        items = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(items, list):
            raise InvalidReplyError(f"{self._endpoint.url}{_MODELS} lists no models: {listed!r:.120}")
        entries = {
            item["id"]: item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)
        }
        # An adapter is listed as a model with a parent: it is no other model to choose from.
        models = sorted(name for name, entry in entries.items() if not entry.get("parent"))
        known = ", ".join(models) or "none"
        if wanted is None:
            if len(models) != 1:
                raise UnknownModelError(
                    f"{self._endpoint.url} serves {len(models)} models ({known}); "
                    f"name one: {self._endpoint.url}#MODEL"
                )
            wanted = models[0]
        elif wanted not in entries:
            raise UnknownModelError(f"{self._endpoint.url} serves no model {wanted!r} (it serves: {known})")
        return _Served(wanted, own=isinstance(entries[wanted].get(EXTENSION), dict))

    def _derive(self, request: ChoiceRequest, model: str, cancel: Cancellation | None) -> Choice:
        options = request.options
        best, scores, spent = self._answer(request.messages, request, model, cancel)
        if scores is not None and request.neutral is not None and request.neutral_weight:
            _, neutral, more = self._answer(request.neutral, request, model, cancel)
            spent += more
            # Shares of one conversation differ from its log-probabilities by a constant, which drops out.
            weight = request.neutral_weight
            corrected = None
            if neutral is not None:
                corrected = [given - weight * without for given, without in zip(scores, neutral, strict=True)]
        else:
            corrected = scores
        basis: Basis = "derived"
        if scores is None or corrected is None:
            basis, shares = "unknown", derived.flat_shares(best, len(options))
            scores = corrected = [math.log(share) for share in shares]
        else:
            shares = derived.softmax(corrected)
        rows = zip(options, scores, shares, corrected, strict=True)
        return Choice(tuple(ScoredOption(*row) for row in rows), spent, basis)

    def _answer(
        self, turns: Sequence[Message], request: ChoiceRequest, model: str, cancel: Cancellation | None
    ) -> tuple[int, list[float] | None, Usage]:
        """Return the option that is answered, the log-shares of all where they are told, and the cost."""
        started = time.monotonic()
        asked = messages(derived.question(turns, request.lead, request.options), ToolNames(), own=False)
        value = None
        if self._logprobs:
            body = derived.answer_body(asked, model, request.options, logprobs=True)
            try:
                value = self._wire.ask("POST", _CHAT, body, cancel=_flag(cancel))
            except RefusedError as error:
                if error.status not in {400, 422, 501}:
                    raise
                self._logprobs = False
        if value is None:
            body = derived.answer_body(asked, model, request.options, logprobs=False)
            value = self._wire.ask("POST", _CHAT, body, cancel=_flag(cancel))
        reply = read_reply(value)
        best = derived.chosen(reply, request.options)
        spent = usage(reply, None, time.monotonic() - started)
        return best, derived.log_shares(reply, best, request.options), spent


def _check(request: GenerationRequest) -> dict[str, Any]:
    check_generation(request)
    return callable_schemas(request.tools, request.tool_choice, request.call_schemas)


def _flag(cancel: Cancellation | None) -> Any:
    return None if cancel is None else lambda: cancel.cancelled


def _read_choice(value: Any, options: Sequence[str], seconds: float) -> Choice:
    listed = value.get("options") if isinstance(value, dict) else None
    if not isinstance(listed, list) or [_field(item, "text") for item in listed] != list(options):
        raise InvalidReplyError(f"the endpoint scored other options than those asked: {value!r:.200}")
    scored = []
    for text, item in zip(options, listed, strict=True):
        logprob, share = item.get("logprob"), item.get("probability")
        logprob = -math.inf if logprob is None else logprob
        if not _is_number(logprob) or not _is_number(share) or not 0 <= share <= 1 or logprob > 0:
            raise InvalidReplyError(f"the endpoint gave {text!r:.80} the score {item!r:.120}")
        corrected, tokens = item.get("corrected"), item.get("tokens", 1)
        scored.append(
            ScoredOption(
                text,
                float(logprob),
                float(share),
                float(corrected) if _is_number(corrected) else math.nan,
                tokens if isinstance(tokens, int) else 1,
            )
        )
    if not math.isclose(sum(option.probability for option in scored), 1, abs_tol=1e-6):
        raise InvalidReplyError(f"the shares of the options do not sum to 1: {listed!r:.200}")
    counted = value.get("usage")
    cost = read_usage(counted, seconds) if isinstance(counted, dict) else Usage(seconds=seconds)
    basis = value.get("basis", "scored")
    if basis not in {"scored", "derived", "unknown"}:
        raise InvalidReplyError(f"the endpoint says that its shares are {basis!r:.40}")
    calibration = value.get("calibration") or ""
    if not isinstance(calibration, str) or not re.fullmatch("|[0-9a-f]{64}", calibration):
        raise InvalidReplyError(f"the endpoint names the calibration {calibration!r:.80}, which is no digest")
    return Choice(tuple(scored), cost, basis, calibration)


def _field(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
