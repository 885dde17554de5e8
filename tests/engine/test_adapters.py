"""Adapters ride along in a pass: what peft computes, for their rows alone, over any kind of layer."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests import tiny
from watchkeeper.models.adapter_files import linear_layers
from watchkeeper.models.adapters import AdapterBank
from watchkeeper.models.errors import AdapterError

# peft's own use of a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

IDS = torch.arange(40, 52)[None]
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make(folder: Path, seed: int = 1, **settings: Any) -> Path:
    """Let peft write an adapter with random weights, so that it changes something."""
    torch.manual_seed(seed)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": EVERY, "init_lora_weights": False, **settings}
    )
    get_peft_model(tiny.hosted().model, config).save_pretrained(str(folder))
    return folder


def change(folder: Path, copy: Path, **settings: Any) -> Path:
    """An adapter with other settings in its configuration."""
    shutil.copytree(folder, copy)
    path = copy / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return copy


def by_peft(folder: Path) -> Any:
    return PeftModel.from_pretrained(tiny.hosted().model, str(folder)).eval()


@pytest.fixture
def model() -> Any:
    return tiny.hosted().model.eval()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("second"), 2, r=2, target_modules=["q_proj", "down_proj"])


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6}, "alpha_pattern": {"down_proj": 32}},
        {"target_modules": r".*\.1\.self_attn\.(q|v)_proj"},
        {"target_modules": ["v_proj"], "layers_to_transform": [0]},
        {"target_modules": "all-linear"},
        {"exclude_modules": ["up_proj"]},
    ],
    ids=str,
)
def test_an_adapter_gives_what_peft_gives(tmp_path: Path, model: Any, settings: dict[str, Any]) -> None:
    folder = make(tmp_path / "adapter", **settings)
    bank = AdapterBank(model)
    bank.load("site", folder)

    with bank.active([(slice(0, IDS.shape[1]), "site")]):
        logits = model(IDS).logits

    assert not torch.allclose(logits, model(IDS).logits, atol=1e-2)
    torch.testing.assert_close(logits, by_peft(folder)(IDS).logits, atol=1e-5, rtol=1e-5)


def packed(model: Any, sequences: list[torch.Tensor]) -> torch.Tensor:
    """Logits of several sequences in one pass of shape (1, tokens), none of which sees another."""
    lengths = [len(sequence) for sequence in sequences]
    blocks = [torch.ones(length, length, dtype=torch.bool).tril() for length in lengths]
    logits: torch.Tensor = model(
        torch.cat(sequences)[None],
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        attention_mask=torch.block_diag(*blocks).bool()[None, None],
    ).logits
    return logits


def test_one_pass_serves_several_adapters_and_the_base_model(model: Any, first: Path, second: Path) -> None:
    bank = AdapterBank(model)
    bank.load("first", first)
    bank.load("second", second)
    parts = list(IDS[0].split([3, 2, 3, 1, 3]))
    owners = ["first", None, "second", None, "first"]
    stops = [3, 5, 8, 9, 12]
    rows = [
        (slice(stop - len(part), stop), owner)
        for part, owner, stop in zip(parts, owners, stops, strict=True)
        if owner
    ]

    with bank.active(rows[::-1]):
        mixed = packed(model, parts)
    plain = packed(model, parts)
    # peft, with the same adapter for all rows: no row sees those of another owner.
    theirs = {"first": packed(by_peft(first), parts), "second": packed(by_peft(second), parts)}

    for part, owner, stop in zip(parts, owners, stops, strict=True):
        found = mixed[:, stop - len(part) : stop]
        if owner is None:
            assert torch.equal(found, plain[:, stop - len(part) : stop])
        else:
            expected = theirs[owner][:, stop - len(part) : stop]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_after_a_pass_and_after_unloading_the_model_is_the_base_model(model: Any, first: Path) -> None:
    before = model(IDS).logits
    bank = AdapterBank(model)
    bank.load("site", first)
    with bank.active([(slice(0, 12), "site")]):
        model(IDS)

    assert torch.equal(model(IDS).logits, before)
    with bank.active([]):
        assert torch.equal(model(IDS).logits, before)
    bank.unload("site")
    assert torch.equal(model(IDS).logits, before)
    assert not any(module._forward_hooks for module in model.modules())
    assert (bank.names(), bank.nbytes) == ((), 0)


def test_the_rows_of_one_thread_are_no_matter_to_another(model: Any, first: Path) -> None:
    bank = AdapterBank(model)
    bank.load("site", first)
    plain = model(IDS).logits
    seen: list[torch.Tensor] = []

    def elsewhere() -> None:
        with torch.inference_mode():
            seen.append(model(IDS).logits)

    with bank.active([(slice(0, 12), "site")]):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        model(IDS)

    assert torch.equal(seen[0], plain)


def test_what_is_loaded_is_counted_and_identified(model: Any, first: Path, second: Path) -> None:
    bank = AdapterBank(model)
    bank.load("b", first)
    bank.load("a", second)

    assert bank.names() == ("a", "b")
    stored = sum((folder / "adapter_model.safetensors").stat().st_size for folder in (first, second))
    assert stored - 8000 < bank.nbytes < stored
    assert bank.digest("a") != bank.digest("b")
    other = AdapterBank(model)
    other.load("c", second)
    assert other.digest("c") == bank.digest("a")


def quantized(kind: str, tmp_path: Path) -> Any:
    if kind == "int8":
        from watchkeeper.models.int8_model import load_int8

        tiny.hosted().model.save_pretrained(tmp_path)
        return load_int8(tmp_path, None)
    import bitsandbytes as bnb

    model = tiny.hosted().model.eval()
    for name, layer in linear_layers(model).items():
        if kind == "bnb-int8":
            replaced = bnb.nn.Linear8bitLt(
                layer.in_features, layer.out_features, bias=False, has_fp16_weights=False
            )
            replaced.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False)
        else:
            replaced = bnb.nn.LinearNF4(
                layer.in_features, layer.out_features, bias=False, compute_dtype=torch.float32
            )
            replaced.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, replaced.to("cpu"))
    return model


@pytest.mark.parametrize("kind", ["int8", "bnb-int8", "nf4"])
def test_adapters_ride_on_quantized_layers(kind: str, tmp_path: Path, first: Path) -> None:
    """Each layer gives its own result plus the adapter's, computed here from the files."""
    from safetensors.torch import load_file

    model = quantized(kind, tmp_path / "model")
    stored = load_file(first / "adapter_model.safetensors")
    bank = AdapterBank(model)
    bank.load("site", first)
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}

    def watch(name: str, before: dict[str, Any], after: dict[str, Any]) -> Any:
        def hook(_: Any, given: Any, result: torch.Tensor) -> None:
            before[name], after[name] = given[0], result

        return hook

    layers = {
        name: layer
        for name, layer in linear_layers(model).items()
        if f"base_model.model.{name}.lora_A.weight" in stored
    }
    assert len(layers) == len(stored) / 2
    handles = [layer.register_forward_hook(watch(name, inputs, outputs)) for name, layer in layers.items()]
    with bank.active([(slice(4, 9), "site")]):
        mixed = model(IDS).logits
    for handle in handles:
        handle.remove()

    assert torch.equal(mixed[:, :4], model(IDS).logits[:, :4])
    for name, layer in layers.items():
        down, up = (stored[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        expected = layer(inputs[name])
        expected[:, 4:9] += 2.0 * (inputs[name][:, 4:9] @ down.T @ up.T)
        torch.testing.assert_close(outputs[name], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"init_lora_weights": "pissa"}, "changed base model"),
        ({"target_modules": ["query"]}, "targets 'query'"),
        ({"target_modules": ["q_proj", "lm_head"]}, "targets 'lm_head'"),
        ({"target_modules": "("}, "broken pattern"),
        ({"target_modules": ["q_proj"]}, "which its configuration does not name"),
        ({"r": 3}, "the adapter is for another model"),
        ({"r": "large"}, "no positive number"),
        ({"lora_alpha": None}, "no number"),
        ({"lora_from_the_future": 7}, "sets 'lora_from_the_future'"),
    ],
    ids=str,
)
def test_an_adapter_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, model: Any, first: Path, settings: dict[str, Any], said: str
) -> None:
    bank = AdapterBank(model)
    with pytest.raises(AdapterError, match="adapter") as refused:
        bank.load("site", change(first, tmp_path / "adapter", **settings))

    assert said in str(refused.value)
    assert bank.names() == ()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_setting_of_a_newer_peft_that_is_off_is_no_obstacle(
    tmp_path: Path, model: Any, first: Path
) -> None:
    AdapterBank(model).load("site", change(first, tmp_path / "adapter", lora_from_the_future=None))


def test_files_that_are_no_adapter_are_refused(tmp_path: Path, model: Any, first: Path) -> None:
    bank = AdapterBank(model)
    pickled = change(first, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").unlink()
    torch.save({}, pickled / "adapter_model.bin")
    disguised = change(first, tmp_path / "disguised")
    torch.save({}, disguised / "adapter_model.safetensors")
    cut = change(first, tmp_path / "cut")
    weights = (cut / "adapter_model.safetensors").read_bytes()
    (cut / "adapter_model.safetensors").write_bytes(weights[:-100])
    broken = change(first, tmp_path / "broken")
    (broken / "adapter_config.json").write_text("{")
    (tmp_path / "empty").mkdir()

    for folder, said in {
        pickled: "only adapter_model.bin: pickles",
        disguised: "is a pickle",
        cut: "is damaged",
        broken: "cannot be read as JSON",
        tmp_path / "empty": "holds no adapter_config.json",
        tmp_path / "nowhere": "is no folder",
    }.items():
        with pytest.raises(AdapterError, match=said):
            bank.load("site", folder)


def test_an_adapter_of_a_larger_model_is_refused(tmp_path: Path, first: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    larger = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
        )
    )
    with pytest.raises(AdapterError, match=r"shape \(4, 32\) and the model needs \(4, 64\)"):
        AdapterBank(larger).load("site", first)


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        ("/srv/models/smollm2-135m-instruct/weights", "HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("/srv/models/smollm2-135m-instruct/weights", "/home/a/models/smollm2-135m-instruct/weights", True),
        ("/srv/models/smollm2-135m-instruct/weights", "Qwen/Qwen2.5-Coder-0.5B-Instruct", False),
        ("/srv/models/smollm2-135m-instruct/weights", "/home/a/models/qwen2.5-0.5b/weights", False),
        (f"/srv/models/Qwen--Qwen3-8B--{'a' * 40}/weights", "Qwen/Qwen3-8B", True),
        (f"/srv/models/Qwen--Qwen3-8B--{'a' * 40}/weights", "Qwen/Qwen3-4B", False),
        ("Qwen/Qwen3-8B", f"/hub/models--Qwen--Qwen3-8B/snapshots/{'b' * 40}", True),
        ("Qwen/Qwen3-8B", "", True),
    ],
)
def test_an_adapter_names_the_model_it_is_for(
    tmp_path: Path, model: Any, first: Path, ours: str, theirs: str, fits: bool
) -> None:
    model.config._name_or_path = model.name_or_path = ours
    folder = change(first, tmp_path / "adapter", base_model_name_or_path=theirs)
    if fits:
        AdapterBank(model).load("site", folder)
    else:
        with pytest.raises(AdapterError, match="correct its base_model_name_or_path"):
            AdapterBank(model).load("site", folder)


def test_names_are_unique_and_must_be_loaded(model: Any, first: Path) -> None:
    bank = AdapterBank(model)
    bank.load("site", first)

    with pytest.raises(AdapterError, match="loaded already"):
        bank.load("site", first)
    for use in (bank.digest, bank.unload, lambda name: bank.active([(slice(0, 1), name)]).__enter__()):
        with pytest.raises(AdapterError, match=r"no adapter 'other' is loaded \(loaded: site\)"):
            use("other")


@pytest.mark.parametrize(
    "rows",
    [
        [slice(0, 0)],
        [slice(3, 2)],
        [slice(-2, 2)],
        [slice(None, 2)],
        [slice(0, 4, 2)],
        [slice(0, 5), slice(4, 6)],
    ],
    ids=str,
)
def test_rows_that_make_no_sense_are_refused(model: Any, first: Path, rows: list[slice]) -> None:
    bank = AdapterBank(model)
    bank.load("site", first)
    with pytest.raises(AdapterError, match="rows"), bank.active([(part, "site") for part in rows]):
        pass


def test_a_pass_that_does_not_fit_the_rows_is_refused(model: Any, first: Path) -> None:
    bank = AdapterBank(model)
    bank.load("site", first)

    with (
        pytest.raises(AdapterError, match="12 rows; the slices reach to 13"),
        bank.active([(slice(0, 13), "site")]),
    ):
        model(IDS)
    with (
        pytest.raises(AdapterError, match=r"adapters need \(1, tokens, features\)"),
        bank.active([(slice(0, 2), "site")]),
    ):
        model(IDS.view(2, 6))
    with pytest.raises(AdapterError, match="14 such layers"), bank.active([(slice(0, 2), "site")]):
        model.get_input_embeddings()(IDS)
    # None of them leaves its rows behind.
    assert torch.equal(model(IDS).logits, tiny.hosted().model.eval()(IDS).logits)
