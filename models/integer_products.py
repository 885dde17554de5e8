"""Products of fp32 rows with an int8 weight, exact in integers and fast on CPUs without VNNI.

A row is rounded to 15 bits by blocks of features, each by its own largest magnitude, and multiplied by the
int8 weight in integers. So a row's result is the same to the last bit whatever else is computed with it, and
what rounding costs is two orders of magnitude below the weight's own. numba compiles the loops for the
machine at hand and keeps them on the disk; the innermost ones are in `watchkeeper.models.tiles`
and `watchkeeper.models.panels`.
"""

from __future__ import annotations

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from watchkeeper.models.compiled import (
    Part,
    bytes_at,
    compiled,
    floats_at,
    shorts_at,
    words_at,
)
from watchkeeper.models.crew import SHARES, crew, lead
from watchkeeper.models.panels import HEIGHT, PANEL, lay_panel, tile_4_by_panel
from watchkeeper.models.tiles import LANES, tile_1_by_1, tile_1_by_4, tile_2_by_4, tile_4_by_2

Floats = NDArray[np.float32]
Integers = NDArray[np.int8]

# Features that share a scale. Their products fit 32 bits: 1,024 * 16,383 * 128 < 2**31.
BLOCK = 1024
_LEVELS = np.float32(16383)
# Smallest magnitude a row is scaled by: keeps levels / magnitude finite in fp32.
_TINY = np.float32(1e-30)
_LARGEST_FINITE = np.int32(0x7F7FFFFF)
_WITHOUT_SIGN = np.int32(0x7FFFFFFF)
# Rows whose block of features stays in a core's cache while all weights pass by.
_ROWS = 96
# From here on channels are laid into panels: what that costs is shared by all rows.
_MANY = 24
# Channels whose sums stay in the innermost cache until they are scaled. Those of a tile are as far apart as
# that allows, unless neighbours are: each is then in a page of its own, and processors read ahead by pages.
_CHANNELS = 64
_PAGE = 4096
# Up to here all features of all rows stay in the cache, and a weight is better read from end to end.
_FEW = 8
_NOTHING = np.empty(0, dtype=np.float32)


def multiply(rows: Floats, weight: Integers, scale: Floats, bias: Floats | None = None) -> Floats:
    """Multiply fp32 rows (M, K) by an int8 weight (N, K) transposed; scale each column and add a bias.

    Args:
        rows: fp32 of shape (M, K), contiguous.
        weight: int8 of shape (N, K), contiguous.
        scale: fp32 scale of each output channel (N,).
        bias: fp32 of shape (N,), or ``None``.

    Returns:
        fp32 of shape (M, N). A row that holds an infinity or NaN gives NaN, and changes no other.
    """
    count, size = rows.shape
    blocks = -(-size // BLOCK)
    out = np.empty((count, len(weight)), dtype=np.float32)
    # Addresses of all of these are handed on, so they are kept by who calls.
    integers = np.empty((blocks, count, BLOCK), dtype=np.int16)
    steps, given = np.empty((blocks, count), dtype=np.float32), np.empty(GIVEN, dtype=np.int64)
    bias = _NOTHING if bias is None else bias
    with crew:
        multiply_together(
            *(rows, weight, scale, bias, out, integers, steps, given),
            *(crew.members, crew.address, round_part.address, share_part.address),
        )
    return out


@compiled()
def _round_row(row: Floats, m: int, out: NDArray[np.int16], steps: Floats) -> None:
    """Write a row as integers, block by block, and what one step is worth in each."""
    bits = row.view(np.int32)
    peak = np.zeros(1, dtype=np.int32)
    size = row.shape[0]
    for block in range(out.shape[0]):
        start, stop = block * BLOCK, min((block + 1) * BLOCK, size)
        largest = np.int32(0)
        for k in range(start, stop):
            largest = max(largest, np.int32(bits[k] & _WITHOUT_SIGN))
        target = out[block, m]
        if largest > _LARGEST_FINITE:
            steps[block, m] = np.nan
            target[:] = 0
            continue
        peak[0] = largest
        magnitude = max(peak.view(np.float32)[0], _TINY)
        steps[block, m] = magnitude / _LEVELS
        finer = _LEVELS / magnitude
        for k in range(start, stop):
            target[k - start] = np.int16(np.rint(row[k] * finer))


@compiled()
def _sum_up(rows: int, count: int, weight: int, channels: int, stride: int, features: int, sums: int) -> None:
    """Multiply rows with channels, given as addresses, over whole registers of features."""
    m = 0
    while m < count:
        height = 4 if m + 4 <= count else 2 if m + 2 <= count else 1
        width = 2 if height == 4 else 4
        tiles = channels // width
        apart = tiles if stride < _PAGE else 1
        following = stride if stride < _PAGE else width * stride
        far = apart * stride
        row, line = rows + 2 * m * BLOCK, sums + 4 * m * _CHANNELS
        for tile in range(tiles):
            n = tile if stride < _PAGE else tile * width
            channel, target = weight + n * stride, line + 4 * n
            if height == 4:
                tile_4_by_2(row, BLOCK, channel, far, following, features, target, _CHANNELS, apart)
            elif height == 2:
                tile_2_by_4(row, BLOCK, channel, far, following, features, target, _CHANNELS, apart)
            else:
                tile_1_by_4(row, BLOCK, channel, far, following, features, target, _CHANNELS, apart)
        for n in range(tiles * width, channels):
            for i in range(height):
                here, there = row + 2 * i * BLOCK, line + 4 * (i * _CHANNELS + n)
                tile_1_by_1(here, BLOCK, weight + n * stride, 0, stride, features, there, 0, 0)
        m += height


@compiled()
def _block(
    rows: NDArray[np.int16],
    steps: Floats,
    weight: Integers,
    scale: Floats,
    bias: Floats,
    out: Floats,
    sums: NDArray[np.int32],
    block: int,
    low: int,
    high: int,
    start: int,
    stop: int,
) -> None:
    """Add the products of some rows with some channels over one block of features; scale behind the last."""
    first = block * BLOCK
    last = min(first + BLOCK, weight.shape[1])
    whole = (last - first) // LANES * LANES
    if whole:
        _sum_up(
            rows.ctypes.data + 2 * (block * rows.shape[1] + start) * BLOCK,
            stop - start,
            weight.ctypes.data + low * weight.shape[1] + first,
            high - low,
            weight.shape[1],
            whole,
            sums.ctypes.data,
        )
    else:
        sums[:] = 0
    for m in range(start, stop):
        if first + whole < last:
            for n in range(low, high):
                for k in range(whole, last - first):
                    sums[m - start, n - low] += np.int32(rows[block, m, k]) * np.int32(weight[n, first + k])
        step, line, target = steps[block, m], sums[m - start], out[m]
        ends = block == steps.shape[0] - 1
        if block == 0 and ends:
            for n in range(low, high):
                target[n] = np.float32(line[n - low]) * step * scale[n]
        elif block == 0:
            for n in range(low, high):
                target[n] = np.float32(line[n - low]) * step
        elif ends:
            for n in range(low, high):
                target[n] = (target[n] + np.float32(line[n - low]) * step) * scale[n]
        else:
            for n in range(low, high):
                target[n] += np.float32(line[n - low]) * step
        if ends and bias.shape[0]:
            for n in range(low, high):
                target[n] += bias[n]


@compiled()
def _panels(
    rows: NDArray[np.int16],
    steps: Floats,
    weight: Integers,
    scale: Floats,
    bias: Floats,
    out: Floats,
    panel: Integers,
    block: int,
    low: int,
    high: int,
    start: int,
    stop: int,
) -> None:
    """Do what `_block` does, for whole panels of channels, heights of rows, and registers of features."""
    size, first = weight.shape[1], block * BLOCK
    features = min(BLOCK, size - first)
    begins, ends = block == 0, block == steps.shape[0] - 1
    biased = bias.shape[0] > 0
    for n in range(low, high, PANEL):
        lay_panel(weight.ctypes.data + n * size + first, size, features, panel.ctypes.data)
        for m in range(start, stop, HEIGHT):
            tile_4_by_panel(
                rows.ctypes.data + 2 * (block * rows.shape[1] + m) * BLOCK,
                BLOCK,
                panel.ctypes.data,
                features,
                steps.ctypes.data + 4 * (block * steps.shape[1] + m),
                scale.ctypes.data + 4 * n,
                bias.ctypes.data + 4 * n if biased else 0,
                out.ctypes.data + 4 * (m * out.shape[1] + n),
                out.shape[1],
                begins,
                ends,
            )


@compiled()
def _share(
    rows: NDArray[np.int16],
    steps: Floats,
    weight: Integers,
    scale: Floats,
    bias: Floats,
    out: Floats,
    low: int,
    high: int,
) -> None:
    """Compute some of the output channels."""
    blocks, count = steps.shape
    sums = np.empty((_ROWS + HEIGHT, _CHANNELS), dtype=np.int32)
    if count <= _FEW:
        for n in range(low, high, _CHANNELS):
            for block in range(blocks):
                end = min(n + _CHANNELS, high)
                _block(rows, steps, weight, scale, bias, out, sums, block, n, end, 0, count)
        return
    lots = -(-count // _ROWS)
    panel = np.empty(BLOCK * PANEL, dtype=np.int8)
    for lot in range(lots):
        start, stop = _cut(lot, lots, count, HEIGHT), _cut(lot + 1, lots, count, HEIGHT)
        for block in range(blocks):
            right, below = low, start
            features = min(BLOCK, weight.shape[1] - block * BLOCK)
            if features % LANES == 0 and stop - start >= _MANY:
                right, below = high - (high - low) % PANEL, stop - (stop - start) % HEIGHT
                _panels(rows, steps, weight, scale, bias, out, panel, block, low, right, start, below)
            for n in range(low, right, _CHANNELS):
                if below < stop:
                    end = min(n + _CHANNELS, right)
                    _block(rows, steps, weight, scale, bias, out, sums, block, n, end, below, stop)
            for n in range(right, high, _CHANNELS):
                end = min(n + _CHANNELS, high)
                _block(rows, steps, weight, scale, bias, out, sums, block, n, end, start, stop)


@compiled()
def _cut(number: int, parts: int, total: int, unit: int) -> int:
    """Say where a part of a whole begins, that is cut between units."""
    return total if number == parts else number * (total // unit) // parts * unit


# What a product's parts are given: addresses and sizes.
_ROWS_AT, _COUNT, _SIZE, _INTEGERS_AT, _STEPS_AT, _WEIGHT_AT = 0, 1, 2, 3, 4, 5
_SCALE_AT, _BIAS_AT, _OUT_AT, _TOTAL, _SLICES, _SHARED = 6, 7, 8, 9, 10, 11
GIVEN = 12


@Part
def round_part(given: int, number: int) -> int:
    """Round some of the rows."""
    g = carray(words_at(given), GIVEN)
    count, size, slices = g[_COUNT], g[_SIZE], g[_SLICES]
    blocks = (size + BLOCK - 1) // BLOCK
    rows = carray(floats_at(g[_ROWS_AT]), (count, size))
    integers = carray(shorts_at(g[_INTEGERS_AT]), (blocks, count, BLOCK))
    steps = carray(floats_at(g[_STEPS_AT]), (blocks, count))
    for m in range(number * count // slices, (number + 1) * count // slices):
        _round_row(rows[m], m, integers, steps)
    return 1


@Part
def share_part(given: int, number: int) -> int:
    """Compute some of the output channels."""
    g = carray(words_at(given), GIVEN)
    count, size, total, shared = g[_COUNT], g[_SIZE], g[_TOTAL], g[_SHARED]
    blocks = (size + BLOCK - 1) // BLOCK
    _share(
        carray(shorts_at(g[_INTEGERS_AT]), (blocks, count, BLOCK)),
        carray(floats_at(g[_STEPS_AT]), (blocks, count)),
        carray(bytes_at(g[_WEIGHT_AT]), (total, size)),
        carray(floats_at(g[_SCALE_AT]), (total,)),
        carray(floats_at(g[_BIAS_AT]), (total if g[_BIAS_AT] else 0,)),
        carray(floats_at(g[_OUT_AT]), (count, total)),
        _cut(number, shared, total, PANEL),
        _cut(number + 1, shared, total, PANEL),
    )
    return 1


@compiled()
def multiply_together(
    rows: Floats,
    weight: Integers,
    scale: Floats,
    bias: Floats,
    out: Floats,
    integers: NDArray[np.int16],
    steps: Floats,
    given: NDArray[np.int64],
    members: int,
    crew_address: int,
    rounding: int,
    sharing: int,
) -> None:
    """Do what :func:`multiply` does with the crew, which was entered.

    Args:
        rows: As there; so are weight, scale and out.
        weight: The weight.
        scale: Its scale.
        bias: Empty where there is none.
        out: Where results go.
        integers: Scratch of shape (blocks of features, M, `BLOCK`).
        steps: Scratch of shape (blocks of features, M).
        given: Scratch for what the crew is given; kept by who calls, as all whose addresses it holds.
        members: Members of the crew.
        crew_address: Where it is.
        rounding: Address of `round_part`.
        sharing: Address of `share_part`.
    """
    count, size = rows.shape
    total = weight.shape[0]
    shares = min(members * SHARES, max(members, total // _CHANNELS))
    given[_ROWS_AT] = rows.ctypes.data
    given[_COUNT] = count
    given[_SIZE] = size
    given[_INTEGERS_AT] = integers.ctypes.data
    given[_STEPS_AT] = steps.ctypes.data
    given[_WEIGHT_AT] = weight.ctypes.data
    given[_SCALE_AT] = scale.ctypes.data
    given[_BIAS_AT] = bias.ctypes.data if bias.shape[0] else 0
    given[_OUT_AT] = out.ctypes.data
    given[_TOTAL] = total
    given[_SLICES] = members * SHARES
    given[_SHARED] = shares
    if count <= _FEW:
        for m in range(count):
            _round_row(rows[m], m, integers, steps)
    else:
        lead(crew_address, rounding, given.ctypes.data, members * SHARES)
    lead(crew_address, sharing, given.ctypes.data, shares)
