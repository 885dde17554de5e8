"""What a decoder does to each row beside its matmuls, in one pass over memory each.

Every row is computed by itself in one order, so it is the same to the last bit in any batch. numba compiles
the loops for the machine at hand and keeps them on the disk.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# The order of a sum is the compiler's to choose, once and for all rows.
_ANY_ORDER = {"reassoc"}


@numba.njit(fastmath=_ANY_ORDER, nogil=True, cache=True, error_model="numpy")
def _sum_of_squares(row: Floats) -> np.float32:
    total = np.float32(0)
    for k in range(row.shape[0]):
        total += row[k] * row[k]
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy")
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


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_and_normalize(rows: Floats, change: Floats, weight: Floats, epsilon: float) -> Floats:
    """Add a change to rows in place, and return them normalized as :func:`normalize` does."""
    for m in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            rows[m, k] += change[m, k]
    return normalize(rows, weight, epsilon)


@numba.njit(nogil=True, cache=True, error_model="numpy")
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
