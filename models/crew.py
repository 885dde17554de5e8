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
from functools import cache
from types import TracebackType
from typing import Any, cast

import numpy as np
import torch
from llvmlite import ir
from numba import types

from watchkeeper.models.compiled import compiled, emit_call, instruction

MOST = 64
"""Members of a crew at most."""
SHARES = 4
"""Parts that a loop has for each member, so that one who is slower does fewer."""

# What the crew shares: words that several threads write are in cache lines of their own.
_LINE = 8
_CLAIM, _DONE, _TASK, _STATES = 0, _LINE, 2 * _LINE, 3 * _LINE
_WORK, _GIVEN, _MEMBERS, _TURN, _ENTERED = _TASK, _TASK + 1, _TASK + 2, _TASK + 3, _TASK + 4
_FAILED = _TASK + 5
_AWAKE, _ASLEEP = 0, 1
# How often a helper looks for work after the crew was left, before it sleeps: for about a millisecond.
_PATIENCE = 30_000
# Moments after which who waits gives way to another thread.
_MOMENTS = 4096
_TURNS = 1 << 30


def _word(builder: ir.IRBuilder, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@instruction
def _load(_: Any, address: Any) -> Any:  # noqa: ARG001 (the name is numba's to see)
    """Read a word that other threads write."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> Any:
        return builder.load_atomic(_word(builder, given[0]), "seq_cst", 8)

    return types.int64(types.uintp), generate


@instruction
def _store(_: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    """Write a word that other threads read."""

    def generate(context: Any, builder: ir.IRBuilder, _: Any, given: Any) -> Any:
        builder.store_atomic(given[1], _word(builder, given[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64), generate


@instruction
def _add(_: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    """Add to a word that other threads write."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, given[0]), given[1], "seq_cst")

    return types.int64(types.uintp, types.int64), generate


@instruction
def _swap(_: Any, address: Any, old: Any, new: Any) -> Any:  # noqa: ARG001
    """Write a word if it is what it was, and say whether it was."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> Any:
        result = builder.cmpxchg(_word(builder, given[0]), given[1], given[2], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return types.boolean(types.uintp, types.int64, types.int64), generate


@instruction
def _pause(_: Any) -> Any:
    """Tell the processor that this is a loop that waits."""

    def generate(context: Any, builder: ir.IRBuilder, _: Any, __: Any) -> Any:
        if str(builder.module.triple).startswith("x86_64"):
            emit_call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


@instruction
def _give_way(_: Any) -> Any:
    """Let another thread have this core, if one waits for it."""

    def generate(context: Any, builder: ir.IRBuilder, _: Any, __: Any) -> Any:
        emit_call(builder, "sched_yield", ir.IntType(32))
        return context.get_dummy_value()

    return types.void(), generate


@instruction
def _call(_: Any, work: Any, given: Any, part: Any) -> Any:  # noqa: ARG001
    """Call a compiled part by its address; 1 comes back where it did what it had to."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, values: Any) -> Any:
        size = ir.IntType(64)
        kind = ir.FunctionType(size, [size, size])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])

    return types.int64(types.uintp, types.uintp, types.intp), generate


@compiled()
def _at(words: int, place: int) -> int:
    return words + 8 * place


@compiled()
def _wait(times: int) -> None:
    """Wait a moment; who is waited for may need this very core."""
    if times % _MOMENTS:
        _pause()
    else:
        _give_way()


@compiled()
def _take(words: int, work: int, given: int, claim: int) -> bool:
    """Take the next part of a loop, and compute it; False where somebody else was quicker.

    A claim is a turn, the number of parts, and that of the next one: it is swapped as a whole, so that a part
    is taken once, and not from another turn than the one whose work was read.
    """
    if not _swap(_at(words, _CLAIM), claim, claim + 1):
        return False
    if _call(work, given, claim & 0xFFFF) != 1:
        _store(_at(words, _FAILED), 1)
    _add(_at(words, _DONE), 1)
    return True


@compiled()
def lead(words: int, work: int, given: int, parts: int) -> int:
    """Compute all parts of a loop, with whoever of the crew is awake, and return how many were left to us.

    Args:
        words: Address of what the crew shares; the crew was entered.
        work: Address of a `watchkeeper.models.compiled.Part`.
        given: Address of what it is given; whoever calls keeps it, and all that it holds addresses of.
        parts: How many there are, fewer than 65,536.

    Raises:
        MemoryError: If a part failed; there is nothing else that they can fail by.
    """
    turn = (_load(_at(words, _TURN)) + 1) % _TURNS
    _store(_at(words, _TURN), turn)
    _store(_at(words, _WORK), work)
    _store(_at(words, _GIVEN), given)
    _store(_at(words, _DONE), 0)
    _store(_at(words, _FAILED), 0)
    _store(_at(words, _CLAIM), (turn << 32) | (parts << 16))
    own = 0
    while True:
        claim = _load(_at(words, _CLAIM))
        if (claim & 0xFFFF) >= parts:
            break
        own += _take(words, work, given, claim)
    waited = 0
    while _load(_at(words, _DONE)) < parts:
        waited += 1
        _wait(waited)
    if _load(_at(words, _FAILED)):
        raise MemoryError("a part of a loop failed")
    return own


@compiled()
def _help(words: int, member: int) -> None:
    """Compute parts until nobody led for a while, and say so."""
    state = _at(words, _STATES + member * _LINE)
    idle, looked = 0, 0
    while idle < _PATIENCE:
        claim = _load(_at(words, _CLAIM))
        wanted = (claim & 0xFFFF) < ((claim >> 16) & 0xFFFF) and member < _load(_at(words, _MEMBERS))
        # What is read here belongs to the claim, or the claim has changed by the time it is swapped.
        if wanted and _take(words, _load(_at(words, _WORK)), _load(_at(words, _GIVEN)), claim):
            idle = 0
            continue
        looked += 1
        _wait(looked)
        # Between the loops of one who entered there may be some that nobody leads.
        member_of_it = member < _load(_at(words, _MEMBERS))
        idle = 0 if _load(_at(words, _ENTERED)) and member_of_it else idle + 1
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
        try:
            self.members = self._muster(min(torch.get_num_threads(), _cores(), MOST))
        except BaseException:
            self._lock.release()
            raise
        self._words[_ENTERED] = 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._words[_ENTERED] = 0
        self._lock.release()

    def _muster(self, wanted: int) -> int:
        """Hire and wake who is wanted, and return how many there are."""
        while len(self._bells) < wanted - 1 and self._hire():
            pass
        members = min(wanted, len(self._bells) + 1)
        self._words[_MEMBERS] = members
        for index in range(members - 1):
            place = _STATES + (index + 1) * _LINE
            if self._words[place] == _ASLEEP:
                self._words[place] = _AWAKE
                self._bells[index].release()
        return members

    def _hire(self) -> bool:
        bell, member = threading.Semaphore(0), len(self._bells) + 1

        def work() -> None:
            while True:
                _help(self.address, member)
                bell.acquire()

        helper = threading.Thread(target=work, name=f"watchkeeper-crew-{member}", daemon=True)
        try:
            helper.start()
        except RuntimeError:  # the system allows no more threads
            return False
        self._bells.append(bell)
        return True


@cache
def _cores() -> int:
    """Cores that this process may use: a helper that waits for one is waited for by all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


crew = Crew()
"""The crew of this process."""


def _begin_anew() -> None:
    """After a fork there are no helpers, and the lock may be held by a thread that is not there."""
    crew.__init__()  # type: ignore[misc]  # whoever imported it keeps the one that is used


os.register_at_fork(after_in_child=_begin_anew)
