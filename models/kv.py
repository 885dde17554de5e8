"""Keys and values of one sequence, in memory that is allocated once and grows by doubling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_STEP = 64


class SequenceLayer(CacheLayerMixin):
    """One layer's keys and values, of shape (1, heads, capacity, head size), filled up to ``length``."""

    is_sliding = False
    is_croppable = True

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        self.capacity = capacity
        self.length = 0
        self.buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the memory, now that the shapes are known."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.allocate(key_states, value_states)

    def allocate(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Allocate memory for keys and values of these shapes, at the capacity."""
        self.buffers = (_empty_like(keys, self.capacity), _empty_like(values, self.capacity))
        self.is_initialized = True
        return self.buffers

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append and return all keys and values so far, without copying what was there."""
        end = self.length + key_states.shape[-2]
        if end > self.capacity:
            self.reserve(max(end, 2 * self.capacity))
        keys, values = self.buffers or self.allocate(key_states, value_states)
        keys[:, :, self.length : end] = key_states
        values[:, :, self.length : end] = value_states
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def reserve(self, capacity: int) -> None:
        """Change the capacity, keeping what is filled in."""
        self.capacity = capacity
        if self.buffers is not None:
            old = self.buffers
            for source, target in zip(old, self.allocate(*old), strict=True):
                target[:, :, : self.length] = source[:, :, : self.length]

    def copy_prefix(self, length: int, capacity: int) -> SequenceLayer:
        """Copy the first tokens into a new layer."""
        copy = SequenceLayer(capacity)
        if self.buffers is not None:
            for source, target in zip(self.buffers, copy.allocate(*self.buffers), strict=True):
                target[:, :, :length] = source[:, :, :length]
            copy.length = length
        return copy

    def get_seq_length(self) -> int:
        """Return the number of tokens held."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: the layer grows."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and the offset of the keys that a query of that length sees."""
        return self.length + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens (the count is negative, as in transformers)."""
        self.length = max(0, self.length - abs(tokens_to_remove))


class SequenceCache(Cache):
    """The keys and values of one sequence.

    Against transformers' ``DynamicCache``, which copies everything at every token, appending here writes the
    new token only. Sliding-window layers are not supported.

    Args:
        layers: The layers.
    """

    def __init__(self, layers: Sequence[SequenceLayer]) -> None:
        self.sequence_layers = tuple(layers)
        super().__init__(layers=list(layers))

    @classmethod
    def empty(cls, layers: int, capacity: int) -> SequenceCache:
        """Make a cache without tokens.

        Args:
            layers: Number of layers of the model.
            capacity: Tokens to make room for.
        """
        return cls([SequenceLayer(_rounded(capacity)) for _ in range(layers)])

    @property
    def length(self) -> int:
        """Tokens held by every layer."""
        return min(layer.length for layer in self.sequence_layers)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, unused capacity included."""
        return sum(buffer.nbytes for layer in self.sequence_layers for buffer in layer.buffers or ())

    def truncate(self, length: int) -> None:
        """Forget the tokens from ``length`` on."""
        for layer in self.sequence_layers:
            layer.length = min(layer.length, length)

    def trim(self) -> None:
        """Give unused capacity back."""
        for layer in self.sequence_layers:
            if _rounded(layer.length) < layer.capacity:
                layer.reserve(_rounded(layer.length))

    def copy_prefix(self, length: int, capacity: int) -> SequenceCache:
        """Copy the first tokens into a new cache with room for ``capacity`` tokens."""
        room = _rounded(max(capacity, length))
        return SequenceCache([layer.copy_prefix(length, room) for layer in self.sequence_layers])


def _rounded(capacity: int) -> int:
    return max(1, -(-capacity // _STEP)) * _STEP


def is_supported(layer_types: Sequence[str] | None, sliding_window: int | None) -> bool:
    """Whether a model attends to all tokens in every layer, so that any prefix can be reused."""
    if layer_types is not None:
        return all(kind == "full_attention" for kind in layer_types)
    return not sliding_window


def _empty_like(states: torch.Tensor, capacity: int) -> torch.Tensor:
    batch, heads, _, size = states.shape
    return torch.empty((batch, heads, capacity, size), dtype=states.dtype, device=states.device)
