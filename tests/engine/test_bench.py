"""Measuring a real, tiny model of random weights: what is reported, and not how fast it is."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from tests import tiny
from watchkeeper.cli.models_bench import show
from watchkeeper.models import bandwidth, bench_requests
from watchkeeper.models.bandwidth import memory_reader, token_bytes
from watchkeeper.models.bench import QUICK, Loading, Plan, bench, measure
from watchkeeper.models.bench_plot import draw_report
from watchkeeper.models.bench_report import Report
from watchkeeper.models.bench_requests import varied_call
from watchkeeper.models.enforceable import unenforceable
from watchkeeper.models.errors import ModelError
from watchkeeper.models.interface import GenerationRequest
from watchkeeper.models.loading import load
from watchkeeper.models.schemas import fault, sample

PLAN = Plan(prompts=(128, 300, 5000), requests=(1, 3), tokens=6, calls=3, repeat=2)
SMALL = Plan(prompts=(128,), requests=(1,), tokens=2, calls=2, repeat=1)
BUFFER = 1 << 24


@pytest.fixture(scope="module")
def hosted() -> tiny.Hosted:
    return tiny.hosted()


@pytest.fixture(scope="module")
def told() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def report(hosted: tiny.Hosted, told: list[tuple[str, int, int]]) -> Iterator[Report]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth, "BUFFER", BUFFER)
        yield measure(hosted, PLAN, Loading(1.5, 1 << 20), lambda *news: told.append(news))


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free = namedtuple("Memory", "available")(bandwidth.BUFFER)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)


def test_a_report_tells_everything(report: Report) -> None:
    assert (report.model, report.quantization, report.digest) == ("tiny", "none", "0" * 64)
    assert (report.machine.device, report.machine.threads) == ("cpu", torch.get_num_threads())
    assert (report.repeat, report.load_seconds) == (2, 1.5)
    # The model attends to 4096 tokens: the longest prompt is left out.
    first, second = report.prefill
    assert 100 < first.tokens <= 128 < second.tokens <= 300
    assert [(row.requests, row.tokens <= 6 * row.requests) for row in report.decode] == [(1, True), (3, True)]
    assert report.turns.first_tokens < report.turns.later_tokens
    assert 0.7 < report.turns.reused_share < 1
    assert 0 < report.calls.forced_share < 1
    assert (report.validity.asked, report.validity.valid, report.validity.faults) == (3, 3, ())
    assert report.validity.judged_by == "jsonschema"
    assert report.choice.options == 4
    assert report.memory.loaded == 1 << 20
    assert report.memory.peak > report.memory.kept > 0


def test_the_ratios_of_a_report_are_those_of_its_times(report: Report) -> None:
    for row in report.prefill:
        assert row.tokens_per_second == pytest.approx(row.tokens / row.seconds)
    for part in report.decode:
        assert part.tokens_per_second == pytest.approx(part.tokens / part.seconds)
        assert part.each == pytest.approx(part.tokens_per_second / part.requests)
    calls, choice, gains, bound = report.calls, report.choice, report.gains, report.bound
    assert gains.prefix_reuse == pytest.approx(calls.first_seconds / calls.later_seconds)
    assert gains.fast_forward == pytest.approx(calls.stepwise_seconds / calls.careful_seconds)
    assert gains.guesses == pytest.approx(calls.careful_seconds / calls.later_seconds)
    assert gains.one_pass == pytest.approx(choice.apart_seconds / choice.later_seconds)
    assert bound.bandwidth is not None
    assert bound.tokens_per_second == pytest.approx(bound.bandwidth / bound.token_bytes)
    assert bound.decode_share == pytest.approx(report.decode[0].tokens_per_second / bound.tokens_per_second)


def test_a_report_is_the_same_after_a_journey_as_json(report: Report) -> None:
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_progress_goes_on_to_its_end(report: Report, told: list[tuple[str, int, int]]) -> None:
    stages = list(dict.fromkeys(stage.removeprefix("bench: ") for stage, _, _ in told))
    assert stages == ["warm-up", "prefill", "decode", "turns", "tool calls", "choice", "validity"]
    dones = [done for _, done, _ in told]
    assert dones == sorted(dones)
    assert {total for _, _, total in told} == {dones[-1]}


def test_a_report_is_drawn_into_pictures(report: Report, tmp_path: Path) -> None:
    drawn = draw_report(report, tmp_path / "plots")

    assert [path.name for path in drawn] == ["decode.png", "prefill.png", "tool-calls.png"]
    assert sorted(drawn) == sorted((tmp_path / "plots").iterdir())
    for path in drawn:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5_000


def test_a_report_is_shown_as_a_table(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    faulty = report.validity.model_copy(update={"valid": 2, "faults": ("disk.show: \x1b[2J is wrong",)})

    show(report.model_copy(update={"validity": faulty}))

    shown, complaint = capsys.readouterr()
    lines = {" ".join(line.split()) for line in shown.splitlines()}
    assert "valid tool calls, by jsonschema 2 of 3" in lines
    assert f"later turn, prompt reused {100 * report.turns.reused_share:.0f} %" in lines
    assert any(line.startswith("decode, 3 requests, each") for line in lines)
    assert any(line.startswith("memory bandwidth") for line in lines)
    assert complaint == "not valid: disk.show: \N{REPLACEMENT CHARACTER}[2J is wrong\n"


@pytest.mark.usefixtures("little_memory")
def test_where_too_little_memory_is_free_the_bound_is_left_out(
    hosted: tiny.Hosted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)

    report = measure(hosted, SMALL)

    bound = report.bound
    assert (bound.bandwidth, bound.tokens_per_second, bound.decode_share) == (None, None, None)
    assert bound.token_bytes == token_bytes(hosted.model)
    # Nor is there a package that validates: our own checks do.
    assert (report.validity.judged_by, report.validity.valid) == ("watchkeeper", 2)
    show(report)
    assert "memory bandwidth" not in capsys.readouterr().out
    assert Report.model_validate_json(report.model_dump_json()) == report


def too_long(number: int) -> GenerationRequest:
    """A call that cannot end within its budget, and one that is cut."""
    request = varied_call(number)
    if number:
        return dataclasses.replace(request, max_tokens=1)
    (tool,) = request.tools
    long: dict[str, Any] = {"properties": {"note": {"type": "string", "minLength": 900}}}
    parameters = {"type": "object", "required": ["note"], **long}
    return dataclasses.replace(
        request, tools=(dataclasses.replace(tool, parameters=parameters),), max_tokens=9
    )


@pytest.mark.usefixtures("little_memory")
def test_a_call_that_is_not_valid_is_counted_and_told(
    hosted: tiny.Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_requests, "varied_call", too_long)

    validity = measure(hosted, SMALL).validity

    assert (validity.asked, validity.valid, validity.cut) == (2, 1, 1)
    (said,) = validity.faults
    assert said.startswith("service.restart: the answer did not end within max_tokens=9")


def test_calls_differ_in_prompt_and_schema_and_can_be_enforced() -> None:
    requests = [varied_call(number) for number in range(Plan().calls)]
    schemas = [request.tools[0].parameters for request in requests]

    assert len({repr(schema) for schema in schemas}) == len({r.messages for r in requests}) == len(requests)
    assert {name for schema in schemas for name in schema["properties"]} >= {"labels", "window", "ports"}
    assert requests == [varied_call(number) for number in range(len(requests))]
    assert [unenforceable(schema) for schema in schemas] == [None] * len(schemas)
    for schema in schemas:
        assert fault({}, schema) is not None
        if "pattern" not in repr(schema):
            assert fault(sample(schema, random.Random(1)), schema) is None


def test_a_look_measures_less_of_everything() -> None:
    whole = Plan()
    assert set(QUICK.prompts) < set(whole.prompts)
    assert set(QUICK.requests) < set(whole.requests)
    assert QUICK.tokens < whole.tokens
    assert QUICK.calls < whole.calls
    assert QUICK.repeat < whole.repeat


@pytest.fixture(scope="module")
def folder(hosted: tiny.Hosted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    hosted.model.save_pretrained(made)
    hosted.tokenizer.save_pretrained(made)
    return made


@pytest.mark.usefixtures("little_memory")
def test_a_model_is_loaded_and_measured(folder: Path) -> None:
    report = bench(str(folder), "int8", threads=torch.get_num_threads(), plan=SMALL)

    assert (report.model, report.quantization) == (str(folder), "int8")
    assert report.load_seconds > 0
    assert report.memory.loaded > 0


def linear(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def test_a_token_reads_every_layer_once_and_one_row_of_the_embedding(hosted: tiny.Hosted) -> None:
    model, config = hosted.model, hosted.model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rotary = sum(buffer.nbytes for buffer in model.buffers())

    embedding = config.vocab_size * config.hidden_size
    assert token_bytes(model) == 4 * (parameters - embedding + config.hidden_size) + rotary


def test_tied_weights_are_read_as_the_output_layer_they_are(hosted: tiny.Hosted) -> None:
    tied = tiny.hosted().model
    tied.set_output_embeddings(nn.Linear(32, tied.config.vocab_size, bias=False))
    tied.get_output_embeddings().weight = tied.get_input_embeddings().weight

    # The row of the embedding is one of the output layer's.
    assert token_bytes(tied) == token_bytes(hosted.model) - 4 * 32


@pytest.mark.parametrize(("quantization", "bits"), [("int8", 8), ("bnb-int8", 8), ("nf4", 4)])
def test_a_quantized_weight_counts_as_wide_as_it_is_stored(
    hosted: tiny.Hosted, folder: Path, quantization: Any, bits: int
) -> None:
    layers = linear(hosted.model)
    kept = [] if quantization == "int8" else [hosted.model.lm_head]
    weights = sum(layer.weight.numel() for layer in layers if layer not in kept)
    channels = sum(layer.out_features for layer in layers if layer not in kept)
    others = token_bytes(hosted.model) - 4 * weights
    # int8 has a scale for each output channel; NF4 a byte for each 64 weights, and a few of those.
    scales = range(weights // 64, weights // 16) if bits == 4 else range(4 * channels, 4 * channels + 1)

    read = token_bytes(load(str(folder), quantization=quantization, device_map="cpu").model)

    assert read - others - weights * bits // 8 in scales


def test_memory_is_read_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "BUFFER", BUFFER)
    with memory_reader(1) as reader:
        assert reader is not None
        assert reader.read() > 0
        assert reader.read() > 0


def test_a_reader_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "BUFFER", BUFFER)
    with memory_reader(-1) as reader:
        assert reader is not None
        with pytest.raises(ModelError, match=r"could not be measured: .*positive"):
            reader.read()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with memory_reader(1) as reader:
        assert reader is not None
        with pytest.raises(ModelError, match="ended with code 1"):
            reader.read()


def test_a_memory_reader_that_fails_costs_its_own_figures_alone(
    hosted: tiny.Hosted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bandwidth, "BUFFER", -8)

    found = measure(hosted, SMALL)

    assert (found.bound.bandwidth, found.bound.decode_share) == (None, None)
    assert found.decode[0].tokens_per_second > 0
    assert "could not be measured" in caplog.text
