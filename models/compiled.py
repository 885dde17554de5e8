"""Loops that numba compiles for the machine at hand."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

log = logging.getLogger(__name__)

LOOPS = (
    "compiled",
    "crew",
    "tiles",
    "panels",
    "dots",
    "integer_products",
    "rowwise",
    "attention",
    "lean_layer",
)
"""Modules that hold loops: what was kept of any is compiled again once one of them has changed."""

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*, fastmath: set[str] | bool = False) -> Callable[[Function], Function]:
    """Compile a function when it is first called, and keep what came out on the disk for the next process.

    It is kept beside the module, or in the user's cache where that folder cannot be written, or where
    ``NUMBA_CACHE_DIR`` says. Where none of them can be, the disk is full, or what was kept is damaged, the
    process compiles for itself.

    Args:
        fastmath: What the compiler may assume about floats; see numba.
    """

    def decorate(function: Function) -> Function:
        settings: Any = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
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


class Part:
    """What computes one part of a loop, compiled when its address is first asked for.

    Args:
        function: It takes the address of what the loop is given and the number of the part, and returns 1.
            Where it fails, 0 comes back instead.
    """

    def __init__(self, function: Callable[[int, int], int]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._made: Any = None

    @property
    def address(self) -> int:
        """Where it is."""
        with self._lock:
            if self._made is None:
                arguments: Any = (types.uintp, types.intp)
                options = {"nopython": True, "error_model": "numpy"}
                made: Any = CFunc(self._function, (arguments, types.int64), {}, options)
                with contextlib.suppress(RuntimeError):  # no folder to keep it in
                    made.enable_caching()
                    made._cache = _Optional(made._cache)
                made.compile()
                self._made = made
            return int(self._made.address)


def instruction(function: Callable[..., Any]) -> Any:
    """Let loops call what numba has no name for: a function that returns a signature and what writes it."""
    return intrinsic(function)


def emit_call(builder: Any, name: str, result: Any, given: Sequence[Any] = ()) -> Any:
    """Write a call of an instruction of LLVM, or of a function of the C library, into an instruction."""
    kind = ir.FunctionType(result, [one.type for one in given])
    known = builder.module.globals.get(name)
    return builder.call(known or ir.Function(builder.module, kind, name), given)


@instruction
def floats_at(_: Any, address: Any) -> Any:  # noqa: ARG001 (the name is numba's to see)
    """Make a pointer to fp32 of an address."""
    return _pointer(types.float32)


@instruction
def bytes_at(_: Any, address: Any) -> Any:  # noqa: ARG001
    """Make a pointer to int8 of an address."""
    return _pointer(types.int8)


@instruction
def shorts_at(_: Any, address: Any) -> Any:  # noqa: ARG001
    """Make a pointer to int16 of an address."""
    return _pointer(types.int16)


@instruction
def words_at(_: Any, address: Any) -> Any:  # noqa: ARG001
    """Make a pointer to int64 of an address."""
    return _pointer(types.int64)


def _pointer(kind: Any) -> Any:
    result: Any = types.CPointer(kind)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(result))

    return result(types.uintp), generate


@cache
def _sources() -> str:
    """SHA-256 of all modules that hold loops."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for name in LOOPS:
        with contextlib.suppress(OSError):
            digest.update((folder / f"{name}.py").read_bytes())
    return digest.hexdigest()


class _Optional:
    """A cache of numba that may fail: what cannot be read or written is not there."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        # Loops of one module hold code of others, and numba compares the file of the outermost alone.
        with contextlib.suppress(AttributeError):
            cache._cache_file._source_stamp = (cache._cache_file._source_stamp, _sources())

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
