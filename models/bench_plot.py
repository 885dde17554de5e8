"""What was measured of a model, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchkeeper.models.bench_report import Report
from watchkeeper.models.plots import new_figure, png, write_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 6.4, 4.4
_FAR = 3


def draw_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Draw a report into ``decode.png``, ``prefill.png`` and ``tool-calls.png`` of a folder.

    Returns:
        The files, in this order.

    Raises:
        PlotError: If matplotlib is not installed, or a file cannot be written.
    """
    figures = {"decode.png": _decode, "prefill.png": _prefill, "tool-calls.png": _tool_calls}
    # Nothing is written before all is drawn.
    drawn = {folder / name: png(draw(report)) for name, draw in figures.items()}
    for path, content in drawn.items():
        write_plot(path, content)
    return tuple(drawn)


def _decode(report: Report) -> Figure:
    figure, axes = _titled(report, "decoding")
    requests = [row.requests for row in report.decode]
    axes.plot(requests, [row.tokens_per_second for row in report.decode], marker="o", label="in all")
    axes.plot(requests, [row.each for row in report.decode], marker="o", label="each")
    bound, top = report.bound.tokens_per_second, max(row.tokens_per_second for row in report.decode)
    # One far above, of a model that caches hold, would leave nothing to see of the rest.
    if bound is not None and bound < _FAR * top:
        axes.axhline(bound, color="0.7", linestyle="--", linewidth=1, label="bound of memory for one")
    axes.set_xscale("log", base=2)
    _labelled(axes, requests, "requests at the same time")
    axes.legend(fontsize=8)
    return figure


def _prefill(report: Report) -> Figure:
    figure, axes = _titled(report, "reading a prompt of which nothing is known")
    tokens = [row.tokens for row in report.prefill]
    axes.plot(tokens, [row.tokens_per_second for row in report.prefill], marker="o")
    axes.set_xscale("log", base=2)
    _labelled(axes, tokens, "tokens of the prompt")
    return figure


def _tool_calls(report: Report) -> Figure:
    calls, validity = report.calls, report.validity
    figure, axes = _titled(report, f"tool calls: {validity.valid} of {validity.asked} are valid")
    bars = {
        "later, without guesses\nand fast-forward": calls.stepwise_seconds,
        "later,\nwithout guesses": calls.careful_seconds,
        f"first, a prompt of\n{calls.prompt_tokens} tokens": calls.first_seconds,
        "later": calls.later_seconds,
    }
    drawn = axes.barh(list(bars), list(bars.values()), height=0.6)
    axes.bar_label(drawn, fmt="%.3g s", padding=3)
    axes.margins(x=0.15)
    axes.set_xlabel(f"seconds for a call of {calls.tokens} tokens, {calls.forced_share:.0%} of them forced")
    return figure


def _titled(report: Report, about: str) -> tuple[Figure, Any]:
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.subplots()
    threads = f"{report.machine.threads} thread{'s' if report.machine.threads > 1 else ''}"
    # Of a folder its name alone.
    name = report.model.rstrip("/").rpartition("/")[2]
    figure.suptitle(f"{name}, {report.quantization}, {threads}", fontsize=11)
    axes.set_title(about, fontsize=10)
    return figure, axes


def _labelled(axes: Any, across: list[int], said: str) -> None:
    axes.set_xticks(across, labels=[str(value) for value in across])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel=said, ylabel="tokens per second")
