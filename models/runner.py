"""The tensors of the engine: one forward pass over packed pieces, and the logits that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from watchkeeper.models.errors import ModelError
from watchkeeper.models.int8 import Int8Linear
from watchkeeper.models.kv import SequenceKV
from watchkeeper.models.packed import PackedPass, Piece, use_packed_attention

if TYPE_CHECKING:
    from watchkeeper.models.lean_decoder import LeanDecoder

_ATTENDING = frozenset({"full_attention", "sliding_attention"})


class Adapters(Protocol):
    """What adds adapters to the rows of a pass."""

    def active(self, rows: Sequence[tuple[slice, str]]) -> AbstractContextManager[None]:
        """Add the named adapters to slices of the tokens while the context lasts."""
        ...


class Runner:
    """Computes with a causal language model of transformers.

    Args:
        model: The model.
        adapters: What adds adapters; none can be asked for where ``None``.

    Raises:
        ModelError: If some layers of the model do not attend (as in state-space models), since their state
            cannot be shared between requests.
    """

    def __init__(self, model: Any, adapters: Adapters | None = None) -> None:
        self._model = model.eval()
        self._adapters = adapters
        self.config = model.config.get_text_config()
        strange = set(getattr(self.config, "layer_types", None) or ()) - _ATTENDING
        if strange:
            raise ModelError(
                f"layers of kind {min(strange)!r} cannot be hosted; choose a model whose layers all attend"
            )
        use_packed_attention(model)
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._lean = _lean(self._decoder) if isinstance(self._head, Int8Linear) else None

    @property
    def exact(self) -> bool:
        """Whether a token is the same to the last bit whatever else is in a pass, adapters aside."""
        return self._lean is not None

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.config.num_hidden_layers)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token."""
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        size = getattr(self.config, "head_dim", None)
        size = size or self.config.hidden_size // self.config.num_attention_heads
        return int(self.layers * 2 * heads * size * self._model.dtype.itemsize)

    def run(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        """Compute pieces; their keys and values are there afterwards.

        Args:
            pieces: Pieces of different sequences; at least one token in all.

        Returns:
            For each piece the last layer's results at its ``rows``, shape (rows, hidden size).
        """
        packed = PackedPass(pieces)
        ids = [token for piece in pieces for token in piece.tokens]
        places = [place for piece in pieces for place in piece.places()]
        adapted = [(slice(start, stop), piece.adapter) for piece, start, stop in packed.parts()]
        named = [(rows, adapter) for rows, adapter in adapted if adapter is not None]
        with torch.inference_mode(), self._adapting(named):
            wanted = [start + row for piece, start, _ in packed.parts() for row in piece.rows]
            hidden = self._hidden(packed, ids, places, wanted, adapted=bool(named))
            results = list(torch.split_with_sizes(hidden, [len(piece.rows) for piece in pieces]))
        for piece in pieces:
            piece.kv.length += len(piece.tokens)
        return results

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of the whole vocabulary, in fp32, for rows of :meth:`run`."""
        with torch.inference_mode():
            return self._shaped(self._head(hidden).float())

    def logits_of(self, hidden: torch.Tensor, ids: NDArray[np.int64]) -> torch.Tensor:
        """Return the logits of a few tokens, without computing those of the others.

        Args:
            hidden: One row of :meth:`run`, shape (hidden size,).
            ids: The tokens.

        Returns:
            fp32 of shape (tokens,).
        """
        head = self._head
        if isinstance(head, Int8Linear):
            with torch.inference_mode():
                return self._shaped(head.channels(torch.from_numpy(ids))(hidden[None])[0])
        weight = getattr(head, "weight", None)
        if type(head) is not torch.nn.Linear or weight is None or weight.is_quantized:
            return self.logits(hidden[None])[0][torch.from_numpy(ids).to(hidden.device)]
        with torch.inference_mode():
            chosen = torch.from_numpy(ids).to(weight.device)
            bias = None if head.bias is None else head.bias[chosen]
            return self._shaped(torch.nn.functional.linear(hidden, weight[chosen], bias).float())

    def new_kv(self, capacity: int) -> SequenceKV:
        """Make room for the keys and values of a sequence."""
        return SequenceKV.empty(self.layers, capacity)

    def _hidden(
        self, packed: PackedPass, ids: list[int], places: list[int], wanted: list[int], *, adapted: bool
    ) -> torch.Tensor:
        if self._lean is not None:
            return self._lean.run(packed, ids, places, wanted, by_modules=adapted)
        device = self._model.device
        hidden: torch.Tensor = self._decoder(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([places], device=device),
            # Four dimensions keep transformers from making masks of its own.
            attention_mask=torch.empty((1, 1, 1, 1), device=device),
            past_key_values=packed,
            use_cache=True,
            packed=packed,
        ).last_hidden_state[0]
        return hidden[wanted]

    def _adapting(self, named: Sequence[tuple[slice, str]]) -> AbstractContextManager[None]:
        if not named:
            return nullcontext()
        if self._adapters is None:
            raise ModelError(f"no adapter {named[0][1]!r} is loaded")
        return self._adapters.active(named)

    def _shaped(self, logits: torch.Tensor) -> torch.Tensor:
        """Apply what some families do to their logits after the output layer."""
        config = self.config
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None):  # Cohere
            logits = logits * config.logit_scale
        if getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
        return logits


def _lean(decoder: Any) -> LeanDecoder | None:
    """Import numba, and compile with it, only where it is used."""
    from watchkeeper.models.lean_decoder import LeanDecoder

    return LeanDecoder.of(decoder)
