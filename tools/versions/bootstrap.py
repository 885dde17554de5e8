"""Intervals by resampling, and exact tests of signs and of right answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_AT_ONCE = 4_000_000
"""Draws that are held in memory together."""


def interval_of_mean(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean (Efron, "Bootstrap Methods", 1979).

    Given differences of pairs it is the paired bootstrap. Where few different values occur, how often each is
    drawn is drawn at once (a multinomial), which is the same by distribution.

    Args:
        values: At least one.
        confidence: Share of such intervals that would hold the true mean.
        resamples: How many means the percentiles are taken of.
        seed: Of what is drawn.
    """
    found = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    different, counts = np.unique(found, return_counts=True)
    if len(different) <= 64:
        drawn = generator.multinomial(len(found), counts / len(found), size=resamples)
        means = drawn @ different / len(found)
    else:
        means = np.empty(resamples)
        step = max(1, _AT_ONCE // len(found))
        for start in range(0, resamples, step):
            stop = min(start + step, resamples)
            chosen = generator.integers(0, len(found), size=(stop - start, len(found)))
            means[start:stop] = found[chosen].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def binomial_tail(right: float, number: int, share: float) -> float:
    """Return the exact chance of at most so many right answers where each is right with a probability.

    Args:
        right: Right answers.
        number: Answers.
        share: Probability that one is right, from 0 to 1.
    """
    if share <= 0 or right >= number:
        return 1.0
    if share >= 1:
        return 0.0
    logs = (
        math.lgamma(number + 1)
        - math.lgamma(k + 1)
        - math.lgamma(number - k + 1)
        + k * math.log(share)
        + (number - k) * math.log1p(-share)
        for k in range(math.floor(right) + 1)
    )
    return min(1.0, math.fsum(math.exp(one) for one in logs))


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p-value of the exact sign test: as many wins as losses, or more extreme.

    For right and wrong answers it is McNemar's exact test (McNemar, 1947).
    """
    number = wins + losses
    if number == 0:
        return 1.0
    least = min(wins, losses)
    logs = [
        math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1) - number * math.log(2)
        for k in range(least + 1)
    ]
    top = max(logs)
    return min(1.0, 2 * math.exp(top) * math.fsum(math.exp(one - top) for one in logs))
