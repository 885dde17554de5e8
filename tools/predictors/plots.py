"""Plots of classifiers: which classes they mix up, and what their probabilities are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from watchkeeper.models.errors import PlotError
from watchkeeper.models.plots import new_figure, png, write_plot
from watchkeeper.tools.errors import MissingExtraError
from watchkeeper.tools.predictors.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CONFIDENCE = 0.95
_NAMED = 30  # characters of a label that are shown
_DARK = 0.6  # share from which a number is written in white


def draw_confusion(counts: NDArray[np.int64], classes: Sequence[str], path: Path, *, title: str = "") -> None:
    """Draw how many examples of each true class were given each class, into a PNG.

    The colour is the share of the true class; the number is the count.

    Args:
        counts: ``(true, given)``.
        classes: Labels, in that order.
        path: Where to.
        title: What it is about.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        PlotError: If the file cannot be written.
    """
    size = max(4.0, 1.2 + 0.6 * len(classes))
    figure = _figure(size + 1, size)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [name if len(name) <= _NAMED else name[: _NAMED - 1] + "…" for name in classes]
    axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), names)
    for (true, given), count in np.ndenumerate(counts):
        colour = "white" if shares[true, given] > _DARK else "black"
        axes.text(given, true, str(count), ha="center", va="center", color=colour)
    axes.set(xlabel="given", ylabel="true")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="share of the true class")
    write_plot(path, png(figure))


def draw_reliability(points: Sequence[tuple[float, float, int]], path: Path, *, title: str = "") -> None:
    """Draw how often answers were right against how probable they were said to be, into a PNG.

    Bars are 95 % intervals (Wilson 1927); the size of a point is its number of examples.

    Args:
        points: For each range of probability its mean, the share that was right, and the count.
        path: Where to.
        title: What it is about.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        PlotError: If the file cannot be written.
    """
    figure = _figure(5, 5.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="as sure as right")
    sure = [point[0] for point in points]
    right = [point[1] for point in points]
    ends = [wilson(round(share * count), count, _CONFIDENCE) for _, share, count in points]
    below = [max(0.0, share - low) for share, (low, _) in zip(right, ends, strict=True)]
    above = [max(0.0, high - share) for share, (_, high) in zip(right, ends, strict=True)]
    axes.errorbar(sure, right, yerr=[below, above], fmt="none", ecolor="tab:blue", alpha=0.4)
    total = sum(count for _, _, count in points)
    axes.scatter(
        sure,
        right,
        s=[20 + 300 * count / max(1, total) for _, _, count in points],
        color="tab:blue",
        label=f"{total} answers",
    )
    axes.set(
        xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the answer", ylabel="share that was right"
    )
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="upper left", fontsize=8)
    write_plot(path, png(figure))


def _figure(width: float, height: float) -> Figure:
    try:
        return new_figure(width, height)
    except PlotError as error:
        raise MissingExtraError(str(error)) from error
