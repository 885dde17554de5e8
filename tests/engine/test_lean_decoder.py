"""The lean decoder computes what transformers' modules compute, and each row for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests import tiny
from watchkeeper.models import attention, int8, rowwise
from watchkeeper.models.adapters import AdapterBank
from watchkeeper.models.int8_model import load_int8
from watchkeeper.models.lean_decoder import LeanDecoder
from watchkeeper.models.packed import Piece
from watchkeeper.models.runner import Runner

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama with biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "llama with scaled positions": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0})
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen2 with a window": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    ),
}


def quantized(kind: str, folder: Path) -> Any:
    torch.manual_seed(1)
    model = MODELS[kind]()
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    model.save_pretrained(folder)
    return load_int8(folder, None)


def runners(model: Any, adapters: AdapterBank | None = None) -> tuple[Runner, Runner]:
    """The same model with the lean decoder, and through its modules."""
    lean, plain = Runner(model, adapters), Runner(model, adapters)
    assert lean._lean is not None
    plain._lean = None
    return lean, plain


@pytest.fixture(params=["bytes", "pairs"], autouse=True)
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to multiply, whichever of them this processor would take."""
    if request.param == "bytes" and not int8.kernel_is_exact():
        pytest.skip("torch has no exact integer kernel for this processor")
    monkeypatch.setattr(int8, "multiplies_bytes", lambda: request.param == "bytes")


def passes(runner: Runner, adapter: str | None = None) -> list[torch.Tensor]:
    """Prompts, tokens that follow, and both in one pass."""
    generator = torch.Generator().manual_seed(2)

    def ids(count: int) -> list[int]:
        return torch.randint(0, 300, (count,), generator=generator).tolist()

    first, second, third = (runner.new_kv(64) for _ in range(3))
    results = runner.run([Piece(first, ids(19), range(19), adapter=adapter), Piece(second, ids(5), (4,))])
    results += runner.run([Piece(first, ids(1), (0,), adapter=adapter), Piece(third, ids(30), (2, 29))])
    results += runner.run(
        [Piece(first, ids(1), (0,)), Piece(second, ids(3), (0, 2)), Piece(third, ids(1), (0,))]
    )
    return results


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Another order of sums may round an activation to the other side of its step."""
    return bool((found - expected).abs().max() < 0.01 * expected.abs().max())


@pytest.mark.parametrize("kind", MODELS)
def test_it_gives_what_the_modules_give(kind: str, tmp_path: Path) -> None:
    lean, plain = runners(quantized(kind, tmp_path))

    assert all(close(found, expected) for found, expected in zip(passes(lean), passes(plain), strict=True))


def adapter(folder: Path, tmp_path: Path) -> Path:
    model = LlamaForCausalLM.from_pretrained(folder)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"], init_lora_weights=False
    )
    get_peft_model(model, config).save_pretrained(str(tmp_path))
    return tmp_path


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_adapters_are_added_and_leave_other_rows_alone_to_the_bit(tmp_path: Path) -> None:
    model = quantized("llama", tmp_path / "model")
    bank = AdapterBank(model)
    bank.load("site", adapter(tmp_path / "model", tmp_path / "adapter"))
    lean, plain = runners(model, bank)

    with_it, expected, without = passes(lean, "site"), passes(plain, "site"), passes(lean)

    assert all(close(found, wanted) for found, wanted in zip(with_it, expected, strict=True))
    assert not torch.allclose(with_it[0], without[0], atol=0.1)
    for index in (1, 3, 5, 6):  # pieces of other sequences
        assert torch.equal(with_it[index], without[index])


def test_a_row_is_the_same_to_the_bit_whatever_else_is_in_the_pass(tmp_path: Path) -> None:
    runner = Runner(quantized("qwen2", tmp_path))

    def answer(company: int) -> list[torch.Tensor]:
        ours = runner.new_kv(64)
        others = [runner.new_kv(64) for _ in range(company)]
        runner.run([Piece(ours, range(20, 40), ())])
        found = []
        for step in range(5):
            pieces = [Piece(kv, range(other, other + 1 + 3 * step), ()) for other, kv in enumerate(others)]
            found.append(runner.run([*pieces, Piece(ours, [60 + step], (0,))])[-1])
        return found

    alone = answer(0)

    for company in (1, 3, 9):
        assert all(torch.equal(a, b) for a, b in zip(alone, answer(company), strict=True))


def test_what_is_not_known_goes_through_its_modules(tmp_path: Path) -> None:
    Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)).save_pretrained(tmp_path)

    assert LeanDecoder.of(load_int8(tmp_path, None).get_decoder()) is None
    assert LeanDecoder.of(tiny.hosted().model.get_decoder()) is None


@pytest.mark.parametrize("count", [1, 7, 8, 100, 1000])
def test_exponentials_are_those_of_doubles(count: int) -> None:
    values = -torch.rand(count, generator=torch.Generator().manual_seed(count)) * 100
    values[0] = 0
    found = values.numpy().copy()

    rowwise.exponentials(found, torch.empty(count, dtype=torch.int32).numpy())

    expected = values.double().clamp_min(-87).exp().numpy()
    assert found == pytest.approx(expected, rel=3e-7)


def attended(
    rows: torch.Tensor, past: int, *, window: int | None = None, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let rows of 6 heads over 2 key heads attend; what came out, and what torch makes of it."""
    count, size = len(rows), rows.shape[1] // 10
    generator = torch.Generator().manual_seed(past)
    keys, values = torch.randn(2, 2, past + count + 3, size, generator=generator)
    keys, values, out = keys.contiguous(), values.contiguous(), torch.empty(count, 6 * size)
    attention.attend(
        *(rows.numpy(), 6, keys.numpy(), values.numpy(), past, size**-0.5, out.numpy()),
        window=window,
        mask=None if mask is None else mask.numpy(),
    )
    parts = rows.view(count, 10, size).transpose(0, 1)
    assert torch.equal(keys[:, past : past + count], parts[6:8])
    assert torch.equal(values[:, past : past + count], parts[8:])
    last = past + count
    seen = mask
    if seen is None:
        seen = torch.ones(count, last, dtype=torch.bool).tril(past)
        if window is not None:
            seen &= torch.arange(past, last)[:, None] - torch.arange(last) < window
    known = (part[:, :last].repeat_interleave(3, 0) for part in (keys, values))
    expected = torch.nn.functional.scaled_dot_product_attention(parts[:6], *known, attn_mask=seen)
    return out, expected.transpose(0, 1).reshape(count, -1)


@pytest.mark.parametrize("window", [None, 5, 64])
@pytest.mark.parametrize("count", [1, 2, 7, 50])
@pytest.mark.parametrize("past", [0, 30, 900])
@pytest.mark.parametrize("size", [12, 16, 64, 80])
def test_tokens_attend_as_torch_lets_them(past: int, count: int, window: int | None, size: int) -> None:
    rows = torch.randn(count, (6 + 2 + 2) * size, generator=torch.Generator().manual_seed(count))
    found, expected = attended(rows, past, window=window)
    assert torch.allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("past", [0, 33])
def test_tokens_attend_to_what_a_mask_shows_them(past: int) -> None:
    rows = torch.randn(9, (6 + 2 + 2) * 16, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(9, past + 9, generator=torch.Generator().manual_seed(past)) < 0.3
    mask[torch.arange(9), past + torch.arange(9)] = True
    found, expected = attended(rows, past, mask=mask)
    assert torch.allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("size", [20, 64])
@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("cuts", [(1,) * 150, (3, 110, 37), (64, 86), (149, 1)])
def test_a_token_attends_to_the_same_last_bit_wherever_a_sequence_is_cut(
    cuts: tuple[int, ...], window: int | None, size: int
) -> None:
    rows = torch.randn(150, (6 + 2 + 2) * size, generator=torch.Generator().manual_seed(7))
    keys, values = torch.zeros(2, 2, 160, size)
    whole, parts = torch.empty(2, 150, 6 * size)
    state = (keys.numpy(), values.numpy())
    attention.attend(rows.numpy(), 6, *state, 0, 0.25, whole.numpy(), window=window)
    past = 0
    for count in cuts:
        some = slice(past, past + count)
        found = parts[some].numpy()
        attention.attend(rows[some].numpy(), 6, *state, past, 0.25, found, window=window)
        past += count
    assert torch.equal(parts, whole)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_a_gate_is_silu_and_each_row_is_the_same_in_any_batch(threads: int) -> None:
    both = 5 * torch.randn(70, 2 * 4864, generator=torch.Generator().manual_seed(threads))
    both[3, :3] = torch.tensor([0.0, 80.0, -80.0])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = rowwise.gate(both.numpy())
        alone = [rowwise.gate(both[m : m + 1].numpy())[0] for m in range(70)]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    left, right = both.double().chunk(2, dim=1)
    assert torch.allclose(
        torch.from_numpy(found).double(), torch.nn.functional.silu(left) * right, rtol=1e-5, atol=1e-30
    )
    assert all((found[m] == alone[m]).all() for m in range(70))


def test_a_piece_without_tokens_disturbs_nothing(tmp_path: Path) -> None:
    runner = Runner(quantized("llama", tmp_path))
    results = []
    for empty in (False, True):
        first, second = runner.new_kv(8), runner.new_kv(8)
        runner.run([Piece(first, range(8)), Piece(second, range(5))])
        pieces = [Piece(first, ())] if empty else []
        results.append(runner.run([*pieces, Piece(second, (7,), (0,)), *pieces])[1 if empty else 0])

    assert torch.equal(*results)


def test_a_token_at_the_edge_of_a_window_attends_as_the_modules_let_it(tmp_path: Path) -> None:
    lean, plain = runners(quantized("qwen2 with a window", tmp_path))
    answers = []
    for runner in (lean, plain):
        kv = runner.new_kv(32)
        runner.run([Piece(kv, range(5))])
        answers.append([runner.run([Piece(kv, (40 + step,), (0,))])[0] for step in range(8)])

    assert all(close(found, expected) for found, expected in zip(*answers, strict=True))
