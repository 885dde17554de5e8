"""A whole causal language model with int8 linear layers, assembled from mapped files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from watchkeeper.models.errors import IntegrityError
from watchkeeper.models.int8 import Int8Linear, quantize_weight

# Layers that read the same input become one matmul; their results are consecutive output channels.
FUSED: Mapping[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_WEIGHT = ".weight"
_SCALE = ".scale"
_BIAS = ".bias"


class TensorFolder:
    """The tensors of a folder of safetensors by name, mapped and not read until used."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._folder = folder
        self._files: dict[str, Any] = {}
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            message = (
                f"{folder} holds no safetensors: the weights must have that format (pickles are refused)"
            )
            raise IntegrityError(message)
        for path in paths:
            opened = safe_open(path, framework="pt")
            for name in opened.keys():  # noqa: SIM118 (not a mapping)
                self._files[name] = opened

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> torch.Tensor:
        try:
            tensor: torch.Tensor = self._files[name].get_tensor(name)
        except KeyError:
            message = (
                f"{self._folder} holds no tensor {name!r}: the files and config.json do not belong together"
            )
            raise IntegrityError(message) from None
        return tensor


class HalfEmbedding(nn.Module):
    """An embedding table that stays mapped in the precision it is stored in; rows come out in fp32."""

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look up fp32 rows."""
        return nn.functional.embedding(ids, self.weight).float()


def empty_model(weights: Path) -> nn.Module:
    """Build the model that ``config.json`` describes, without memory for its parameters."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(weights), local_files_only=True, trust_remote_code=False)
    from_config: Any = AutoModelForCausalLM.from_config
    with init_empty_weights():
        model: nn.Module = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
    return model


def quantized_tensors(weights: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Quantize every linear layer of a folder, one after the other.

    Yields:
        Names and tensors of int8 weights (``.weight``), scales and biases; layers that read the same
        input come fused under the names of ``FUSED``.
    """
    source = TensorFolder(weights)
    model = empty_model(weights)
    for name, parts in _groups(model):
        integers, scales, biases = [], [], []
        for part in parts:
            linear = model.get_submodule(part)
            quantized, scale = quantize_weight(source[_stored_name(part + _WEIGHT, source)])
            integers.append(quantized)
            scales.append(scale)
            if linear.bias is not None:
                biases.append(source[part + _BIAS].float())
        yield name + _WEIGHT, torch.cat(integers)
        yield name + _SCALE, torch.cat(scales)
        if biases:
            yield name + _BIAS, torch.cat(biases)


def load_int8(weights: Path, cached: Path | None) -> nn.Module:
    """Load a model with int8 linear layers, everything else in fp32.

    Args:
        weights: Folder with ``config.json`` and safetensors.
        cached: Folder of tensors that ``quantized_tensors`` made earlier; quantized now where ``None``.

    Returns:
        The model in evaluation mode. An attention block has ``qkv_proj`` beside ``q_proj``, ``k_proj`` and
        ``v_proj``, a gated MLP ``gate_up_proj`` beside ``gate_proj`` and ``up_proj``: the same memory twice.
    """
    source = TensorFolder(weights)
    model = empty_model(weights)
    groups = _groups(model)
    tensors = TensorFolder(cached) if cached else dict(quantized_tensors(weights))
    for name, parts in groups:
        bias = tensors[name + _BIAS] if name + _BIAS in tensors else None
        layer = Int8Linear(tensors[name + _WEIGHT], tensors[name + _SCALE], bias)
        if parts != (name,):
            owner, _, attribute = name.rpartition(".")
            model.get_submodule(owner).add_module(attribute, layer)
        start = 0
        for part in parts:
            size = model.get_submodule(part).out_features
            _replace(model, part, layer if parts == (name,) else layer.rows(start, start + size))
            start += size
    _fill(model, source)
    return model.eval()


def _groups(model: nn.Module) -> list[tuple[str, tuple[str, ...]]]:
    """Every linear layer once: its name and itself, or the name of a fusion and its members."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    groups: list[tuple[str, tuple[str, ...]]] = []
    for name in linear:
        owner, _, attribute = name.rpartition(".")
        for fused, members in FUSED.items():
            names = tuple(f"{owner}.{member}" for member in members)
            if attribute in members and all(member in linear for member in names):
                biases = {linear[member].bias is None for member in names}
                if len(biases) == 1:
                    if attribute == members[0]:
                        groups.append((f"{owner}.{fused}", names))
                    break
        else:
            groups.append((name, (name,)))
    return groups


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)


def _stored_name(name: str, source: TensorFolder) -> str:
    """The name a tied output layer is stored under."""
    if name == "lm_head.weight" and name not in source:
        return "model.embed_tokens.weight"
    return name


def _fill(model: nn.Module, source: TensorFolder) -> None:
    """Give every parameter that is still empty its value."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Embedding):
            _replace(model, name, HalfEmbedding(source[f"{name}.weight"]))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            _replace(model, name, nn.Parameter(source[name].float(), requires_grad=False))
