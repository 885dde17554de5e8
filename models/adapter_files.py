"""LoRA adapters on disk: peft's format, read and checked against the model that they are for.

An adapter adds ``scale * B(A x)`` to the result of a linear layer (LoRA, Hu et al. 2021,
https://arxiv.org/abs/2106.09685). Its folder holds ``adapter_config.json`` and
``adapter_model.safetensors``, as peft's ``save_pretrained`` writes them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from watchkeeper.models.errors import AdapterError, IntegrityError
from watchkeeper.models.formats import check_safetensors
from watchkeeper.models.manifest import digest_file

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
# What changes more than ``scale * B(A x)``, and would be left out in silence.
_UNSUPPORTED: Mapping[str, str] = {
    "use_dora": "DoRA",
    "lora_bias": "biases of its own",
    "modules_to_save": "whole modules beside LoRA",
    "trainable_token_indices": "trained tokens",
    "target_parameters": "LoRA on bare parameters",
    "layer_replication": "replicated layers",
    "use_qalora": "QALoRA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "alora_invocation_tokens": "activated LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "megatron_config": "Megatron layers",
}
# Ways to begin a training that leave the base model as it is; PiSSA and its like change its weights.
_PLAIN_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What an adapter adds to one linear layer.

    Attributes:
        down: fp32 of shape (rank, in_features).
        up: fp32 of shape (out_features, rank), multiplied by the adapter's scale.
    """

    down: torch.Tensor
    up: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.down.nbytes + self.up.nbytes

    def to(self, device: torch.device) -> LowRank:
        """The same on another device."""
        return LowRank(self.down.to(device), self.up.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter in memory.

    Attributes:
        name: What requests call it.
        layers: What it adds, by the name of the linear layer in the model.
        digest: SHA-256 over its configuration and its weights.
    """

    name: str
    layers: Mapping[str, LowRank]
    digest: str

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return sum(layer.nbytes for layer in self.layers.values())

    @property
    def largest_rank(self) -> int:
        """The largest rank of its layers."""
        return max(layer.down.shape[0] for layer in self.layers.values())


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model that an adapter may change, by name.

    They are recognised by their sizes, whoever made them: torch, bitsandbytes, or this package. The layer
    that gives the logits is not among them: an engine computes it for some rows of a pass only.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        sizes = getattr(module, "in_features", None), getattr(module, "out_features", None)
        inside = any(name.startswith(f"{outer}.") for outer in _parents(name) if outer in found)
        if module is not head and not inside and all(isinstance(size, int) for size in sizes):
            found[name] = module
    return found


def read_adapter(name: str, folder: Path, model: nn.Module) -> Adapter:
    """Read an adapter into memory of the CPU.

    Args:
        name: What requests will call it.
        folder: Where it lies.
        model: The model it is for; only names and sizes of its layers are looked at.

    Raises:
        AdapterError: If it is no LoRA adapter in safetensors, or does not fit the model.
    """
    settings = _settings(folder)
    config = _parsed(folder, settings)
    _check_base(folder, config, model)
    targets = _targets(folder, config, linear_layers(model))
    tensors = _tensors(folder)
    layers: dict[str, LowRank] = {}
    for module, layer in targets.items():
        rank, scale = _rank_and_scale(config, module)
        down = _take(folder, tensors, module + _DOWN, (rank, int(layer.in_features)))
        up = _take(folder, tensors, module + _UP, (int(layer.out_features), rank))
        layers[module] = LowRank(down, up * scale)
    if tensors:
        message = f"{folder / WEIGHTS_NAME} holds {min(tensors)!r}, which its configuration does not name"
        raise AdapterError(message)
    return Adapter(name, layers, digest_adapter(folder))


def digest_adapter(folder: Path) -> str:
    """Return the SHA-256 over an adapter's configuration and its weights."""
    parts = [digest_file(folder / part).sha256 for part in (CONFIG_NAME, WEIGHTS_NAME)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _settings(folder: Path) -> dict[str, Any]:
    """The configuration as JSON, refused where it asks for more than plain LoRA."""
    if not folder.is_dir():
        raise AdapterError(f"{folder} is no folder: name the one that peft's save_pretrained wrote")
    path = folder / CONFIG_NAME
    try:
        settings: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AdapterError(f"{folder} is no adapter: it holds no {CONFIG_NAME}") from None
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} cannot be read as JSON: {error}") from error
    kind = settings.get("peft_type") if isinstance(settings, dict) else None
    if kind != "LORA":
        raise AdapterError(f"{path} describes peft_type {kind!r}; only 'LORA' can be used")
    for key, meaning in _UNSUPPORTED.items():
        if settings.get(key):
            raise AdapterError(f"{path} asks for {meaning} ({key}={settings[key]!r}): train plain LoRA")
    if settings.get("bias", "none") != "none":
        raise AdapterError(f"{path} trains biases (bias={settings['bias']!r}): train with bias='none'")
    beginning = settings.get("init_lora_weights", True)
    if beginning not in _PLAIN_BEGINNINGS:
        message = (
            f"{path} began from a changed base model (init_lora_weights={beginning!r}): save it with "
            "peft's path_initial_model_for_weight_conversion, which makes it plain LoRA"
        )
        raise AdapterError(message)
    return settings


def _parsed(folder: Path, settings: dict[str, Any]) -> Any:
    """The configuration as peft understands it."""
    import dataclasses

    from peft import LoraConfig

    path = folder / CONFIG_NAME
    known = {field.name for field in dataclasses.fields(LoraConfig) if field.init} - {"runtime_config"}
    strange = sorted(key for key in settings.keys() - known - {"runtime_config"} if settings[key])
    if strange:
        message = f"{path} sets {strange[0]!r}, which the installed peft does not know: update peft"
        raise AdapterError(message)
    try:
        config: Any = LoraConfig(**{key: value for key, value in settings.items() if key in known})
        # Read here, so that a value of a wrong type is told with its file.
        ranks = [config.r, *config.rank_pattern.values()]
        alphas = [config.lora_alpha, *config.alpha_pattern.values()]
    except (TypeError, ValueError, AttributeError, ImportError, KeyError) as error:
        raise AdapterError(f"{path} is no configuration of LoRA: {error}") from error
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        raise AdapterError(f"{path} has a rank that is no positive number: {ranks!r}")
    if not all(isinstance(alpha, (int, float)) and math.isfinite(alpha) for alpha in alphas):
        raise AdapterError(f"{path} has an alpha that is no number: {alphas!r}")
    return config


def _check_base(folder: Path, config: Any, model: nn.Module) -> None:
    """Refuse an adapter that names another base model; where either has no name, sizes must do."""
    wanted = str(config.base_model_name_or_path or "")
    ours = _short_names(str(getattr(model, "name_or_path", "") or ""))
    if wanted and ours and not ours & _short_names(wanted):
        message = (
            f"{folder / CONFIG_NAME} is for the model {wanted!r} and this one is {min(ours)!r}; if they are "
            "the same, correct its base_model_name_or_path"
        )
        raise AdapterError(message)


def _short_names(place: str) -> set[str]:
    """The names by which a path or a repository tells which model it holds.

    A model lies in a folder of its name, in one named ``owner--name--commit``, or in ``weights`` or a
    snapshot below that.
    """
    parts = [part.lower() for part in re.split(r"[/\\]", place) if part]
    while len(parts) > 1 and (
        parts[-1] in {"weights", "snapshots"} or re.fullmatch("[0-9a-f]{40}", parts[-1])
    ):
        parts.pop()
    if not parts:
        return set()
    pieces = parts[-1].removeprefix("models--").split("--")
    name = pieces[1] if len(pieces) > 1 else pieces[0]
    return {name.partition("@")[0].removesuffix("-gguf")}


def _targets(folder: Path, config: Any, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The layers that the configuration names."""
    from peft.tuners.tuners_utils import check_target_module_exists

    path = folder / CONFIG_NAME
    chosen = config.target_modules
    if not chosen:
        raise AdapterError(f"{path} names no target_modules")
    try:
        for target in [chosen] if isinstance(chosen, str) else sorted(chosen):
            matches = (
                re.fullmatch(target, name) if isinstance(chosen, str) else f".{name}".endswith(f".{target}")
                for name in layers
            )
            if not any(matches):
                message = (
                    f"{path} targets {target!r}, which is no linear layer of this model that adapters may "
                    "change (the embedding and the output layer are none)"
                )
                raise AdapterError(message)
        named = {name: layer for name, layer in layers.items() if check_target_module_exists(config, name)}
    except re.error as error:
        raise AdapterError(f"{path} has a broken pattern in target_modules: {error}") from error
    if not named:
        raise AdapterError(f"{path} excludes every layer it targets")
    return named


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The weights by the name of their layer in the model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_NAME
    if not path.is_file():
        others = sorted(other.name for other in folder.glob("adapter_model.*"))
        found = f", only {others[0]}: pickles can run code when they are loaded" if others else ""
        raise AdapterError(f"{folder} holds no {WEIGHTS_NAME}{found}; save the adapter as safetensors")
    try:
        check_safetensors(path)
        stored = load_file(path)
    except (IntegrityError, SafetensorError, OSError) as error:
        raise AdapterError(f"the weights of an adapter cannot be read: {error}") from error
    return {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items()}


def _take(folder: Path, tensors: dict[str, torch.Tensor], name: str, shape: tuple[int, int]) -> torch.Tensor:
    path = folder / WEIGHTS_NAME
    if name not in tensors:
        raise AdapterError(f"{path} lacks {_PREFIX + name!r}, which its configuration names")
    tensor = tensors.pop(name)
    if tuple(tensor.shape) != shape:
        message = (
            f"{path} holds {name!r} of shape {tuple(tensor.shape)} and the model needs {shape}: "
            "the adapter is for another model"
        )
        raise AdapterError(message)
    tensor = tensor.float()
    if not bool(tensor.isfinite().all()):
        raise AdapterError(f"{path} holds values in {name!r} that are no numbers: train it again")
    return tensor


def _rank_and_scale(config: Any, module: str) -> tuple[int, float]:
    from peft.utils.other import get_pattern_key

    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), module), config.r)
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), module), config.lora_alpha)
    return rank, alpha / (math.sqrt(rank) if config.use_rslora else rank)
