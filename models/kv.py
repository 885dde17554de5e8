"""Keys and values of one sequence, in memory that grows by doubling and is written in place."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

_STEP = 64


@dataclass(slots=True)
class LayerSpan:
    """Keys and values of one layer for a run of tokens, each of shape (heads, tokens, head size)."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.keys.nbytes + self.values.nbytes

    def part(self, start: int, stop: int) -> LayerSpan:
        """Copy a run of the tokens into memory of its own."""
        return LayerSpan(self.keys[:, start:stop].clone(), self.values[:, start:stop].clone())


@dataclass(slots=True)
class SequenceKV:
    """The keys and values of one sequence in every layer.

    Against transformers' ``DynamicCache``, which copies everything at every token, appending here writes the
    new tokens only.

    Attributes:
        layers: Buffers by layer, ``None`` until a layer was written.
        capacity: Tokens that the buffers have room for.
        length: Tokens whose keys and values are there, in every layer.
    """

    layers: list[LayerSpan | None]
    capacity: int
    length: int = field(default=0)

    @classmethod
    def empty(cls, layers: int, capacity: int) -> SequenceKV:
        """Make one without tokens.

        Args:
            layers: Number of layers of the model.
            capacity: Tokens to make room for.
        """
        return cls([None] * layers, _rounded(capacity))

    @property
    def nbytes(self) -> int:
        """Bytes of memory, unused capacity included."""
        return sum(layer.nbytes for layer in self.layers if layer is not None)

    def reserve(self, tokens: int) -> None:
        """Make room for this many tokens in all, before a pass writes them."""
        if tokens <= self.capacity:
            return
        self.capacity = _rounded(max(tokens, 2 * self.capacity))
        for index, layer in enumerate(self.layers):
            if layer is not None:
                grown = self._allocate(layer.keys, layer.values)
                grown.keys[:, : self.length] = layer.keys[:, : self.length]
                grown.values[:, : self.length] = layer.values[:, : self.length]
                self.layers[index] = grown

    def write(self, index: int, keys: torch.Tensor, values: torch.Tensor) -> LayerSpan:
        """Write the keys and values of tokens that follow the first ``length`` ones.

        ``length`` stays: it counts once all layers were written.

        Args:
            index: The layer.
            keys: Shape (heads, tokens, head size); the room was reserved.
            values: Of the same shape.

        Returns:
            The layer's buffers.
        """
        layer = self.layers[index]
        if layer is None:
            layer = self.layers[index] = self._allocate(keys, values)
        end = self.length + keys.shape[1]
        layer.keys[:, self.length : end] = keys
        layer.values[:, self.length : end] = values
        return layer

    def room(self, index: int, heads: int, size: int) -> LayerSpan:
        """Return a layer's buffers, to be read up to ``length`` and written behind it; for fp32 on a CPU.

        Args:
            index: The layer.
            heads: Key heads of the layer.
            size: Size of a head.
        """
        layer = self.layers[index]
        if layer is None:
            like = torch.empty((heads, 0, size), dtype=torch.float32)
            layer = self.layers[index] = self._allocate(like, like)
        return layer

    def append(self, spans: list[LayerSpan]) -> None:
        """Copy known keys and values behind those that are there; the room was reserved."""
        for index, span in enumerate(spans):
            self.write(index, span.keys, span.values)
        self.length += spans[0].keys.shape[1] if spans else 0

    def spans(self, start: int, stop: int) -> list[LayerSpan]:
        """Copy the keys and values of a run of tokens, out of every layer."""
        return [layer.part(start, stop) for layer in self.layers if layer is not None]

    def _allocate(self, keys: torch.Tensor, values: torch.Tensor) -> LayerSpan:
        return LayerSpan(
            keys.new_empty((keys.shape[0], self.capacity, keys.shape[2])),
            values.new_empty((values.shape[0], self.capacity, values.shape[2])),
        )


def _rounded(capacity: int) -> int:
    return max(1, -(-capacity // _STEP)) * _STEP
