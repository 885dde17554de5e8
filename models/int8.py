"""A linear layer over 8-bit integers: weights scaled per output channel, activations per row.

A row is quantized by its own largest magnitude and accumulated in integers, so its result is the same
to the last bit whatever else is in the batch. The scheme is the vector-wise quantization of LLM.int8()
(Dettmers et al. 2022, https://arxiv.org/abs/2208.07339) without its outlier path.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

LEVELS = 127
# Smallest magnitude a row is scaled by: keeps 127 / magnitude finite in fp32.
_TINY = 1e-30
# Integer products of this many terms stay below 2**24, where fp32 still holds every integer.
_EXACT_TERMS = 1024


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
    magnitude = torch.linalg.vector_norm(rows, ord=float("inf"), dim=1, keepdim=True).clamp_min_(_TINY)
    return rows.mul(LEVELS / magnitude).round_().to(torch.int8), magnitude


def integer_matmul(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply int8 rows (M, K) by an int8 weight (N, K) transposed, exactly, as int32 (M, N)."""
    if _kernel_is_exact(rows.device.type):
        return torch._int_mm(rows, weight.t())
    return _matmul_by_blocks(rows, weight)


def _matmul_by_blocks(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(rows.shape[0], weight.shape[0], dtype=torch.int32, device=rows.device)
    for start in range(0, rows.shape[1], _EXACT_TERMS):
        terms = slice(start, start + _EXACT_TERMS)
        total += (rows[:, terms].float() @ weight[:, terms].float().t()).to(torch.int32)
    return total


@cache
def _kernel_is_exact(device: str) -> bool:
    """Whether torch has an integer kernel on this machine that is exact at the ends of the range.

    On x86 before VNNI, oneDNN adds pairs of products in 16 bits and saturates, without a word.
    """
    rows = torch.full((17, 64), LEVELS, dtype=torch.int8, device=device)
    weight = torch.full((32, 64), -LEVELS, dtype=torch.int8, device=device)
    try:
        product = torch._int_mm(rows, weight.t())
    except (RuntimeError, NotImplementedError):
        return False
    return bool((product == -LEVELS * LEVELS * 64).all())


class Int8Linear(nn.Module):
    """A linear layer whose weight is int8.

    Attributes:
        in_features: Size of a row that goes in.
        out_features: Size of a row that comes out.
        weight: int8 of shape (out_features, in_features).
        scale: fp32 scale of each output channel, divided by 127.
        bias: fp32 of shape (out_features,), or ``None``.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """Wrap a weight that is quantized already.

        Args:
            weight: int8 of shape (out_features, in_features).
            scale: fp32 scale of each output channel, as ``quantize_weight`` returns it.
            bias: Floats of shape (out_features,), or ``None``.
        """
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scale", scale / LEVELS, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.float(), persistent=False)

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> Int8Linear:
        """Quantize an ordinary linear layer."""
        weight, scale = quantize_weight(linear.weight.detach())
        return cls(weight, scale, None if linear.bias is None else linear.bias.detach())

    def rows(self, start: int, stop: int) -> Int8Linear:
        """The layer that computes only some of the output channels, over the same memory."""
        bias = None if self.bias is None else self.bias[start:stop]
        part = Int8Linear(self.weight[start:stop], self.scale[start:stop], bias)
        part.scale = self.scale[start:stop]
        return part

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features) in fp32."""
        rows, magnitude = quantize_rows(hidden.reshape(-1, self.in_features))
        product = torch.mul(integer_matmul(rows, self.weight), self.scale)
        if self.bias is None:
            product.mul_(magnitude)
        else:
            product = torch.addcmul(self.bias, product, magnitude)
        return product.view(*hidden.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Shape, for ``print(model)``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )
