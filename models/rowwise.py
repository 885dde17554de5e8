"""What a decoder does to each row beside its matmuls, in one pass over memory each.

Every row is computed by itself in one order, so it is the same to the last bit in any batch. numba compiles
the loops for the machine at hand and keeps them on the disk.
"""

from __future__ import annotations

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from watchkeeper.models.compiled import bytes_at, compiled, compiled_part, floats_at, words_at
from watchkeeper.models.crew import crew, lead

Floats = NDArray[np.float32]

# The order of a sum is the compiler's to choose, once and for all rows; a product may be added unrounded.
_ANY_ORDER = {"reassoc", "contract"}
_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, so that a multiple of it is taken off without an error (Cody and Waite 1980).
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LEAST = np.float32(-87.0)
# From here on several threads are quicker than one.
_MANY = 16
# Parts that a loop has for each member of the crew, so that one who is slower does fewer.
_PARTS = 4
_ENDLESS = 1 << 62
_NO_MASK = np.empty((0, 0), dtype=np.int8)
# Keys that are looked at together: what they share is loaded once.
_KEYS = 4


@compiled(fastmath=_ANY_ORDER)
def _sum_of_squares(row: Floats) -> np.float32:
    total = np.float32(0)
    for k in range(row.shape[0]):
        total += row[k] * row[k]
    return total


@compiled()
def normalize(rows: Floats, weight: Floats, epsilon: float) -> Floats:
    """Divide rows by their root mean square.

    It is RMSNorm (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

    Args:
        rows: Shape (rows, features).
        weight: Factor of each feature, shape (features,).
        epsilon: Added to the mean of squares.

    Returns:
        Shape (rows, features).
    """
    out = np.empty_like(rows)
    for m in range(rows.shape[0]):
        mean = _sum_of_squares(rows[m]) / np.float32(rows.shape[1])
        factor = np.float32(1 / np.sqrt(mean + np.float32(epsilon)))
        for k in range(rows.shape[1]):
            out[m, k] = rows[m, k] * factor * weight[k]
    return out


@compiled()
def add_and_normalize(rows: Floats, change: Floats, weight: Floats, epsilon: float) -> Floats:
    """Add a change to rows in place, and return them normalized as :func:`normalize` does."""
    for m in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            rows[m, k] += change[m, k]
    return normalize(rows, weight, epsilon)


@compiled()
def rotate(rows: Floats, heads: int, cosines: Floats, sines: Floats) -> None:
    """Turn the first heads of rows by their positions, in place.

    It is RoPE (Su et al. 2021, https://arxiv.org/abs/2104.09864) with the halves of a head as pairs.

    Args:
        rows: Shape (rows, at least heads * head size).
        heads: How many are turned.
        cosines: Shape (rows, head size).
        sines: Of the same shape.
    """
    size = cosines.shape[1]
    half = size // 2
    for m in range(rows.shape[0]):
        for head in range(heads):
            first, second = head * size, head * size + half
            for k in range(half):
                left, right = rows[m, first + k], rows[m, second + k]
                rows[m, first + k] = left * cosines[m, k] - right * sines[m, k]
                rows[m, second + k] = right * cosines[m, half + k] + left * sines[m, half + k]


@compiled(fastmath=_ANY_ORDER)
def _scores(query: Floats, keys: Floats, first: int, last: int, scaling: np.float32, out: Floats) -> None:
    """Write the products of a query with keys first to last, scaled."""
    size = query.shape[0]
    k = first
    while k + _KEYS <= last:
        one, two, three, four = keys[k], keys[k + 1], keys[k + 2], keys[k + 3]
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for place in range(size):
            part_of_query = query[place]
            a += part_of_query * one[place]
            b += part_of_query * two[place]
            c += part_of_query * three[place]
            d += part_of_query * four[place]
        out[k], out[k + 1], out[k + 2], out[k + 3] = a * scaling, b * scaling, c * scaling, d * scaling
        k += _KEYS
    while k < last:
        key, total = keys[k], np.float32(0)
        for place in range(size):
            total += query[place] * key[place]
        out[k] = total * scaling
        k += 1


@compiled(fastmath=_ANY_ORDER)
def _mix(shares: Floats, values: Floats, first: int, last: int, out: Floats) -> None:
    """Add up values first to last by their shares."""
    size = out.shape[0]
    out[:] = 0
    k = first
    while k + _KEYS <= last:
        one, two, three, four = values[k], values[k + 1], values[k + 2], values[k + 3]
        a, b, c, d = shares[k], shares[k + 1], shares[k + 2], shares[k + 3]
        for place in range(size):
            out[place] += (a * one[place] + b * two[place]) + (c * three[place] + d * four[place])
        k += _KEYS
    while k < last:
        value, share = values[k], shares[k]
        for place in range(size):
            out[place] += share * value[place]
        k += 1


@compiled()
def _exponentials(values: Floats, bits: NDArray[np.int32]) -> None:
    """Replace numbers of 0 or less by their exponentials, to a part in ten million.

    A Taylor polynomial around the nearest multiple of ln 2, in steps that processors do eight at a time.

    Args:
        values: The numbers; those below -87 give its exponential.
        bits: Scratch of the same shape.
    """
    for k in range(values.shape[0]):
        x = max(values[k], _LEAST)  # NaN comes out as NaN
        whole = np.floor(x * _LOG2_E + np.float32(0.5))
        bits[k] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        r = x - whole * _LN2_HIGH - whole * _LN2_LOW
        term = np.float32(1 / 5040) * r + np.float32(1 / 720)
        term = term * r + np.float32(1 / 120)
        term = term * r + np.float32(1 / 24)
        term = term * r + np.float32(1 / 6)
        term = term * r + np.float32(0.5)
        values[k] = (term * r + np.float32(1)) * r + np.float32(1)
    powers = bits.view(np.float32)
    for k in range(values.shape[0]):
        values[k] *= powers[k]


@compiled()
def _gate_rows(both: Floats, out: Floats, start: int, stop: int) -> None:
    size = out.shape[1]
    bits = np.empty(size, dtype=np.int32)
    shares = np.empty(size, dtype=np.float32)
    for m in range(start, stop):
        for k in range(size):
            shares[k] = -abs(both[m, k])
        _exponentials(shares, bits)
        for k in range(size):
            part = both[m, k] / (np.float32(1) + shares[k])
            out[m, k] = (part if both[m, k] >= 0 else part * shares[k]) * both[m, size + k]


@compiled_part
def _gate_part(given: int, number: int) -> None:
    """Gate some of the rows."""
    g = carray(words_at(given), 5)
    count, size, parts = g[2], g[3], g[4]
    both, out = carray(floats_at(g[0]), (count, 2 * size)), carray(floats_at(g[1]), (count, size))
    _gate_rows(both, out, number * count // parts, (number + 1) * count // parts)


@compiled()
def _gate_together(
    both: Floats, out: Floats, given: NDArray[np.int64], parts: int, crew_address: int, gating: int
) -> None:
    given[0] = both.ctypes.data
    given[1] = out.ctypes.data
    given[2] = out.shape[0]
    given[3] = out.shape[1]
    given[4] = parts
    lead(crew_address, gating, given.ctypes.data, parts)


def gate(both: Floats) -> Floats:
    """Multiply the second half of rows by the SiLU of the first: x / (1 + exp(-x)).

    Args:
        both: Shape (rows, 2 * features).

    Returns:
        Shape (rows, features).
    """
    out = np.empty((both.shape[0], both.shape[1] // 2), dtype=np.float32)
    if len(both) < _MANY:
        _gate_rows(both, out, 0, len(both))
    else:
        with crew:
            given = np.empty(5, dtype=np.int64)
            _gate_together(both, out, given, _PARTS * crew.members, crew.address, _gate_part)
    return out


@compiled(fastmath=_ANY_ORDER | {"nnan", "nsz"})
def _largest(numbers: Floats, first: int, last: int) -> np.float32:
    found: np.float32 = numbers[first]
    for k in range(first, last):
        found = max(found, numbers[k])
    return found


@compiled(fastmath=_ANY_ORDER)
def _sum(numbers: Floats, first: int, last: int) -> np.float32:
    total = np.float32(0)
    for k in range(first, last):
        total += numbers[k]
    return total


@compiled()
def _attend_row(
    queries: Floats,
    keys: Floats,
    values: Floats,
    first: int,
    last: int,
    seen: NDArray[np.int8],
    scaling: np.float32,
    out: Floats,
) -> None:
    """Let the queries of one token, one behind the other, attend to keys first to last."""
    groups, _, size = keys.shape
    heads = queries.shape[0] // size
    shares, bits = np.empty(last, dtype=np.float32), np.empty(last, dtype=np.int32)
    for head in range(heads):
        group = head // (heads // groups)
        start, stop = head * size, (head + 1) * size
        _scores(queries[start:stop], keys[group], first, last, scaling, shares)
        for k in range(seen.shape[0]):
            if not seen[k]:
                shares[k] = -np.inf
        largest = _largest(shares, first, last)
        for k in range(first, last):
            shares[k] -= largest
        _exponentials(shares[first:last], bits[first:last])
        for k in range(seen.shape[0]):
            if not seen[k]:
                shares[k] = 0
        _mix(shares, values[group], first, last, out[start:stop])
        total = _sum(shares, first, last)
        for place in range(start, stop):
            out[place] /= total


# What attention's parts are given: addresses and sizes.
_ROWS_AT, _PITCH, _COUNT, _KEYS_AT, _VALUES_AT, _CAPACITY, _PAST = 0, 1, 2, 3, 4, 5, 6
_HEADS, _GROUPS, _SIZE, _WINDOW, _MASK_AT, _OUT_AT, _SLICES, _GIVEN = 7, 8, 9, 10, 11, 12, 13, 14


@compiled_part
def _attend_part(given: int, number: int) -> None:
    """Let some of the tokens attend."""
    g = carray(words_at(given), _GIVEN)
    count, past, size, slices = g[_COUNT], g[_PAST], g[_SIZE], g[_SLICES]
    rows = carray(floats_at(g[_ROWS_AT]), (count, g[_PITCH]))
    shape = (g[_GROUPS], g[_CAPACITY], size)
    keys, values = carray(floats_at(g[_KEYS_AT]), shape), carray(floats_at(g[_VALUES_AT]), shape)
    out = carray(floats_at(g[_OUT_AT]), (count, g[_HEADS] * size))
    mask = carray(bytes_at(g[_MASK_AT]), (count if g[_MASK_AT] else 0, past + count))
    everything = np.empty(0, dtype=np.int8)
    scaling = np.float32(carray(floats_at(given + 8 * _GIVEN), 1)[0])
    for m in range(number * count // slices, (number + 1) * count // slices):
        last = past + count if g[_MASK_AT] else past + m + 1
        first = max(0, last - g[_WINDOW])
        seen = mask[m] if g[_MASK_AT] else everything
        _attend_row(rows[m, : g[_HEADS] * size], keys, values, first, last, seen, scaling, out[m])


@compiled()
def _attend_together(
    rows: Floats,
    heads: int,
    keys: Floats,
    values: Floats,
    past: int,
    window: int,
    mask: NDArray[np.int8],
    scaling: float,
    out: Floats,
    given: NDArray[np.int64],
    slices: int,
    crew_address: int,
    attending: int,
) -> None:
    groups, capacity, size = keys.shape
    count = rows.shape[0]
    for group in range(groups):
        start, behind = (heads + group) * size, (heads + groups + group) * size
        for m in range(count):
            keys[group, past + m] = rows[m, start : start + size]
            values[group, past + m] = rows[m, behind : behind + size]
    given[_ROWS_AT] = rows.ctypes.data
    given[_PITCH] = rows.shape[1]
    given[_COUNT] = count
    given[_KEYS_AT] = keys.ctypes.data
    given[_VALUES_AT] = values.ctypes.data
    given[_CAPACITY] = capacity
    given[_PAST] = past
    given[_HEADS] = heads
    given[_GROUPS] = groups
    given[_SIZE] = size
    given[_WINDOW] = window
    given[_MASK_AT] = mask.ctypes.data if mask.shape[0] else 0
    given[_OUT_AT] = out.ctypes.data
    given[_SLICES] = slices
    given.view(np.float32)[2 * _GIVEN] = np.float32(scaling)
    lead(crew_address, attending, given.ctypes.data, slices)


def attend(
    rows: Floats,
    heads: int,
    keys: Floats,
    values: Floats,
    past: int,
    scaling: float,
    out: Floats,
    *,
    window: int | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> None:
    """Store the keys and values of tokens, and let each attend to itself and all before it.

    A token's result is the same whether it comes alone or with others.

    Args:
        rows: Shape (tokens, (heads + 2 * key heads) * head size): queries, keys and values, head after head,
            turned by their positions.
        heads: Number of query heads.
        keys: Shape (key heads, capacity, head size); those of the tokens go behind the first ``past`` ones.
        values: Of the same shape.
        past: Tokens before them.
        scaling: Factor of the scores.
        out: Where results go, shape (tokens, heads * head size).
        window: Last tokens that each attends to; all where ``None``.
        mask: What each token attends to instead, shape (tokens, past + tokens); each to one at least.
    """
    seen = _NO_MASK if mask is None else mask.view(np.int8)
    count, given = len(rows), np.empty(_GIVEN + 1, dtype=np.int64)
    with crew:
        slices = min(count, _PARTS * crew.members)
        _attend_together(
            *(rows, heads, keys, values, past, _ENDLESS if window is None else window, seen, scaling, out),
            *(given, slices, crew.address, _attend_part),
        )
