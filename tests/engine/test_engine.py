"""The engine over a real, tiny transformer with random weights: how it answers, not what."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import (
    BudgetExceededError,
    CancelledError,
    GrammarError,
    ModelError,
    PromptTooLongError,
)
from watchkeeper.models.interface import (
    Cancellation,
    ChoiceRequest,
    Engine,
    GenerationRequest,
    Message,
    Role,
    ToolSpec,
    system,
    user,
)
from watchkeeper.models.options import EngineOptions
from watchkeeper.models.schemas import fault

RESTART = ToolSpec(
    "service.restart",
    "Restart a service.",
    {
        "type": "object",
        "properties": {
            "service": {"enum": ["web", "db", "cache"]},
            "delay": {"type": "integer", "minimum": 0, "maximum": 600},
            "note": {"type": "string", "maxLength": 12},
        },
        "required": ["service", "delay"],
    },
)
SHOW = ToolSpec("disk.show", "Show a disk.", {"type": "object", "properties": {}})
TALK = (system("You watch servers."), user("The web server answers slowly. What now?"))
QUESTION = ChoiceRequest(TALK, "The cause is", ("a full disk", "a memory leak", "a bad disk"))


@pytest.fixture(scope="module")
def hosted() -> tiny.Hosted:
    return tiny.hosted()


@pytest.fixture
def engine(hosted: tiny.Hosted) -> LocalEngine:
    return LocalEngine(hosted)


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["enum", "integer", "string", "boolean", "null", "union"]
    kind = rng.choice(kinds + (["object", "array"] * 2 if depth < 2 else []))
    match kind:
        case "enum":
            return {"enum": rng.sample(["a", "ab", 'quote " it', "é", 1, 2.5, None, True], rng.randint(1, 4))}
        case "integer":
            low = rng.randint(-50, 50)
            return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 2000)}
        case "string":
            return {"type": "string", "maxLength": rng.randint(0, 8)}
        case "union":
            return {"anyOf": [random_schema(rng, depth + 2), {"type": "null"}]}
        case "array":
            least = rng.randint(0, 2)
            items = random_schema(rng, depth + 1)
            return {"type": "array", "items": items, "minItems": least, "maxItems": least + 2}
        case "object":
            names = rng.sample(["a", "b b", "c.d", "naïve"], rng.randint(0, 3))
            properties = {name: random_schema(rng, depth + 1) for name in names}
            required = [name for name in names if rng.random() < 0.7]
            return {"type": "object", "properties": properties, "required": required}
        case _:
            return {"type": kind}


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_to_any_schema_parses_and_validates(engine: LocalEngine, seed: int) -> None:
    schema = random_schema(random.Random(seed))
    for temperature in (0.0, 1.0):
        request = GenerationRequest(TALK, schema=schema, max_tokens=2000, temperature=temperature, seed=seed)
        answer = engine.generate(request)
        assert answer.finish_reason == "stop"
        assert fault(json.loads(answer.text), schema) is None, answer.text


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("template", [tiny.HERMES, tiny.PLAIN, None])
def test_a_required_call_is_valid_in_every_family(template: str | None, tags: bool) -> None:
    engine = LocalEngine(tiny.hosted(template, tags=tags))
    for seed in range(5):
        request = GenerationRequest(TALK, (RESTART, SHOW), "required", temperature=1.0, seed=seed)
        answer = engine.generate(request)
        (call,) = answer.tool_calls
        assert answer.text == ""
        schema = {"service.restart": RESTART, "disk.show": SHOW}[call.name].parameters
        assert fault(dict(call.arguments), schema) is None
        assert call.id


def test_a_value_may_spell_a_control_token(engine: LocalEngine) -> None:
    for value in tiny.CONTROLS:
        answer = engine.generate(GenerationRequest(TALK, schema={"enum": [f"a {value} b"]}))
        assert json.loads(answer.text) == f"a {value} b"


def test_a_named_tool_is_the_one_called(engine: LocalEngine) -> None:
    for name in ("service.restart", "disk.show"):
        assert engine.generate(GenerationRequest(TALK, (RESTART, SHOW), name)).tool_calls[0].name == name


def test_narrowing_changes_the_answer_but_not_the_prompt(engine: LocalEngine) -> None:
    narrow = {"type": "object", "properties": {"service": {"const": "cache"}}, "required": ["service"]}
    request = GenerationRequest(TALK, (RESTART,), "required")
    engine.generate(request)
    answer = engine.generate(dataclasses.replace(request, call_schemas={"service.restart": narrow}))
    assert answer.tool_calls[0].arguments == {"service": "cache"}
    assert answer.usage.cached_tokens == answer.usage.prompt_tokens - 1


def test_without_a_choice_there_is_no_call_and_no_control_token(engine: LocalEngine) -> None:
    for seed in range(6):
        answer = engine.generate(
            GenerationRequest(TALK, (RESTART,), "none", max_tokens=40, temperature=2.0, seed=seed)
        )
        assert answer.tool_calls == ()
        assert not any(token in answer.text for token in tiny.CONTROLS)


def test_with_a_free_choice_a_call_is_valid_and_a_text_is_a_text(engine: LocalEngine) -> None:
    kinds = set()
    for seed in range(30):
        request = GenerationRequest(TALK, (SHOW,), "auto", max_tokens=60, temperature=3.0, seed=seed)
        try:
            answer = engine.generate(request)
        except BudgetExceededError:
            continue
        kinds.add(bool(answer.tool_calls))
        assert all(call.name == "disk.show" and call.arguments == {} for call in answer.tool_calls)
    assert kinds == {True, False}


def test_appending_forced_tokens_at_once_changes_no_token(hosted: tiny.Hosted) -> None:
    fast, slow = LocalEngine(hosted), LocalEngine(hosted, EngineOptions(fast_forward=False))
    for seed in range(3):
        request = GenerationRequest(TALK, (RESTART, SHOW), "required", temperature=0.7, seed=seed)
        quick, careful = fast.generate(request), slow.generate(request)
        assert quick.tool_calls == careful.tool_calls
        assert quick.usage.forced_tokens == careful.usage.forced_tokens > 0


def test_a_text_that_spells_a_control_token_may_stand_before_a_real_one(engine: LocalEngine) -> None:
    arguments = {"end": {"const": "</tool_call>"}, "rest": {"const": [{}]}}
    schema = {"type": "object", "properties": arguments, "required": ["end", "rest"]}
    request = GenerationRequest(TALK, (ToolSpec("act", "Act on it.", schema),), "required")
    answer = engine.generate(request)
    assert answer.tool_calls[0].arguments == {"end": "</tool_call>", "rest": [{}]}
    assert answer.finish_reason == "stop"


def test_guesses_save_passes_and_change_no_token(hosted: tiny.Hosted, tmp_path: Path) -> None:
    hosted = tiny.in_int8(hosted, tmp_path)
    guessing, careful = LocalEngine(hosted), LocalEngine(hosted, EngineOptions(guesses=0))
    reply = {"type": "array", "items": {"enum": ["up", "down", "upstream"]}, "minItems": 12, "maxItems": 20}
    for seed in range(6):
        for temperature in (0.0, 0.8):
            asked: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_tokens": 80}
            talk = (user(f"Say up, down and upstream {seed} times."),)
            for request in (
                GenerationRequest(talk, **asked),
                GenerationRequest(talk, schema=reply, **asked),
                GenerationRequest(talk, (RESTART, SHOW), "required", **asked),
            ):
                quick, slow = guessing.generate(request), careful.generate(request)
                assert (quick.text, quick.finish_reason) == (slow.text, slow.finish_reason)
                assert [call.arguments for call in quick.tool_calls] == [c.arguments for c in slow.tool_calls]
                assert quick.usage.generated_tokens == slow.usage.generated_tokens
    said = guessing.statistics
    assert 0 < said.guessed_right < said.guessed
    # Of the right guesses some would have been forced, and saved no pass.
    assert careful.statistics.passes - said.guessed_right <= said.passes < careful.statistics.passes
    assert careful.statistics.guessed == 0


def test_nothing_is_guessed_where_that_could_change_an_answer(hosted: tiny.Hosted, tmp_path: Path) -> None:
    # In fp32 a row's last bits depend on how many there are; without fast-forward there is one for each pass.
    exact = tiny.in_int8(hosted, tmp_path)
    engines = LocalEngine(hosted), LocalEngine(exact, EngineOptions(fast_forward=False)), LocalEngine(exact)
    for engine in engines:
        engine.generate(GenerationRequest((user("one two three one two three"),), max_tokens=60))
    assert [engine.statistics.guessed > 0 for engine in engines] == [False, False, True]


def test_reusing_a_prefix_changes_no_token(hosted: tiny.Hosted) -> None:
    reusing, fresh = LocalEngine(hosted), LocalEngine(hosted, EngineOptions(prefix_bytes=0))
    conversation = list(TALK)
    for turn in range(4):
        request = GenerationRequest(tuple(conversation), max_tokens=20, temperature=1.0, seed=turn)
        with_reuse, without = reusing.generate(request), fresh.generate(request)
        assert with_reuse.text == without.text
        assert without.usage.cached_tokens == 0
        assert turn == 0 or with_reuse.usage.cached_tokens > 0
        conversation += [Message(Role.ASSISTANT, with_reuse.text), user(f"And then, number {turn}?")]
    assert reusing.prefixes.hits == 3


def test_the_size_of_a_pass_changes_no_token(hosted: tiny.Hosted) -> None:
    request = GenerationRequest(TALK, (RESTART,), "required")
    answers = [
        LocalEngine(hosted, EngineOptions(step_tokens=chunk)).generate(request).tool_calls
        for chunk in (3, 64, 512)
    ]
    assert all(answer == answers[0] for answer in answers)


def test_the_prefix_of_a_sliding_window_family_is_reused_too() -> None:
    hosted = tiny.hosted(sliding_window=16)
    reusing, fresh = LocalEngine(hosted), LocalEngine(hosted, EngineOptions(prefix_bytes=0))
    request = GenerationRequest(TALK, (RESTART,), "required")
    first, second = reusing.generate(request), reusing.generate(request)
    assert first.tool_calls == second.tool_calls == fresh.generate(request).tool_calls
    assert second.usage.cached_tokens == second.usage.prompt_tokens - 1
    assert reusing.choose(QUESTION).best == fresh.choose(QUESTION).best


def test_a_window_hides_what_lies_before_it() -> None:
    hosted = tiny.hosted(sliding_window=16)
    request = GenerationRequest(TALK, max_tokens=40)
    expected = plain_greedy(hosted, TALK, 40)
    assert LocalEngine(hosted, EngineOptions(step_tokens=7)).generate(request).text == expected


def test_a_stream_adds_up_to_the_answer(engine: LocalEngine) -> None:
    for request in (
        GenerationRequest(TALK, max_tokens=50, temperature=1.5, seed=3),
        GenerationRequest(TALK, schema=RESTART.parameters),
        GenerationRequest(TALK, (RESTART,), "required"),
    ):
        chunks = list(engine.stream(request))
        final = chunks[-1].final
        assert final is not None
        assert all(chunk.final is None for chunk in chunks[:-1])
        assert "".join(chunk.text for chunk in chunks) == final.text
        assert final.text == engine.generate(request).text


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(engine: LocalEngine) -> None:
    request = GenerationRequest(TALK, max_tokens=60, temperature=1.0, seed=5)
    whole = engine.generate(request).text
    mark = whole[20:23]
    cut = engine.generate(dataclasses.replace(request, stop=(mark,)))
    assert cut.text == whole[: whole.index(mark)]
    assert cut.finish_reason == "stop"


def test_the_same_seed_gives_the_same_answer_and_another_one_another(engine: LocalEngine) -> None:
    texts = [
        engine.generate(GenerationRequest(TALK, max_tokens=30, temperature=1.5, seed=seed)).text
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_free_text_that_reaches_its_budget_says_so(engine: LocalEngine) -> None:
    answer = engine.generate(GenerationRequest(TALK, max_tokens=5, temperature=1.0, seed=5))
    assert answer.finish_reason == "length"
    assert answer.usage.generated_tokens == 5


def test_a_value_that_reaches_its_budget_gets_a_shortest_valid_end(engine: LocalEngine) -> None:
    for budget in (1, 10, 30):
        answer = engine.generate(GenerationRequest(TALK, schema=RESTART.parameters, max_tokens=budget))
        assert fault(json.loads(answer.text), RESTART.parameters) is None
        assert answer.finish_reason in {"length", "stop"}
    (call,) = engine.generate(GenerationRequest(TALK, (RESTART,), "required", max_tokens=3)).tool_calls
    assert fault(dict(call.arguments), RESTART.parameters) is None


def test_a_text_that_must_match_a_pattern_gets_an_end_that_does(engine: LocalEngine) -> None:
    schema = {"type": "array", "items": {"type": "string", "pattern": "[.]log$"}, "minItems": 2}
    answer = engine.generate(GenerationRequest(TALK, schema=schema, max_tokens=12))
    assert fault(json.loads(answer.text), schema) is None


def test_a_value_that_no_short_end_makes_valid_is_an_error(engine: LocalEngine) -> None:
    with pytest.raises(BudgetExceededError, match="max_tokens=10"):
        engine.generate(GenerationRequest(TALK, schema={"type": "string", "minLength": 900}, max_tokens=10))


def test_a_request_that_makes_no_sense_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(GrammarError, match="cannot be enforced"):
        engine.generate(GenerationRequest(TALK, schema={"not": {}}))
    with pytest.raises(GrammarError, match="exclude each other"):
        engine.generate(GenerationRequest(TALK, (SHOW,), "auto", schema={}))
    with pytest.raises(GrammarError, match=r"disk\.hide"):
        engine.generate(GenerationRequest(TALK, (SHOW,), "disk.hide"))
    with pytest.raises(ValueError, match="max_tokens"):
        engine.generate(GenerationRequest(TALK, max_tokens=0))
    with pytest.raises(PromptTooLongError, match="4096"):
        engine.generate(GenerationRequest((user("long " * 1000),)))


class Countdown(Cancellation):
    """Raises its flag after it was looked at a number of times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def cancelled(self) -> bool:
        self._looks -= 1
        return self._looks < 0


def test_a_cancelled_text_comes_back_as_far_as_it_got(engine: LocalEngine) -> None:
    request = GenerationRequest(TALK, max_tokens=50, temperature=1.0, seed=5)
    whole = engine.generate(request)
    cut = engine.generate(request, cancel=Countdown(8))
    assert cut.finish_reason == "cancelled"
    assert cut.usage.generated_tokens == 8
    assert whole.text.startswith(cut.text.rstrip("�"))


def test_a_prompt_is_cancelled_between_two_passes(hosted: tiny.Hosted) -> None:
    engine = LocalEngine(hosted, EngineOptions(step_tokens=16))
    cut = engine.generate(GenerationRequest((user("word " * 200),)), cancel=Countdown(3))
    assert (cut.finish_reason, cut.text) == ("cancelled", "")
    assert engine.generate(GenerationRequest((user("word " * 200),), max_tokens=1)).usage.cached_tokens == 48


def test_a_cancelled_call_or_choice_is_an_error(engine: LocalEngine) -> None:
    with pytest.raises(CancelledError):
        engine.generate(GenerationRequest(TALK, (RESTART,), "required"), cancel=Countdown(2))
    with pytest.raises(CancelledError):
        engine.choose(QUESTION, cancel=Countdown(0))


def test_a_stream_that_is_left_frees_the_engine(engine: LocalEngine) -> None:
    stream = engine.stream(GenerationRequest(TALK, max_tokens=100, temperature=1.0, seed=5))
    next(stream)
    assert engine.choose(QUESTION).options
    del stream
    assert engine.generate(GenerationRequest(TALK, max_tokens=3)).usage.cached_tokens > 0


def exact(hosted: tiny.Hosted, messages: tuple[Message, ...], text: str, after: str) -> float:
    """The log-probability of ``after`` behind a conversation and a text, by one plain forward pass."""
    turns = [{"role": message.role.value, "content": message.content} for message in messages]
    prompt = hosted.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    head = prompt + hosted.tokenizer.encode(text)
    tail = hosted.tokenizer.encode(after)
    with torch.inference_mode():
        logits = hosted.model(torch.tensor([head + tail])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(head) - 1 + index, token]) for index, token in enumerate(tail))


def plain_greedy(hosted: tiny.Hosted, messages: tuple[Message, ...], tokens: int) -> str:
    """The most probable text after a conversation, by plain forward passes over everything."""
    turns = [{"role": message.role.value, "content": message.content} for message in messages]
    ids = hosted.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    controls = [hosted.tokenizer.convert_tokens_to_ids(text) for text in tiny.CONTROLS]
    start = len(ids)
    for _ in range(tokens):
        with torch.inference_mode():
            logits = hosted.model(torch.tensor([ids])).logits[0, -1]
        logits = logits.clone()
        logits[[token for token in controls if token != hosted.tokenizer.eos_token_id]] = -torch.inf
        ids = [*ids, int(logits.argmax())]
        if ids[-1] == hosted.tokenizer.eos_token_id:
            break
    return str(hosted.tokenizer.decode(ids[start:], skip_special_tokens=True))


@pytest.mark.parametrize("sliding_window", [None, 16])
def test_the_score_of_an_option_is_its_log_probability(sliding_window: int | None) -> None:
    hosted = tiny.hosted(tiny.PLAIN, sliding_window=sliding_window)
    for chunk in (16, 512):
        choice = LocalEngine(hosted, EngineOptions(step_tokens=chunk)).choose(QUESTION)
        expected = [exact(hosted, TALK, "The cause is", f" {option}") for option in QUESTION.options]
        assert [option.logprob for option in choice.options] == pytest.approx(expected, abs=1e-3)
        shares = [math.exp(score - max(expected)) for score in expected]
        assert [option.probability for option in choice.options] == pytest.approx(
            [share / sum(shares) for share in shares], abs=1e-3
        )


def test_a_neutral_conversation_is_subtracted() -> None:
    hosted = tiny.hosted(tiny.PLAIN)
    neutral = (user("What now?"),)
    choice = LocalEngine(hosted).choose(dataclasses.replace(QUESTION, neutral=neutral))
    plain = [exact(hosted, TALK, "The cause is", f" {option}") for option in QUESTION.options]
    without = [exact(hosted, neutral, "The cause is", f" {option}") for option in QUESTION.options]
    assert [option.logprob for option in choice.options] == pytest.approx(plain, abs=1e-3)
    shares = [math.exp(given - base) for given, base in zip(plain, without, strict=True)]
    assert [option.probability for option in choice.options] == pytest.approx(
        [share / sum(shares) for share in shares], abs=1e-3
    )


def test_many_options_are_scored_as_few_are(engine: LocalEngine) -> None:
    options = tuple(f"option number {number} of a rather long list of texts" for number in range(40))
    together = engine.choose(dataclasses.replace(QUESTION, options=options))
    alone = engine.choose(dataclasses.replace(QUESTION, options=options[30:31]))
    assert together.options[30].logprob == pytest.approx(alone.options[0].logprob, abs=1e-3)
    assert sum(option.probability for option in together.options) == pytest.approx(1)


def test_options_need_no_lead_and_may_be_one_token_long(hosted: tiny.Hosted) -> None:
    choice = LocalEngine(hosted).choose(ChoiceRequest(TALK, "", ("y", "n")))
    expected = [exact(hosted, TALK, "", option) for option in ("y", "n")]
    assert [option.logprob for option in choice.options] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("options", [(), ("a", "a"), ("a", "")])
def test_a_question_without_distinct_options_is_refused(
    engine: LocalEngine, options: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="option"):
        engine.choose(dataclasses.replace(QUESTION, options=options))


def test_several_threads_get_the_answers_they_would_get_alone(engine: LocalEngine) -> None:
    requests = [
        GenerationRequest((*TALK, user(f"Number {number}")), (RESTART,), "required") for number in range(6)
    ]
    alone = [LocalEngine.generate(engine, request).tool_calls for request in requests]
    together: dict[int, Any] = {}

    def work(index: int) -> None:
        together[index] = engine.generate(requests[index]).tool_calls

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(len(requests))] == alone


def test_a_closed_engine_answers_no_more(engine: LocalEngine) -> None:
    assert isinstance(engine, Engine)
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        engine.generate(GenerationRequest(TALK))
    with pytest.raises(ModelError, match="closed"):
        engine.choose(QUESTION)
