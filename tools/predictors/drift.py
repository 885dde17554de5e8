"""Drift in a stream of values, one after the other: ADWIN and KSWIN, as the library river makes them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Protocol

from watchkeeper.tools.errors import MissingExtraError


class DriftDetector(Protocol):
    """Watches a stream; its memory is bounded."""

    def update(self, value: float) -> bool:
        """Take the next value; returns whether the stream has changed."""
        ...


class Adwin:
    """A window that grows while nothing changes and is cut where its halves differ in the mean.

    A. Bifet and R. Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", 2007. Its memory
    grows with the logarithm of the window.

    Args:
        delta: The smaller, the fewer false alarms and the later the true ones.

    Raises:
        MissingExtraError: If river is not installed.
    """

    def __init__(self, delta: float = 0.002) -> None:
        self._inner = _river().ADWIN(delta=delta)

    def update(self, value: float) -> bool:
        """Take the next value; returns whether the mean has changed."""
        self._inner.update(value)
        return bool(self._inner.drift_detected)

    @property
    def window(self) -> int:
        """How many of the newest values lie behind the last change; all where there was none."""
        return int(self._inner.width)


class Kswin:
    """Compares the newest values of a window with a sample of the others by Kolmogorov and Smirnov's test.

    C. Raab, M. Heusinger and F.-M. Schleif, "Reactive Soft Prototype Computing for Concept Drift Streams",
    2020. It sees changes of the whole distribution, and tests at every value: with the ``alpha`` of the paper
    (0.005) it raises many false alarms, so the default here is smaller (see ``benchmarks/drift.py``).

    Args:
        alpha: Level of each test.
        window: Values that are kept.
        newest: How many of them are the newest.
        seed: Of the sample.

    Raises:
        MissingExtraError: If river is not installed.
    """

    def __init__(self, alpha: float = 1e-4, window: int = 200, newest: int = 50, seed: int = 0) -> None:
        self._inner = _river().KSWIN(alpha=alpha, window_size=window, stat_size=newest, seed=seed)

    def update(self, value: float) -> bool:
        """Take the next value; returns whether the distribution has changed."""
        self._inner.update(value)
        return bool(self._inner.drift_detected)


def streams_are_watched() -> bool:
    """Whether river is installed."""
    return find_spec("river") is not None


def _river() -> Any:
    try:
        from river import drift
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "river":
            raise
        raise MissingExtraError(
            "drift in a stream needs the extra 'drift': pip install 'watchkeeper[drift]'"
        ) from None
    return drift
