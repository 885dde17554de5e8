"""A linear layer over 8-bit integers: weights scaled per output channel, activations per row.

A row is quantized by its own largest magnitude and accumulated in integers, so its result is the same to the
last bit whatever else is in the batch. Where the processor multiplies bytes (VNNI), activations are 8 bits as
well: the vector-wise quantization of LLM.int8() (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339)
without its outlier path. Elsewhere they keep 15 bits (``watchkeeper.models.integer_products``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

LEVELS = 127
# Smallest magnitude a row is scaled by: keeps 127 / magnitude finite in fp32.
_TINY = 1e-30
_ROWS_AT_ONCE = 128
_Arrays = tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]
# Rounding leaves at most half a step: the second term divides it into 127 steps to either side.
_FINER = 2 * LEVELS


def quantize_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize a weight matrix symmetrically per output channel.

    Args:
        weight: Floats of shape (out_features, in_features).

    Returns:
        int8 of the same shape, and the fp32 scale of each output channel (out_features,):
        ``weight`` is about ``integers * scale[:, None]``.
    """
    weight = weight.float()
    scale = weight.abs().amax(dim=1).clamp_min(_TINY).div_(LEVELS)
    integers = weight.div(scale[:, None]).round_().clamp_(-LEVELS, LEVELS).to(torch.int8)
    return integers, scale


def quantize_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize activations symmetrically, each row by its own range.

    Args:
        rows: fp32 of shape (rows, features).

    Returns:
        int8 of the same shape, and the largest magnitude of each row (rows, 1).
    """
    # Two passes, and still ten times as fast as vector_norm(ord=inf), which is not vectorized.
    magnitude = rows.abs().amax(dim=1, keepdim=True).clamp_min_(_TINY)
    return rows.mul(LEVELS / magnitude).round_().to(torch.int8), magnitude


def quantize_rows_finely(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize activations to two int8 terms, the second holding what rounding took from the first.

    Args:
        rows: fp32 of shape (rows, features).

    Returns:
        int8 of shape (2 rows, features), the first terms above the second, and the largest magnitude of
        each row (rows, 1): ``rows`` is about ``(first + second / 254) * magnitude / 127``.
    """
    magnitude = rows.abs().amax(dim=1, keepdim=True).clamp_min_(_TINY)
    scaled = rows.mul(LEVELS / magnitude)
    first = scaled.round()
    second = scaled.sub_(first).mul_(_FINER).round_()
    return torch.cat([first, second]).to(torch.int8), magnitude


def scaled_matmul(rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Multiply int8 rows (M, K) by an int8 weight (N, K) transposed; scale each column, in fp32 (M, N).

    The integers are accumulated exactly; each result is rounded to fp32 once before it is scaled.
    """
    out = torch.empty(rows.shape[0], weight.shape[0], dtype=torch.float32, device=rows.device)
    # Blocks of rows whose products stay in the cache until they are scaled.
    for start in range(0, rows.shape[0], _ROWS_AT_ONCE):
        block, chunk = out[start : start + _ROWS_AT_ONCE], rows[start : start + _ROWS_AT_ONCE]
        # The integers are scaled in the memory they were written to: both types have four bytes.
        integers = block.view(torch.int32)
        torch._int_mm(chunk, weight.t(), out=integers)
        block.copy_(integers).mul_(scale)
    return out


def multiplies_bytes() -> bool:
    """Whether this processor multiplies bytes fast and exactly; without VNNI torch does it one by one."""
    return torch.cpu._is_vnni_supported() and kernel_is_exact()


@cache
def kernel_is_exact() -> bool:
    """Whether torch's integer kernel is exact at the ends of the range.

    Without VNNI, kernels that add pairs of products in 16 bits saturate, without a word.
    """
    rows = torch.full((17, 64), LEVELS, dtype=torch.int8)
    weight = torch.full((32, 64), -LEVELS, dtype=torch.int8)
    try:
        product = torch._int_mm(rows, weight.t())
    except (RuntimeError, NotImplementedError):
        return False
    return bool((product == -LEVELS * LEVELS * 64).all())


def packed_matmul(rows: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Do what ``scaled_matmul`` does, over a weight that was packed before."""
    zero_points = torch.zeros_like(scale, dtype=torch.int64)
    product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        *(rows, 1.0, 0, packed, scale, zero_points, None, 1.0, 0, torch.float32, "none", [], "")
    )
    return product


@cache
def packing_is_faster() -> bool:
    """Whether this machine multiplies a packed weight faster, and to the same bits.

    With AMX every call of the plain kernel rearranges the weight first; with VNNI alone it need not, and
    the packed kernel falls back to a loop a hundred times as slow. Tried out, since AMX can be switched off
    for oneDNN alone.
    """
    if not (torch.cpu._is_amx_tile_supported() and multiplies_bytes()):
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-LEVELS, LEVELS + 1, (2048, 512), dtype=torch.int8, generator=generator)
    rows = torch.randint(-LEVELS, LEVELS + 1, (4, 512), dtype=torch.int8, generator=generator)
    scale = torch.rand(2048, generator=generator)
    try:
        packed = _pack(weight)
        if not torch.equal(packed_matmul(rows, packed, scale), scaled_matmul(rows, weight, scale)):
            return False
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    plain = _seconds(lambda: scaled_matmul(rows, weight, scale))
    # The slack keeps a busy machine from deciding: it is one or the other by far.
    return _seconds(lambda: packed_matmul(rows, packed, scale)) < 5 * plain


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def _seconds(call: Callable[[], object]) -> float:
    """The quickest of a few calls: what a call costs when nothing interferes."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


class Int8Linear(nn.Module):
    """A linear layer whose weight is int8.

    Attributes:
        in_features: Size of a row that goes in.
        out_features: Size of a row that comes out.
        weight: int8 of shape (out_features, in_features).
        scale: fp32 scale of each output channel, divided by 127.
        bias: fp32 of shape (out_features,), or ``None``.
        fine: Whether activations are two int8 terms instead of one: twice the products, and where a few
            features are much larger than the rest an error two orders of magnitude smaller.
        packed: The weight in the layout of oneDNN's kernel, or ``None``.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        fine: bool = False,
    ) -> None:
        """Wrap a weight that is quantized already.

        Args:
            weight: int8 of shape (out_features, in_features).
            scale: fp32 scale of each output channel, as ``quantize_weight`` returns it.
            bias: Floats of shape (out_features,), or ``None``.
            fine: Whether activations are two int8 terms instead of one.
        """
        super().__init__()
        self.fine = fine
        self.packed: torch.Tensor | None = None
        self._arrays: _Arrays | None = None
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scale", scale / LEVELS, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.float(), persistent=False)

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, fine: bool = False) -> Int8Linear:
        """Quantize an ordinary linear layer."""
        weight, scale = quantize_weight(linear.weight.detach())
        return cls(weight, scale, None if linear.bias is None else linear.bias.detach(), fine=fine)

    def rows(self, start: int, stop: int) -> Int8Linear:
        """The layer that computes only some of the output channels, over the same memory."""
        bias = None if self.bias is None else self.bias[start:stop]
        part = Int8Linear(self.weight[start:stop], self.scale[start:stop], bias, fine=self.fine)
        part.scale = self.scale[start:stop]
        return part

    def channels(self, indices: torch.Tensor) -> Int8Linear:
        """The layer that computes only the output channels of these indices, over copies of their weights."""
        bias = None if self.bias is None else self.bias[indices]
        part = Int8Linear(self.weight[indices], self.scale[indices], bias, fine=self.fine)
        part.scale = self.scale[indices]
        return part

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features) in fp32."""
        rows = hidden.detach().float().reshape(-1, self.in_features).contiguous()
        out = torch.from_numpy(self.product(rows.numpy()))
        return out.view(*hidden.shape[:-1], self.out_features)

    def product(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Do what :meth:`forward` does to contiguous rows (M, in_features), without what tensors cost."""
        if multiplies_bytes():
            product: NDArray[np.float32] = self._by_bytes(torch.from_numpy(rows)).numpy()
            return product
        from watchkeeper.models.integer_products import multiply

        return multiply(rows, *self.arrays)

    @property
    def arrays(self) -> _Arrays:
        """The weight, its scale and the bias (empty where there is none), for loops that we compile.

        They work on addresses: rows lie one behind the other.
        """
        if self._arrays is None:
            bias = torch.empty(0) if self.bias is None else self.bias.contiguous()
            self._arrays = (self.weight.contiguous().numpy(), (self.scale * LEVELS).numpy(), bias.numpy())
        return self._arrays

    def _by_bytes(self, hidden: torch.Tensor) -> torch.Tensor:
        quantize = quantize_rows_finely if self.fine else quantize_rows
        rows, magnitude = quantize(hidden)
        if self.packed is None:
            product = scaled_matmul(rows, self.weight, self.scale)
        else:
            product = packed_matmul(rows, self.packed, self.scale)
        if self.fine:
            first, second = product.tensor_split(2)
            product = first.add_(second, alpha=1 / _FINER)
        product.mul_(magnitude)
        if self.bias is not None:
            product.add_(self.bias)
        return product

    def pack(self) -> None:
        """Keep a second copy of the weight in the kernel's own layout, where that is faster."""
        if packing_is_faster():
            self.packed = _pack(self.weight)

    def extra_repr(self) -> str:
        """Shape, for ``print(model)``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, fine={self.fine}"
        )


class FusedInt8Linear(nn.Module):
    """Several linear layers that read the same input, computed by one matmul.

    The members stay where the model's own code calls them, one after the other with the same tensor: the
    first computes for all, and the others hand out their share.

    Attributes:
        whole: The layer whose output channels are those of the members, one after the other.
        sizes: Number of output channels of each member.
    """

    whole: Int8Linear

    def __init__(self, whole: Int8Linear, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.whole = whole
        self.sizes = sizes
        # By thread, since one model may be called from several.
        self._held: dict[int, tuple[torch.Tensor, tuple[torch.Tensor, ...]]] = {}

    def members(self) -> tuple[FusedMember, ...]:
        """A module for each member, in order."""
        starts = [sum(self.sizes[:index]) for index in range(len(self.sizes))]
        return tuple(
            FusedMember(self, index, self.whole.rows(start, start + size))
            for index, (start, size) in enumerate(zip(starts, self.sizes, strict=True))
        )

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map (..., in_features) to the results of all members."""
        return torch.split_with_sizes(self.whole(hidden), self.sizes, dim=-1)

    def share(self, index: int, hidden: torch.Tensor) -> torch.Tensor | None:
        """The result of a member, or ``None`` where the first one was not given this very tensor."""
        thread = threading.get_ident()
        if index == 0:
            self._held[thread] = (hidden, self(hidden))
        held = self._held.get(thread)
        if held is None or held[0] is not hidden:
            return None
        if index == len(self.sizes) - 1:
            del self._held[thread]
        return held[1][index]


class FusedMember(nn.Module):
    """One of several layers that are computed together; on its own it computes its own channels.

    Attributes:
        layer: The member alone, over the same memory.
    """

    layer: Int8Linear

    def __init__(self, group: FusedInt8Linear, index: int, layer: Int8Linear) -> None:
        super().__init__()
        self.layer = layer
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._group = (group,)  # a tuple, so that the group is not registered as a part of each member
        self._index = index

    @property
    def weight(self) -> torch.Tensor:
        """int8 weight of the member."""
        return self.layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """Bias of the member."""
        return self.layer.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features) in fp32."""
        shared = self._group[0].share(self._index, hidden)
        return self.layer(hidden) if shared is None else shared
