"""The innermost loops of products of many 16-bit rows, over channels that were laid side by side.

Where many rows pass by the same channels it pays to turn a block of these first, so that one register holds
a pair of features of eight channels: a row's pair goes to all of its lanes, and sums need no adding up
across lanes. (The layout is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", 2008.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from watchkeeper.models.compiled import instruction
from watchkeeper.models.tiles import LANES, add_pairs, constant, everywhere, load_from, store_to, vector

PANEL = 16
"""Channels side by side: two registers of sums for each row."""
HEIGHT = 4
"""Rows that one loop reads together."""

# Pairs of features in one turn of the loop. Twice that many features must divide LANES.
_PAIRS = 2


@instruction
def lay_panel(_: Any, weight: Any, stride: Any, features: Any, panel: Any) -> Any:  # noqa: ARG001 (numba's)
    """Lay channels side by side: all first pairs of features, then all second ones.

    It takes the address of the first channel, the distance between channels, the number of features (a
    multiple of 16, and not 0), and the address of the panel, int8 of shape (features / 2, 16, 2). Distances
    count elements.
    """
    address, size = types.uintp, types.intp

    def generate(context: Any, builder: ir.IRBuilder, _: Any, given: Any) -> Any:
        _emit_lay(builder, *given)
        return context.get_dummy_value()

    return types.void(address, size, size, address), generate


@instruction
def tile_4_by_panel(  # the names are numba's to see
    _: Any,
    rows: Any,  # noqa: ARG001
    pitch: Any,  # noqa: ARG001
    panel: Any,  # noqa: ARG001
    features: Any,  # noqa: ARG001
    steps: Any,  # noqa: ARG001
    scale: Any,  # noqa: ARG001
    bias: Any,  # noqa: ARG001
    out: Any,  # noqa: ARG001
    gap: Any,  # noqa: ARG001
    begins: Any,  # noqa: ARG001
    ends: Any,  # noqa: ARG001
) -> Any:
    """Multiply four rows with a panel, and scale the results.

    It takes the address of the rows and their distance; that of the panel and the number of features (as
    above); the addresses of what a step of each row is worth, of the channels' scale and of their bias (0
    where there is none); the address of the fp32 results and the distance between their lines; whether this
    is the first block of features (others are added to what is there), and whether it is the last (after
    which scale and bias are applied).
    """
    address, size = types.uintp, types.intp
    flag = types.boolean

    def generate(context: Any, builder: ir.IRBuilder, _: Any, given: Any) -> Any:
        _emit_tile(builder, *given)
        return context.get_dummy_value()

    given = (address, size, address, size, address, address, address, address, size, flag, flag)
    return types.void(*given), generate


def _emit_lay(builder: ir.IRBuilder, weight: Any, stride: Any, features: Any, panel: Any) -> None:
    before = builder.block
    loop, done = builder.append_basic_block("lay"), builder.append_basic_block("laid")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(ir.IntType(64))
    at.add_incoming(constant(0), before)
    pairs = vector(16, LANES // 2)
    for first in range(0, PANEL, 8):
        lines = []
        for channel in range(first, first + 8):
            where = builder.add(weight, builder.add(builder.mul(stride, constant(channel)), at))
            lines.append(load_from(builder, where, pairs))
        for pair, line in enumerate(_transposed(builder, lines)):
            place = builder.add(builder.mul(at, constant(PANEL)), constant(2 * (PANEL * pair + first)))
            store_to(builder, line, builder.add(panel, place))
    beyond = builder.add(at, constant(LANES))
    at.add_incoming(beyond, loop)
    builder.cbranch(builder.icmp_signed("<", beyond, features), loop, done)
    builder.position_at_end(done)


def _transposed(builder: ir.IRBuilder, lines: list[Any]) -> list[Any]:
    """Transpose eight lines of eight 16-bit elements, by interleaving ever larger parts of them."""
    for bits in (16, 32, 64):
        # Lines that hold the same columns are 8 * 16 / bits apart from each other's neighbours.
        apart = bits // 16
        joined: list[Any] = [None] * len(lines)
        for low in range(0, len(lines), 2 * apart):
            for line in range(low, low + apart):
                first, second = _interleaved(builder, lines[line], lines[line + apart], bits)
                at = low + 2 * (line - low)
                joined[at], joined[at + 1] = first, second
        lines = joined
    return lines


def _interleaved(builder: ir.IRBuilder, left: Any, right: Any, bits: int) -> tuple[Any, Any]:
    count = 128 // bits
    left, right = (builder.bitcast(side, vector(bits, count)) for side in (left, right))
    halves = []
    for start in (0, count // 2):
        picked = [lane for at in range(start, start + count // 2) for lane in (at, count + at)]
        halves.append(builder.shuffle_vector(left, right, ir.Constant(vector(32, count), picked)))
    return halves[0], halves[1]


def _emit_tile(
    builder: ir.IRBuilder,
    rows: Any,
    pitch: Any,
    panel: Any,
    features: Any,
    steps: Any,
    scale: Any,
    bias: Any,
    out: Any,
    gap: Any,
    begins: Any,
    ends: Any,
) -> None:
    half = LANES // 2
    bytes_, words, totals, pair = vector(8, LANES), vector(16, LANES), vector(32, half), ir.IntType(32)
    before = builder.block
    loop, done = builder.append_basic_block("pairs"), builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(ir.IntType(64))
    at.add_incoming(constant(0), before)
    running = [[builder.phi(totals) for _ in range(PANEL // half)] for _ in range(HEIGHT)]
    added: list[list[Any]] = [list(parts) for parts in running]
    for step in range(_PAIRS):
        here = builder.add(at, constant(2 * step))
        place = builder.add(panel, builder.mul(here, constant(PANEL)))
        channels = [
            builder.sext(load_from(builder, builder.add(place, constant(LANES * part)), bytes_), words)
            for part in range(PANEL // half)
        ]
        for line, parts in enumerate(added):
            there = builder.add(builder.mul(pitch, constant(line)), here)
            given = load_from(builder, builder.add(rows, builder.mul(there, constant(2))), pair)
            row = builder.bitcast(everywhere(builder, given, totals), words)
            added[line] = [add_pairs(builder, row, *both) for both in zip(channels, parts, strict=True)]
    beyond = builder.add(at, constant(2 * _PAIRS))
    at.add_incoming(beyond, loop)
    for parts, results in zip(running, added, strict=True):
        for part, result in zip(parts, results, strict=True):
            part.add_incoming(ir.Constant(totals, [0] * half), before)
            part.add_incoming(result, loop)
    builder.cbranch(builder.icmp_signed("<", beyond, features), loop, done)
    builder.position_at_end(done)
    _emit_results(builder, added, steps, scale, bias, out, gap, begins, ends)


def _emit_results(
    builder: ir.IRBuilder,
    sums: list[list[Any]],
    steps: Any,
    scale: Any,
    bias: Any,
    out: Any,
    gap: Any,
    begins: Any,
    ends: Any,
) -> None:
    floats, one = ir.VectorType(ir.FloatType(), LANES // 2), ir.FloatType()

    def beside(base: Any, part: int) -> Any:
        return builder.add(base, constant(4 * part * LANES // 2))

    places, results = [], []
    for line, parts in enumerate(sums):
        step = load_from(builder, builder.add(steps, constant(4 * line)), one)
        worth = everywhere(builder, step, floats)
        target = builder.add(out, builder.mul(gap, constant(4 * line)))
        places += [beside(target, part) for part in range(len(parts))]
        results += [builder.fmul(builder.sitofp(part, floats), worth) for part in parts]

    def where(condition: Any, change: Any, values: list[Any]) -> list[Any]:
        """Change values where a condition holds."""
        start = builder.block
        with builder.if_then(condition):
            changed = [change(number, value) for number, value in enumerate(values)]
            inside = builder.block
        merged = []
        for value, new in zip(values, changed, strict=True):
            joined = builder.phi(floats)
            joined.add_incoming(value, start)
            joined.add_incoming(new, inside)
            merged.append(joined)
        return merged

    width = len(sums[0])
    results = where(
        builder.not_(begins),
        lambda number, value: builder.fadd(load_from(builder, places[number], floats), value),
        results,
    )
    results = where(
        ends,
        lambda number, value: builder.fmul(value, load_from(builder, beside(scale, number % width), floats)),
        results,
    )
    results = where(
        builder.and_(ends, builder.icmp_unsigned("!=", bias, constant(0))),
        lambda number, value: builder.fadd(value, load_from(builder, beside(bias, number % width), floats)),
        results,
    )
    for place, result in zip(places, results, strict=True):
        store_to(builder, result, place)
