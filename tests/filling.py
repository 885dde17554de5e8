"""Disks that fill, for tests and benchmarks: written processes, each drawn from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KINDS = ("steady", "daily", "cleaned", "jumping", "idle")
START = 1_750_000_000


def filling(kind: str, hours: int, seed: int) -> NDArray[np.float64]:
    """Return how full a disk is every hour, in percent, until it is full.

    ``steady`` grows at a rate that wanders, ``daily`` by day alone, ``cleaned`` is cleaned up every few days,
    ``jumping`` gets files in large pieces, and ``idle`` moves about without a trend.
    """
    draw = np.random.default_rng([seed, KINDS.index(kind)])
    at = np.arange(hours)
    rate = draw.uniform(0.01, 0.12)
    noise = draw.normal(0, rate, hours)
    match kind:
        case "steady":
            rates = rate * np.exp(np.cumsum(draw.normal(0, 0.02, hours)))
            steps = np.clip(rates, 0, 0.5) + noise
        case "daily":
            steps = 2 * rate * np.clip(np.sin(2 * np.pi * at / 24), 0, None) * draw.uniform(0.5, 1.5, hours)
        case "cleaned":
            steps = 3 * rate + noise
            every = int(draw.integers(48, 120))
            steps[every::every] -= 3 * rate * every * draw.uniform(0.8, 1.0)
        case "jumping":
            steps = np.where(draw.random(hours) < 0.03, draw.exponential(25 * rate, hours), 0.0)
        case _:
            steps = noise
    return np.clip(draw.uniform(10, 70) + np.cumsum(steps), 0, 100)


def write_series(path: Path, values: NDArray[np.float64], *, step: int = 3600) -> None:
    """Write a series as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (f"{START + step * place},{value!r}" for place, value in enumerate(values.tolist()))
    path.write_text("timestamp,value\n" + "\n".join(rows) + "\n", encoding="utf-8")


def write_disks(folder: Path, *, hours: int, seeds: range) -> None:
    """Write one file for each kind and seed."""
    for kind in KINDS:
        for seed in seeds:
            write_series(folder / f"{kind}-{seed}.csv", filling(kind, hours, seed))
