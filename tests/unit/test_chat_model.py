"""The engine as a LangChain chat model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from tests import tiny
from watchkeeper.models.chat import WatchkeeperChatModel
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.interface import GenerationRequest, Role, ToolCall
from watchkeeper.models.scripted import ScriptedEngine


def restart(service: str, delay: int) -> str:
    """Restart a service.

    Args:
        service: Which one.
        delay: Seconds to wait.
    """
    return f"{service} {delay}"


class Verdict(BaseModel):
    """What is the matter."""

    cause: str = Field(max_length=10)
    sure: bool


class VerdictDict(TypedDict):
    """What is the matter."""

    cause: str


def scripted(answer: Any = None) -> tuple[WatchkeeperChatModel, ScriptedEngine]:
    engine = ScriptedEngine(generate=lambda _: answer)
    return WatchkeeperChatModel(engine=engine), engine


def asked(engine: ScriptedEngine) -> GenerationRequest:
    request = engine.requests[-1]
    assert isinstance(request, GenerationRequest)
    return request


def test_an_answer_carries_its_text_its_cost_and_its_model() -> None:
    model, _ = scripted("all is well")
    answer = model.invoke("how are you?")
    assert isinstance(answer, AIMessage)
    assert answer.content == "all is well"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0
    assert answer.response_metadata["model_name"] == "scripted"
    assert answer.response_metadata["finish_reason"] == "stop"


def test_a_conversation_reaches_the_engine_turn_by_turn() -> None:
    model, engine = scripted("ok")
    call = {"name": "restart", "args": {"service": "web", "delay": 1}, "id": "c1"}
    model.invoke(
        [
            SystemMessage("be brief"),
            HumanMessage([{"type": "text", "text": "he"}, {"type": "text", "text": "lp"}]),
            AIMessage("", tool_calls=[call]),
            ToolMessage("done", tool_call_id="c1"),
            ChatMessage(role="user", content="thanks"),
        ]
    )
    turns = asked(engine).messages
    assert [turn.role for turn in turns] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL, Role.USER]
    assert [turn.content for turn in turns] == ["be brief", "help", "", "done", "thanks"]
    assert turns[2].tool_calls == (ToolCall("restart", {"service": "web", "delay": 1}, "c1"),)
    assert turns[3].tool_call_id == "c1"


def test_what_a_text_model_cannot_read_is_refused() -> None:
    model, _ = scripted("ok")
    with pytest.raises(ValueError, match="image_url"):
        model.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "data:"}}])])
    with pytest.raises(ValueError, match="function"):
        model.invoke([FunctionMessage(name="f", content="x")])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("none", "none"),
        ("restart", "restart"),
        ({"type": "function", "function": {"name": "restart"}}, "restart"),
    ],
)
def test_every_way_to_choose_a_tool_is_understood(given: Any, meant: str) -> None:
    model, engine = scripted()
    model.bind_tools([restart], tool_choice=given).invoke("go")
    assert asked(engine).tool_choice == meant
    assert asked(engine).tools[0].name == "restart"
    assert set(asked(engine).tools[0].parameters["properties"]) == {"service", "delay"}


def test_a_tool_that_was_not_bound_cannot_be_chosen() -> None:
    model, _ = scripted()
    with pytest.raises(ValueError, match="'stop' is none of the tools: restart"):
        model.bind_tools([restart], tool_choice="stop")


def test_calls_come_back_as_calls() -> None:
    model, _ = scripted({"service": "web", "delay": 3})
    answer = model.bind_tools([restart], tool_choice="any").invoke("go")
    assert answer.tool_calls == [
        {"name": "restart", "args": {"service": "web", "delay": 3}, "id": "call_1", "type": "tool_call"}
    ]


def test_a_streamed_answer_adds_up_and_says_where_it_ends() -> None:
    model, _ = scripted("one two three")
    chunks = list(model.stream("count"))
    whole = AIMessageChunk("")
    for chunk in chunks:
        assert isinstance(chunk, AIMessageChunk)
        whole += chunk
    assert whole.text == "one two three"
    assert whole.usage_metadata is not None
    assert [chunk.chunk_position for chunk in chunks] == [None, None, None, "last"]


def test_a_streamed_call_is_whole() -> None:
    model, _ = scripted({"service": "web", "delay": 3})
    chunks = list(model.bind_tools([restart], tool_choice="any").stream("go"))
    assert chunks[-1].tool_calls[0]["args"] == {"service": "web", "delay": 3}


def test_structured_output_is_an_instance_or_a_dict() -> None:
    value = {"cause": "disk", "sure": True}
    model, engine = scripted(value)
    assert model.with_structured_output(Verdict).invoke("why?") == Verdict(cause="disk", sure=True)
    assert model.with_structured_output(Verdict.model_json_schema()).invoke("why?") == value
    schema = asked(engine).schema
    assert schema is not None
    assert set(schema["properties"]) == {"cause", "sure"}
    assert json.dumps(schema) in asked(engine).messages[0].content
    model, _ = scripted({"cause": "disk"})
    assert model.with_structured_output(VerdictDict).invoke("why?") == {"cause": "disk"}


def test_structured_output_may_include_the_raw_answer() -> None:
    model, _ = scripted({"cause": "disk", "sure": True})
    result = model.with_structured_output(Verdict, include_raw=True).invoke("why?")
    assert isinstance(result, dict)
    assert result["parsed"] == Verdict(cause="disk", sure=True)
    assert result["parsing_error"] is None
    assert isinstance(result["raw"], AIMessage)


def test_settings_of_a_call_come_before_those_of_the_model() -> None:
    engine = ScriptedEngine()
    model = WatchkeeperChatModel(engine=engine, max_tokens=9, temperature=0.5, seed=1, stop=["a"])
    model.invoke("x")
    first = asked(engine)
    assert (first.max_tokens, first.temperature, first.seed, first.stop) == (9, 0.5, 1, ("a",))
    model.invoke("x", max_tokens=5, temperature=0.0, seed=2, stop=["b"])
    second = asked(engine)
    assert (second.max_tokens, second.temperature, second.seed, second.stop) == (5, 0.0, 2, ("b",))


def test_an_unknown_setting_is_not_dropped_in_silence() -> None:
    model, _ = scripted("x")
    with pytest.raises(TypeError, match="temprature"):
        model.invoke("x", temprature=1)


def test_a_cancelled_task_ends_the_generation() -> None:
    engine = LocalEngine(tiny.hosted())
    model = WatchkeeperChatModel(engine=engine, max_tokens=3000)
    long = {"type": "string", "minLength": 2000, "maxLength": 2000}

    async def start_and_cancel() -> None:
        task = asyncio.create_task(model.ainvoke("talk", response_schema=long))
        while not engine.prefixes.lookups:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(start_and_cancel())  # the loop waits for its threads
    bytes_a_token = 2 * 2 * 2 * 8 * 4
    assert engine.prefixes.nbytes < 2000 * bytes_a_token


def test_an_agent_loop_runs_on_a_real_engine() -> None:
    model = WatchkeeperChatModel(engine=LocalEngine(tiny.hosted()))
    schema = {
        "title": "restart",
        "description": "Restart.",
        "type": "object",
        "properties": {"service": {"enum": ["web", "db"]}},
        "required": ["service"],
    }
    bound = model.bind_tools([schema], tool_choice="any")
    asking = HumanMessage("go")
    answer = bound.invoke([asking])
    (call,) = answer.tool_calls
    assert call["args"]["service"] in {"web", "db"}
    again = bound.invoke([asking, answer, ToolMessage("done", tool_call_id=call["id"])])
    assert again.tool_calls[0]["id"] != call["id"]
    assert again.usage_metadata is not None
    assert again.usage_metadata["input_token_details"]["cache_read"] > 0
