"""Training of adapters: what is learned is what choices are made by, and a break changes no bit of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests import tiny
from watchkeeper.models.calibration_cases import LabelledCase
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import AdapterError
from watchkeeper.models.int8 import Int8Linear
from watchkeeper.models.lora_training import Fork, LoraTraining, Recipe, forks
from watchkeeper.models.straight_through import StraightThroughLinear

# peft's own use of a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

EXACT = Recipe(rank=4, batch=2, learning_rate=2e-2, loss="options", forward="exact")
STEPS = 12


def cases() -> list[LabelledCase]:
    """The answer is the one whose colour is seen."""
    colours = ("red", "blue", "green")
    return [
        LabelledCase(
            system="You look.",
            question=f"Seen: {seen}. What is it?",
            neutral="Seen: none. What is it?",
            lead="It is",
            options=tuple(f"the {colour} one" for colour in colours),
            answer=f"the {seen} one",
            topic=seen,
            neutral_weight=0.5,
        )
        for seen in colours
        for _ in range(2)
    ]


def training(recipe: Recipe = EXACT, seed: int = 0) -> LoraTraining:
    hosted = tiny.hosted()
    return LoraTraining(hosted.model, hosted.tokenizer, name="tiny", recipe=recipe, steps=STEPS, seed=seed)


def run(trained: LoraTraining, until: int = STEPS) -> list[float]:
    asked = cases()
    losses = []
    while trained.step_number < until:
        first = 2 * trained.step_number % len(asked)
        losses.append(trained.step(asked[first : first + 2]).loss)
    return losses


@pytest.mark.parametrize("neutral_weight", [0.0, 0.5])
def test_the_loss_is_that_of_the_choice_which_the_engine_makes(neutral_weight: float) -> None:
    case = cases()[0].model_copy(update={"neutral_weight": neutral_weight})
    result = training().step([case])
    engine = LocalEngine(tiny.hosted())
    choice = engine.choose(case.corrected())
    engine.close()
    assert result.loss == pytest.approx(-math.log(choice.options[case.label].probability), abs=1e-3)
    assert result.right == (choice.best == case.label)


@pytest.mark.parametrize("loss", ["branches", "options"])
def test_an_adapter_that_was_trained_chooses_better_in_the_engine(tmp_path: Path, loss: str) -> None:
    trained = training(replace(EXACT, loss=loss))
    run(trained)
    trained.save_adapter(tmp_path)
    engine = LocalEngine(tiny.hosted())
    engine.load_adapter("tuned", tmp_path)

    def likelihood(adapter: str | None) -> float:
        choices = [(case, engine.choose(case.corrected(adapter))) for case in cases()]
        return sum(math.log(choice.options[case.label].probability) for case, choice in choices)

    before, after = likelihood(None), likelihood("tuned")
    engine.close()
    assert after > before + 1


@pytest.mark.parametrize("forward", ["exact", "served"])
def test_going_on_from_a_checkpoint_gives_the_very_same_adapter(tmp_path: Path, forward: str) -> None:
    recipe = replace(EXACT, forward=forward)
    whole = training(recipe)
    run(whole)
    broken = training(recipe)
    run(broken, until=5)
    (tmp_path / "checkpoint").mkdir()
    broken.save(tmp_path / "checkpoint")
    resumed = training(recipe)
    resumed.restore(tmp_path / "checkpoint")
    assert resumed.step_number == 5
    run(resumed)
    whole.save_adapter(tmp_path / "whole")
    resumed.save_adapter(tmp_path / "resumed")
    first, second = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "resumed")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(bool(first[name].any()) for name in first if "lora_B" in name)


def test_another_seed_gives_another_adapter(tmp_path: Path) -> None:
    for seed in (0, 1):
        trained = training(seed=seed)
        run(trained, until=2)
        trained.save_adapter(tmp_path / str(seed))
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("0", "1"))
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trained = training()
    run(trained, until=1)
    trained.save(tmp_path)
    with pytest.raises(AdapterError, match="another training"):
        training(replace(EXACT, learning_rate=1e-3)).restore(tmp_path)


def test_a_damaged_checkpoint_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"no tensors")
    with pytest.raises(AdapterError, match=r"state\.safetensors cannot be read"):
        training().restore(tmp_path)


def test_what_follows_the_token_in_which_options_part_is_not_learned() -> None:
    case = cases()[0]
    recipe = replace(EXACT, loss="branches")
    result = training(recipe).step([case])
    longer = case.model_copy(update={"options": tuple(f"{option}, I think" for option in case.options)})
    longer = longer.model_copy(update={"answer": longer.options[0]})
    again = training(recipe).step([longer])
    assert result.loss == pytest.approx(again.loss, abs=1e-5)


def test_options_that_begin_alike_part_where_they_differ() -> None:
    tails = ((1, 5, 8), (1, 6, 8), (2, 9))  # "the disk is", "the port is", "a link"
    assert forks(tails, 0) == [Fork(0, (1, 2)), Fork(1, (5, 6))]
    assert forks(tails, 2) == [Fork(0, (2, 1))]


def test_an_option_with_which_all_others_begin_is_learned_as_a_whole() -> None:
    case = cases()[0]
    options = ("the red one", "the red one, or two")
    case = case.model_copy(update={"options": options, "answer": options[0]})
    assert training(replace(EXACT, loss="branches")).step([case]).loss == pytest.approx(
        training().step([case]).loss
    )


def test_the_loss_at_a_fork_is_that_of_the_tokens_which_options_go_on_with() -> None:
    """Options that part in their last token: the loss of the fork is that of the whole choice."""
    options = ("1", "2", "3")
    case = cases()[0].model_copy(update={"options": options, "answer": "2", "lead": "x"})
    assert training(replace(EXACT, loss="branches")).step([case]).loss == pytest.approx(
        training().step([case]).loss, abs=1e-5
    )


def test_what_raises_between_two_cases_leaves_no_trace(tmp_path: Path) -> None:
    trained = training()
    calls = iter([None, KeyboardInterrupt()])

    def check() -> None:
        error = next(calls)
        if error is not None:
            raise error

    with pytest.raises(KeyboardInterrupt):
        trained.step(cases()[:2], check=check)
    assert trained.step_number == 0
    fresh = training()
    assert run(trained, until=3) == run(fresh, until=3)


def test_a_layer_computes_as_served_and_passes_the_gradient_of_its_fp32_weight() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(24, 16)
    layer = StraightThroughLinear(linear, fine=False).requires_grad_(False)
    rows = torch.randn(5, 24, requires_grad=True)
    result = layer(rows)
    assert torch.equal(result, Int8Linear.from_linear(linear)(rows.detach()))
    assert not torch.equal(result, linear(rows))
    gradient = torch.randn(5, 16)
    result.backward(gradient)
    assert rows.grad is not None
    assert torch.allclose(rows.grad, gradient @ linear.weight, atol=1e-6)
