"""Loops that numba compiles for the machine at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*, fastmath: set[str] | bool = False, parallel: bool = False) -> Callable[[Function], Function]:
    """Compile a function when it is first called, and keep what came out on the disk for the next process.

    It is kept beside the module, or in the user's cache where that folder cannot be written, or where
    ``NUMBA_CACHE_DIR`` says. Where none of them can be, every process compiles for itself.

    Args:
        fastmath: What the compiler may assume about floats; see numba.
        parallel: Whether ``prange`` uses several threads.
    """

    def decorate(function: Function) -> Function:
        settings: Any = {"nogil": True, "error_model": "numpy", "fastmath": fastmath, "parallel": parallel}
        try:
            made: Function = numba.njit(cache=True, **settings)(function)
        except RuntimeError:  # no folder to keep it in
            made = numba.njit(**settings)(function)
        return made

    return decorate
