"""Attention of tokens that continue a sequence, each by itself and in one order of sums.

So a token's result is the same to the last bit wherever its sequence was cut: in a prompt read at once, in
chunks of it, behind a beginning that was computed for another request, or alone.
"""

from __future__ import annotations

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from watchkeeper.models.compiled import Part, bytes_at, compiled, floats_at, words_at
from watchkeeper.models.crew import crew, lead
from watchkeeper.models.rowwise import ANY_ORDER, PARTS, exponentials

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
    """Let the queries of one token that share a key head attend to its keys first to last."""
    size = keys.shape[1]
    shares, bits = np.empty(last, dtype=np.float32), np.empty(last, dtype=np.int32)
    for start in range(0, queries.shape[0], size):
        stop = start + size
        _scores(queries[start:stop], keys, first, last, scaling, shares)
        for k in range(seen.shape[0]):
            if not seen[k]:
                shares[k] = -np.inf
        largest = _largest(shares, first, last)
        for k in range(first, last):
            shares[k] -= largest
        exponentials(shares[first:last], bits[first:last])
        for k in range(seen.shape[0]):
            if not seen[k]:
                shares[k] = 0
        _mix(shares, values, first, last, out[start:stop])
        total = _sum(shares, first, last)
        for place in range(start, stop):
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
            *(given, PARTS * crew.members, crew.address, attend_part.address),
        )
