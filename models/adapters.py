"""Adapters that ride along in a forward pass: each request its own, many in one batch.

The base model stays as it is. Hooks on its linear layers add what an adapter learned to the rows that were
given to it, and leave every other row alone (the batching of S-LoRA, Sheng et al. 2023,
https://arxiv.org/abs/2311.03285, without kernels of its own): to the bit, where the base model computes each
row for itself. bitsandbytes' int8 does not: it looks for outliers over a whole batch.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from watchkeeper.models.adapter_files import Adapter, linear_layers, read_adapter
from watchkeeper.models.errors import AdapterError

Rows = tuple[slice, str]
"""Which rows of a packed pass belong to which adapter."""


class AdapterBank:
    """The adapters that are loaded beside one model.

    Safe for several threads: adapters never change once loaded, and which rows are whose is known to the
    thread that computes them alone.

    Args:
        model: The base model, quantized in whatever way.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._adapters: dict[str, Adapter] = {}
        self._hooks: dict[str, RemovableHandle] = {}
        self._thread = threading.local()

    @property
    def nbytes(self) -> int:
        """Memory of all adapters, in bytes."""
        return sum(adapter.nbytes for adapter in list(self._adapters.values()))

    def names(self) -> tuple[str, ...]:
        """The adapters that requests may name."""
        return tuple(sorted(self._adapters))

    def digest(self, name: str) -> str:
        """SHA-256 over an adapter's configuration and weights.

        Raises:
            AdapterError: If it is not loaded.
        """
        return self._find(name).digest

    def load(self, name: str, folder: Path | str) -> None:
        """Load an adapter from a folder in peft's format.

        Args:
            name: What requests will call it.
            folder: Where ``adapter_config.json`` and ``adapter_model.safetensors`` lie.

        Raises:
            AdapterError: If the name is taken, or the adapter does not fit the model.
        """
        if not name.strip():
            raise AdapterError(f"{name!r} is no name for an adapter")
        read = read_adapter(name, Path(folder), self._model)
        layers = linear_layers(self._model)
        placed = {module: layer.to(_device(layers[module])) for module, layer in read.layers.items()}
        with self._lock:
            if name in self._adapters:
                raise AdapterError(f"an adapter {name!r} is loaded already: unload it first")
            self._adapters[name] = Adapter(name, placed, read.digest)
            for module in placed.keys() - self._hooks.keys():
                self._hooks[module] = layers[module].register_forward_hook(self._hook(module))

    def unload(self, name: str) -> None:
        """Let an adapter go; a pass that is under way with it ends with it.

        Raises:
            AdapterError: If it is not loaded.
        """
        with self._lock:
            self._find(name)
            del self._adapters[name]
            used = {module for adapter in self._adapters.values() for module in adapter.layers}
            for module in self._hooks.keys() - used:
                self._hooks.pop(module).remove()

    def close(self) -> None:
        """Let all adapters and the model go; nothing can be loaded any more."""
        with self._lock:
            for hook in self._hooks.values():
                hook.remove()
            self._hooks.clear()
            self._adapters.clear()
            self._model = nn.Module()

    @contextlib.contextmanager
    def active(self, rows: Sequence[Rows]) -> Iterator[None]:
        """Give rows of the one forward pass inside of this context to adapters, for this thread alone.

        Args:
            rows: Slices of the pass' tokens, whose shape is (1, tokens), each with the adapter of those
                tokens. Rows that are not named are the base model's.

        Raises:
            AdapterError: If an adapter is not loaded, a slice is empty, open, or overlaps another, or the
                pass has not the shape that the slices are for.
        """
        if not rows:
            yield
            return
        if getattr(self._thread, "run", None) is not None:
            raise AdapterError("rows are active in this thread already: end that pass first")
        spans: dict[str, list[range]] = {}
        for span, name in sorted(((_span(part), name) for part, name in rows), key=lambda row: row[0].start):
            spans.setdefault(name, []).append(span)
        _refuse_overlap(sorted(itertools.chain(*spans.values()), key=lambda span: span.start))
        run = _Run([_Part(self._find(name), _index(parts)) for name, parts in spans.items()], spans)
        self._thread.run = run
        try:
            yield
        finally:
            self._thread.run = None
        run.check_complete()

    def _find(self, name: str) -> Adapter:
        try:
            return self._adapters[name]
        except KeyError:
            loaded = ", ".join(self.names()) or "none"
            raise AdapterError(f"no adapter {name!r} is loaded (loaded: {loaded})") from None

    def _hook(self, module: str) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor | None]:
        def add(_: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            run: _Run | None = getattr(self._thread, "run", None)
            return None if run is None else run.add(module, inputs[0], output)

        return add


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The rows of one adapter."""

    adapter: Adapter
    index: slice | torch.Tensor


class _Run:
    """One forward pass whose rows are parted among adapters."""

    def __init__(self, parts: Sequence[_Part], spans: dict[str, list[range]]) -> None:
        self._parts = parts
        self._stop = max(span.stop for group in spans.values() for span in group)
        self._length: int | None = None
        self._waiting = {module for part in parts for module in part.adapter.layers}

    def add(self, module: str, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """What a layer gives with its adapters, or None where none of them changes this layer."""
        self._check_shape(module, hidden)
        result: torch.Tensor | None = None
        for part in self._parts:
            layer = part.adapter.layers.get(module)
            if layer is None:
                continue
            self._waiting.discard(module)
            rows = hidden.reshape(-1, hidden.shape[-1])[part.index].to(layer.down.dtype)
            change = nn.functional.linear(nn.functional.linear(rows, layer.down), layer.up)
            if result is None:
                # The layer may hand out a view of what it computed for its neighbours too.
                result = output.clone(memory_format=torch.contiguous_format)
            result.view(-1, result.shape[-1])[part.index] += change.to(result.dtype)
        return result

    def check_complete(self) -> None:
        """Refuse a pass that went past layers which an adapter changes: its result would be wrong."""
        if self._waiting:
            message = (
                f"the pass did not call {min(self._waiting)!r}, which an adapter changes "
                f"({len(self._waiting)} such layers)"
            )
            raise AdapterError(message)

    def _check_shape(self, module: str, hidden: torch.Tensor) -> None:
        length = hidden.shape[-2]
        if hidden.numel() != length * hidden.shape[-1]:
            message = f"{module!r} was given shape {tuple(hidden.shape)}; adapters need (1, tokens, features)"
            raise AdapterError(message)
        if self._stop > length or length != (self._length or length):
            message = (
                f"{module!r} was given {length} rows; the slices reach to {self._stop} and must be "
                "those of every layer of the pass"
            )
            raise AdapterError(message)
        self._length = length


def _span(part: slice) -> range:
    if part.step not in {None, 1} or part.start is None or part.stop is None:
        raise AdapterError(f"rows need a start, a stop and no step: {part!r}")
    if not 0 <= part.start < part.stop:
        raise AdapterError(f"rows must not be empty nor begin below 0: {part!r}")
    return range(part.start, part.stop)


def _refuse_overlap(spans: Sequence[range]) -> None:
    for before, after in itertools.pairwise(spans):
        if after.start < before.stop:
            message = f"rows {after.start} to {min(before.stop, after.stop)} were given to adapters twice"
            raise AdapterError(message)


def _index(spans: Sequence[range]) -> slice | torch.Tensor:
    """Rows as a slice where they are one piece, which is a view and not a copy."""
    if spans[-1].stop - spans[0].start == sum(map(len, spans)):
        return slice(spans[0].start, spans[-1].stop)
    return torch.tensor(list(itertools.chain(*spans)))


def _device(layer: nn.Module) -> torch.device:
    tensor = next(itertools.chain(layer.parameters(), layer.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
