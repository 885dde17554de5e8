"""Loading an installed model: transformers on a GPU or a CPU, quantized as the machine calls for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from watchkeeper.models.background import in_a_thread_that_ends
from watchkeeper.models.catalog import CatalogEntry, default_model, find_model
from watchkeeper.models.errors import ModelError
from watchkeeper.models.interface import ModelIdentity, Progress
from watchkeeper.models.store import InstalledModel, find_installed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["auto", "nf4", "int8", "bnb-int8", "none"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        model: The network, in evaluation mode.
        tokenizer: Its tokenizer, with the chat template.
        identity: What a decision record names.
        entry: Its entry in the catalog.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity
    entry: CatalogEntry


def load(
    model_id: str | None = None,
    *,
    quantization: Quantization = "auto",
    device_map: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load a model that was pulled before; no network is used.

    Args:
        model_id: An id of the catalog or a folder; the default model where ``None``.
        quantization: ``"int8"`` is the int8 linear layer of ``watchkeeper.models.int8`` on a CPU and
            bitsandbytes' on a GPU; ``"nf4"`` and ``"bnb-int8"`` are bitsandbytes' everywhere; ``"none"``
            keeps fp32 on a CPU and bf16 on a GPU; ``"auto"`` is NF4 on a GPU and int8 on a CPU.
        device_map: Where the layers go, as accelerate understands it; ``"auto"`` is the GPU where there
            is one and the CPU otherwise.
        threads: Threads of a CPU's matmuls, for the whole process; torch's own choice where ``None``.
        progress: Told of each stage.

    Raises:
        UnknownModelError: If there is no such model.
        ModelError: If it was not pulled, or cannot be loaded that way.
        IntegrityError: If its files are damaged.
    """
    if quantization not in get_args(Quantization):
        choices = ", ".join(repr(name) for name in get_args(Quantization))
        message = f"no quantization {quantization!r}: choose one of {choices}"
        raise ModelError(message)
    if threads is not None and threads < 1:
        message = f"threads is {threads!r}: give at least 1"
        raise ModelError(message)
    entry = default_model() if model_id is None else find_model(model_id)
    installed = find_installed(entry)

    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    on_gpu = device_map != "cpu" and torch.cuda.is_available()
    chosen = _choose(quantization, on_gpu)
    report = progress or (lambda *_: None)
    report("load: tokenizer", 0, 2)
    tokenizer = _load_tokenizer(installed.weights)
    report("load: weights", 1, 2)
    place = device_map if on_gpu else "cpu"
    model = in_a_thread_that_ends(lambda: _load_model(installed, chosen, place, on_gpu=on_gpu))
    report("load: done", 2, 2)
    return LoadedModel(model, tokenizer, ModelIdentity(entry.id, chosen, installed.digest), entry)


def _choose(quantization: Quantization, on_gpu: bool) -> str:
    if quantization == "auto":
        return "nf4" if on_gpu else "int8"
    if quantization == "int8" and on_gpu:
        return "bnb-int8"
    return quantization


def _load_tokenizer(weights: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(weights), local_files_only=True, trust_remote_code=False)


def _load_model(
    installed: InstalledModel, quantization: str, device_map: str, *, on_gpu: bool
) -> PreTrainedModel:
    if quantization == "int8":
        from watchkeeper.models.int8_model import load_int8

        model: PreTrainedModel = load_int8(installed.weights, installed.int8)
        return model

    import torch
    import transformers

    library: Any = transformers
    dtype = torch.bfloat16 if on_gpu else torch.float32
    config = None
    if quantization == "nf4":
        config = library.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
        )
    elif quantization == "bnb-int8":
        config = library.BitsAndBytesConfig(load_in_8bit=True)
    loaded: PreTrainedModel = library.AutoModelForCausalLM.from_pretrained(
        str(installed.weights),
        dtype=dtype,
        device_map=device_map,
        quantization_config=config,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    loaded.train(mode=False)
    return loaded
