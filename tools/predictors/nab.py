"""The score of an anomaly detector by the standard profile of the Numenta Anomaly Benchmark.

Written from the published description: A. Lavin and S. Ahmad, "Evaluating Real-Time Anomaly Detection
Algorithms -- the Numenta Anomaly Benchmark", 2015, arXiv:1510.03336. A detection inside of a true window is
worth more the earlier it is, only the earliest counts, a window without one costs, and a detection outside
costs the more the farther it is from the window before it. One threshold is chosen for all series together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PROBATION_SHARE = 0.15
PROBATION_LIMIT = 5000  # rows of which the share is taken at most
STEEPNESS = 5.0
FAR = 3.0  # widths of the window before it after which a false detection counts in full

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a right detection earns, and what a missed window and a false detection cost."""

    hit: float = 1.0
    miss: float = 1.0
    false: float = 0.11


STANDARD = Profile()


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of truth: numbers of its first and its last row."""

    first: int
    last: int

    @property
    def width(self) -> int:
        """Its number of rows."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Scored:
    """A series with a detector's scores and the true windows, in their order."""

    name: str
    scores: Numbers
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """What detections of one series, or of several, came to.

    Attributes:
        raw: Points earned.
        windows: True windows that can be found.
        found: Of them.
        false: Rows outside of all windows that were called anomalies.
        rows: Rows that count, those after probation.
    """

    raw: float
    windows: int
    found: int
    false: int
    rows: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.raw + other.raw,
            self.windows + other.windows,
            self.found + other.found,
            self.false + other.false,
            self.rows + other.rows,
        )


def scaled_sigmoid(position: float) -> float:
    """Return the worth of a position: 1 far before a window's end, 0 at its end, -1 far behind it."""
    if position > FAR:
        return -1.0
    return 2.0 / (1.0 + math.exp(STEEPNESS * position)) - 1.0


def probation(rows: int) -> int:
    """Return how many first rows of a series are there to learn from and count for nothing."""
    return math.floor(PROBATION_SHARE * min(rows, PROBATION_LIMIT))


def windows_of(times: Sequence[float] | Numbers, spans: Sequence[tuple[float, float]]) -> tuple[Window, ...]:
    """Turn spans of time, both ends included, into windows of rows.

    Raises:
        ValueError: If a span holds no row, or two overlap.
    """
    found: list[Window] = []
    for start, end in sorted(spans):
        first = int(np.searchsorted(times, start, side="left"))
        last = int(np.searchsorted(times, end, side="right")) - 1
        if last < first:
            raise ValueError(f"no row lies between {start} and {end}")
        if found and first <= found[-1].last:
            raise ValueError(f"the window from {start} overlaps the one before it")
        found.append(Window(first, last))
    return tuple(found)


def worths(rows: int, windows: Sequence[Window], profile: Profile = STANDARD) -> Numbers:
    """Return what a detection at each row is worth, before it is known whether it is the earliest."""
    worth = np.full(rows, -profile.false)
    best = scaled_sigmoid(-1.0)
    for number, window in enumerate(windows):
        end = windows[number + 1].first if number + 1 < len(windows) else rows
        for row in range(window.first, window.last + 1):
            position = -(window.last - row + 1) / window.width
            worth[row] = profile.hit * scaled_sigmoid(position) / best
        for row in range(window.last + 1, end):
            past = (row - window.last) / max(1, window.width - 1)
            worth[row] = profile.false * scaled_sigmoid(past)
    return worth


def score_at(series: Scored, threshold: float, profile: Profile = STANDARD) -> Tally:
    """Score detections of one series: rows whose score is at least the threshold."""
    return _Sweep([series], profile).tally(threshold)


def best_threshold(corpus: Sequence[Scored], profile: Profile = STANDARD) -> tuple[float, Tally]:
    """Choose the one threshold that is best over all series together, as the benchmark does.

    The search is exact: every score that occurs is tried, and a threshold that nothing reaches. Where several
    are equally good the highest is taken.
    """
    return _Sweep(corpus, profile).best()


def normalized(tally: Tally, profile: Profile = STANDARD) -> float:
    """Return the score that is reported: 0 for no detection at all, 100 for a perfect detector.

    Raises:
        ValueError: If there is no window, so that nothing tells them apart.
    """
    if tally.windows == 0:
        raise ValueError("a corpus without any window has no normalized score")
    nothing = -profile.miss * tally.windows
    perfect = profile.hit * tally.windows
    return 100.0 * (tally.raw - nothing) / (perfect - nothing)


class _Sweep:
    """All rows that count, from the highest score down, with what each adds."""

    def __init__(self, corpus: Sequence[Scored], profile: Profile) -> None:
        self._profile = profile
        self._windows = 0
        scores: list[Numbers] = []
        worth: list[Numbers] = []
        owner: list[NDArray[np.int64]] = []
        for series in corpus:
            rows = len(series.scores)
            if not np.isfinite(series.scores).all():
                raise ValueError(f"{series.name}: a score is no finite number")
            owners = np.full(rows, -1, dtype=np.int64)
            for window in series.windows:
                owners[window.first : window.last + 1] = self._windows
                self._windows += 1
            start = probation(rows)
            scores.append(series.scores[start:])
            worth.append(worths(rows, series.windows, profile)[start:])
            owner.append(owners[start:])
        joined = np.concatenate(scores)
        order = np.argsort(-joined, kind="stable")
        self._scores = joined[order]
        self._worth = np.concatenate(worth)[order]
        self._owner = np.concatenate(owner)[order]

    def tally(self, threshold: float) -> Tally:
        """Add up what the rows at or above a threshold are worth."""
        count = int(np.searchsorted(-self._scores, -threshold, side="right"))
        owner, worth = self._owner[:count], self._worth[:count]
        outside = owner < 0
        best: dict[int, float] = {}
        for window, value in zip(owner[~outside].tolist(), worth[~outside].tolist(), strict=True):
            best[window] = max(value, best.get(window, value))
        missed = self._windows - len(best)
        raw = float(worth[outside].sum()) + sum(best.values()) - self._profile.miss * missed
        return Tally(raw, self._windows, len(best), int(outside.sum()), len(self._scores))

    def best(self) -> tuple[float, Tally]:
        """Try every score that occurs."""
        raw = best_raw = -self._profile.miss * self._windows
        threshold = float(np.nextafter(self._scores[0], math.inf)) if len(self._scores) else math.inf
        earned: dict[int, float] = {}
        scores, worth, owner = self._scores.tolist(), self._worth.tolist(), self._owner.tolist()
        for place, score in enumerate(scores):
            if owner[place] < 0:
                raw += worth[place]
            else:
                before = earned.get(owner[place], -self._profile.miss)
                # A detection at the end of a window may earn less than nothing, but never less than a miss.
                after = max(worth[place], before)
                earned[owner[place]] = after
                raw += after - before
            last_of_its_kind = place + 1 == len(scores) or scores[place + 1] != score
            if last_of_its_kind and raw > best_raw + 1e-12:
                best_raw, threshold = raw, score
        return threshold, self.tally(threshold)
