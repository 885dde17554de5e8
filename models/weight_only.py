"""Products of fp32 rows with an int8 weight, for CPUs without an exact and fast integer kernel.

Weights are widened to fp32 in registers on their way from memory, so a product reads a quarter of the bytes
and rounds no activation. The kernels are compiled by numba for the machine at hand and kept on the disk;
they share OpenMP's threads with torch.
"""

from __future__ import annotations

import threading

import numba
import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int8]

_NOTHING = np.empty(0, dtype=np.float32)
# What a compiler may do with sums: another order and fused steps, but nothing about infinities and NaN.
_LOOSE = {"reassoc", "contract", "nsz"}
# Rows whose block stays in a core's cache while all weights pass by.
_BLOCK = 64
# From here on two output channels at a time are quicker: each row is then read half as often.
_PAIRED = 8
# numba's fallback layer for threads must not be entered twice; waiting for it costs nothing elsewhere.
_one_at_a_time = threading.Lock()


def multiply(
    rows: torch.Tensor,
    weight: Integers,
    scale: Floats,
    bias: Floats | None = None,
) -> torch.Tensor:
    """Multiply fp32 rows (M, K) by an int8 weight (N, K) transposed; scale each column and add a bias.

    Sums are taken in fp32 in an order that the processor's vectors suggest, so a row's result may differ in
    its last bit with the number of rows.

    Args:
        rows: fp32 of shape (M, K), contiguous.
        weight: int8 of shape (N, K), contiguous.
        scale: fp32 scale of each output channel (N,).
        bias: fp32 of shape (N,), or ``None``.

    Returns:
        fp32 of shape (M, N).
    """
    out = torch.empty(rows.shape[0], weight.shape[0], dtype=torch.float32)
    added = _NOTHING if bias is None else bias
    with _one_at_a_time:
        _multiply(rows.numpy(), weight, scale, added, out.numpy(), torch.get_num_threads())
    return out


@numba.njit(fastmath=_LOOSE, nogil=True, cache=True, error_model="numpy")
def _one_channel(
    rows: Floats,
    weight: Integers,
    n: int,
    scale: np.float32,
    shift: np.float32,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    channel = weight[n]
    m = start
    while m + 4 <= stop:
        row0, row1, row2, row3 = rows[m], rows[m + 1], rows[m + 2], rows[m + 3]
        sum0 = sum1 = sum2 = sum3 = np.float32(0)
        for k in range(channel.shape[0]):
            value = np.float32(channel[k])
            sum0 += row0[k] * value
            sum1 += row1[k] * value
            sum2 += row2[k] * value
            sum3 += row3[k] * value
        out[m, n] = sum0 * scale + shift
        out[m + 1, n] = sum1 * scale + shift
        out[m + 2, n] = sum2 * scale + shift
        out[m + 3, n] = sum3 * scale + shift
        m += 4
    while m + 2 <= stop:
        row0, row1 = rows[m], rows[m + 1]
        sum0 = sum1 = np.float32(0)
        for k in range(channel.shape[0]):
            value = np.float32(channel[k])
            sum0 += row0[k] * value
            sum1 += row1[k] * value
        out[m, n] = sum0 * scale + shift
        out[m + 1, n] = sum1 * scale + shift
        m += 2
    if m < stop:
        row0 = rows[m]
        sum0 = np.float32(0)
        for k in range(channel.shape[0]):
            sum0 += row0[k] * np.float32(channel[k])
        out[m, n] = sum0 * scale + shift


@numba.njit(fastmath=_LOOSE, nogil=True, cache=True, error_model="numpy")
def _two_channels(
    rows: Floats,
    weight: Integers,
    n: int,
    scales: Floats,
    shifts: Floats,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    first, second = weight[n], weight[n + 1]
    m = start
    while m + 4 <= stop:
        row0, row1, row2, row3 = rows[m], rows[m + 1], rows[m + 2], rows[m + 3]
        sum0 = sum1 = sum2 = sum3 = np.float32(0)
        more0 = more1 = more2 = more3 = np.float32(0)
        for k in range(first.shape[0]):
            value, other = np.float32(first[k]), np.float32(second[k])
            sum0 += row0[k] * value
            sum1 += row1[k] * value
            sum2 += row2[k] * value
            sum3 += row3[k] * value
            more0 += row0[k] * other
            more1 += row1[k] * other
            more2 += row2[k] * other
            more3 += row3[k] * other
        out[m, n] = sum0 * scales[0] + shifts[0]
        out[m + 1, n] = sum1 * scales[0] + shifts[0]
        out[m + 2, n] = sum2 * scales[0] + shifts[0]
        out[m + 3, n] = sum3 * scales[0] + shifts[0]
        out[m, n + 1] = more0 * scales[1] + shifts[1]
        out[m + 1, n + 1] = more1 * scales[1] + shifts[1]
        out[m + 2, n + 1] = more2 * scales[1] + shifts[1]
        out[m + 3, n + 1] = more3 * scales[1] + shifts[1]
        m += 4
    if m < stop:
        _one_channel(rows, weight, n, scales[0], shifts[0], out, m, stop)
        _one_channel(rows, weight, n + 1, scales[1], shifts[1], out, m, stop)


@numba.njit(parallel=True, fastmath=_LOOSE, nogil=True, cache=True, error_model="numpy")
def _multiply(rows: Floats, weight: Integers, scale: Floats, bias: Floats, out: Floats, parts: int) -> None:
    total, count = weight.shape[0], rows.shape[0]
    for part in numba.prange(parts):
        low, high = part * total // parts, (part + 1) * total // parts
        shifts = np.zeros(2, dtype=np.float32)
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            n = low
            while n < high:
                shifts[0] = bias[n] if bias.shape[0] else 0
                if stop - start >= _PAIRED and n + 2 <= high:
                    shifts[1] = bias[n + 1] if bias.shape[0] else 0
                    _two_channels(rows, weight, n, scale[n : n + 2], shifts, out, start, stop)
                    n += 2
                else:
                    _one_channel(rows, weight, n, scale[n], shifts[0], out, start, stop)
                    n += 1
