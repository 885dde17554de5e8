"""Attention of tokens that continue a sequence, each by itself and in one order of sums.

So a token's result is the same to the last bit wherever its sequence was cut: in a prompt read at once, in
chunks of it, behind a beginning that was computed for another request, or alone.
"""

from __future__ import annotations

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from watchkeeper.models.compiled import Part, bytes_at, compiled, floats_at, words_at
from watchkeeper.models.crew import SHARES, crew, lead
from watchkeeper.models.rowwise import ANY_ORDER, exponentials

Floats = NDArray[np.float32]

ENDLESS = 1 << 62
"""A window that hides nothing."""

NO_MASK = np.empty((0, 0), dtype=np.int8)
"""Each token attends to itself and all before it."""

# Keys that are looked at together: what they share is loaded once.
_KEYS = 4


@compiled(fastmath=ANY_ORDER)
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


@compiled(fastmath=ANY_ORDER)
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


@compiled(fastmath=ANY_ORDER)
def _scores_of_two(
    query: Floats, other: Floats, keys: Floats, first: int, last: int, scaling: np.float32, out: Floats
) -> None:
    """Write the scaled products of two queries with keys first to last into two rows: keys are read once."""
    size = query.shape[0]
    k = first
    while k + _KEYS <= last:
        one, two, three, four = keys[k], keys[k + 1], keys[k + 2], keys[k + 3]
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        e, f, g, h = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for place in range(size):
            left, right = query[place], other[place]
            a += left * one[place]
            b += left * two[place]
            c += left * three[place]
            d += left * four[place]
            e += right * one[place]
            f += right * two[place]
            g += right * three[place]
            h += right * four[place]
        out[0, k], out[0, k + 1], out[0, k + 2], out[0, k + 3] = (
            a * scaling,
            b * scaling,
            c * scaling,
            d * scaling,
        )
        out[1, k], out[1, k + 1], out[1, k + 2], out[1, k + 3] = (
            e * scaling,
            f * scaling,
            g * scaling,
            h * scaling,
        )
        k += _KEYS
    _scores(query, keys, k, last, scaling, out[0])
    _scores(other, keys, k, last, scaling, out[1])


@compiled(fastmath=ANY_ORDER)
def _mix_for_two(shares: Floats, values: Floats, first: int, last: int, out: Floats, other: Floats) -> None:
    """Add up values first to last by two rows of shares: values are read once."""
    size = out.shape[0]
    out[:] = 0
    other[:] = 0
    k = first
    while k + _KEYS <= last:
        one, two, three, four = values[k], values[k + 1], values[k + 2], values[k + 3]
        a, b, c, d = shares[0, k], shares[0, k + 1], shares[0, k + 2], shares[0, k + 3]
        e, f, g, h = shares[1, k], shares[1, k + 1], shares[1, k + 2], shares[1, k + 3]
        for place in range(size):
            p, q, r, t = one[place], two[place], three[place], four[place]
            out[place] += (a * p + b * q) + (c * r + d * t)
            other[place] += (e * p + f * q) + (g * r + h * t)
        k += _KEYS
    while k < last:
        value = values[k]
        for place in range(size):
            out[place] += shares[0, k] * value[place]
            other[place] += shares[1, k] * value[place]
        k += 1


@compiled(fastmath=ANY_ORDER | {"nnan", "nsz"})
def _largest(numbers: Floats, first: int, last: int) -> np.float32:
    found: np.float32 = numbers[first]
    for k in range(first, last):
        found = max(found, numbers[k])
    return found


@compiled(fastmath=ANY_ORDER)
def _sum(numbers: Floats, first: int, last: int) -> np.float32:
    total = np.float32(0)
    for k in range(first, last):
        total += numbers[k]
    return total


@compiled()
def _become_shares(
    scores: Floats, first: int, last: int, seen: NDArray[np.int8], bits: NDArray[np.int32]
) -> np.float32:
    """Replace scores by their exponentials, those of the largest being 1, and return their sum."""
    for k in range(seen.shape[0]):
        if not seen[k]:
            scores[k] = -np.inf
    largest = _largest(scores, first, last)
    for k in range(first, last):
        scores[k] -= largest
    exponentials(scores[first:last], bits[first:last])
    for k in range(seen.shape[0]):
        if not seen[k]:
            scores[k] = 0
    return _sum(scores, first, last)


@compiled()
def _attend_group(
    queries: Floats,
    keys: Floats,
    values: Floats,
    first: int,
    last: int,
    seen: NDArray[np.int8],
    scaling: np.float32,
    out: Floats,
) -> None:
    """Let the queries of one token that share a key head attend to its keys first to last, two by two."""
    size = keys.shape[1]
    shares, bits = np.empty((2, last), dtype=np.float32), np.empty(last, dtype=np.int32)
    start, end = 0, queries.shape[0]
    while start + 2 * size <= end:
        middle, stop = start + size, start + 2 * size
        _scores_of_two(queries[start:middle], queries[middle:stop], keys, first, last, scaling, shares)
        total = _become_shares(shares[0], first, last, seen, bits)
        other = _become_shares(shares[1], first, last, seen, bits)
        _mix_for_two(shares, values, first, last, out[start:middle], out[middle:stop])
        for place in range(start, middle):
            out[place] /= total
        for place in range(middle, stop):
            out[place] /= other
        start = stop
    if start < end:
        _scores(queries[start:end], keys, first, last, scaling, shares[0])
        total = _become_shares(shares[0], first, last, seen, bits)
        _mix(shares[0], values, first, last, out[start:end])
        for place in range(start, end):
            out[place] /= total


# What attention's parts are given: addresses and sizes.
_ROWS_AT, _PITCH, _COUNT, _KEYS_AT, _VALUES_AT, _CAPACITY, _PAST = 0, 1, 2, 3, 4, 5, 6
_HEADS, _GROUPS, _SIZE, _WINDOW, _MASK_AT, _OUT_AT, _SLICES, _GIVEN = 7, 8, 9, 10, 11, 12, 13, 14


@Part
def attend_part(given: int, number: int) -> int:
    """Let some of the tokens attend, by some of their heads: those of one token that share a key head."""
    g = carray(words_at(given), _GIVEN)
    count, past, size, slices = g[_COUNT], g[_PAST], g[_SIZE], g[_SLICES]
    rows = carray(floats_at(g[_ROWS_AT]), (count, g[_PITCH]))
    shape = (g[_GROUPS], g[_CAPACITY], size)
    keys, values = carray(floats_at(g[_KEYS_AT]), shape), carray(floats_at(g[_VALUES_AT]), shape)
    out = carray(floats_at(g[_OUT_AT]), (count, g[_HEADS] * size))
    mask = carray(bytes_at(g[_MASK_AT]), (count if g[_MASK_AT] else 0, past + count))
    everything = np.empty(0, dtype=np.int8)
    scaling = np.float32(carray(floats_at(given + 8 * _GIVEN), 1)[0])
    groups, width = g[_GROUPS], g[_HEADS] // g[_GROUPS] * size
    units = count * groups
    for unit in range(number * units // slices, (number + 1) * units // slices):
        m, group = unit // groups, unit % groups
        last = past + count if g[_MASK_AT] else past + m + 1
        first = max(0, last - g[_WINDOW])
        seen = mask[m] if g[_MASK_AT] else everything
        start, stop = group * width, (group + 1) * width
        queries = rows[m, start:stop]
        _attend_group(queries, keys[group], values[group], first, last, seen, scaling, out[m, start:stop])
    return 1


@compiled()
def attend_together(
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
    most: int,
    crew_address: int,
    attending: int,
) -> None:
    """Do what :func:`attend` does with the crew, which was entered.

    Args:
        rows: As there; so are heads, keys, values, past, mask, scaling and out.
        heads: Number of query heads.
        keys: Keys.
        values: Values.
        past: Tokens before.
        window: `ENDLESS` where it hides nothing.
        mask: `NO_MASK` where there is none.
        scaling: Factor of the scores.
        out: Where results go.
        given: Scratch for what the crew is given; whoever calls keeps it.
        most: Parts that the work is cut into at most.
        crew_address: Where the crew is.
        attending: Address of `attend_part`.
    """
    groups, capacity, size = keys.shape
    count = rows.shape[0]
    slices = min(count * groups, most)
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

    A token's result is the same whether it comes alone or with others. All arrays are contiguous.

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
    seen = NO_MASK if mask is None else mask.view(np.int8)
    given = np.empty(_GIVEN + 1, dtype=np.int64)
    with crew:
        attend_together(
            *(rows, heads, keys, values, past, ENDLESS if window is None else window, seen, scaling, out),
            *(given, SHARES * crew.members, crew.address, attend_part.address),
        )
