"""The training curve of a job, as a picture."""

from __future__ import annotations

from pathlib import Path

from watchkeeper.models.plots import new_figure, png, require_plots, write_plot


def plot_curve(metrics: list[dict[str, float]], path: Path, *, title: str) -> None:
    """Draw each metric over the steps, one below the other, into a PNG file.

    Raises:
        PlotError: If matplotlib is not installed, or the file cannot be written.
    """
    require_plots("look at the numbers without --plot")
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name for line in metrics for name in line if name != "step"))
    figure = new_figure(7, 2.4 * max(1, len(names)))
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(len(names), 1, number)
        points = [(line["step"], line[name]) for line in metrics if name in line]
        marker = "o" if len(points) == 1 else ""
        axes.plot([step for step, _ in points], [value for _, value in points], marker=marker)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if number == len(names):
            axes.set_xlabel("step")
    figure.suptitle(title)
    write_plot(path, png(figure))
