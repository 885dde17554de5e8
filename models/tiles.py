"""The innermost loops of products of 16-bit rows with int8 channels, written in LLVM.

They multiply pairs of 16-bit integers and add them up in 32 bits, one instruction of AVX2 for sixteen
products, which no loop in Python's words becomes.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import codegen

from watchkeeper.models.compiled import emit_call, instruction

LANES = 16
"""Features of one instruction: 16-bit integers in a register of AVX2."""


def _tile(height: int, width: int) -> Any:
    """Make the innermost loop: sums of products of ``height`` rows with ``width`` channels.

    It takes the address of the rows and their distance; the address of the first channel, the distance
    between channels and that to the one read next; the number of features (a multiple of 16, and not 0); the
    address of the int32 sums, the distance between their lines and between their columns. Distances count
    elements.
    """

    @instruction
    def tile(  # the names are numba's to see
        _: Any,
        rows: Any,  # noqa: ARG001
        pitch: Any,  # noqa: ARG001
        weight: Any,  # noqa: ARG001
        stride: Any,  # noqa: ARG001
        following: Any,  # noqa: ARG001
        features: Any,  # noqa: ARG001
        sums: Any,  # noqa: ARG001
        gap: Any,  # noqa: ARG001
        spread: Any,  # noqa: ARG001
    ) -> Any:
        address, size = types.uintp, types.intp
        signature = types.void(address, size, address, size, size, size, address, size, size)

        def generate(context: Any, builder: ir.IRBuilder, _: Any, given: Any) -> Any:
            _emit_tile(builder, height, width, *given)
            return context.get_dummy_value()

        return signature, generate

    return tile


def _emit_tile(
    builder: ir.IRBuilder,
    height: int,
    width: int,
    rows: Any,
    pitch: Any,
    weight: Any,
    stride: Any,
    following: Any,
    features: Any,
    sums: Any,
    gap: Any,
    spread: Any,
) -> None:
    bytes_, words, totals = vector(8, LANES), vector(16, LANES), vector(32, LANES // 2)

    def address(base: Any, distance: Any, line: int, at: Any, size: int) -> Any:
        place = builder.add(builder.mul(distance, constant(line)), at)
        return builder.add(base, builder.mul(place, constant(size)))

    before = builder.block
    loop, done = builder.append_basic_block("features"), builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(ir.IntType(64))
    at.add_incoming(constant(0), before)
    running = [[builder.phi(totals) for _ in range(width)] for _ in range(height)]
    for line in range(width):
        _prefetch(builder, builder.add(address(weight, stride, line, at, 1), following))
    channels = [
        builder.sext(load_from(builder, address(weight, stride, line, at, 1), bytes_), words)
        for line in range(width)
    ]
    added = []
    for line, parts in enumerate(running):
        row = load_from(builder, address(rows, pitch, line, at, 2), words)
        added.append([add_pairs(builder, row, *pair) for pair in zip(channels, parts, strict=True)])
    beyond = builder.add(at, constant(LANES))
    at.add_incoming(beyond, loop)
    for parts, results in zip(running, added, strict=True):
        for part, result in zip(parts, results, strict=True):
            part.add_incoming(ir.Constant(totals, [0] * totals.count), before)
            part.add_incoming(result, loop)
    builder.cbranch(builder.icmp_signed("<", beyond, features), loop, done)
    builder.position_at_end(done)
    number = ir.IntType(32)
    for line, results in enumerate(added):
        for column, result in enumerate(results):
            total = emit_call(builder, f"llvm.vector.reduce.add.v{totals.count}i32", number, [result])
            target = address(sums, gap, line, builder.mul(spread, constant(column)), 4)
            store_to(builder, total, target)


def add_pairs(builder: ir.IRBuilder, row: Any, channel: Any, total: Any) -> Any:
    """Multiply 16-bit lanes, add neighbours in 32 bits, and add that to a total."""
    if _compiles_for_avx2():
        return builder.add(total, emit_call(builder, "llvm.x86.avx2.pmadd.wd", total.type, [row, channel]))
    lanes = total.type.count
    for first in (0, 1):
        picked = ir.Constant(
            ir.VectorType(ir.IntType(32), lanes), [2 * lane + first for lane in range(lanes)]
        )
        left, right = (
            builder.sext(builder.shuffle_vector(side, side, picked), total.type) for side in (row, channel)
        )
        total = builder.add(total, builder.mul(left, right))
    return total


def _compiles_for_avx2() -> bool:
    config: Any = numba.config
    if config.CPU_NAME or config.CPU_FEATURES:  # for another processor than this one, by request
        return False
    features: Any = codegen.get_host_cpu_features  # what numba itself compiles for
    return "+avx2" in features().split(",")


def _prefetch(builder: ir.IRBuilder, where: Any) -> None:
    pointer = builder.inttoptr(where, ir.IntType(8).as_pointer())
    # To read, into all caches, of data.
    flags = [ir.Constant(ir.IntType(32), flag) for flag in (0, 3, 1)]
    emit_call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *flags])


def constant(value: int) -> ir.Constant:
    """A size or a distance."""
    return ir.Constant(ir.IntType(64), value)


def vector(bits: int, count: int) -> ir.VectorType:
    """So many integers of so many bits."""
    return ir.VectorType(ir.IntType(bits), count)


def load_from(builder: ir.IRBuilder, address: Any, kind: ir.Type) -> Any:
    """Read what is at an address, wherever that is."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def store_to(builder: ir.IRBuilder, value: Any, address: Any) -> None:
    """Write to an address, wherever that is."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def everywhere(builder: ir.IRBuilder, value: Any, kind: ir.VectorType) -> Any:
    """A value in all lanes of a register."""
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(vector(32, kind.count), [0] * kind.count))


tile_4_by_2 = _tile(4, 2)
tile_2_by_4 = _tile(2, 4)
tile_1_by_4 = _tile(1, 4)
tile_1_by_1 = _tile(1, 1)
