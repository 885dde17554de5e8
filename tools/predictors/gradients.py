"""Explanations by gradients: integrated gradients of transformers, by captum.

Sundararajan, Taly, Yan: "Axiomatic Attribution for Deep Networks", 2017: gradients are summed on the way from
a baseline that says nothing to what was asked. What all inputs are worth adds up to the difference of the
scores, so that the sum tells how far the numbers can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from watchkeeper.tools.errors import DataError, MissingExtraError
from watchkeeper.tools.predictors.explain import Piece
from watchkeeper.tools.predictors.transformer import TransformerEncoder

STEPS = 64


@dataclass(frozen=True, slots=True)
class TokenGradients:
    """What each token of a text is worth, in their order, and how much they do not add up to."""

    pieces: tuple[Piece, ...]
    missing: float


def token_gradients(
    encoder: TransformerEncoder, text: str, target: int, *, steps: int = STEPS
) -> TokenGradients:
    """Return what each token of a text is worth to the score of a class of a transformer.

    The baseline is the same text with padding in the place of all tokens but special ones.

    Raises:
        DataError: If the text has no token, or the tokenizer does not say where its tokens stand.
        MissingExtraError: If captum is not installed.
    """
    import torch

    if not encoder.tokenizer.is_fast:
        raise DataError("the tokenizer does not say where its tokens stand: use the fast one of the model")
    given = encoder.tokenizer(
        [text],
        truncation=True,
        max_length=encoder.max_tokens,
        return_tensors="pt",
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    ids, mask = given["input_ids"], given["attention_mask"]
    special = given["special_tokens_mask"].bool()
    if ids.shape[1] == int(special.sum()):
        raise DataError(f"text {text!r:.60} has no token")
    start = torch.where(special, ids, torch.full_like(ids, encoder.tokenizer.pad_token_id))

    def forward(tokens: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = encoder.model(input_ids=tokens, attention_mask=attention).logits
        return logits

    method = _captum().LayerIntegratedGradients(forward, encoder.model.get_input_embeddings())
    worth, missing = method.attribute(
        ids,
        start,
        target=target,
        additional_forward_args=(mask,),
        n_steps=steps,
        internal_batch_size=8,
        return_convergence_delta=True,
    )
    effects = worth.sum(dim=-1)[0].detach().double().tolist()
    pieces = tuple(
        Piece(int(begin), int(end), text[int(begin) : int(end)], effect)
        for (begin, end), effect, own in zip(given["offset_mapping"][0], effects, special[0], strict=True)
        if not own
    )
    return TokenGradients(pieces, abs(float(missing[0])))


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise MissingExtraError(
            "explanations by gradients need the package captum: pip install 'watchkeeper[explain]'"
        ) from error
    return attr
