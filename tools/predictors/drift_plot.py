"""Drift over time, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from watchkeeper.models.plots import new_figure, png
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.psi import Reference
from watchkeeper.tools.predictors.recording import Recorded, Tally
from watchkeeper.tools.predictors.served import batch_times, most_of

_SERVED = {"seconds": "seconds of 95 %", "errors": "share of rows failed"}


@dataclass(frozen=True, slots=True)
class DriftLine:
    """The index of a column, window by window.

    Attributes:
        name: What it is of.
        at: The end of each window.
        psi: The index.
        limit: What chance hardly exceeds.
    """

    name: str
    at: tuple[datetime, ...]
    psi: tuple[float, ...]
    limit: tuple[float, ...]


def drift_lines(predictions: Sequence[Recorded], *, reference: int, window: int) -> tuple[DriftLine, ...]:
    """Compare windows of predictions with the first ones.

    Args:
        predictions: The oldest first.
        reference: How many are the first.
        window: Predictions of a window.
    """
    before, after = predictions[:reference], predictions[reference:]
    windows = [after[start : start + window] for start in range(0, len(after) - window + 1, window)]
    if not before or not windows:
        return ()
    found: dict[str, DriftLine] = {}
    for what, rows_of in (("rows", _asked), ("answers", _answered)):
        known = Reference.of([rows_of(one) for one in before])
        compared = [known.compare([rows_of(one) for one in each]) for each in windows]
        for column in known.columns:
            found[f"{what}:{column}"] = DriftLine(
                f"{what}:{column}",
                tuple(each[-1].at for each in windows),
                tuple(one[column].psi for one in compared),
                tuple(one[column].limit for one in compared),
            )
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class ServedLine:
    """How a version is served, window by window.

    Attributes:
        name: What it is of.
        at: The end of each window.
        values: Seconds, or a share.
    """

    name: str
    at: tuple[datetime, ...]
    values: tuple[float, ...]


def served_lines(
    predictions: Sequence[Recorded], counts: Sequence[tuple[datetime, Tally]], *, window: int
) -> tuple[ServedLine, ...]:
    """Return how long answers took, where that was measured, and the share of rows at which it failed.

    Args:
        predictions: The oldest first.
        counts: Rows by the minute, the oldest first.
        window: Batches, or rows at the least, of a window.
    """
    found = []
    batches = batch_times(predictions)
    windows = [batches[start : start + window] for start in range(0, len(batches), window)]
    windows = [each for each in windows if len(each) > 1]
    if windows:
        seconds = tuple(most_of([took for _, took, _ in each]) for each in windows)
        found.append(ServedLine("seconds", tuple(each[-1][0] for each in windows), seconds))
    shares: list[tuple[datetime, float]] = []
    rows = failed = 0
    for at, tally in counts:
        rows, failed = rows + tally.rows, failed + tally.failed
        if rows >= window:
            shares.append((at, failed / rows))
            rows = failed = 0
    if any(share for _, share in shares):
        found.append(ServedLine("errors", tuple(at for at, _ in shares), tuple(share for _, share in shares)))
    return tuple(found)


def draw_drift(title: str, lines: Sequence[DriftLine], served: Sequence[ServedLine] = ()) -> bytes:
    """Draw the index of each column over time, and how it is served below; returns the content of a PNG file.

    Raises:
        PlotError: If matplotlib is not installed.
    """
    figure = new_figure(9, 4.5 + 2 * len(served))
    grid = figure.add_gridspec(1 + len(served), 1, height_ratios=[4.5, *(2 for _ in served)])
    axes = figure.add_subplot(grid[0])
    for place, one in enumerate(served, start=1):
        below = figure.add_subplot(grid[place], sharex=axes)
        below.plot(one.at, one.values, marker=".")  # type: ignore[arg-type]
        below.set_ylim(bottom=0)
        below.set_ylabel(_SERVED[one.name], fontsize="small")
    for line in lines:
        # matplotlib takes moments as they are.
        axes.plot(line.at, line.psi, marker=".", label=line.name)  # type: ignore[arg-type]
    if lines:
        limits = [max(each) for each in zip(*(line.limit for line in lines), strict=True)]
        axes.plot(lines[0].at, limits, color="gray", linestyle="--", label="limit")  # type: ignore[arg-type]
        axes.legend(fontsize="small")
    axes.set_title(title)
    axes.set_ylabel("population stability index")
    figure.axes[-1].set_xlabel("time (UTC)")
    figure.autofmt_xdate()
    return png(figure)


def _asked(one: Recorded) -> Row:
    return one.asked


def _answered(one: Recorded) -> Row:
    return one.answer
