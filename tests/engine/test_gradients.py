"""Integrated gradients: exact where the model is linear, complete where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from tests import tiny
from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.bag import Bag
from watchkeeper.tools.predictors.gradients import integrated_gradients, token_gradients
from watchkeeper.tools.predictors.transformer import TransformerEncoder


def test_of_a_linear_model_each_input_is_worth_its_weight_times_its_distance() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    inputs, baseline = np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.5, 0.0, 0.5, -1.0])
    found = integrated_gradients(model, inputs, 2, baseline=baseline)
    weights = model.weight[2].detach().numpy()
    assert found.worth == pytest.approx(weights * (inputs - baseline))
    assert found.missing == pytest.approx(0, abs=1e-7)
    with pytest.raises(DataError, match=r"a baseline of the shape \(3,\) does not fit inputs"):
        integrated_gradients(model, inputs, 0, baseline=np.zeros(3))


def test_what_a_small_classifier_says_is_the_same_in_torch_and_adds_up() -> None:
    chance = np.random.default_rng(3)
    bag = Bag(
        known=np.array([2, 5, 9]),
        embedding=chance.normal(size=(3, 4)).astype(np.float32),
        embedding_bias=chance.normal(size=4).astype(np.float32),
        output=chance.normal(size=(2, 4)).astype(np.float32),
        output_bias=chance.normal(size=2).astype(np.float32),
    )
    inputs = np.array([0.6, 0.0, 0.8])
    model = bag.module()
    with torch.inference_mode():
        said = model(torch.from_numpy(inputs).float()[None])[0].numpy()
        silent = model(torch.zeros(1, 3))[0].numpy()
    assert said == pytest.approx(bag.scores(((2, 0.6), (9, 0.8))), abs=1e-5)
    found = integrated_gradients(model, inputs, 1)
    assert found.worth[1] == 0
    assert found.worth.sum() == pytest.approx(said[1] - silent[1], abs=0.05)


def test_tokens_of_a_transformer_add_up_and_padding_is_worth_nothing() -> None:
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer(None, tags=False)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    model = BertForSequenceClassification(config).eval()
    encoder = TransformerEncoder(model, tokenizer, max_tokens=32, temperature=1.0)
    found = token_gradients(encoder, "ab cd", 1)
    assert [piece.text for piece in found.pieces] == list("ab cd")
    assert found == token_gradients(encoder, "ab cd", 1)
    with torch.inference_mode():
        pad = torch.full((1, 5), tokenizer.pad_token_id)
        silent = float(model(input_ids=pad).logits[0, 1])
    said = float(encoder.scores("ab cd")[1])
    assert sum(piece.effect for piece in found.pieces) == pytest.approx(said - silent, abs=0.02)
    assert found.missing < 0.02
    with pytest.raises(DataError, match="has no token"):
        token_gradients(encoder, "", 0)
