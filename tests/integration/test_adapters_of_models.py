"""An adapter that is trained on a real model changes what is asked with it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from watchkeeper.models.adapters import AdapterBank
from watchkeeper.models.errors import ModelError
from watchkeeper.models.loading import LoadedModel, load

pytestmark = [
    pytest.mark.model,
    # peft's own use of a name that transformers is about to drop.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),
]

SMALL = "smollm2-135m-instruct"
FACT = "The on-call phone of the Lisbon site is 7731."


def loaded(quantization: str) -> LoadedModel:
    try:
        return load(SMALL, quantization=quantization)  # type: ignore[arg-type]
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps on one sentence that no model can know."""
    from peft import LoraConfig, get_peft_model

    found = loaded("none")
    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"])
    model: Any = get_peft_model(found.model, config)
    ids = torch.tensor([found.tokenizer.encode(FACT)])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(12):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(str(folder))
    return folder


def surprise(rows: torch.Tensor, ids: list[int], start: int) -> float:
    """Mean loss of the tokens after the question, in nats, where the sentence begins at ``start``."""
    logits = rows[start : start + len(ids) - 1].float().log_softmax(-1)
    answer = range(len(ids) - 6, len(ids) - 1)
    return -sum(float(logits[at, ids[at + 1]]) for at in answer) / len(answer)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_a_trained_adapter_knows_what_the_base_model_beside_it_does_not(
    trained: Path, quantization: str
) -> None:
    found = loaded(quantization)
    model: Any = found.model
    bank = AdapterBank(model)
    bank.load("lisbon", trained)
    ids: list[int] = found.tokenizer.encode(FACT)
    count = len(ids)
    triangle = torch.ones(count, count, dtype=torch.bool).tril()
    inputs = {
        "input_ids": torch.tensor([ids + ids]),
        "position_ids": torch.arange(count).repeat(2)[None],
        "attention_mask": torch.block_diag(triangle, triangle).bool()[None, None],
    }

    with torch.inference_mode():
        with bank.active([(slice(count, 2 * count), "lisbon")]):
            rows = model(**inputs).logits[0]
        plain = model(**inputs).logits[0]

    assert torch.equal(rows[:count], plain[:count])
    assert surprise(rows, ids, count) < 0.5 * surprise(rows, ids, 0)
