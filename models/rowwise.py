"""What a decoder does to each row beside its matmuls, in one pass over memory each.

Every row is computed by itself in one order, so it is the same to the last bit in any batch. numba compiles
the loops for the machine at hand and keeps them on the disk.
"""

from __future__ import annotations

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from watchkeeper.models.compiled import Part, compiled, floats_at, words_at
from watchkeeper.models.crew import SHARES, crew, lead

Floats = NDArray[np.float32]

# The order of a sum is the compiler's to choose, once and for all rows; a product may be added unrounded.
ANY_ORDER = {"reassoc", "contract"}
_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, so that a multiple of it is taken off without an error (Cody and Waite 1980).
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LEAST = np.float32(-87.0)
# From here on several threads are quicker than one.
MANY = 16


@compiled(fastmath=ANY_ORDER)
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


@compiled(fastmath={"contract"})
def exponentials(values: Floats, bits: NDArray[np.int32]) -> None:
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
def gate_rows(both: Floats, out: Floats, start: int, stop: int) -> None:
    """Gate some of the rows; see :func:`gate`."""
    size = out.shape[1]
    bits = np.empty(size, dtype=np.int32)
    shares = np.empty(size, dtype=np.float32)
    for m in range(start, stop):
        for k in range(size):
            shares[k] = -abs(both[m, k])
        exponentials(shares, bits)
        for k in range(size):
            part = both[m, k] / (np.float32(1) + shares[k])
            out[m, k] = (part if both[m, k] >= 0 else part * shares[k]) * both[m, size + k]


@Part
def gate_part(given: int, number: int) -> int:
    """Gate some of the rows."""
    g = carray(words_at(given), 5)
    count, size, parts = g[2], g[3], g[4]
    both, out = carray(floats_at(g[0]), (count, 2 * size)), carray(floats_at(g[1]), (count, size))
    gate_rows(both, out, number * count // parts, (number + 1) * count // parts)
    return 1


@compiled()
def gate_together(
    both: Floats, out: Floats, given: NDArray[np.int64], parts: int, crew_address: int, gating: int
) -> None:
    """Gate all rows with the crew, which was entered; see :func:`gate`."""
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
    if len(both) < MANY:
        gate_rows(both, out, 0, len(both))
    else:
        with crew:
            given = np.empty(5, dtype=np.int64)
            gate_together(both, out, given, SHARES * crew.members, crew.address, gate_part.address)
    return out
