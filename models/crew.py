"""Threads that compute parts of one loop together, and wait for the next one awake.

A forward pass of one token is a hundred loops of a tenth of a millisecond. Waking a thread takes half of
that, so helpers look for work for a millisecond before they sleep. OpenMP does so too, but for every thread
that computes by itself, and no longer once these are more than cores; here all loops of a process share one
crew. Parts are taken, not dealt: whoever is free takes the next one, and who leads takes all that nobody
else does. So a helper that sleeps, is held up by the system or is gone costs time, and never an answer.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any, cast

import numpy as np
import torch
from llvmlite import ir
from numba import types

from watchkeeper.models.compiled import compiled, instruction

MOST = 64
"""Members of a crew at most."""
PARTS = 1 << 16
"""Parts of a loop are fewer."""

# What the crew shares: words that several threads write are in cache lines of their own.
_LINE = 8
_CLAIM, _DONE, _TASK, _STATES = 0, _LINE, 2 * _LINE, 3 * _LINE
_WORK, _GIVEN, _MEMBERS, _TURN, _ENTERED = _TASK, _TASK + 1, _TASK + 2, _TASK + 3, _TASK + 4
_AWAKE, _ASLEEP = 0, 1
# How often a helper looks for work after the crew was left, before it sleeps: for about a millisecond.
_PATIENCE = 30_000
_TURNS = 1 << 30


@instruction
def _load(_: Any, address: Any) -> Any:  # noqa: ARG001 (the name is numba's to see)
    """Read a word that other threads write."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> Any:
        pointer = builder.inttoptr(given[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(types.uintp), generate


@instruction
def _store(_: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    """Write a word that other threads read."""

    def generate(context: Any, builder: ir.IRBuilder, _: Any, given: Any) -> Any:
        pointer = builder.inttoptr(given[0], ir.IntType(64).as_pointer())
        builder.store_atomic(given[1], pointer, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64), generate


@instruction
def _add(_: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    """Add to a word that other threads write."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> Any:
        pointer = builder.inttoptr(given[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, given[1], "seq_cst")

    return types.int64(types.uintp, types.int64), generate


@instruction
def _swap(_: Any, address: Any, old: Any, new: Any) -> Any:  # noqa: ARG001
    """Write a word if it is what it was, and say whether it was."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> Any:
        pointer = builder.inttoptr(given[0], ir.IntType(64).as_pointer())
        result = builder.cmpxchg(pointer, given[1], given[2], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return types.boolean(types.uintp, types.int64, types.int64), generate


@instruction
def _pause(_: Any) -> Any:
    """Tell the processor that this is a loop that waits."""

    def generate(context: Any, builder: ir.IRBuilder, _: Any, __: Any) -> Any:
        if str(builder.module.triple).startswith("x86_64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@instruction
def _call(_: Any, work: Any, given: Any, part: Any) -> Any:  # noqa: ARG001
    """Call a compiled part by its address."""

    def generate(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        size = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [size, size])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp), generate


@compiled()
def _at(words: int, place: int) -> int:
    return words + 8 * place


@compiled()
def _take(words: int, work: int, given: int, claim: int) -> bool:
    """Take the next part of a loop, and compute it; False where somebody else was quicker.

    A claim is a turn, the number of parts, and that of the next one: it is swapped as a whole, so that a part
    is taken once, and not from another turn than the one whose work was read.
    """
    if not _swap(_at(words, _CLAIM), claim, claim + 1):
        return False
    _call(work, given, claim & 0xFFFF)
    _add(_at(words, _DONE), 1)
    return True


@compiled()
def lead(words: int, work: int, given: int, parts: int) -> None:
    """Compute all parts of a loop, with whoever of the crew is awake.

    Args:
        words: Address of what the crew shares; the crew was entered.
        work: Address of what computes a part, as `watchkeeper.models.compiled.compiled_part` made it.
        given: Address of what it is given.
        parts: How many there are, fewer than :data:`PARTS`.
    """
    turn = (_load(_at(words, _TURN)) + 1) % _TURNS
    _store(_at(words, _TURN), turn)
    _store(_at(words, _WORK), work)
    _store(_at(words, _GIVEN), given)
    _store(_at(words, _DONE), 0)
    _store(_at(words, _CLAIM), (turn << 32) | (parts << 16))
    while True:
        claim = _load(_at(words, _CLAIM))
        if (claim & 0xFFFF) >= parts:
            break
        _take(words, work, given, claim)
    while _load(_at(words, _DONE)) < parts:
        _pause()


@compiled()
def _help(words: int, member: int) -> None:
    """Compute parts until nobody led for a while, and say so."""
    state = _at(words, _STATES + member * _LINE)
    idle = 0
    while idle < _PATIENCE:
        claim = _load(_at(words, _CLAIM))
        wanted = (claim & 0xFFFF) < ((claim >> 16) & 0xFFFF) and member < _load(_at(words, _MEMBERS))
        # What is read here belongs to the claim, or the claim has changed by the time it is swapped.
        if wanted and _take(words, _load(_at(words, _WORK)), _load(_at(words, _GIVEN)), claim):
            idle = 0
            continue
        _pause()
        # Between the loops of one who entered there may be some that nobody leads.
        idle = 0 if _load(_at(words, _ENTERED)) else idle + 1
        if idle == _PATIENCE:
            _store(state, _ASLEEP)


class Crew:
    """The threads of a process that compute loops.

    One loop is computed at a time: enter the crew, and lead.
    """

    def __init__(self) -> None:
        # Words are aligned to cache lines.
        room = np.zeros(_STATES + (MOST + 2) * _LINE, dtype=np.int64)
        skipped = -room.ctypes.data % (8 * _LINE) // 8
        self._room = room
        # Python reads and writes single words of a view much faster than those of an array.
        self._words = memoryview(cast("Any", room[skipped:]))
        self.address = int(room.ctypes.data) + 8 * skipped
        """Where what the crew shares lies."""
        self.members = 1
        """How many compute, who leads included."""
        self._lock = threading.Lock()
        self._bells: list[threading.Semaphore] = []

    def __enter__(self) -> Crew:
        self._lock.acquire()
        self.members = min(torch.get_num_threads(), MOST)
        self._words[_MEMBERS] = self.members
        self._words[_ENTERED] = 1
        while len(self._bells) < self.members - 1:
            self._hire()
        for index in range(self.members - 1):
            place = _STATES + (index + 1) * _LINE
            if self._words[place] == _ASLEEP:
                self._words[place] = _AWAKE
                self._bells[index].release()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._words[_ENTERED] = 0
        self._lock.release()

    def _hire(self) -> None:
        bell, member = threading.Semaphore(0), len(self._bells) + 1
        self._bells.append(bell)

        def work() -> None:
            while True:
                _help(self.address, member)
                bell.acquire()

        threading.Thread(target=work, name=f"watchkeeper-crew-{member}", daemon=True).start()


crew = Crew()
"""The crew of this process."""


def _begin_anew() -> None:
    """After a fork there are no helpers, and the lock may be held by a thread that is not there."""
    crew.__init__()  # type: ignore[misc]  # whoever imported it keeps the one that is used


os.register_at_fork(after_in_child=_begin_anew)
