"""The innermost loops of attention, written in LLVM: products of a query with many keys, and sums of values.

Each product and each sum is added up in the order of features and of keys, one lane for each, so it does not
depend on what else is computed beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from watchkeeper.models.compiled import emit_call, instruction
from watchkeeper.models.tiles import constant, everywhere, load_from, store_to, vector

KEYS = 64
"""Keys whose features are laid side by side."""
COLUMNS = 64
"""Features of a value that stay in registers while others are added to them."""

_LANES = 8
_FLOATS = ir.VectorType(ir.FloatType(), _LANES)


@instruction
def lay_eight(_: Any, keys: Any, pitch: Any, laid: Any) -> Any:  # noqa: ARG001 (the names are numba's to see)
    """Turn eight features of eight keys, so that each feature's are side by side.

    It takes the address of the first feature of the first key, the distance between keys, and the address of
    the turned ones, whose lines are `KEYS` apart. Distances count elements.
    """

    def generate(_: Any, builder: ir.IRBuilder, given: Any) -> None:
        source, distance, target = given
        lines = [
            load_from(builder, _beside(builder, source, builder.mul(distance, constant(line))), _FLOATS)
            for line in range(_LANES)
        ]
        for line, turned in enumerate(_transposed(builder, lines)):
            store_to(builder, turned, _beside(builder, target, constant(KEYS * line)))

    return _procedure(generate, types.uintp, types.intp, types.uintp)


@instruction
def dot_keys(_: Any, query: Any, laid: Any, size: Any, scaling: Any, out: Any) -> Any:  # noqa: ARG001
    """Multiply a query with `KEYS` keys that were laid side by side.

    It takes the address of the query, that of the keys, the number of features (above 0), the factor of the
    products, and the address of these.
    """

    def generate(_: Any, builder: ir.IRBuilder, given: Any) -> None:
        query, laid, size, scaling, out = given
        zeros = [ir.Constant(_FLOATS, [0.0] * _LANES)] * (KEYS // _LANES)

        def add(feature: Any, sums: list[Any]) -> list[Any]:
            part = load_from(builder, _beside(builder, query, feature), ir.FloatType())
            factor = everywhere(builder, part, _FLOATS)
            line = _beside(builder, laid, builder.mul(feature, constant(KEYS)))
            return [_added(builder, factor, line, number, total) for number, total in enumerate(sums)]

        sums = _loop(builder, size, zeros, add)
        factor = everywhere(builder, scaling, _FLOATS)
        for number, total in enumerate(sums):
            store_to(builder, builder.fmul(total, factor), _beside(builder, out, constant(_LANES * number)))

    return _procedure(generate, types.uintp, types.uintp, types.intp, types.float32, types.uintp)


@instruction
def add_values(_: Any, shares: Any, count: Any, values: Any, pitch: Any, out: Any) -> Any:  # noqa: ARG001
    """Add `COLUMNS` features of some values, each by its share, to what is there.

    It takes the address of the shares and their number (above 0), that of the values and the distance
    between them, and the address of the sums.
    """

    def generate(_: Any, builder: ir.IRBuilder, given: Any) -> None:
        shares, count, values, pitch, out = given
        places = [_beside(builder, out, constant(_LANES * part)) for part in range(COLUMNS // _LANES)]

        def add(number: Any, sums: list[Any]) -> list[Any]:
            share = load_from(builder, _beside(builder, shares, number), ir.FloatType())
            factor = everywhere(builder, share, _FLOATS)
            line = _beside(builder, values, builder.mul(number, pitch))
            return [_added(builder, factor, line, part, total) for part, total in enumerate(sums)]

        sums = _loop(builder, count, [load_from(builder, place, _FLOATS) for place in places], add)
        for place, total in zip(places, sums, strict=True):
            store_to(builder, total, place)

    return _procedure(generate, types.uintp, types.intp, types.uintp, types.intp, types.uintp)


def _procedure(write: Callable[[Any, Any, Any], None], *given: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        write(context, builder, values)
        return context.get_dummy_value()

    return types.void(*given), generate


def _beside(builder: ir.IRBuilder, base: Any, distance: Any) -> Any:
    """The address some fp32 elements further on."""
    return builder.add(base, builder.mul(distance, constant(4)))


def _added(builder: ir.IRBuilder, factor: Any, line: Any, number: int, total: Any) -> Any:
    numbers = load_from(builder, _beside(builder, line, constant(_LANES * number)), _FLOATS)
    return emit_call(builder, f"llvm.fmuladd.v{_LANES}f32", _FLOATS, [factor, numbers, total])


def _loop(
    builder: ir.IRBuilder, count: Any, start: list[Any], add: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """Go on from values once for each number below a count."""
    before = builder.block
    loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    number = builder.phi(ir.IntType(64))
    number.add_incoming(constant(0), before)
    running = [builder.phi(_FLOATS) for _ in start]
    results = add(number, list(running))
    following = builder.add(number, constant(1))
    number.add_incoming(following, loop)
    for part, first, result in zip(running, start, results, strict=True):
        part.add_incoming(first, before)
        part.add_incoming(result, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    return results


def _transposed(builder: ir.IRBuilder, lines: list[Any]) -> list[Any]:
    """Transpose eight registers of eight numbers, by exchanging ever smaller halves of them."""
    for apart in (4, 2, 1):
        exchanged: list[Any] = [None] * _LANES
        low = [lane for lane in range(_LANES) if not lane & apart]
        first = [lane if not lane & apart else _LANES + lane - apart for lane in range(_LANES)]
        second = [lane + apart if not lane & apart else _LANES + lane for lane in range(_LANES)]
        for line in low:
            pair = lines[line], lines[line + apart]
            exchanged[line] = _picked(builder, *pair, first)
            exchanged[line + apart] = _picked(builder, *pair, second)
        lines = exchanged
    return lines


def _picked(builder: ir.IRBuilder, left: Any, right: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(vector(32, _LANES), lanes))
