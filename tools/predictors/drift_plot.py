"""Drift over time, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from watchkeeper.models.plots import new_figure, png
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.psi import Reference
from watchkeeper.tools.predictors.recording import Recorded


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


def draw_drift(title: str, lines: Sequence[DriftLine]) -> bytes:
    """Draw the index of each column over time; returns the content of a PNG file.

    Raises:
        PlotError: If matplotlib is not installed.
    """
    figure = new_figure(9, 4.5)
    axes = figure.add_subplot()
    for line in lines:
        # matplotlib takes moments as they are.
        axes.plot(line.at, line.psi, marker=".", label=line.name)  # type: ignore[arg-type]
    if lines:
        limits = [max(each) for each in zip(*(line.limit for line in lines), strict=True)]
        axes.plot(lines[0].at, limits, color="gray", linestyle="--", label="limit")  # type: ignore[arg-type]
        axes.legend(fontsize="small")
    axes.set_title(title)
    axes.set_ylabel("population stability index")
    axes.set_xlabel("time (UTC)")
    figure.autofmt_xdate()
    return png(figure)


def _asked(one: Recorded) -> Row:
    return one.asked


def _answered(one: Recorded) -> Row:
    return one.answer
