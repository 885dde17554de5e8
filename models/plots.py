"""What all plots share: finding out whether they can be drawn, and writing them whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from watchkeeper.models.errors import PlotError
from watchkeeper.models.manifest import write_durably

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 120


def require_plots(otherwise: str) -> None:
    """Find out whether plots can be drawn, before the work they are about is done.

    Args:
        otherwise: What to do where they cannot be, for example ``"ask for none with --no-plot"``.

    Raises:
        PlotError: If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        message = f"a plot needs the package matplotlib: pip install 'watchkeeper[plots]', or {otherwise}"
        raise PlotError(message) from error
    del mpl


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of this size in inches, with a canvas of its own.

    Its own, so that no window system and no global state is touched.

    Raises:
        PlotError: If matplotlib is not installed.
    """
    require_plots("do without it")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def write_plot(path: Path, content: bytes) -> None:
    """Write a plot, in a folder that is made where it is missing.

    Raises:
        PlotError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
    except OSError as error:
        raise PlotError(f"{path} cannot be written: {error.strerror or error}") from error
