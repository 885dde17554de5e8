"""The decoder of the most common families, without the Python between its matmuls.

A forward pass of one token takes as long as its weights take to be read, if nothing stands in between. In
transformers' modules some fifty small tensor operations a layer do. Here a layer is four matmuls, attention
and four short loops. It computes what the modules compute (`tests/engine/test_lean_decoder.py` compares),
for models whose linear layers are ours; all others go through their modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from watchkeeper.models import int8
from watchkeeper.models.attention import ENDLESS, attend
from watchkeeper.models.crew import crew
from watchkeeper.models.int8 import FusedInt8Linear, Int8Linear
from watchkeeper.models.lean_layer import COLUMNS, Linear, Scratch, attending_half, following_half, team
from watchkeeper.models.packed import PackedPass, Piece
from watchkeeper.models.rowwise import add_and_normalize, gate, normalize, rotate

Floats = NDArray[np.float32]

# Decoders whose layers norm, attend, norm and pass a gated SiLU, and do nothing else.
_KNOWN = frozenset({"LlamaModel", "Qwen2Model"})


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Floats
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> _Norm:
        return cls(module.weight.detach().numpy(), module.variance_epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    """The parts of one layer, as its modules hold them.

    Attributes:
        attention: The module that attends.
        mlp: The gated network.
        before: The norm before attention.
        between: The norm before the gated network.
        heads: Heads of queries, and of keys.
        size: Size of a head.
        window: Last tokens that a token may look at; all where ``None``.
        linears: What queries, keys and values come from; attention's output; the joined first layers of the
            network; its last one.
    """

    attention: Any
    mlp: Any
    before: _Norm
    between: _Norm
    heads: tuple[int, int]
    size: int
    window: int | None
    linears: tuple[Linear, Linear, Linear, Linear]

    @classmethod
    def of(cls, module: Any) -> _Layer:
        attention = module.self_attn
        sizes, size = attention.qkv_proj.sizes, attention.head_dim
        return cls(
            attention,
            module.mlp,
            _Norm.of(module.input_layernorm),
            _Norm.of(module.post_attention_layernorm),
            (sizes[0] // size, sizes[1] // size),
            size,
            getattr(attention, "sliding_window", None),
            (
                attention.qkv_proj.whole.arrays,
                attention.o_proj.arrays,
                module.mlp.gate_up_proj.whole.arrays,
                module.mlp.down_proj.arrays,
            ),
        )

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weights."""
        return tuple(weight.shape for weight, _, _ in self.linears)

    def table(self, packed: PackedPass, index: int) -> NDArray[np.int64]:
        """Say where the keys and values of each piece are; see :func:`attending_half`."""
        rows = []
        for piece, start, stop in packed.parts():
            if start == stop:
                continue
            span = piece.kv.room(index, self.heads[1], self.size)
            mask = 0 if piece.mask is None else piece.seen(self.window).data_ptr()
            places = (span.keys.data_ptr(), span.values.data_ptr(), span.keys.shape[1])
            rows.append((start, stop, piece.kv.length, *places, mask))
        return np.array(rows, dtype=np.int64).reshape(-1, COLUMNS)

    def attend(self, piece: Piece, index: int, rows: Floats, out: Floats) -> None:
        """Let the tokens of a piece attend; their keys and values are stored."""
        span = piece.kv.room(index, self.heads[1], self.size)
        masked = piece.mask is not None
        attend(
            *(rows, self.heads[0], span.keys.numpy(), span.values.numpy(), piece.kv.length),
            *(self.attention.scaling, out),
            window=None if masked else self.window,
            mask=piece.seen(self.window).numpy() if masked else None,
        )

    def queries_keys_values(self, rows: Floats, *, by_modules: bool) -> Floats:
        attention = self.attention
        if by_modules:
            return _joined(rows, attention.q_proj, attention.k_proj, attention.v_proj)
        whole: Int8Linear = attention.qkv_proj.whole
        return whole.product(rows)

    def output(self, rows: Floats, *, by_modules: bool) -> Floats:
        layer: Int8Linear = self.attention.o_proj
        return _joined(rows, layer) if by_modules else layer.product(rows)

    def gated(self, rows: Floats, *, by_modules: bool) -> Floats:
        mlp = self.mlp
        whole: Int8Linear = mlp.gate_up_proj.whole
        both = _joined(rows, mlp.gate_proj, mlp.up_proj) if by_modules else whole.product(rows)
        hidden = gate(both)
        last: Int8Linear = mlp.down_proj
        return _joined(hidden, last) if by_modules else last.product(hidden)


class LeanDecoder:
    """Computes the last hidden state of packed pieces.

    Args:
        decoder: The decoder of a model, as transformers made it.
    """

    def __init__(self, decoder: Any) -> None:
        self._embed, self._positions = decoder.embed_tokens, decoder.rotary_emb
        self._layers = [_Layer.of(module) for module in decoder.layers]
        self._last = _Norm.of(decoder.norm)

    @classmethod
    def of(cls, decoder: Any) -> LeanDecoder | None:
        """Take over a decoder, or return ``None`` where something in it is not known here."""
        if type(decoder).__name__ not in _KNOWN or not type(decoder).__module__.startswith("transformers."):
            return None
        if decoder.config.hidden_act != "silu":
            return None
        if not all(_is_known(module) for module in decoder.layers):
            return None
        lean = cls(decoder)
        # What is written over by all layers has one size.
        return lean if len({layer.shapes for layer in lean._layers}) == 1 else None

    def run(
        self, packed: PackedPass, ids: list[int], places: list[int], wanted: list[int], *, by_modules: bool
    ) -> torch.Tensor:
        """Compute the tokens of a pass; their keys and values are there afterwards.

        Args:
            packed: The pass.
            ids: The tokens of all its pieces.
            places: Their positions.
            wanted: The tokens whose results are asked for; of the others the last layer computes keys and
                values alone.
            by_modules: Whether linear layers are called as modules, so that adapters are added.

        Returns:
            fp32 of shape (wanted tokens, hidden size).
        """
        embedded = self._embed(torch.tensor(ids))
        cosines, sines = (part[0].numpy() for part in self._positions(embedded, torch.tensor([places])))
        rows: Floats = embedded.numpy()
        if by_modules or int8.multiplies_bytes():
            result = self._in_steps(packed, rows, cosines, sines, wanted, by_modules=by_modules)
        else:
            with crew:
                result = self._in_halves(packed, rows, cosines, sines, wanted)
        return torch.from_numpy(result)

    def _in_halves(
        self, packed: PackedPass, rows: Floats, cosines: Floats, sines: Floats, wanted: list[int]
    ) -> Floats:
        """Compute with loops that are compiled by layers, over our own products; the crew was entered."""
        scratch, workers = Scratch.of(len(rows), self._layers[0].shapes), team()
        change = np.empty((0, rows.shape[1]), dtype=np.float32)
        for index, layer in enumerate(self._layers):
            qkv, output, gate_up, down = layer.linears
            attending_half(
                rows,
                change,
                layer.before.weight,
                layer.before.epsilon,
                qkv,
                cosines,
                sines,
                layer.heads[0],
                layer.heads[1],
                layer.attention.scaling,
                ENDLESS if layer.window is None else layer.window,
                layer.table(packed, index),
                scratch.mixed,
                scratch.seen,
                scratch.integers,
                scratch.steps,
                scratch.given,
                workers,
            )
            if index == len(self._layers) - 1:
                rows, scratch = rows[wanted], scratch.rows(wanted)
            change = scratch.change
            following_half(
                rows,
                scratch.seen,
                output,
                layer.between.weight,
                layer.between.epsilon,
                gate_up,
                down,
                scratch.both,
                scratch.hidden,
                change,
                scratch.integers,
                scratch.steps,
                scratch.given,
                workers,
            )
        return add_and_normalize(rows, change, self._last.weight, self._last.epsilon)

    def _in_steps(
        self,
        packed: PackedPass,
        rows: Floats,
        cosines: Floats,
        sines: Floats,
        wanted: list[int],
        *,
        by_modules: bool,
    ) -> Floats:
        """Compute with whatever linear layers do."""
        change: Floats | None = None
        for index, layer in enumerate(self._layers):
            if change is None:
                normed = normalize(rows, layer.before.weight, layer.before.epsilon)
            else:
                normed = add_and_normalize(rows, change, layer.before.weight, layer.before.epsilon)
            seen = self._seen(packed, index, normed, cosines, sines, by_modules=by_modules)
            # Adapters know the rows of a pass by their places, so with them all go on.
            if index == len(self._layers) - 1 and not by_modules:
                rows, seen = rows[wanted], seen[wanted]
            attended = layer.output(seen, by_modules=by_modules)
            normed = add_and_normalize(rows, attended, layer.between.weight, layer.between.epsilon)
            change = layer.gated(normed, by_modules=by_modules)
        assert change is not None, "a decoder has layers"
        result = add_and_normalize(rows, change, self._last.weight, self._last.epsilon)
        return result[wanted] if by_modules else result

    def _seen(
        self,
        packed: PackedPass,
        index: int,
        normed: Floats,
        cosines: Floats,
        sines: Floats,
        *,
        by_modules: bool,
    ) -> Floats:
        layer = self._layers[index]
        mixed = layer.queries_keys_values(normed, by_modules=by_modules)
        rotate(mixed, sum(layer.heads), cosines, sines)
        seen = np.empty((len(normed), layer.heads[0] * layer.size), dtype=np.float32)
        for piece, start, stop in packed.parts():
            if start < stop:
                layer.attend(piece, index, mixed[start:stop], seen[start:stop])
        return seen


def _is_known(layer: Any) -> bool:
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    fused = [getattr(attention, "qkv_proj", None), getattr(mlp, "gate_up_proj", None)]
    plain = [getattr(attention, "o_proj", None), getattr(mlp, "down_proj", None)]
    return all(isinstance(module, FusedInt8Linear) for module in fused) and all(
        isinstance(module, Int8Linear) for module in plain
    )


def _joined(rows: Floats, *modules: Any) -> Floats:
    """The results of modules that read the same rows, side by side."""
    given = torch.from_numpy(rows)[None]
    results = [module(given)[0] for module in modules]
    joined: Floats = (results[0] if len(results) == 1 else torch.cat(results, dim=1)).numpy()
    return joined
