"""The int8 linear layer: exact integers, rows that do not depend on each other, small errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from watchkeeper.models import int8, integer_products
from watchkeeper.models.errors import IntegrityError
from watchkeeper.models.int8 import (
    FusedInt8Linear,
    Int8Linear,
    kernel_is_exact,
    packed_matmul,
    packing_is_faster,
    quantize_rows,
    quantize_weight,
    scaled_matmul,
)
from watchkeeper.models.int8_model import FUSED, load_int8

needs_exact_kernel = pytest.mark.skipif(
    not kernel_is_exact(), reason="torch has no exact integer kernel for this processor"
)
SHAPES = [(1, 64, 32), (2, 896, 128), (7, 100, 33), (130, 1025, 17), (300, 4864, 96)]


def integers(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=generator)


def multiply(rows: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor | None) -> torch.Tensor:
    """The product of pairs, over tensors."""
    arrays = [other if other is None else other.numpy() for other in others]
    return torch.from_numpy(integer_products.multiply(rows.numpy(), weight.numpy(), *arrays))


def reference(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rows.to(torch.int64) @ weight.to(torch.int64).t()


@pytest.fixture(params=["bytes", "pairs"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to compute, whichever of them this processor would take."""
    if request.param == "bytes" and not kernel_is_exact():
        pytest.skip("torch has no exact integer kernel for this processor")
    monkeypatch.setattr(int8, "multiplies_bytes", lambda: request.param == "bytes")
    return str(request.param)


@needs_exact_kernel
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_products_are_those_of_64_bit_integers(m: int, k: int, n: int) -> None:
    rows, weight = integers(m, k, 1), integers(n, k, 2)

    product = scaled_matmul(rows, weight, torch.ones(n))

    assert torch.equal(product, reference(rows, weight).float())


@needs_exact_kernel
def test_the_ends_of_the_range_do_not_saturate() -> None:
    rows = torch.full((3, 4096), 127, dtype=torch.int8)
    weight = torch.full((5, 4096), -127, dtype=torch.int8)

    assert (scaled_matmul(rows, weight, torch.ones(5)) == -127 * 127 * 4096).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 7, 8, 9, 65, 130])
@pytest.mark.parametrize(("k", "n"), [(5, 3), (33, 7), (64, 1), (300, 34), (1024, 5), (2100, 6)])
def test_products_of_pairs_are_those_of_doubles(rows: int, k: int, n: int, bias: bool, threads: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    hidden, weight = torch.randn(rows, k, generator=generator), integers(n, k, 3)
    scale, shift = torch.rand(n, generator=generator), torch.randn(n, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = multiply(hidden, weight, scale, shift if bias else None)
    finally:
        torch.set_num_threads(before)

    expected = hidden.double() @ weight.double().t() * scale + (shift if bias else 0)
    # Half a step of each activation, times its weight.
    step = hidden.abs().amax(1, keepdim=True).double() / 16383
    bound = step / 2 * weight.double().abs().sum(1) * scale + 1e-5 * expected.abs()
    assert found.shape == (rows, n)
    assert ((found.double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("k", [16, 48, 1000, 1024, 4864])
def test_pairs_are_multiplied_exactly(k: int) -> None:
    """Integers of 15 bits come through unrounded: at the ends of the range nothing overflows."""
    hidden = torch.randint(-16383, 16384, (9, k)).float()
    hidden[:, ::1024] = 16383  # one step is then 1 in every block
    hidden[4], weight = 16383, integers(6, k, 8)
    weight[3] = -127

    found = multiply(hidden, weight, torch.ones(6))

    whole = [
        hidden[:, start : start + 1024].long() @ weight[:, start : start + 1024].long().t()
        for start in range(0, k, 1024)
    ]
    expected = whole[0].float()
    for part in whole[1:]:
        expected += part.float()
    assert torch.equal(found, expected)


def test_a_huge_row_or_a_broken_one_spoils_no_other() -> None:
    weight, scale = integers(16, 64, 4), torch.ones(16)
    hidden = torch.randn(9, 64)
    spoiled = hidden.clone()
    spoiled[3], spoiled[5] = torch.inf, torch.nan

    found = multiply(spoiled, weight, scale)

    sound = [row for row in range(9) if row not in {3, 5}]
    assert torch.equal(found[sound], multiply(hidden, weight, scale)[sound])
    assert not found[[3, 5]].isfinite().any()


def test_threads_of_a_program_may_multiply_at_once() -> None:
    weight, scale = integers(64, 96, 5), torch.ones(64)
    wrong: list[int] = []

    def run(seed: int) -> None:
        hidden = torch.randn(5, 96, generator=torch.Generator().manual_seed(seed))
        expected = multiply(hidden, weight, scale)
        answers = [multiply(hidden, weight, scale) for _ in range(200)]
        wrong.extend(seed for answer in answers if not torch.equal(answer, expected))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


@needs_exact_kernel
@pytest.mark.parametrize("isa", ["SSE41", "AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_integer_products_do_not_depend_on_the_processor(isa: str) -> None:
    script = (
        "import torch, hashlib; from watchkeeper.models import int8;"
        "exact = int8.kernel_is_exact(); int8.multiplies_bytes = lambda: exact;"
        "torch.manual_seed(0); layer = int8.Int8Linear.from_linear(torch.nn.Linear(300, 70)); layer.pack();"
        "rows = torch.randn(9, 300);"
        "print(exact and hashlib.sha256(layer(rows).detach().numpy().tobytes()).hexdigest())"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    limited, free = [
        subprocess.run(
            [sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=True
        ).stdout.strip()
        for settings in (environment, dict(os.environ))
    ]

    # Where the kernel saturates, that is noticed, and the layer would not use it.
    assert limited in {free, "False"}


def test_a_packed_weight_gives_the_same_bits() -> None:
    if not packing_is_faster():
        pytest.skip("this machine does not pack weights")
    layer = Int8Linear.from_linear(nn.Linear(896, 1152))
    hidden = torch.randn(33, 896)
    plain = layer(hidden)

    layer.pack()

    assert layer.packed is not None
    assert torch.equal(layer(hidden), plain)
    rows, _ = quantize_rows(hidden)
    assert torch.equal(
        packed_matmul(rows, layer.packed, layer.scale), scaled_matmul(rows, layer.weight, layer.scale)
    )


@needs_exact_kernel
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("fine", [True, False])
def test_a_row_of_integers_is_the_same_to_the_bit_whatever_else_is_in_the_batch(
    packed: bool, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "multiplies_bytes", lambda: True)
    layer = Int8Linear.from_linear(nn.Linear(192, 320), fine=fine)
    if packed:
        layer.pack()
    alone = torch.randn(1, 192)
    expected = layer(alone)

    for company in (1, 2, 7, 31, 200):
        batch = torch.cat([1000 * torch.randn(company, 192), alone, torch.zeros(3, 192)])
        assert torch.equal(layer(batch)[company : company + 1], expected)


@pytest.mark.parametrize("features", [896, 2064, 2100])
def test_a_row_of_pairs_is_the_same_to_the_bit_whatever_else_is_in_the_batch(features: int) -> None:
    weight, scale, bias = integers(321, features, 6), torch.rand(321), torch.randn(321)
    alone = torch.randn(1, features)
    expected = multiply(alone, weight, scale, bias)

    for company in (1, 2, 3, 4, 7, 31, 63, 64, 200):
        batch = torch.cat([1000 * torch.randn(company, features), alone, torch.zeros(3, features)])
        assert torch.equal(multiply(batch, weight, scale, bias)[company : company + 1], expected)


def test_without_the_instruction_the_products_are_the_same(tmp_path: Path) -> None:
    script = (
        "import hashlib, sys, torch; from llvmlite import binding;"
        "features = binding.get_host_cpu_features();"
        "features.update({} if sys.argv[1] == 'y' else {'avx2': False, 'avx512f': False});"
        "binding.get_host_cpu_features = lambda: features;"
        "from watchkeeper.models.integer_products import multiply;"
        "torch.manual_seed(0); weight = torch.randint(-127, 128, (70, 304), dtype=torch.int8).numpy();"
        "out = multiply(torch.randn(41, 304).numpy(), weight, torch.rand(70).numpy());"
        "print(hashlib.sha256(out.tobytes()).hexdigest())"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", script, having],
            # A compiled loop must not come from the other one's file.
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / having)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for having in ("y", "n")
    ]

    assert digests[0] == digests[1]


@pytest.mark.usefixtures("products")
def test_the_error_stays_within_half_a_step_of_each_side() -> None:
    linear = nn.Linear(512, 256, bias=True)
    layer = Int8Linear.from_linear(linear)
    hidden = torch.randn(16, 512)

    error = (layer(hidden) - linear(hidden)).abs()

    row_step = hidden.abs().amax(1, keepdim=True) / 127
    weight_step = linear.weight.abs().amax(1) / 127
    bound = (
        row_step / 2 * linear.weight.abs().sum(1)
        + hidden.abs().sum(1, keepdim=True) * weight_step / 2
        + 512 * row_step * weight_step / 4
    )
    assert (error <= bound + 1e-5).all()
    assert error.mean() < 0.01


@needs_exact_kernel
def test_a_second_term_keeps_small_features_beside_a_huge_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "multiplies_bytes", lambda: True)
    linear = nn.Linear(512, 64)
    hidden = torch.randn(8, 512)
    hidden[:, 17] = 500.0
    # Compared with exact activations over the same int8 weight, to see the activations' share alone.
    coarse, fine = Int8Linear.from_linear(linear), Int8Linear.from_linear(linear, fine=True)
    weight = coarse.weight.double() * (coarse.scale.double() * 127)[:, None]
    exact = (hidden.double() @ weight.t() + linear.bias.double()).float()

    assert (fine(hidden) - exact).abs().max() < (coarse(hidden) - exact).abs().max() / 50


def test_weights_are_scaled_by_output_channel() -> None:
    weight = torch.tensor([[1.0, -0.5], [100.0, 0.0], [0.0, 0.0]])

    quantized, scale = quantize_weight(weight)

    assert quantized.tolist() == [[127, -64], [127, 0], [0, 0]]
    assert torch.allclose(quantized * scale[:, None], weight, atol=0.005)


@pytest.mark.usefixtures("products")
def test_zeros_stay_zeros_and_extremes_stay_finite() -> None:
    layer = Int8Linear.from_linear(nn.Linear(8, 4, bias=False))
    hidden = torch.stack([torch.zeros(8), torch.full((8,), 1e-38), torch.full((8,), 1e30)])

    out = layer(hidden)

    assert torch.equal(out[0], torch.zeros(4))
    assert out.isfinite().all()


@pytest.mark.usefixtures("products")
def test_leading_dimensions_are_kept() -> None:
    layer = Int8Linear.from_linear(nn.Linear(8, 4))

    assert layer(torch.randn(2, 3, 8)).shape == (2, 3, 4)
    assert layer(torch.randn(8)).shape == (4,)
    assert layer(torch.randn(0, 8)).shape == (0, 4)


def fused() -> tuple[FusedInt8Linear, tuple[nn.Module, ...]]:
    group = FusedInt8Linear(Int8Linear.from_linear(nn.Linear(64, 48)), (16, 24, 8))
    return group, group.members()


@pytest.mark.usefixtures("products")
def test_fused_members_compute_what_they_compute_alone() -> None:
    group, members = fused()
    hidden = torch.randn(2, 5, 64)

    together = [member(hidden) for member in members]

    for one, member in zip(together, members, strict=True):
        assert torch.equal(one, member.layer(hidden))
    assert torch.equal(torch.cat(together, -1), group.whole(hidden))


@pytest.mark.usefixtures("products")
def test_a_fused_member_never_answers_for_another_input() -> None:
    _, (first, second, third) = fused()
    old, new = torch.randn(3, 64), torch.randn(3, 64)
    first(old)

    assert torch.equal(second(new), second.layer(new))
    assert torch.equal(third(new.clone()), third.layer(new))


@pytest.mark.usefixtures("products")
def test_threads_share_a_fused_layer_without_mixing_up() -> None:
    _, members = fused()
    wrong: list[int] = []

    def run(seed: int) -> None:
        for _ in range(50):
            hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed))
            if not all(torch.equal(member(hidden), member.layer(hidden)) for member in members):
                wrong.append(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


TINY_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_whole_model_is_quantized_with_its_output_layer(tmp_path: Path, tied: bool, bias: bool) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**TINY_CONFIG, "tie_word_embeddings": tied, "attention_bias": bias}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    original = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).float().eval()
    original.save_pretrained(tmp_path)

    model = load_int8(tmp_path, None)

    assert not [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    assert not [
        name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta
    ]
    assert set(FUSED) <= {name.rpartition(".")[2] for name, _ in model.named_modules()}
    with torch.inference_mode():
        ids = torch.arange(20)[None]
        expected, found = original(ids).logits, model(ids).logits
        again = model(ids).logits
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert torch.equal(found, again)


def test_files_that_do_not_belong_to_the_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY_CONFIG))
    save_file({"some.other.weight": torch.zeros(2)}, tmp_path / "model.safetensors")

    with pytest.raises(IntegrityError, match=r"holds no tensor 'model\.layers\.0"):
        load_int8(tmp_path, None)
