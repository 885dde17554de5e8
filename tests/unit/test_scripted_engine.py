"""The engines without weights answer from a script or by chance, and never what a model could not."""

from __future__ import annotations

import collections
import dataclasses
import json
import subprocess
import sys

import pytest

from watchkeeper.models.errors import CancelledError, GrammarError, ModelError
from watchkeeper.models.interface import (
    Cancellation,
    ChoiceRequest,
    Engine,
    GenerationRequest,
    ToolCall,
    ToolSpec,
    user,
)
from watchkeeper.models.scripted import RandomEngine, ScriptedEngine, ScriptError

RESTART = ToolSpec(
    "service.restart",
    "Restart a service.",
    {
        "type": "object",
        "properties": {
            "service": {"type": "string", "enum": ["web", "db"]},
            "force": {"type": "boolean"},
        },
        "required": ["service"],
        "additionalProperties": False,
    },
)
QUESTION = ChoiceRequest(
    (user("disk is full"),), "The cause is", ("a full disk", "a dead process", "bad DNS")
)


def call(choice: str = "required") -> GenerationRequest:
    return GenerationRequest((user("restart it"),), (RESTART,), choice)


def test_both_are_engines() -> None:
    assert isinstance(ScriptedEngine(), Engine)
    assert isinstance(RandomEngine(1), Engine)


def test_a_rule_found_in_the_conversation_picks_the_option_that_contains_its_text() -> None:
    engine = ScriptedEngine(choose={"disk": "full", "web": "process"})
    assert engine.choose(QUESTION).best == 0
    assert engine.choose(ChoiceRequest((user("web is gone"),), "", QUESTION.options)).best == 1


def test_a_function_may_answer_with_an_index_a_text_or_probabilities() -> None:
    assert ScriptedEngine(choose=lambda _: 2).choose(QUESTION).best == 2
    assert ScriptedEngine(choose=lambda _: "bad DNS").choose(QUESTION).best == 2
    shares = ScriptedEngine(choose=lambda _: [0.2, 0.5, 0.3]).choose(QUESTION)
    assert [option.probability for option in shares.options] == [0.2, 0.5, 0.3]
    assert shares.ranking == [1, 2, 0]


def test_probabilities_of_a_choice_sum_to_one() -> None:
    for engine in (ScriptedEngine(), RandomEngine(3)):
        assert sum(option.probability for option in engine.choose(QUESTION).options) == pytest.approx(1)


@pytest.mark.parametrize("options", [(), ("a", "a"), ("a", " ")])
def test_a_question_without_distinct_options_is_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="option"):
        ScriptedEngine().choose(ChoiceRequest((user("?"),), "", options))


@pytest.mark.parametrize("answer", [7, "nothing like it", "a", [0.5, 0.5], [2.0, -1.0, 0.0]])
def test_an_answer_that_is_no_option_is_an_error_of_the_script(answer: object) -> None:
    with pytest.raises(ScriptError):
        ScriptedEngine(choose=lambda _: answer).choose(QUESTION)  # type: ignore[arg-type,return-value]


def test_without_a_script_a_forced_call_is_the_shortest_valid_one() -> None:
    answer = ScriptedEngine().generate(call())
    assert answer.tool_calls == (ToolCall("service.restart", {"service": "web"}, "call_1"),)
    assert answer.text == ""


def test_an_object_is_the_arguments_of_the_only_tool() -> None:
    engine = ScriptedEngine(generate={"restart": {"service": "db", "force": True}})
    assert engine.generate(call()).tool_calls[0].arguments == {"service": "db", "force": True}


def test_an_answer_outside_the_schema_is_an_error_of_the_script() -> None:
    with pytest.raises(ScriptError, match="mail"):
        ScriptedEngine(generate=lambda _: {"service": "mail"}).generate(call())


def test_the_narrowed_schema_counts_not_the_canonical_one() -> None:
    narrow = {**RESTART.parameters, "properties": {"service": {"const": "db"}}}
    request = GenerationRequest(
        (user("x"),), (RESTART,), "required", call_schemas={"service.restart": narrow}
    )
    assert ScriptedEngine().generate(request).tool_calls[0].arguments == {"service": "db"}
    with pytest.raises(ScriptError):
        ScriptedEngine(generate=lambda _: {"service": "web"}).generate(request)


def test_a_call_that_is_not_allowed_is_an_error_of_the_script() -> None:
    with pytest.raises(ScriptError, match="does not allow"):
        ScriptedEngine(generate=lambda _: ToolCall("service.restart", {"service": "db"})).generate(
            call("none")
        )
    with pytest.raises(ScriptError, match="forces a call"):
        ScriptedEngine(generate=lambda _: "no").generate(call())


def test_more_calls_than_are_allowed_are_an_error_of_the_script() -> None:
    twice = ScriptedEngine(generate=lambda _: [ToolCall("service.restart", {"service": "db"})] * 2)
    with pytest.raises(ScriptError, match="max_calls allows 1"):
        twice.generate(call())
    assert len(twice.generate(dataclasses.replace(call(), max_calls=2)).tool_calls) == 2


def test_a_tool_that_is_not_there_cannot_be_forced() -> None:
    with pytest.raises(GrammarError, match=r"service\.stop"):
        ScriptedEngine().generate(call("service.stop"))


def test_a_schema_makes_the_text_json() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
    answer = ScriptedEngine().generate(GenerationRequest((user("x"),), schema=schema))
    assert json.loads(answer.text) == {"n": 3}


def test_everything_asked_is_kept_in_order() -> None:
    engine = ScriptedEngine()
    engine.choose(QUESTION)
    engine.generate(call())
    assert engine.requests == [QUESTION, call()]


def test_a_stream_ends_with_the_whole() -> None:
    chunks = list(ScriptedEngine(generate=lambda _: "all is  well").stream(GenerationRequest((user("?"),))))
    assert "".join(chunk.text for chunk in chunks) == "all is  well"
    assert chunks[-1].final is not None
    assert chunks[-1].final.text == "all is  well"


def test_a_closed_engine_and_a_raised_flag_answer_nothing() -> None:
    engine = ScriptedEngine()
    flag = Cancellation()
    flag.cancel()
    with pytest.raises(CancelledError):
        engine.choose(QUESTION, cancel=flag)
    with pytest.raises(CancelledError):
        engine.generate(call(), cancel=flag)
    assert engine.generate(GenerationRequest((user("x"),)), cancel=flag).finish_reason == "cancelled"
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        engine.choose(QUESTION)


def test_chance_repeats_with_its_seed_and_finds_every_option_equally_often() -> None:
    engine = RandomEngine(7)
    wins = collections.Counter(engine.choose(QUESTION).best for _ in range(3000))
    assert all(850 < wins[index] < 1150 for index in range(3))
    assert RandomEngine(5).generate(call()) == RandomEngine(5).generate(call())


def test_chance_calls_only_what_is_valid() -> None:
    engine = RandomEngine(11)
    seen = {engine.generate(call()).tool_calls[0].arguments["service"] for _ in range(50)}
    assert seen == {"web", "db"}


def test_scripted_engines_need_no_torch() -> None:
    code = "import sys, watchkeeper.models.scripted; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
