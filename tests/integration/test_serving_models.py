"""A hosted model behind the server answers as it does at home, and the demo runs on one."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests import tiny
from tests.serving import Served, serving
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import CancelledError, ModelError, PromptTooLongError, UnknownModelError
from watchkeeper.models.home import models_folder
from watchkeeper.models.interface import (
    Cancellation,
    ChoiceRequest,
    GenerationRequest,
    ToolSpec,
    system,
    user,
)
from watchkeeper.models.loading import load
from watchkeeper.models.remote import RemoteEngine
from watchkeeper.models.scripted import ScriptedEngine

RESTART = ToolSpec(
    "service.restart",
    "Restart a service.",
    {
        "type": "object",
        "properties": {
            "service": {"type": "string", "maxLength": 12},
            "delay_seconds": {"type": "integer", "minimum": 0, "maximum": 600},
        },
        "required": ["service", "delay_seconds"],
        "additionalProperties": False,
    },
)
LOOK = ToolSpec("look", "Look.", {"type": "object", "properties": {}, "additionalProperties": False})
NARROW = {
    **RESTART.parameters,
    "properties": {**RESTART.parameters["properties"], "service": {"enum": ["web", "db", "cache"]}},
}
TALK = (system("You watch servers."), user("The db service hangs. Restart it in 30 seconds."))
SCHEMA = {
    "type": "object",
    "properties": {"service": {"enum": ["web", "db"]}, "sure": {"type": "boolean"}},
    "required": ["service", "sure"],
    "additionalProperties": False,
}
REQUESTS = [
    GenerationRequest(TALK, max_tokens=20),
    GenerationRequest(TALK, max_tokens=20, temperature=0.8, seed=11),
    GenerationRequest(TALK, schema=SCHEMA),
    GenerationRequest(TALK, (RESTART, LOOK), "required", call_schemas={"service.restart": NARROW}),
    GenerationRequest(TALK, (RESTART, LOOK), "service.restart", call_schemas={"service.restart": NARROW}),
]
QUESTION = ChoiceRequest(
    TALK, "The service to restart is", ("web", "db", "cache"), neutral=TALK[:1], neutral_weight=0.5
)


def same_at_home_and_served(local: LocalEngine, served: Served) -> None:
    """Ask both, in the same order, and compare."""
    remote = RemoteEngine(served.url)
    try:
        for request in REQUESTS:
            here, there = local.generate(request), remote.generate(request)
            streamed = list(remote.stream(request))[-1].final
            assert (there.text, there.finish_reason) == (here.text, here.finish_reason)
            assert there.usage.prompt_tokens == here.usage.prompt_tokens
            assert there.usage.generated_tokens == here.usage.generated_tokens
            assert streamed is not None
            for calls in (there.tool_calls, streamed.tool_calls):
                assert [(call.name, call.arguments) for call in calls] == [
                    (call.name, call.arguments) for call in here.tool_calls
                ]
        here_chosen, there_chosen = local.choose(QUESTION), remote.choose(QUESTION)
        assert there_chosen.basis == "scored"
        for one, other in zip(here_chosen.options, there_chosen.options, strict=True):
            assert other.logprob == pytest.approx(one.logprob, abs=1e-3)
            assert other.probability == pytest.approx(one.probability, abs=1e-3)
    finally:
        remote.close()


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEngine]:
    engine = LocalEngine(tiny.hosted())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def served(local: LocalEngine) -> Iterator[Served]:
    with serving(local) as server:
        yield server


def test_a_hosted_model_answers_the_same_at_home_and_served(local: LocalEngine, served: Served) -> None:
    same_at_home_and_served(local, served)


def test_what_does_not_fit_is_told_with_its_code(served: Served) -> None:
    remote = RemoteEngine(served.url)
    with pytest.raises(PromptTooLongError, match="4096"):
        remote.generate(GenerationRequest((user("x" * 5000),)))
    remote.close()
    with (
        openai.OpenAI(base_url=served.url, api_key="x", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 5000}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft's own
def test_an_adapter_is_named_from_afar(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(tiny.hosted().model, config).save_pretrained(str(tmp_path))
    engine = LocalEngine(tiny.hosted())
    engine.load_adapter("ops", tmp_path)
    request = GenerationRequest(TALK, max_tokens=20)
    with serving(engine) as server:
        remote = RemoteEngine(server.url)
        plain = remote.generate(request)
        adapted = remote.generate(dataclasses.replace(request, adapter="ops"))
        chosen = remote.choose(dataclasses.replace(QUESTION, adapter="ops"))
        with openai.OpenAI(base_url=server.url, api_key="x") as client:
            listed = [model.id for model in client.models.list()]
        with pytest.raises(UnknownModelError, match="tiny:ops"):
            remote.generate(dataclasses.replace(request, adapter="dev"))
        remote.close()
    expected = engine.generate(dataclasses.replace(request, adapter="ops")).text
    expected_choice = engine.choose(dataclasses.replace(QUESTION, adapter="ops"))
    engine.close()

    assert listed == ["tiny", "tiny:ops"]
    assert adapted.text == expected != plain.text
    assert chosen.options[0].logprob == pytest.approx(expected_choice.options[0].logprob, abs=1e-3)


def test_many_clients_are_answered_together_and_one_that_leaves_disturbs_none(
    local: LocalEngine, served: Served
) -> None:
    requests = [GenerationRequest((user(f"tell {number}"),), max_tokens=24) for number in range(8)]
    expected = [local.generate(request).text for request in requests]
    remote, flag = RemoteEngine(served.url), Cancellation()
    answers: dict[int, str] = {}

    def leave() -> None:
        endless = GenerationRequest((user("tell all"),), schema={"type": "string"}, max_tokens=3000)
        with pytest.raises((CancelledError, ModelError)):
            remote.generate(endless, cancel=flag)

    def one(number: int) -> None:
        answers[number] = remote.generate(requests[number]).text

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    leaving = threading.Thread(target=leave)
    for thread in (leaving, *threads):
        thread.start()
    for thread in threads:
        thread.join(60)
    flag.cancel()
    leaving.join(60)
    remote.close()

    assert [answers[number] for number in range(8)] == expected
    while served.service.workers.running:
        time.sleep(0.01)


def test_the_demo_runs_on_a_model_that_is_served_elsewhere(tmp_path: Path) -> None:
    def killed(request: ChoiceRequest) -> int | None:
        fitting = [n for n, text in enumerate(request.options) if "was killed or stopped" in text]
        return fitting[0] if fitting else None

    engine = ScriptedEngine(choose=killed)
    with serving(engine) as server:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "watchkeeper.cli"),
                *("demo", "--approve", "yes", "--json", "--seed", "5", "--model", server.url),
            ],
            env={**os.environ, "WATCHKEEPER_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=200,
        )

    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = json.loads(done.stdout)
    assert result["state"] == "resolved"
    assert f"{server.url}#scripted" in done.stderr
    assert len(engine.requests) > 5


@pytest.mark.model
def test_the_command_serves_a_real_model_until_ctrl_c(tmp_path: Path) -> None:
    if not (models_folder() / "smollm2-135m-instruct").exists():
        pytest.skip("smollm2-135m-instruct is not pulled")
    (tmp_path / "models").symlink_to(models_folder())
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "watchkeeper.cli", "models", "serve", "smollm2-135m-instruct"),
            *("--port", "0", "--quantization", "none"),
        ],
        env={**os.environ, "WATCHKEEPER_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell inherits a Ctrl-C that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads)
    )
    assert process.stderr is not None
    said = ""
    while "served at" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    found = re.search(r"http://127\.0\.0\.1:\d+/v1", said)
    assert found is not None
    with openai.OpenAI(base_url=found[0], api_key="none") as client:
        answer = client.chat.completions.create(
            model="smollm2-135m-instruct",
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=8,
        )
        assert answer.choices[0].message.content
    assert httpx.get(found[0].removesuffix("/v1") + "/health").json()["status"] == "ok"
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "stopped" in rest
    assert "Traceback" not in said + rest


@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_real_model_answers_the_same_at_home_and_served() -> None:
    try:
        engine = LocalEngine(load("qwen2.5-coder-0.5b-instruct"))
    except ModelError as error:
        pytest.skip(str(error))
    try:
        with serving(engine) as server:
            same_at_home_and_served(engine, server)
        call = engine.generate(REQUESTS[3]).tool_calls[0]
    finally:
        engine.close()
    assert (call.name, call.arguments["service"]) == ("service.restart", "db")
