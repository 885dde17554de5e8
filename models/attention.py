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
from watchkeeper.models.dots import COLUMNS, KEYS, add_values, dot_keys, lay_eight
from watchkeeper.models.rowwise import ANY_ORDER, exponentials

Floats = NDArray[np.float32]

ENDLESS = 1 << 62
"""A window that hides nothing."""

NO_MASK = np.empty((0, 0), dtype=np.int8)
"""Each token attends to itself and all before it."""

# Tokens of one piece that look at keys together: these are laid side by side once for all of them.
_TOGETHER = 8


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
def _lay(keys: Floats, first: int, last: int, laid: Floats) -> None:
    """Lay keys first to last side by side: feature by feature, zeros behind the last key."""
    size, count = keys.shape[1], last - first
    if count < KEYS:
        laid[:] = 0
    whole, even = count - count % 8, size - size % 8
    for k in range(0, whole, 8):
        for place in range(0, even, 8):
            source = keys.ctypes.data + 4 * ((first + k) * size + place)
            lay_eight(source, size, laid.ctypes.data + 4 * (place * KEYS + k))
    for k in range(whole, count):
        for place in range(even):
            laid[place, k] = keys[first + k, place]
    for k in range(count):
        for place in range(even, size):
            laid[place, k] = keys[first + k, place]


@compiled()
def _mix(shares: Floats, values: Floats, first: int, out: Floats) -> None:
    """Add values from the first on, each by its share, to what is there."""
    size, count = out.shape[0], shares.shape[0]
    whole = size - size % COLUMNS
    for place in range(0, whole, COLUMNS):
        start = values.ctypes.data + 4 * (first * size + place)
        add_values(shares.ctypes.data, count, start, size, out.ctypes.data + 4 * place)
    if whole < size:
        for k in range(count):
            for place in range(whole, size):
                out[place] += shares[k] * values[first + k, place]


@compiled()
def _attend_group(
    queries: Floats,
    keys: Floats,
    values: Floats,
    past: int,
    window: int,
    mask: NDArray[np.int8],
    scaling: np.float32,
    scratch: Floats,
    out: Floats,
) -> None:
    """Let tokens that follow each other attend by those of their heads that share a key head.

    Args:
        queries: Shape (tokens, heads * head size); lines may be further apart.
        keys: Shape (capacity, head size).
        values: Of the same shape.
        past: Tokens before the first.
        window: Last tokens that each may look at.
        mask: Shape (tokens, all that are known), or without lines.
        scaling: Factor of the scores.
        scratch: Shape (head size, `KEYS`).
        out: Where results go, of the shape of queries.
    """
    count, size = queries.shape[0], keys.shape[1]
    heads = queries.shape[1] // size
    masked = mask.shape[0] > 0
    everything = np.empty(0, dtype=np.int8)
    known = mask.shape[1] if masked else past + count
    low = max(0, (known if masked else past + 1) - window)
    blocks = -(-(known - low) // KEYS)
    scores = np.empty((count, heads, blocks * KEYS), dtype=np.float32)
    bits = np.empty(blocks * KEYS, dtype=np.int32)
    for start in range(low, known, KEYS):
        _lay(keys, start, min(start + KEYS, known), scratch)
        for m in range(count):
            if start < (known if masked else past + m + 1):
                for head in range(heads):
                    target = scores[m, head, start - low :]
                    query = queries[m, head * size : (head + 1) * size]
                    dot_keys(query.ctypes.data, scratch.ctypes.data, size, scaling, target.ctypes.data)
    totals = np.empty((count, heads), dtype=np.float32)
    for m in range(count):
        last = known if masked else past + m + 1
        first = max(0, last - window)
        seen = mask[m] if masked else everything
        for head in range(heads):
            totals[m, head] = _become_shares(scores[m, head], first - low, last - low, seen, bits)
    out[:] = 0
    for start in range(low, known, KEYS):
        for m in range(count):
            last = known if masked else past + m + 1
            begin, end = max(start, last - window), min(start + KEYS, last)
            if begin < end:
                for head in range(heads):
                    shares = scores[m, head, begin - low : end - low]
                    _mix(shares, values, begin, out[m, head * size : (head + 1) * size])
    for m in range(count):
        for head in range(heads):
            for place in range(head * size, (head + 1) * size):
                out[m, place] /= totals[m, head]


# What attention's parts are given: addresses and sizes.
_ROWS_AT, _PITCH, _COUNT, _KEYS_AT, _VALUES_AT, _CAPACITY, _PAST = 0, 1, 2, 3, 4, 5, 6
_HEADS, _GROUPS, _SIZE, _WINDOW, _MASK_AT, _OUT_AT, _SLICES, _GIVEN = 7, 8, 9, 10, 11, 12, 13, 14


@Part
def attend_part(given: int, number: int) -> int:
    """Let some of the tokens attend, by those of their heads that share a key head."""
    g = carray(words_at(given), _GIVEN)
    count, past, size, slices = g[_COUNT], g[_PAST], g[_SIZE], g[_SLICES]
    rows = carray(floats_at(g[_ROWS_AT]), (count, g[_PITCH]))
    shape = (g[_GROUPS], g[_CAPACITY], size)
    keys, values = carray(floats_at(g[_KEYS_AT]), shape), carray(floats_at(g[_VALUES_AT]), shape)
    out = carray(floats_at(g[_OUT_AT]), (count, g[_HEADS] * size))
    mask = carray(bytes_at(g[_MASK_AT]), (count if g[_MASK_AT] else 0, past + count))
    scaling = np.float32(carray(floats_at(given + 8 * _GIVEN), 1)[0])
    groups, width = g[_GROUPS], g[_HEADS] // g[_GROUPS] * size
    scratch = np.empty((size, KEYS), dtype=np.float32)
    units = -(-count // _TOGETHER) * groups
    for unit in range(number * units // slices, (number + 1) * units // slices):
        group, start = unit % groups, unit // groups * _TOGETHER
        stop, left, right = min(start + _TOGETHER, count), group * width, (group + 1) * width
        _attend_group(
            rows[start:stop, left:right],
            keys[group],
            values[group],
            past + start,
            g[_WINDOW],
            mask[start:stop] if g[_MASK_AT] else mask,
            scaling,
            scratch,
            out[start:stop, left:right],
        )
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
    slices = min(-(-count // _TOGETHER) * groups, most)
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
