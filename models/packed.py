"""One forward pass over pieces of several sequences, laid one behind the other.

The tokens of all pieces are one row of a batch of one: every linear layer sees them together and reads its
weights once. Attention alone looks at each piece with its own keys and values, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from watchkeeper.models.kv import SequenceKV

ATTENTION = "watchkeeper_packed"
"""Name under which transformers finds :func:`packed_attention`."""


@dataclass(slots=True)
class Piece:
    """Tokens of one sequence that a pass computes.

    Attributes:
        kv: Keys and values of the sequence; the tokens follow the first ``kv.length`` ones.
        tokens: The tokens.
        rows: Places in ``tokens`` whose results are needed.
        positions: Positions of the tokens; those that follow ``kv.length`` where ``None``.
        mask: What each token attends to, bool of shape (tokens, kv.length + tokens); itself and all before
            it where ``None``.
        adapter: The adapter that reads the tokens.
    """

    kv: SequenceKV
    tokens: Sequence[int]
    rows: Sequence[int] = ()
    positions: Sequence[int] | None = None
    mask: torch.Tensor | None = None
    adapter: str | None = None
    _seen: dict[int | None, torch.Tensor] = field(default_factory=dict)
    _bias: dict[tuple[int, int | None, torch.dtype, torch.device], torch.Tensor] = field(default_factory=dict)

    def bias(self, group: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Return what is added to the scores: 0 where a token may look, minus infinity elsewhere.

        Args:
            group: Query heads that share a key head; their queries are stacked.
            window: Last tokens that each may look at; all where ``None``.
            like: A tensor of the type and on the device that are needed.

        Returns:
            Shape (group * tokens, kv.length + tokens).
        """
        key = (group, window, like.dtype, like.device)
        if key not in self._bias:
            allowed = self.seen(window)
            bias = torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))
            self._bias[key] = bias.repeat(group, 1).to(like)
        return self._bias[key]

    def seen(self, window: int | None) -> torch.Tensor:
        """Return what each token attends to, bool of shape (tokens, kv.length + tokens).

        The same for all layers of a pass, so it is made once.

        Args:
            window: Last tokens that each may look at; all where ``None``.
        """
        if window not in self._seen:
            past, count = self.kv.length, len(self.tokens)
            allowed = self.mask
            if allowed is None:
                allowed = torch.ones((count, past + count), dtype=torch.bool).tril(past)
            if window is not None:
                at = torch.tensor(self.places())
                before = torch.cat([torch.arange(past), at])
                allowed = allowed & (at[:, None] - before[None, :] < window)
            # Loops of ours read it by its address.
            self._seen[window] = allowed.contiguous()
        return self._seen[window]

    def places(self) -> Sequence[int]:
        """Return the position of every token."""
        if self.positions is not None:
            return self.positions
        return range(self.kv.length, self.kv.length + len(self.tokens))


class PackedPass(Cache):
    """The pieces of a pass, in the place of transformers' cache: it takes keys and values apart again.

    Args:
        pieces: The pieces, in the order of their tokens.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__(layers=[])
        self.pieces = tuple(pieces)
        self.starts = [0]
        for piece in pieces:
            self.starts.append(self.starts[-1] + len(piece.tokens))
            piece.kv.reserve(piece.kv.length + len(piece.tokens))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of a layer, of shape (1, heads, tokens, head size)."""
        for piece, start, stop in self.parts():
            piece.kv.write(layer_idx, key_states[0, :, start:stop], value_states[0, :, start:stop])
        return key_states, value_states

    def parts(self) -> list[tuple[Piece, int, int]]:
        """Return each piece with the places of its tokens in the pass."""
        return [
            (piece, self.starts[index], self.starts[index + 1]) for index, piece in enumerate(self.pieces)
        ]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 (transformers' signature)
        """Return 0: positions are given."""
        return 0


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    packed: PackedPass | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend piece by piece; transformers calls this for every layer.

    Args:
        module: The attention layer.
        query: Shape (1, heads, tokens, head size).
        key: What the layer computed; it is in the pieces already.
        value: Likewise.
        attention_mask: Unused in a packed pass.
        scaling: Factor of the scores.
        packed: The pass; an ordinary one where ``None``.
        sliding_window: Last tokens that a token may look at.
        softcap: Bound of the scores, as in Gemma 2.
        others: What other ways to attend need.

    Returns:
        Shape (1, tokens, heads, head size), and no weights.
    """
    if packed is None:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return result
    out = torch.empty_like(query[0].transpose(0, 1), memory_format=torch.contiguous_format)
    for piece, start, stop in packed.parts():
        out[start:stop] = attend_piece(
            piece,
            module.layer_idx,
            query[0, :, start:stop],
            scaling=scaling,
            window=sliding_window,
            softcap=softcap,
        )
    return out[None], None


def attend_piece(
    piece: Piece,
    index: int,
    queries: torch.Tensor,
    *,
    scaling: float | None,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Let the tokens of one piece attend.

    Args:
        piece: The piece, with the keys and values of this layer.
        index: The layer.
        queries: Shape (heads, tokens, head size).
        scaling: Factor of the scores.
        window: Last tokens that a token may look at.
        softcap: Bound of the scores, as in Gemma 2.

    Returns:
        Shape (tokens, heads, head size).
    """
    heads, count, size = queries.shape
    layer = piece.kv.layers[index]
    assert layer is not None, "the keys of this layer were stored"
    past = piece.kv.length
    keys, values = layer.keys[:, : past + count], layer.values[:, : past + count]
    group = heads // keys.shape[0]
    # Query heads that share a key head stand one behind the other, so that no key is copied.
    stacked = queries.reshape(keys.shape[0], group * count, size)
    bias: torch.Tensor | None = None
    if count == 1 and piece.mask is None:
        if window is not None:
            keys, values = keys[:, -window:], values[:, -window:]
    else:
        bias = piece.bias(group, window, queries)
    if softcap is None:
        mixed = functional.scaled_dot_product_attention(
            stacked[None], keys[None], values[None], bias, scale=scaling
        )[0]
    else:
        mixed = _capped(stacked, keys, values, bias, scaling, softcap)
    return mixed.view(heads, count, size).transpose(0, 1)


def _capped(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    scores = query @ keys.transpose(1, 2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    return torch.softmax(scores.float(), dim=-1).to(values) @ values


def use_packed_attention(model: Any) -> None:
    """Make a model of transformers attend through :func:`packed_attention`."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, packed_attention)
    # For ordinary passes of the same model; a packed one brings a mask that is never read.
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
