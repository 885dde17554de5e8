"""Local language models: hosting them and asking them.

torch is imported when a model is opened, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchkeeper.models.interface import Engine, Progress

if TYPE_CHECKING:
    from watchkeeper.models.loading import Quantization

__all__ = ["open_engine"]


def open_engine(
    model_id: str | None = None,
    quantization: Quantization = "auto",
    *,
    device_map: str = "auto",
    threads: int | None = None,
    prefix_bytes: int = 1 << 30,
    progress: Progress | None = None,
) -> Engine:
    """Load a model that was pulled before and return an engine that answers with it.

    Args:
        model_id: An id of the catalog or a folder; the default model where ``None``.
        quantization: How the weights are held; see :func:`watchkeeper.models.loading.load`.
        device_map: Where the layers go, as accelerate understands it.
        threads: Threads of a CPU's matmuls, for the whole process; torch's own choice where ``None``.
        prefix_bytes: Memory for keys and values that later requests may reuse; 0 turns reuse off.
        progress: Told of each stage.

    Raises:
        UnknownModelError: If there is no such model.
        ModelError: If it was not pulled, or cannot be loaded that way.
        IntegrityError: If its files are damaged.
    """
    from watchkeeper.models.engine import LocalEngine
    from watchkeeper.models.loading import load

    loaded = load(
        model_id, quantization=quantization, device_map=device_map, threads=threads, progress=progress
    )
    return LocalEngine(loaded, prefix_bytes=prefix_bytes)
