"""An engine over an endpoint: it trusts nothing that comes back, and tries again only where that helps."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving import Answer, Asked, Reset, completion, delta, flaky, serving
from watchkeeper.models import open_engine
from watchkeeper.models.endpoint import Endpoint, is_endpoint
from watchkeeper.models.errors import (
    BudgetExceededError,
    BusyError,
    CancelledError,
    CapacityError,
    GrammarError,
    InvalidReplyError,
    ModelError,
    PromptTooLongError,
    RemoteError,
    UnknownModelError,
)
from watchkeeper.models.interface import (
    Cancellation,
    ChoiceRequest,
    Chunk,
    Engine,
    Generation,
    GenerationRequest,
    Message,
    Role,
    ToolCall,
    ToolSpec,
    Usage,
    assistant,
    user,
)
from watchkeeper.models.remote import RemoteEngine, _read_choice
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.models.wire import Retries, Timeouts

QUICK = Retries(attempts=4, first_seconds=0.01, longest_seconds=0.5)
RESTART = ToolSpec(
    "service.restart",
    "Restart a service.",
    {
        "type": "object",
        "properties": {"service": {"type": "string"}, "wait": {"type": "integer"}},
        "required": ["service"],
        "additionalProperties": False,
    },
)
NARROW = {
    **RESTART.parameters,
    "properties": {"service": {"enum": ["web", "db"]}, "wait": {"type": "integer"}},
}
CALL = GenerationRequest(
    (user("restart it"),), (RESTART,), "required", call_schemas={"service.restart": NARROW}
)
TEXT = GenerationRequest((user("hello"),))
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
VALUE = GenerationRequest((user("a number"),), schema=SCHEMA)
QUESTION = ChoiceRequest(
    (user("the disk is full"),), "The cause is", ("a full disk", "a dead process", "bad DNS")
)


def engine_of(url: str, **options: Any) -> RemoteEngine:
    return RemoteEngine(url, **{"retries": QUICK, **options})


def ask(script: Any, request: GenerationRequest, **options: Any) -> Generation:
    """Ask a scripted endpoint."""
    with flaky(script) as server:
        engine = engine_of(server.url, **options)
        try:
            return engine.generate(request)
        finally:
            engine.close()


def always(body: Any, **more: Any) -> Any:
    return lambda asked, number: Answer(body, **more)


# --- the same answers as the engine behind our own server


def both(script: Any) -> Iterator[tuple[ScriptedEngine, RemoteEngine]]:
    served = ScriptedEngine(**script)
    with serving(served) as server:
        remote = engine_of(server.url)
        yield served, remote
        remote.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[ScriptedEngine, RemoteEngine]]:
    calls = [ToolCall("service.restart", {"service": name}, f"id-{name}") for name in ("web", "db")]
    yield from both(
        {
            "generate": {
                "hello": "is\u2028é 漢",
                "both": calls,
                "restart it": calls[0],
                "a number": {"n": 5},
            },
            "choose": {"disk": [0.2, 0.0, 0.8]},
        }
    )


REQUESTS = [
    TEXT,
    CALL,
    VALUE,
    GenerationRequest((user("restart it"),), (RESTART,), "auto", max_tokens=9, temperature=0.4, seed=3),
    GenerationRequest((user("restart it"),), (RESTART,), "service.restart", stop=("x", "y"), priority=5),
    GenerationRequest((user("both of them"),), (RESTART,), "required", max_calls=2),
    GenerationRequest(
        (
            Message(Role.SYSTEM, "You are brief."),
            user("restart it"),
            assistant("", [ToolCall("service.restart", {"service": "web"}, "c1")]),
            Message(Role.TOOL, "done", tool_call_id="c1"),
            user("hello"),
        ),
        (RESTART,),
        "none",
    ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_our_own_server_is_asked_the_very_same_and_answers_the_very_same(
    pair: tuple[ScriptedEngine, RemoteEngine], request_: GenerationRequest
) -> None:
    served, remote = pair
    answer = remote.generate(request_)

    assert served.requests[-1] == request_
    expected = served.generate(request_)
    assert (answer.text, answer.tool_calls) == (expected.text, expected.tool_calls)
    assert answer.finish_reason == expected.finish_reason
    assert answer.usage.generated_tokens == expected.usage.generated_tokens


@pytest.mark.parametrize("request_", [TEXT, CALL, VALUE], ids=["text", "call", "value"])
def test_a_stream_ends_with_the_same_whole(
    pair: tuple[ScriptedEngine, RemoteEngine], request_: GenerationRequest
) -> None:
    served, remote = pair
    chunks = list(remote.stream(request_))
    expected = served.generate(request_)

    assert "".join(chunk.text for chunk in chunks) == expected.text
    final = chunks[-1].final
    assert final is not None
    assert (final.text, final.tool_calls) == (expected.text, expected.tool_calls)
    assert final.usage.prompt_tokens == expected.usage.prompt_tokens


def test_our_own_server_scores_the_options_themselves(pair: tuple[ScriptedEngine, RemoteEngine]) -> None:
    served, remote = pair
    choice = remote.choose(QUESTION)

    assert choice.basis == "scored"
    assert [option.probability for option in choice.options] == [0.2, 0.0, 0.8]
    assert choice.options[1].logprob == -math.inf
    assert served.requests[-1] == QUESTION


def test_it_is_an_engine_that_names_its_address(pair: tuple[ScriptedEngine, RemoteEngine]) -> None:
    _, remote = pair
    identity = remote.identity

    assert isinstance(remote, Engine)
    assert identity.id.endswith("/v1#scripted")
    assert identity.digest == Endpoint.parse(identity.id).digest("scripted")
    assert identity.digest != Endpoint.parse("http://127.0.0.1:1/v1").digest("scripted")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PromptTooLongError("too long"), PromptTooLongError),
        (CapacityError("does not fit"), CapacityError),
        (BusyError("too many wait"), BusyError),
        (GrammarError("no grammar"), GrammarError),
        (BudgetExceededError("no end"), BudgetExceededError),
        (ModelError("broken"), RemoteError),
    ],
)
def test_the_errors_of_the_engine_there_are_raised_here(error: Exception, kind: type[Exception]) -> None:
    class Failing(ScriptedEngine):
        asked = 0

        def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
            self.asked += 1
            raise error

    served = Failing()
    with serving(served) as server:
        remote = engine_of(server.url)
        with pytest.raises(kind):
            remote.generate(CALL)
        with pytest.raises(kind):
            list(remote.stream(CALL))
        remote.close()
    assert served.asked == 2


def test_what_contradicts_itself_is_refused_before_anything_is_sent() -> None:
    with flaky(always(completion("x"))) as server:
        engine = engine_of(server.url)
        with pytest.raises(GrammarError):
            engine.generate(GenerationRequest((user("x"),), tool_choice="required"))
        with pytest.raises(ValueError, match="max_tokens"):
            engine.stream(GenerationRequest((user("x"),), max_tokens=0))
        with pytest.raises(ValueError, match="option"):
            engine.choose(ChoiceRequest((user("x"),), "", ("a", "a")))
        engine.close()
        assert server.asked == []


# --- what other servers are told


def test_another_server_is_shown_the_narrowed_schema_under_a_name_it_can_take() -> None:
    history = (user("x"), assistant("", [ToolCall("service.restart", {"service": "web"})]))
    turns = (*history, Message(Role.TOOL, "done"), user("again"))
    request = GenerationRequest(turns, (RESTART,), "service.restart", CALL.schema, CALL.call_schemas)
    reply = completion(calls=[("service_restart", '{"service": "db"}')], finish="tool_calls")
    with flaky(always(reply)) as server:
        engine = engine_of(server.url)
        answer = engine.generate(request)
        engine.close()
        body = server.chats[0].body

    assert answer.tool_calls == (ToolCall("service.restart", {"service": "db"}, "c0"),)
    assert body["tools"][0]["function"]["name"] == "service_restart"
    assert body["tools"][0]["function"]["parameters"] == NARROW
    assert body["tool_choice"]["function"]["name"] == "service_restart"
    sent = body["messages"][1]["tool_calls"][0]
    assert sent["function"]["name"] == "service_restart"
    assert body["messages"][2]["tool_call_id"] == sent["id"] != ""
    assert "watchkeeper" not in body


def test_two_tools_never_share_a_name_on_the_wire() -> None:
    tools = tuple(ToolSpec(name, "", {"type": "object"}) for name in ("a.b", "a_b", "a/b"))
    with flaky(always(completion(calls=[("a_b_2", "{}")]))) as server:
        engine = engine_of(server.url)
        answer = engine.generate(GenerationRequest((user("x"),), tools, "required"))
        engine.close()
        sent = [tool["function"]["name"] for tool in server.chats[0].body["tools"]]

    assert sent == ["a_b_2", "a_b", "a_b_3"]
    assert answer.tool_calls[0].name == "a.b"


def test_tokens_are_estimated_where_an_endpoint_counts_none() -> None:
    answer = ask(always(completion("x" * 30)), TEXT)
    assert answer.usage.generated_tokens >= 8


# --- replies that no grammar of ours would have let pass


@pytest.mark.parametrize(
    ("request_", "reply", "reason"),
    [
        (CALL, completion(calls=[("service_restart", '{"service": "mail"}')]), "must be one of"),
        (CALL, completion(calls=[("service_restart", '{"service": "db", "x": 1}')]), "not allowed"),
        (CALL, completion(calls=[("service_restart", '{"service": "db"')]), "no JSON"),
        (CALL, completion(calls=[("service_restart", '["db"]')]), "no JSON object"),
        (CALL, completion(calls=[("service_restart", '{"service": "db", "wait": NaN}')]), "NaN"),
        (CALL, completion(calls=[("service_stop", "{}")]), "none of: service.restart"),
        (CALL, completion("I restarted it."), "a text came"),
        (CALL, completion(calls=[("service_restart", '{"service": "db"}')] * 2), "2 calls came"),
        (TEXT, completion(calls=[("service_restart", '{"service": "db"}')]), "none of: nothing"),
        (VALUE, completion('{"n": 2}'), "too small"),
        (VALUE, completion('Sure: {"n": 5}'), "no JSON"),
        (VALUE, completion('{"n": Infinity}'), "Infinity"),
        (TEXT, completion("no", finish="content_filter"), "content_filter"),
        (TEXT, {"choices": []}, "no choices"),
        (TEXT, {"object": "error"}, "no choices"),
        (TEXT, ["x"], "no JSON object"),
        (TEXT, {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}, "no text"),
        (TEXT, b"<html>", "no JSON"),
    ],
)
def test_a_reply_that_the_request_does_not_allow_is_an_error(
    request_: GenerationRequest, reply: Any, reason: str
) -> None:
    with pytest.raises(InvalidReplyError, match=reason):
        ask(always(reply), request_)


@pytest.mark.parametrize("request_", [CALL, VALUE], ids=["call", "value"])
def test_a_constrained_answer_that_was_cut_is_an_error_and_a_text_is_not(request_: GenerationRequest) -> None:
    with pytest.raises(BudgetExceededError):
        ask(always(completion('{"n"', finish="length")), request_)
    assert ask(always(completion("half a sen", finish="length")), TEXT).finish_reason == "length"


# --- faults on the way


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_endpoint_is_asked_again(status: int) -> None:
    def script(asked: Asked, number: int) -> Answer:
        return Answer({"error": {"message": "busy"}}, status) if number < 2 else Answer(completion("ok"))

    assert ask(script, TEXT).text == "ok"


def test_a_reset_connection_and_half_a_body_are_asked_again() -> None:
    def script(asked: Asked, number: int) -> Answer | Reset:
        return [Reset(), Answer(completion("x" * 500), whole=False), Answer(completion("ok"))][number]

    assert ask(script, TEXT).text == "ok"


def test_the_endpoint_says_how_long_to_wait() -> None:
    times: list[float] = []

    def script(asked: Asked, number: int) -> Answer:
        times.append(time.monotonic())
        busy = Answer({"error": {"message": "busy"}}, 429, {"retry-after": "0.3"})
        return busy if number == 0 else Answer(completion("ok"))

    assert ask(script, TEXT).text == "ok"
    assert times[1] - times[0] >= 0.3


def test_an_endpoint_that_asks_for_too_long_is_given_up() -> None:
    asked: list[int] = []

    def script(one: Asked, number: int) -> Answer:
        asked.append(number)
        return Answer({"error": {"message": "come back tomorrow"}}, 503, {"retry-after": "86400"})

    with pytest.raises(RemoteError, match="come back tomorrow"):
        ask(script, TEXT)
    assert asked == [0]


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_what_will_not_pass_is_asked_once(status: int) -> None:
    asked: list[int] = []

    def script(one: Asked, number: int) -> Answer:
        asked.append(number)
        return Answer({"error": {"message": "never"}}, status)

    with pytest.raises(RemoteError, match="never"):
        ask(script, TEXT)
    assert asked == [0]


def test_attempts_are_bounded() -> None:
    asked: list[int] = []

    def script(one: Asked, number: int) -> Reset:
        asked.append(number)
        return Reset()

    with pytest.raises(RemoteError, match="broke"):
        ask(script, TEXT)
    assert len(asked) == QUICK.attempts


def test_pauses_double_within_their_bound_and_differ() -> None:
    import random

    retries = Retries(attempts=9, first_seconds=1, longest_seconds=10)
    rng = random.Random(1)
    drawn = [[retries.pause(attempt, None, rng) or 0.0 for _ in range(200)] for attempt in (1, 3, 8)]

    assert [max(pauses) <= bound for pauses, bound in zip(drawn, (1, 4, 10), strict=True)] == [True] * 3
    assert max(drawn[1]) > 3
    assert len(set(drawn[0])) > 100
    assert retries.pause(9, None, rng) is None


def test_nobody_there_is_said_with_the_address() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    engine = engine_of(f"http://127.0.0.1:{port}")
    with pytest.raises(RemoteError, match=rf"127\.0\.0\.1:{port}.*is it running"):
        engine.generate(TEXT)
    engine.close()


def test_an_endpoint_that_says_nothing_is_given_up_and_not_asked_again() -> None:
    release = threading.Event()
    asked: list[int] = []

    def script(one: Asked, number: int) -> Answer:
        asked.append(number)
        release.wait(10)
        return Answer(completion("late"))

    with flaky(script) as server:
        engine = engine_of(server.url, timeouts=Timeouts(read=0.3))
        with pytest.raises(RemoteError, match=r"said nothing for 0\.3 s"):
            engine.generate(TEXT)
        engine.close()
        release.set()
    assert asked == [0]


def test_a_key_is_sent_and_never_shown() -> None:
    key = "wk-very-secret"

    def script(asked: Asked, number: int) -> Answer:
        return Answer({"error": {"message": f"the key {key} is wrong"}}, 401)

    with flaky(script) as server:
        engine = engine_of(server.url, api_key=key)
        with pytest.raises(RemoteError, match="WATCHKEEPER_MODEL_API_KEY") as caught:
            engine.generate(TEXT)
        engine.close()
        assert server.chats[0].headers["authorization"] == f"Bearer {key}"
    assert key not in str(caught.value)
    assert key not in repr(engine)


# --- streams


def pieces(engine: RemoteEngine, request: GenerationRequest) -> list[Chunk]:
    return list(engine.stream(request))


def test_a_streamed_call_comes_in_pieces_and_is_checked_whole() -> None:
    def call(arguments: str, **more: Any) -> dict[str, Any]:
        return delta(tool_calls=[{"index": 0, **more, "function": {"arguments": arguments}}])

    first = delta(
        tool_calls=[{"index": 0, "id": "c9", "function": {"name": "service_restart", "arguments": '{"ser'}}]
    )
    for end, valid in (('vice": "db"}', True), ('vice": "mail"}', False)):
        script = always(None, stream=[first, call(end), delta("tool_calls"), "[DONE]"])
        with flaky(script) as server:
            engine = engine_of(server.url)
            if valid:
                final = pieces(engine, CALL)[-1].final
                assert final is not None
                assert final.tool_calls == (ToolCall("service.restart", {"service": "db"}, "c9"),)
            else:
                with pytest.raises(InvalidReplyError, match="must be one of"):
                    pieces(engine, CALL)
            engine.close()


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([delta(content="half "), delta(content="a")], "broke off its answer after 2 pieces"),
        ([delta(content="half "), "[DONE]"], "without a finish_reason"),
        ([delta(content="half "), {"error": {"message": "out of memory"}}], "out of memory"),
        ([delta(content="half "), "{not json"], "no JSON object"),
    ],
)
def test_half_a_stream_is_no_answer_and_is_not_asked_for_again(events: list[Any], reason: str) -> None:
    with flaky(always(None, stream=events)) as server:
        engine = engine_of(server.url)
        seen: list[str] = []
        with pytest.raises(RemoteError, match=reason):
            seen.extend(chunk.text for chunk in engine.stream(TEXT))
        engine.close()
        assert len(server.chats) == 1


def test_a_stream_that_never_began_is_asked_for_again() -> None:
    def script(asked: Asked, number: int) -> Answer | Reset:
        if number == 0:
            return Reset()
        if number == 1:
            return Answer(None, 503)
        return Answer(stream=[delta(content="o"), delta(content="k"), delta("stop"), "[DONE]"])

    with flaky(script) as server:
        engine = engine_of(server.url)
        final = pieces(engine, TEXT)[-1].final
        engine.close()
    assert final is not None
    assert final.text == "ok"


class Slow(ScriptedEngine):
    """Says a word and goes on until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        assert cancel is not None
        yield Chunk("word ")
        self.begun.set()
        while not cancel.cancelled:
            time.sleep(0.005)
        self.cancelled.set()
        yield Chunk("", Generation("word ", (), "cancelled", Usage()))

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        *_, last = self.stream(request, cancel=cancel)
        assert last.final is not None
        return last.final


@pytest.mark.parametrize("way", ["generate", "stream", "leave"])
def test_a_cancelled_request_ends_at_the_other_end_too(way: str) -> None:
    served, flag = Slow(), Cancellation()
    with serving(served) as server:
        engine = engine_of(server.url)
        if way == "generate":
            threading.Thread(target=lambda: (served.begun.wait(10), flag.cancel())).start()
            assert engine.generate(TEXT, cancel=flag).finish_reason == "cancelled"
        else:
            chunks = engine.stream(TEXT, cancel=flag)
            assert next(chunks).text == "word "
            if way == "leave":
                chunks.close()  # type: ignore[attr-defined]  # it is a generator
            else:
                flag.cancel()
                final = list(chunks)[-1].final
                assert final is not None
                assert (final.text, final.finish_reason) == ("word ", "cancelled")
        assert served.cancelled.wait(10)
        with pytest.raises(CancelledError):
            engine.generate(CALL, cancel=_raised())
        engine.close()


def _raised() -> Cancellation:
    flag = Cancellation()
    flag.cancel()
    return flag


def test_closing_ends_what_waits() -> None:
    served = Slow()
    failures: list[BaseException] = []

    def wait_for_it() -> None:
        try:
            engine.generate(TEXT)
        except ModelError as error:
            failures.append(error)

    with serving(served) as server:
        engine = engine_of(server.url)
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        assert served.begun.wait(10)
        engine.close()
        thread.join(10)
    assert "closed" in str(failures[0])
    with pytest.raises(ModelError, match="closed"):
        engine.generate(TEXT)


def test_many_threads_share_one_engine() -> None:
    with serving(ScriptedEngine(generate=lambda request: request.messages[0].content)) as server:
        engine = engine_of(server.url)
        answers: dict[int, str] = {}

        def one(number: int) -> None:
            answers[number] = engine.generate(GenerationRequest((user(f"say {number}"),))).text

        threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        engine.close()
    assert answers == {number: f"say {number}" for number in range(24)}


# --- closed questions for servers that cannot score


def told(answer: str, tokens: list[tuple[str, float, dict[str, float]]]) -> dict[str, Any]:
    """A reply with the log-probabilities of its tokens."""
    content = [
        {
            "token": token,
            "logprob": math.log(share),
            "top_logprobs": [
                {"token": t, "logprob": math.log(p)} for t, p in {token: share, **other}.items()
            ],
        }
        for token, share, other in tokens
    ]
    return completion(json.dumps({"answer": answer}), logprobs={"content": content})


def derive(reply: Any, question: ChoiceRequest = QUESTION) -> Any:
    with flaky(reply if callable(reply) else always(reply)) as server:
        engine = engine_of(server.url)
        try:
            return engine.choose(question)
        finally:
            engine.close()


def test_shares_are_derived_from_where_the_options_part() -> None:
    tokens = [
        ('{"', 1.0, {}),
        ("answer", 1.0, {}),
        ('": "', 1.0, {}),
        ("a", 0.9, {"bad": 0.1}),
        (" dead", 0.75, {" full": 0.2, " f": 0.05}),
        (" process", 0.9, {}),
        ('"}', 1.0, {}),
    ]
    choice = derive(told("a dead process", tokens))

    assert choice.basis == "derived"
    assert choice.best == 1
    shares = [option.probability for option in choice.options]
    assert shares == pytest.approx([0.9 * 0.25, 0.9 * 0.75, 0.1])


def test_options_that_begin_with_one_another_are_told_apart_by_their_end() -> None:
    question = ChoiceRequest((user("?"),), "", ("disk", "disk full"))
    tokens = [('{"answer": "', 1.0, {}), ("disk", 1.0, {}), ('"}', 0.7, {" full": 0.3})]

    assert [option.probability for option in derive(told("disk", tokens), question).options] == (
        pytest.approx([0.7, 0.3])
    )


def test_what_is_out_of_sight_never_makes_an_answer_surer() -> None:
    question = ChoiceRequest((user("?"),), "", ("disk", "network"))
    tokens = [('{"answer": "', 1.0, {}), ("disk", 0.9, {"x": 0.06, "y": 0.04}), ('"}', 1.0, {})]
    choice = derive(told("disk", tokens), question)

    assert choice.options[1].probability == pytest.approx(0.04 / 0.94)


def test_the_neutral_conversation_is_taken_off() -> None:
    def script(asked: Asked, number: int) -> Answer:
        share = 0.5 if "evidence" in asked.body["messages"][-1]["content"] else 0.2
        return Answer(
            told("disk", [('{"answer": "', 1.0, {}), ("disk", share, {"net": 1 - share}), ('"}', 1.0, {})])
        )

    question = ChoiceRequest((user("evidence"),), "", ("disk", "net"), (user("nothing"),))
    shares = [option.probability for option in derive(script, question).options]

    assert shares == pytest.approx([0.8, 0.2])


def test_without_log_probabilities_only_the_answer_is_known_and_that_is_said() -> None:
    choice = derive(completion('{"answer": "bad DNS"}'))

    assert choice.basis == "unknown"
    assert choice.best == 2
    assert max(option.probability for option in choice.options) < 0.34
    assert sum(option.probability for option in choice.options) == pytest.approx(1)


def test_a_server_that_refuses_log_probabilities_is_asked_without() -> None:
    def script(asked: Asked, number: int) -> Answer:
        if "logprobs" in asked.body:
            return Answer({"error": {"message": "logprobs are not supported"}}, 400)
        return Answer(completion('{"answer": "bad DNS"}'))

    assert derive(script).best == 2


def test_the_options_are_all_that_another_server_may_answer() -> None:
    with flaky(always(completion('{"answer": "bad DNS"}'))) as server:
        engine = engine_of(server.url)
        engine.choose(QUESTION)
        engine.close()
        body = server.chats[0].body

    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"]["enum"] == list(QUESTION.options)
    assert "The cause is" in body["messages"][-1]["content"]
    with pytest.raises(InvalidReplyError, match="none of the options"):
        derive(completion('{"answer": "gremlins"}'))


# --- addresses


def test_an_address_without_a_path_means_v1_and_its_fragment_the_model() -> None:
    assert Endpoint.parse("http://host:8000/#m/x") == Endpoint("http://host:8000/v1", "m/x")
    assert Endpoint.parse("https://host/api/v3/") == Endpoint("https://host/api/v3")
    assert Endpoint.parse("http://[::1]:1") == Endpoint("http://[::1]:1/v1")
    assert is_endpoint("HTTP://host")
    assert not is_endpoint("httpd")


@pytest.mark.parametrize("text", ["http://", "http://host:port", "http://host/v1?key=x", "http://host:99999"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(UnknownModelError, match="no address"):
        Endpoint.parse(text)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UnknownModelError, match="API key") as caught:
        Endpoint.parse("http://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


def test_the_only_model_is_taken_and_of_several_one_must_be_named() -> None:
    several = {"data": [{"id": "a"}, {"id": "b"}, {"id": "lora", "parent": "a"}]}
    with flaky(always(completion("ok")), models=several) as server:
        for url, known in ((server.url, "a, b"), (f"{server.url}#c", "a, b")):
            engine = engine_of(url)
            with pytest.raises(UnknownModelError, match=known):
                engine.generate(TEXT)
            engine.close()
        engine = engine_of(f"{server.url}#b")
        engine.generate(TEXT)
        engine.close()
        assert server.chats[0].body["model"] == "b"


def test_an_address_opens_like_any_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_MODEL_API_KEY", "wk-env")
    with flaky(always(completion("ok"))) as server:
        engine = open_engine(server.url)
        assert engine.generate(TEXT).text == "ok"
        engine.close()
        assert server.chats[0].headers["authorization"] == "Bearer wk-env"


@pytest.mark.parametrize(
    ("said", "kept"), [(None, ""), ("", ""), ("a" * 64, "a" * 64), ("A" * 64, None), ("x", None), (7, None)]
)
def test_a_calibration_that_an_endpoint_names_is_a_digest(said: object, kept: str | None) -> None:
    value = {"options": [{"text": "a", "logprob": -1.0, "probability": 1.0}], "calibration": said}

    if kept is not None:
        assert _read_choice(value, ["a"], 0.0).calibration == kept
    else:
        with pytest.raises(InvalidReplyError, match="no digest"):
            _read_choice(value, ["a"], 0.0)
