"""Loops that numba compiles for the machine at hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import torch

log = logging.getLogger(__name__)

# numba's fallback layer for threads must not be entered twice; waiting for it costs nothing elsewhere.
one_at_a_time = threading.Lock()
"""Held while a parallel loop runs."""

_of_this_thread = threading.local()

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*, fastmath: set[str] | bool = False, parallel: bool = False) -> Callable[[Function], Function]:
    """Compile a function when it is first called, and keep what came out on the disk for the next process.

    It is kept beside the module, or in the user's cache where that folder cannot be written, or where
    ``NUMBA_CACHE_DIR`` says. Where none of them can be, the disk is full, or what was kept is damaged, the
    process compiles for itself.

    Args:
        fastmath: What the compiler may assume about floats; see numba.
        parallel: Whether ``prange`` uses several threads.
    """

    def decorate(function: Function) -> Function:
        settings: Any = {"nogil": True, "error_model": "numpy", "fastmath": fastmath, "parallel": parallel}
        made: Any
        try:
            made = numba.njit(cache=True, **settings)(function)
        except RuntimeError:  # no folder to keep it in
            made = numba.njit(**settings)(function)
        else:
            made._cache = _Optional(made._cache)
        kept: Function = made
        return kept

    return decorate


def use_threads() -> int:
    """Let this thread's parallel loops have as many threads as torch's, and return how many these are."""
    threads = torch.get_num_threads()
    if getattr(_of_this_thread, "threads", None) != threads:
        # When numba starts its threads it also tells OpenMP, and with it torch, how many there are.
        config: Any = numba.config
        numba.set_num_threads(min(threads, config.NUMBA_NUM_THREADS))
        torch.set_num_threads(threads)
        _of_this_thread.threads = threads
    return threads


class _Optional:
    """A cache of numba that may fail: what cannot be read or written is not there."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *arguments: Any) -> Any:
        """Read what was compiled before, or return ``None``."""
        try:
            return self._cache.load_overload(*arguments)
        except Exception as error:  # noqa: BLE001 (a damaged file can raise anything)
            log.warning("a compiled loop cannot be read and is compiled again: %r", error)
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Keep what was compiled, if that is possible."""
        try:
            self._cache.save_overload(*arguments)
        except Exception as error:  # noqa: BLE001 (the loop itself is there)
            log.warning("a compiled loop cannot be kept: %r", error)
