"""The engine as a LangChain chat model."""

from __future__ import annotations

import asyncio
import functools
import json
import operator
import threading
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
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
from watchkeeper.models.errors import PromptTooLongError
from watchkeeper.models.interface import (
    Cancellation,
    Chunk,
    Generation,
    GenerationRequest,
    Message,
    Role,
    ToolCall,
    ToolSpec,
)
from watchkeeper.models.scripted import ScriptedEngine, ScriptError

LONG = {"type": "string", "minLength": 2000, "maxLength": 2000}


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


class Listener(BaseCallbackHandler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.pieces.append(token)


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


class Watched(LocalEngine):
    """A real engine that tells when an answer was begun, and when its generation is over."""

    def __init__(self) -> None:
        super().__init__(tiny.hosted())
        self.begun = threading.Event()
        self.over = threading.Event()
        self.chunks = 0

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        try:
            for chunk in self.stream(request, cancel=cancel):
                if chunk.final is not None:
                    return chunk.final
            raise AssertionError("a stream ends with the whole answer")
        finally:
            self.over.set()

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        try:
            for chunk in super().stream(request, cancel=cancel):
                self.chunks += 1
                self.begun.set()
                yield chunk
        finally:
            self.over.set()


def test_a_cancelled_task_ends_the_generation() -> None:
    engine = Watched()
    model = WatchkeeperChatModel(engine=engine, max_tokens=3000)

    async def start_and_cancel() -> None:
        task = asyncio.create_task(model.ainvoke("talk", response_schema=LONG))
        await asyncio.to_thread(engine.begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(start_and_cancel())
    assert engine.over.wait(timeout=60)
    assert engine.chunks < 1500


def test_a_consumer_that_stops_listening_ends_the_generation() -> None:
    engine = Watched()
    model = WatchkeeperChatModel(engine=engine, max_tokens=3000)

    async def listen_for_a_moment() -> list[str]:
        heard: list[str] = []
        async with aclosing(model.astream("talk", response_schema=LONG)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                heard.append(chunk.text)
                if len(heard) == 3:
                    break
        return heard

    assert "".join(asyncio.run(listen_for_a_moment())).startswith('"')
    assert engine.over.wait(timeout=60)
    assert engine.chunks < 1500


def test_many_answers_are_awaited_at_once() -> None:
    together = threading.Barrier(16)

    def answer(request: GenerationRequest) -> str:
        together.wait(timeout=60)
        return request.messages[-1].content

    model = WatchkeeperChatModel(engine=ScriptedEngine(generate=answer))

    async def ask_all() -> list[AIMessage]:
        return await asyncio.gather(*[model.ainvoke(f"number {index}") for index in range(16)])

    answers = asyncio.run(ask_all())
    assert [answer.text for answer in answers] == [f"number {index}" for index in range(16)]


def test_an_awaited_stream_is_the_same_as_another_and_its_errors_arrive() -> None:
    model, _ = scripted("one two three")

    async def listen() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream("count")]

    chunks = asyncio.run(listen())
    assert [chunk.text for chunk in chunks] == [chunk.text for chunk in model.stream("count")]
    assert [chunk.chunk_position for chunk in chunks] == [None, None, None, "last"]
    broken, _ = scripted({"no": "tool"})

    async def fail() -> None:
        await broken.bind_tools([restart], tool_choice="any").ainvoke("go")

    with pytest.raises(ScriptError, match="restart"):
        asyncio.run(fail())


def test_callbacks_hear_every_piece_of_a_stream() -> None:
    model, _ = scripted("one two three")
    heard = Listener()
    for _ in model.stream("count", config={"callbacks": [heard]}):
        pass
    assert "".join(heard.pieces) == "one two three"


@pytest.mark.parametrize(
    ("setting", "of_the_tools", "most"),
    [(False, None, 1), (True, None, 8), (False, True, 8), (True, False, 1)],
)
def test_several_calls_an_answer_are_allowed_where_someone_says_so(
    setting: bool, of_the_tools: bool | None, most: int
) -> None:
    engine = ScriptedEngine()
    model = WatchkeeperChatModel(engine=engine, parallel_tool_calls=setting)
    model.bind_tools([restart], tool_choice="any", parallel_tool_calls=of_the_tools).invoke("go")
    assert asked(engine).max_calls == most


def test_several_calls_come_back_as_several_streamed_or_not() -> None:
    calls = [ToolCall("restart", {"service": name, "delay": 1}) for name in ("web", "db")]
    model, _ = scripted(calls)
    bound = model.bind_tools([restart], tool_choice="any", parallel_tool_calls=True, strict=True)
    answer = bound.invoke("restart both")
    assert [call["args"]["service"] for call in answer.tool_calls] == ["web", "db"]
    assert len({call["id"] for call in answer.tool_calls}) == 2
    whole = functools.reduce(operator.add, bound.stream("restart both"))
    assert [call["args"]["service"] for call in whole.tool_calls] == ["web", "db"]


def test_a_cache_of_answers_tells_settings_apart() -> None:
    engine = ScriptedEngine(generate=lambda request: f"at {request.temperature}")
    cache = InMemoryCache()
    for temperature in (0.0, 0.5, 0.5):
        model = WatchkeeperChatModel(engine=engine, temperature=temperature, cache=cache)
        assert model.invoke("x").text == f"at {temperature}"
    assert len(engine.requests) == 2


def test_only_the_model_that_answers_may_be_named() -> None:
    model, _ = scripted("ok")
    assert model.invoke("x", model="scripted").text == "ok"
    with pytest.raises(ValueError, match=r"'larger' is not the one that answers, which is 'scripted'"):
        model.invoke("x", model="larger")


def test_an_adapter_and_a_priority_reach_the_engine() -> None:
    engine = ScriptedEngine()
    WatchkeeperChatModel(engine=engine, adapter="site", priority=2).invoke("x")
    assert (asked(engine).adapter, asked(engine).priority) == ("site", 2)


class Counting(ScriptedEngine):
    """A script that can attend to few words."""

    context_length = 100

    def count_tokens(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        return sum(len(message.content.split()) for message in messages) + 10 * len(tools)


def talk(words: int, turns: int) -> list[BaseMessage]:
    said = " ".join(["word"] * words)
    turn: list[BaseMessage] = [HumanMessage(said), AIMessage(said)]
    return [SystemMessage("be brief"), *turn * turns, HumanMessage("and now?")]


def test_a_conversation_that_does_not_fit_is_trimmed_and_the_answer_says_so() -> None:
    engine = Counting(generate=lambda _: "ok")
    model = WatchkeeperChatModel(engine=engine, max_tokens=40)
    answer = model.invoke(talk(words=10, turns=4))
    turns = asked(engine).messages
    assert answer.response_metadata["trimmed_messages"] == 4
    assert [turn.content for turn in (turns[0], turns[1], turns[-1])] == [
        "be brief",
        "[4 earlier messages were left out here for lack of room.]",
        "and now?",
    ]
    *_, last = model.stream(talk(words=10, turns=4))
    assert last.response_metadata["trimmed_messages"] == 4
    assert "trimmed_messages" not in model.invoke("hello").response_metadata


def test_tools_and_a_schema_take_their_room() -> None:
    engine = Counting(generate=lambda _: "ok")
    model = WatchkeeperChatModel(engine=engine, max_tokens=40)
    bound = model.bind_tools([restart])
    assert bound.invoke(talk(words=10, turns=4)).response_metadata["trimmed_messages"] == 5


def test_what_cannot_be_trimmed_is_an_error_and_so_is_all_where_trimming_is_off() -> None:
    engine = Counting(generate=lambda _: "ok")
    model = WatchkeeperChatModel(engine=engine, max_tokens=40)
    with pytest.raises(PromptTooLongError, match="only 60 fit"):
        model.invoke("word " * 61)
    model.invoke(talk(words=10, turns=4), trim=False)
    assert len(asked(engine).messages) == 10


def test_a_real_engine_answers_with_several_valid_calls_and_never_with_more_than_allowed() -> None:
    # So hot that the model ends its answer as readily as it goes on.
    model = WatchkeeperChatModel(engine=LocalEngine(tiny.hosted()), max_calls=3, temperature=100.0)
    schema = {"title": "look", "description": "Look.", "type": "object", "properties": {}}
    bound = model.bind_tools([schema], tool_choice="any", parallel_tool_calls=True)
    counts = set()
    for seed in range(20):
        answer = bound.invoke("go", seed=seed)
        assert all(call["name"] == "look" and call["args"] == {} for call in answer.tool_calls)
        assert len({call["id"] for call in answer.tool_calls}) == len(answer.tool_calls)
        counts.add(len(answer.tool_calls))
    assert counts == {1, 2, 3}


def test_a_real_engine_counts_what_a_prompt_costs_and_answers_what_is_left() -> None:
    engine = LocalEngine(tiny.hosted())
    model = WatchkeeperChatModel(engine=engine, max_tokens=64)
    turns = [HumanMessage("x" * 500), AIMessage("y" * 500)]
    answer = model.invoke([SystemMessage("be brief"), *turns * 8, HumanMessage("and now?")])
    assert answer.response_metadata["trimmed_messages"] > 0
    assert answer.usage_metadata is not None
    room = engine.context_length - 64
    assert room - 550 < answer.usage_metadata["input_tokens"] <= room


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
