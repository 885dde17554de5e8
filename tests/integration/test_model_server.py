"""The server speaks OpenAI's API: its own client drives it, and its mistakes get answers it understands."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.serving import Served, serving
from watchkeeper.models.errors import (
    BudgetExceededError,
    BusyError,
    CapacityError,
    GrammarError,
    ModelError,
    PromptTooLongError,
)
from watchkeeper.models.interface import (
    Cancellation,
    Choice,
    ChoiceRequest,
    Chunk,
    Generation,
    GenerationRequest,
    Role,
    ToolCall,
    Usage,
)
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.models.server.keys import ApiKeys, add_key

RESTART = {
    "type": "function",
    "function": {
        "name": "service.restart",
        "description": "Restart a service.",
        "parameters": {
            "type": "object",
            "properties": {"service": {"type": "string", "enum": ["web", "db"]}},
            "required": ["service"],
            "additionalProperties": False,
        },
    },
}
LOOK: dict[str, Any] = {"type": "function", "function": {"name": "look"}}
ASK = [{"role": "user", "content": "restart the db"}]


class Failing(ScriptedEngine):
    """Raises what a test wants."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        raise self.error

    def choose(self, request: ChoiceRequest, *, cancel: Cancellation | None = None) -> Choice:
        raise self.error


class Slow(ScriptedEngine):
    """Says a word, and goes on only when it is cancelled or let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.cancelled = threading.Event()

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        for chunk in self.stream(request, cancel=cancel):
            if chunk.final:
                return chunk.final
        raise AssertionError

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        assert cancel is not None
        self.begun.release()
        yield Chunk("word ")
        while not self.go.wait(0.005):
            if cancel.cancelled:
                self.cancelled.set()
                yield Chunk("", Generation("word ", (), "cancelled", Usage(1, 0, 1)))
                return
        yield Chunk("end", Generation("word end", (), "stop", Usage(1, 0, 2)))


def client_of(served: Served, key: str = "unused") -> openai.OpenAI:
    return openai.OpenAI(base_url=served.url, api_key=key, max_retries=0, timeout=30)


@pytest.fixture(scope="module")
def scripted() -> ScriptedEngine:
    return ScriptedEngine(
        generate={
            "hello": "all is well",
            "restart the db": ToolCall("service.restart", {"service": "db"}, "call_7"),
            "twice": [ToolCall("service.restart", {"service": name}, name) for name in ("db", "web")],
            "report": {"cause": "disk", "sure": True},
        }
    )


@pytest.fixture(scope="module")
def served(scripted: ScriptedEngine) -> Iterator[Served]:
    with serving(scripted) as server:
        yield server


@pytest.fixture
def engine(scripted: ScriptedEngine) -> ScriptedEngine:
    scripted.requests.clear()
    return scripted


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with client_of(served) as made:
        yield made


def complete(client: openai.OpenAI, text: str = "hello", **settings: Any) -> Any:
    asked = {"model": "scripted", "messages": [{"role": "user", "content": text}], **settings}
    return client.chat.completions.create(**asked)


def refused(client: openai.OpenAI, text: str = "hello", **settings: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        complete(client, text, **settings)
    return caught.value


def test_a_text_is_answered_with_what_it_cost(client: openai.OpenAI) -> None:
    answer = complete(client)

    assert answer.choices[0].message.content == "all is well"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 4)


def test_settings_reach_the_engine(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    complete(client, stop=["\n", "end"], seed=7, temperature=0.5, max_completion_tokens=9)
    complete(client, stop="x", max_tokens=5)

    first, second = engine.requests
    assert isinstance(first, GenerationRequest)
    assert isinstance(second, GenerationRequest)
    assert (first.stop, first.seed, first.temperature, first.max_tokens) == (("\n", "end"), 7, 0.5, 9)
    assert (second.stop, second.temperature, second.max_tokens) == (("x",), 0.0, 5)


def test_a_stream_tells_the_same_piece_by_piece(client: openai.OpenAI) -> None:
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))

    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text or "" for text in said) == "all is well"
    assert len([text for text in said if text]) == 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3


def test_a_stream_holds_no_usage_unless_asked(client: openai.OpenAI) -> None:
    assert all(chunk.usage is None for chunk in complete(client, stream=True))


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "look"}}])
def test_tools_are_called_as_the_choice_says(client: openai.OpenAI, choice: Any) -> None:
    text = "look" if isinstance(choice, dict) else "restart the db"
    answer = complete(client, text, tools=[RESTART, LOOK], tool_choice=choice)

    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    if isinstance(choice, dict):
        assert (call.function.name, json.loads(call.function.arguments)) == ("look", {})
    else:
        assert (call.id, call.function.name) == ("call_7", "service.restart")
        assert json.loads(call.function.arguments) == {"service": "db"}


def test_none_forbids_calls_and_still_describes_the_tools(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    assert complete(client, tools=[RESTART], tool_choice="none").choices[0].message.content == "all is well"
    (request,) = engine.requests
    assert isinstance(request, GenerationRequest)
    assert (request.tool_choice, request.tools[0].name) == ("none", "service.restart")


def test_several_calls_come_where_parallel_ones_are_asked_for(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    answer = complete(client, "twice", tools=[RESTART], tool_choice="required", parallel_tool_calls=True)
    complete(client, "restart the db", tools=[RESTART], tool_choice="required")

    assert [call.id for call in answer.choices[0].message.tool_calls] == ["db", "web"]
    limits = [request.max_calls for request in engine.requests if isinstance(request, GenerationRequest)]
    assert limits[0] > 1
    assert limits[1] == 1


def test_a_streamed_call_is_put_together_by_the_client(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"tools": [RESTART], "tool_choice": "required", "parallel_tool_calls": True}
    with client.chat.completions.stream(
        model="scripted", messages=[{"role": "user", "content": "twice"}], **settings
    ) as stream:
        answer = stream.get_final_completion()

    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [(call.id, json.loads(call.function.arguments)["service"]) for call in calls] == [
        ("db", "db"),
        ("web", "web"),
    ]


def test_a_tool_answers_and_the_conversation_goes_on(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    first = complete(client, "restart the db", tools=[RESTART], tool_choice="required").choices[0].message
    turns = [
        {"role": "developer", "content": "Be brief."},
        *ASK,
        first.model_dump(),
        {"role": "tool", "tool_call_id": "call_7", "content": [{"type": "text", "text": "done"}]},
        {"role": "user", "content": "hello"},
    ]
    complete(client, messages=turns, tools=[RESTART], tool_choice="none")

    request = engine.requests[-1]
    roles = [message.role for message in request.messages]
    assert roles == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL, Role.USER]
    assert request.messages[2].tool_calls == (ToolCall("service.restart", {"service": "db"}, "call_7"),)
    assert (request.messages[3].content, request.messages[3].tool_call_id) == ("done", "call_7")


class Report(BaseModel):
    cause: str
    sure: bool


def test_a_pydantic_class_comes_back_filled_in(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    answer = client.chat.completions.parse(
        model="scripted", messages=[{"role": "user", "content": "report"}], response_format=Report
    )

    assert answer.choices[0].message.parsed == Report(cause="disk", sure=True)
    (request,) = engine.requests
    assert request.messages[0].role is Role.SYSTEM
    assert '"cause"' in request.messages[0].content


def test_a_json_object_may_hold_anything(client: openai.OpenAI) -> None:
    answer = complete(client, "report", response_format={"type": "json_object"})
    assert json.loads(answer.choices[0].message.content) == {"cause": "disk", "sure": True}


def test_an_answer_that_did_not_end_in_its_budget_is_cut_and_never_a_part() -> None:
    with serving(Failing(BudgetExceededError("no end"))) as served, client_of(served) as client:
        answer = complete(client, response_format={"type": "json_object"})
        streamed = list(complete(client, response_format={"type": "json_object"}, stream=True))
        with pytest.raises(openai.LengthFinishReasonError):
            client.chat.completions.parse(
                model="scripted", messages=[{"role": "user", "content": "report"}], response_format=Report
            )

    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("length", "")
    assert streamed[-1].choices[0].finish_reason == "length"


def test_models_are_listed_and_an_unknown_one_is_404(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["scripted"]
    assert client.models.retrieve("scripted").owned_by == "watchkeeper"
    with pytest.raises(openai.NotFoundError, match="there is: scripted"):
        client.models.retrieve("gpt")
    assert refused(client, model="gpt").status_code == 404
    assert refused(client, model="scripted:mine").code == "model_not_found"


def test_an_adapter_is_a_model_of_its_own() -> None:
    engine = ScriptedEngine()
    engine.adapters = ("ops",)  # type: ignore[attr-defined]  # what an engine with adapters says
    with serving(engine, name="base:8b") as served, client_of(served) as client:
        assert [model.id for model in client.models.list()] == ["base:8b", "base:8b:ops"]
        complete(client, model="base:8b:ops")
        complete(client, model="base:8b")

    assert [request.adapter for request in engine.requests] == ["ops", None]


SCHEMA = "response_format.json_schema.schema"


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
        ),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"top_p": 0.5}, "top_p"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": [""]}, "stop"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        (
            {"tools": [RESTART], "tool_choice": {"type": "function", "function": {"name": "stop"}}},
            "tool_choice.function.name",
        ),
        ({"tools": [RESTART], "response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "auto"}}]}, "tools[0].function.name"),
        (
            {"tools": [LOOK, {"type": "function", "function": {"name": "x", "parameters": {"type": "str"}}}]},
            "tools[1].function.parameters",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"enum": []}},
                }
            },
            SCHEMA,
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "a",
                        "schema": {"anyOf": [{"type": "null"}, {"properties": {"b": {"$ref": "#/$defs/c"}}}]},
                    },
                }
            },
            f"{SCHEMA}.anyOf[1].properties.b",
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, SCHEMA),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "1", "type": "function", "function": {"name": "x", "arguments": "{"}}
                        ],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_a_mistake_in_a_request_is_named_with_its_place(
    client: openai.OpenAI, engine: ScriptedEngine, settings: dict[str, Any], place: str
) -> None:
    error = refused(client, **settings)

    assert error.status_code == 400
    assert error.type == "invalid_request_error"
    assert error.param is not None
    assert error.param.startswith(place)
    assert engine.requests == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PromptTooLongError("4,100 tokens of 4,096"), 400, "context_length_exceeded"),
        (GrammarError("no grammar"), 400, "unsupported_schema"),
        (ValueError("nonsense"), 400, None),
        (CapacityError("900 tokens fit"), 429, "capacity_exceeded"),
        (BusyError("9 requests wait already"), 429, "busy"),
        (ModelError("closed"), 500, "engine"),
    ],
)
def test_what_the_engine_refuses_gets_its_own_status(error: Exception, status: int, code: str) -> None:
    with serving(Failing(error)) as served, client_of(served) as client:
        found = [refused(client)]
        with pytest.raises(openai.APIStatusError) as caught:
            list(complete(client, stream=True))
        found.append(caught.value)

    for one in found:
        assert (one.status_code, one.code) == (status, code)
        assert str(error) in one.message
    assert found[0].response.headers.get("x-should-retry") == (
        "false" if code == "capacity_exceeded" else None
    )
    assert found[0].response.headers.get("retry-after") == ("1" if code == "busy" else None)


def test_a_defect_tells_a_client_nothing_but_its_type() -> None:
    with serving(Failing(RuntimeError("the secret path"))) as served, client_of(served) as client:
        error = refused(client)

    assert error.status_code == 500
    assert "RuntimeError" in error.message
    assert "secret" not in error.message


def test_an_error_half_way_is_the_last_event_of_a_stream() -> None:
    class Broken(ScriptedEngine):
        def stream(
            self, request: GenerationRequest, *, cancel: Cancellation | None = None
        ) -> Iterator[Chunk]:
            yield Chunk("half ")
            raise ModelError("the cable was pulled")

    with serving(Broken()) as served, client_of(served) as client:
        chunks = []
        with pytest.raises(openai.APIError, match="the cable was pulled"):
            chunks.extend(complete(client, stream=True))
        with client_of(served) as another:
            assert refused(another, model="gpt").status_code == 404


def test_closed_questions_are_scored(served: Served, engine: ScriptedEngine) -> None:
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "why"}],
        "neutral": [{"role": "user", "content": "?"}],
        "neutral_weight": 0.5,
        "lead": "It is",
        "options": ["a", "b"],
    }
    answer = httpx.post(f"{served.url}/choose", json=body)

    assert [option["text"] for option in answer.json()["options"]] == ["a", "b"]
    assert sum(option["probability"] for option in answer.json()["options"]) == pytest.approx(1)
    (request,) = engine.requests
    assert isinstance(request, ChoiceRequest)
    assert (request.lead, request.neutral_weight) == ("It is", 0.5)
    assert request.neutral is not None
    assert httpx.post(f"{served.url}/choose", json={**body, "options": ["a", "a"]}).status_code == 400


def test_only_holders_of_a_key_are_answered(tmp_path: Path, engine: ScriptedEngine) -> None:
    file = tmp_path / "keys"
    mine, other = add_key(file, "mine"), add_key(file, "other")
    with serving(engine, keys=ApiKeys.read(file)) as served:
        for key in (mine, other):
            with client_of(served, key) as client:
                assert complete(client).choices
        for wrong in ("wk-wrong", mine[:-1], ApiKeys.read(file).digests["mine"]):
            with client_of(served, wrong) as client:
                assert isinstance(refused(client), openai.AuthenticationError)
        assert httpx.get(f"{served.url}/models").status_code == 401
        assert httpx.get(f"{served.root}/health").status_code == 200


def test_a_page_in_a_browser_cannot_reach_a_server_without_keys(engine: ScriptedEngine) -> None:
    body = json.dumps({"model": "scripted", "messages": ASK})
    with serving(engine, local_only=True) as served:
        url = f"{served.url}/chat/completions"
        rebound = httpx.post(
            url, content=body, headers={"host": "evil.example", "content-type": "application/json"}
        )
        simple = httpx.post(url, content=body, headers={"content-type": "text/plain"})

    assert rebound.status_code == 403
    assert simple.status_code == 415
    assert engine.requests == []


def test_what_is_no_request_gets_an_error_of_the_same_shape(served: Served) -> None:
    for answer, status in (
        (httpx.get(f"{served.root}/nowhere"), 404),
        (httpx.get(f"{served.url}/chat/completions"), 405),
        (
            httpx.post(
                f"{served.url}/chat/completions",
                content=b"{",
                headers={"content-type": "application/json"},
            ),
            400,
        ),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


def test_a_body_that_is_too_large_is_not_read(engine: ScriptedEngine) -> None:
    with serving(engine, most_bytes=1000) as served, client_of(served) as client:
        assert refused(client, "x" * 2000).status_code == 413


def test_a_client_that_leaves_ends_its_generation() -> None:
    for streamed in (True, False):
        engine = Slow()
        with serving(engine) as served:
            with client_of(served) as client:
                if streamed:
                    stream = complete(client, stream=True)
                    next(iter(stream))
                    stream.close()
                else:
                    with pytest.raises(openai.APITimeoutError):
                        complete(client.with_options(timeout=0.3))
            assert engine.cancelled.wait(10), f"streamed={streamed}"


def test_more_requests_than_may_wait_are_told_to_come_back() -> None:
    engine = Slow()
    with serving(engine, running=1, waiting=1) as served, client_of(served) as client:
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(complete(client))) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert engine.begun.acquire(timeout=10)
        while served.service.workers.waiting < 1:
            time.sleep(0.005)
        gauges = httpx.get(f"{served.root}/metrics").text
        error = refused(client)
        engine.go.set()
        for thread in threads:
            thread.join(10)

    assert error.status_code == 429
    assert error.code == "busy"
    assert error.response.headers["retry-after"] == "1"
    assert "watchkeeper_requests_running 1.0" in gauges
    assert "watchkeeper_requests_waiting 1.0" in gauges
    assert [answer.choices[0].message.content for answer in answers] == ["word end"] * 2


def test_what_was_answered_is_counted(engine: ScriptedEngine) -> None:
    with serving(engine) as served, client_of(served) as client:
        complete(client)
        refused(client, model="gpt")
        list(complete(client, stream=True))
        text = httpx.get(f"{served.root}/metrics").text

    assert 'watchkeeper_requests_total{endpoint="chat",status="200"} 2.0' in text
    assert 'watchkeeper_requests_total{endpoint="chat",status="404"} 1.0' in text
    assert 'watchkeeper_tokens_total{kind="generated"} 6.0' in text
    assert 'watchkeeper_request_seconds_count{endpoint="chat"} 3.0' in text
    assert "watchkeeper_first_piece_seconds_count 1.0" in text


def test_a_server_that_is_stopped_answers_what_it_began() -> None:
    engine = Slow()
    with serving(engine, grace=30) as served, client_of(served) as client:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(complete(client)))
        thread.start()
        assert engine.begun.acquire(timeout=10)
        served.runner.stop()
        engine.go.set()
        thread.join(10)

    assert answers[0].choices[0].message.content == "word end"


def test_a_server_that_is_stopped_ends_what_takes_too_long() -> None:
    engine = Slow()
    with serving(engine, grace=0.1) as served, client_of(served) as client:
        errors: list[openai.APIStatusError] = []
        thread = threading.Thread(target=lambda: errors.append(refused(client)))
        thread.start()
        assert engine.begun.acquire(timeout=10)
        served.runner.stop()
        thread.join(20)

    assert errors[0].status_code == 503


def test_a_server_that_is_stopped_takes_nothing_new(engine: ScriptedEngine) -> None:
    with serving(engine) as served, client_of(served) as client:
        complete(client)
        served.service.workers.refuse()

        assert refused(client).status_code == 503
        assert httpx.get(f"{served.root}/health").status_code == 503
