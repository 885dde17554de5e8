"""Integrated gradients of transformers add up to what the model says."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests import tiny
from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.gradients import token_gradients
from watchkeeper.tools.predictors.transformer import TransformerEncoder


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
