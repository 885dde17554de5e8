"""Intervals of shares, and of differences between two of them."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(hits: float, count: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927): from 0 to 1 where nothing was counted.

    Args:
        hits: How many did; of outcomes between 0 and 1 their sum, for which the interval is wide enough.
        count: Of how many.
        confidence: Share of such intervals that hold the truth, e.g. 0.95.
    """
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def newcombe(first: tuple[int, int], second: tuple[int, int], confidence: float) -> tuple[float, float]:
    """Return the interval of the first share less the second (Newcombe 1998, hybrid score, method 10).

    Args:
        first: How many did, of how many.
        second: The same of the other.
        confidence: Share of such intervals that hold the truth.
    """
    if not first[1] or not second[1]:
        return -1.0, 1.0
    one, two = first[0] / first[1], second[0] / second[1]
    (low_one, high_one), (low_two, high_two) = wilson(*first, confidence), wilson(*second, confidence)
    difference = one - two
    return (
        max(-1.0, difference - math.hypot(one - low_one, high_two - two)),
        min(1.0, difference + math.hypot(high_one - one, two - low_two)),
    )


def apart(low: float, high: float) -> tuple[float, float]:
    """Turn the interval of a difference into that of its size."""
    if low <= 0 <= high:
        return 0.0, max(-low, high)
    return min(abs(low), abs(high)), max(abs(low), abs(high))
