"""From the one file a publisher signed to the folder that is loaded: done once, when a model is pulled."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchkeeper.models.errors import IntegrityError
from watchkeeper.models.manifest import sync_tree, write_manifest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from watchkeeper.models.catalog import CatalogEntry
    from watchkeeper.models.interface import Progress

WEIGHTS = "weights"
INT8 = "int8"
INT8_FILE = "linear.safetensors"


def convert_gguf(gguf: Path, folder: Path, entry: CatalogEntry, progress: Progress | None = None) -> None:
    """Convert a GGUF file to a folder of safetensors, with its 8-bit weights beside it.

    Weights are stored in fp16, which holds a dequantized value to one part in 4,096, far below the step
    of the quantization it came from, in half the space of fp32. A tensor out of its range keeps the whole
    model in fp32.

    Args:
        gguf: The file, already verified.
        folder: An empty folder to fill; it gets ``weights/``, ``int8/`` and the manifest.
        entry: What the file is.
        progress: Told of each stage.

    Raises:
        IntegrityError: If the file is no GGUF of a supported architecture.
    """
    import torch

    report = progress or (lambda *_: None)
    weights = folder / WEIGHTS
    weights.mkdir(parents=True)
    with _library_progress(report):
        report("convert: tokenizer", 0, 1)
        tokenizer = _read_tokenizer(gguf)
        tokenizer.save_pretrained(weights)
        report("convert: weights", 0, 1)
        model = _read_model(gguf, torch.float16)
        if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
            del model
            gc.collect()
            model = _read_model(gguf, torch.float32)
        _set_generation(model, tokenizer, entry)
        model.save_pretrained(weights, safe_serialization=True)
        report("convert: int8", 0, 1)
        del model
        gc.collect()
        write_int8(weights, folder / INT8)
    report("convert: digests", 0, 1)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    sync_tree(folder)
    source = entry.file.sha256 if entry.file else ""
    write_manifest(folder, entry.id, source)
    report("convert: done", 1, 1)


def write_int8(weights: Path, destination: Path) -> None:
    """Quantize the linear layers of a folder of safetensors and keep them as a file of their own.

    Args:
        weights: Folder with ``config.json`` and safetensors.
        destination: Folder to create.
    """
    from safetensors.torch import save_file

    from watchkeeper.models.int8_model import quantized_tensors

    destination.mkdir()
    save_file(dict(quantized_tensors(weights)), destination / INT8_FILE)


def _read_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        message = f"{gguf} holds no tokenizer of a supported kind: {error}"
        raise IntegrityError(message) from error


def _read_model(gguf: Path, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        return AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (ValueError, KeyError, NotImplementedError) as error:
        message = f"{gguf} is no language model of a supported architecture: {error}"
        raise IntegrityError(message) from error


def _set_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, entry: CatalogEntry) -> None:
    """Say which tokens end an answer: GGUF names one at most, and the chat formats use two."""
    import transformers

    ids = [tokenizer.convert_tokens_to_ids(token) for token in entry.eos_tokens]
    ids = [number for number in ids if number is not None]
    if not ids and tokenizer.eos_token_id is not None:
        ids = [tokenizer.eos_token_id]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ids[0] if ids else None)
    library: Any = transformers
    model.generation_config = library.GenerationConfig(eos_token_id=ids, pad_token_id=pad, do_sample=False)
    model.config.eos_token_id = ids[0] if ids else None
    model.config.name_or_path = entry.id


@contextlib.contextmanager
def _library_progress(report: Progress) -> Iterator[None]:
    """Keep the libraries' own bars and advice off the terminal, and tell how far the tensors are."""
    import transformers
    from transformers import modeling_gguf_pytorch_utils

    def counted(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        for done, tensor in enumerate(tensors):
            report("convert: weights", done, len(tensors))
            yield tensor

    chatter: Any = transformers.utils.logging
    reader: Any = modeling_gguf_pytorch_utils
    level, bars, bar = chatter.get_verbosity(), chatter.is_progress_bar_enabled(), reader.tqdm
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    reader.tqdm = counted
    try:
        yield
    finally:
        reader.tqdm = bar
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()
