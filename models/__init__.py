"""Language models: hosting them and asking them.

torch is imported when a model is opened, not before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from watchkeeper.models.interface import Engine, Progress

if TYPE_CHECKING:
    from watchkeeper.models.loading import Quantization
    from watchkeeper.models.options import EngineOptions

__all__ = ["open_engine"]

# bitsandbytes, which peft imports, warns of an optional package at every start: that is for whoever set
# logging up, and not for everyone.
logging.getLogger("bitsandbytes").addHandler(logging.NullHandler())


def open_engine(
    model_id: str | None = None,
    quantization: Quantization = "auto",
    *,
    device_map: str = "auto",
    threads: int | None = None,
    options: EngineOptions | None = None,
    adapters: Sequence[str] = (),
    progress: Progress | None = None,
) -> Engine:
    """Load a model that was pulled before and return an engine that answers with it.

    Args:
        model_id: An id of the catalog, a folder, or the address of an endpoint that serves a model, like
            ``http://host:port/v1#model`` (its API key is read from ``WATCHKEEPER_MODEL_API_KEY``, and what
            concerns weights does not matter); the default model where ``None``.
        quantization: How the weights are held; see :func:`watchkeeper.models.loading.load`.
        device_map: Where the layers go, as accelerate understands it.
        threads: Threads of a CPU's matmuls, for the whole process; torch's own choice where ``None``.
        options: How the engine uses the machine; the defaults where ``None``.
        adapters: Names of installed adapters that requests may then name; an endpoint loads its own.
        progress: Told of each stage.

    Raises:
        UnknownModelError: If there is no such model.
        ModelError: If it was not pulled, or cannot be loaded that way.
        IntegrityError: If its files are damaged.
        CalibrationError: If its calibration is damaged, or of other weights.
        AdapterError: If an adapter is not installed, or does not fit.
    """
    from watchkeeper.models.endpoint import is_endpoint

    if model_id is not None and is_endpoint(model_id):
        from watchkeeper.models.remote import RemoteEngine

        return RemoteEngine(model_id, api_key=os.environ.get("WATCHKEEPER_MODEL_API_KEY") or None)
    from watchkeeper.models.calibration import read_calibration
    from watchkeeper.models.engine import LocalEngine
    from watchkeeper.models.loading import load
    from watchkeeper.models.options import EngineOptions
    from watchkeeper.models.store import model_folder

    loaded = load(
        model_id, quantization=quantization, device_map=device_map, threads=threads, progress=progress
    )
    options = options or EngineOptions()
    if options.calibration is None:
        calibration = read_calibration(model_folder(loaded.entry), loaded.identity)
        options = replace(options, calibration=calibration)
    engine = LocalEngine(loaded, options)
    if adapters:
        from watchkeeper.models.adapter_store import adapter_folder

        try:
            for name in adapters:
                engine.load_adapter(name, adapter_folder(loaded.entry, name))
        except BaseException:
            engine.close()
            raise
    return engine
