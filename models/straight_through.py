"""Linear layers that compute with the int8 weights that are served, and pass gradients through fp32 ones.

An adapter that is trained so learns beside the very numbers that it will be used beside, and a forward pass
costs half of one in fp32. Gradients ignore the rounding (the straight-through estimator, Bengio et al. 2013,
https://arxiv.org/abs/1308.3432), as those of QLoRA do (Dettmers et al. 2023,
https://arxiv.org/abs/2305.14314).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from watchkeeper.models.int8 import Int8Linear
from watchkeeper.models.int8_model import FINE

_FINE_PARTS = FINE | {"q_proj", "k_proj", "v_proj"}


class _Product(torch.autograd.Function):
    """The int8 product forwards, the fp32 one backwards."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, served: Int8Linear) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return served(hidden)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ weight, None, None


class StraightThroughLinear(nn.Linear):
    """A frozen linear layer whose results are those of its int8 twin.

    Args:
        linear: The layer; its weight is shared.
        fine: See `Int8Linear`.
    """

    def __init__(self, linear: nn.Linear, *, fine: bool) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight
        self.bias = linear.bias
        self._served = (Int8Linear.from_linear(linear, fine=fine),)  # a tuple: no part of the state

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features) in fp32."""
        result: torch.Tensor = _Product.apply(hidden, self.weight, self._served[0])  # type: ignore[no-untyped-call]
        return result


def compute_as_served(model: nn.Module) -> None:
    """Let every linear layer of an fp32 model compute as it is served in int8."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            owner, _, attribute = name.rpartition(".")
            layer = StraightThroughLinear(module, fine=attribute in _FINE_PARTS)
            setattr(model.get_submodule(owner), attribute, layer.requires_grad_(False))
