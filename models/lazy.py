"""An engine that is opened when it is first asked, or in the background before that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from watchkeeper.models.interface import (
    Cancellation,
    Choice,
    ChoiceRequest,
    Chunk,
    Engine,
    Generation,
    GenerationRequest,
    ModelIdentity,
)


class LazyEngine:
    """Stands for an engine that takes seconds to open.

    What can fail before a model is needed (an inventory, a policy, an alert) fails without waiting for it,
    and a site can be looked at while it loads.

    Args:
        opening: Opens the engine; called once.
        adapters: Names of the adapters that it will have.
    """

    def __init__(self, opening: Callable[[], Engine], *, adapters: tuple[str, ...] = ()) -> None:
        self.adapters = adapters
        self._opening = opening
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def preload(self) -> None:
        """Begin to open the engine in the background; an error shows when it is first asked."""
        threading.Thread(target=self._preload, name="watchkeeper-preload", daemon=True).start()

    def open(self) -> None:
        """Open the engine now.

        Raises:
            ModelError: If it cannot be opened.
        """
        self._opened()

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers."""
        return self._opened().identity

    def generate(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Generation:
        """Answer with a text, a JSON value or tool calls."""
        return self._opened().generate(request, cancel=cancel)

    def stream(self, request: GenerationRequest, *, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        """Answer piece by piece."""
        return self._opened().stream(request, cancel=cancel)

    def choose(self, request: ChoiceRequest, *, cancel: Cancellation | None = None) -> Choice:
        """Score every option of a closed question."""
        return self._opened().choose(request, cancel=cancel)

    def close(self) -> None:
        """Close the engine if it was opened."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()

    def _opened(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._opening()
            return self._engine

    def _preload(self) -> None:
        try:
            self._opened()
        except Exception:  # noqa: BLE001 (the first question opens it again, and raises what is wrong)
            return
