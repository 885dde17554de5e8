"""A reliability diagram: how often answers were right against how probable they were said to be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from watchkeeper.models.calibration import Bin, Calibration, Comparison
from watchkeeper.models.plots import new_figure, png, write_plot

_Z = 1.96


def draw_reliability(calibration: Calibration, path: Path) -> None:
    """Draw the held-out cases before and after a calibration into a PNG.

    Bars of accuracy are 95 % intervals of Wilson (1927); the size of a point is its number of cases.

    Raises:
        PlotError: If matplotlib is not installed, or the file cannot be written.
    """
    shown = [part for part in calibration.measured if part.judged_by == "held-out"]
    figure = new_figure(5 * len(shown), 5.2)
    figure.suptitle(f"{calibration.model}, {calibration.quantization}: held-out cases")
    for axes, comparison in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw(axes, comparison)
    write_plot(path, png(figure))


def interval(right: float, cases: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927).

    Args:
        right: The share that was observed.
        cases: Of how many.
    """
    spread = _Z * math.sqrt(right * (1 - right) / cases + _Z**2 / (4 * cases**2))
    middle = right + _Z**2 / (2 * cases)
    scale = 1 + _Z**2 / cases
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _draw(axes: Any, comparison: Comparison) -> None:
    asked = "with a neutral prompt" if comparison.asked == "corrected" else "without a neutral prompt"
    axes.set_title(f"{asked} ({comparison.before.cases} cases)", fontsize=10)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="as sure as right")
    for label, judged, colour in (
        ("before", comparison.before, "tab:orange"),
        ("after", comparison.after, "tab:blue"),
    ):
        said = f"{label}: error {judged.ece:.3f}, right {judged.accuracy:.2f}"
        _points(axes, judged.bins, colour, said)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the answer", ylabel="share that was right")
    axes.set_aspect("equal")
    axes.legend(loc="upper left", fontsize=8)


def _points(axes: Any, bins: tuple[Bin, ...], colour: str, label: str) -> None:
    across = [part.confidence for part in bins]
    heights = [part.accuracy for part in bins]
    ends = [interval(part.accuracy, part.cases) for part in bins]
    below = [max(0.0, height - low) for height, (low, _) in zip(heights, ends, strict=True)]
    above = [max(0.0, high - height) for height, (_, high) in zip(heights, ends, strict=True)]
    axes.errorbar(across, heights, yerr=[below, above], fmt="none", ecolor=colour, alpha=0.4)
    axes.scatter(across, heights, s=[12 + 3 * part.cases for part in bins], color=colour, label=label)
