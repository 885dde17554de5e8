"""The report of a lifecycle: what every stage found, with plots, as Markdown and HTML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchkeeper.models.errors import ModelError
from watchkeeper.models.plots import new_figure, png, write_plot
from watchkeeper.runtime.events import StageJudged
from watchkeeper.runtime.lifecycle_run import LifecycleRun
from watchkeeper.runtime.lifecycle_scoring import answers_on, finder_of
from watchkeeper.runtime.lifecycle_state import LifecycleState
from watchkeeper.tools.durable import write_durably
from watchkeeper.tools.errors import ToolError
from watchkeeper.tools.training.curve import plot_curve
from watchkeeper.tools.versions.documents import (
    Block,
    Bullets,
    Grid,
    Paragraph,
    Picture,
    PlainDocument,
    Section,
    as_html,
    as_markdown,
)

if TYPE_CHECKING:
    from watchkeeper.tools.training.scores import Answers

_CLASSES = 30
"""Classes of which a confusion matrix can still be read."""


def write_lifecycle_report(run: LifecycleRun, state: LifecycleState) -> Path:
    """Write the report of a lifecycle; each file is whole or as it was.

    Returns:
        The Markdown file; the HTML file and the plots lie beside it.

    Raises:
        OSError: If it cannot be written.
    """
    folder = run.folder(state["incident"])
    events = run.context.journal.incidents.events(state["incident"])
    stages = [event for event in events if isinstance(event, StageJudged)]
    document = PlainDocument(
        f"{run.request.predictor}: {state['outcome']}",
        (
            Section("Outcome", (Paragraph(state["reason"]), Grid(("", ""), tuple(_facts(run, state))))),
            Section(
                "Stages",
                (Grid(("stage", "goes on", "found"), tuple(_stage(stage) for stage in stages)),),
            ),
            *_parts(stages),
            Section("Plots", tuple(_plots(run, state, stages, folder))),
        ),
    )
    write_durably(folder / "report.html", as_html(document).encode())
    write_durably(folder / "report.md", as_markdown(document).encode())
    return folder / "report.md"


def _facts(run: LifecycleRun, state: LifecycleState) -> Iterator[tuple[str, str]]:
    request, champion = run.request, state.get("champion")
    yield "incident", state["incident"]
    yield "learned from", str(request.job.data)
    yield "held out", str(request.held_out)
    yield "champion before", "none" if champion is None else f"version {champion}"
    if "job" in state:
        yield "training job", state["job"]
    if "version" in state:
        yield "new version", f"{state['version']} ({state['digest'][:12]})"


def _stage(stage: StageJudged) -> tuple[str, str, str]:
    return stage.stage, "yes" if stage.ok else "no", stage.detail


def _parts(stages: list[StageJudged]) -> Iterator[Section]:
    values = {stage.stage: stage.values for stage in stages}
    compared: Any = values.get("compare", {}).get("comparison")
    if compared:
        rows = tuple(
            (name, f"{value:.4g}", f"{compared['challenger'][name]:.4g}")
            for name, value in compared["champion"].items()
            if name in compared["challenger"]
        )
        beside: list[Block] = [Grid(("metric", "champion", "challenger"), rows)]
        if compared.get("unlearned"):
            beside.append(Paragraph("The champion never learned these labels, so it got their rows wrong:"))
            beside.append(Bullets(tuple(f"{label} ({n})" for label, n in compared["unlearned"].items())))
        yield Section("Beside the champion", tuple(beside))
    columns: Any = values.get("bias", {}).get("columns")
    if columns:
        limits = Paragraph(f"The policy allows: {values['bias'].get('limits') or 'not kept'}.")
        yield Section("By group", (*(_by_group(column) for column in columns), limits))
    answers: Any = values.get("explain", {}).get("answers")
    if answers:
        yield Section("Answers explained", tuple(_explained(one) for one in answers))


def _by_group(column: Any) -> Block:
    rows = tuple(
        (group, str(rate["count"]), f"{rate['rate']:.3f}", f"{rate['low']:.3f} to {rate['high']:.3f}")
        for group, rate in sorted(column["accuracy"].items())
    )
    return Grid((column["column"], "rows", "right", "interval"), rows)


def _explained(one: Any) -> Block:
    pieces = ", ".join(f"{text!r} {effect:+.2f}" for text, effect in one["pieces"])
    said = (
        f"{one['text']!r}: should be {one['truth']}, answered {one['label']} ({one['score']:.2f}): {pieces}"
    )
    return Bullets((said,))


def _plots(
    run: LifecycleRun, state: LifecycleState, stages: list[StageJudged], folder: Path
) -> Iterator[Block]:
    try:
        yield from _drawn(run, state, stages, folder)
    except (ModelError, ToolError, OSError) as error:
        yield Paragraph(f"Not all plots could be drawn: {error}")


def _drawn(
    run: LifecycleRun, state: LifecycleState, stages: list[StageJudged], folder: Path
) -> Iterator[Block]:
    if "job" not in state:
        yield Paragraph("Nothing was trained, so there is nothing to draw.")
        return
    metrics = run.jobs().folder(state["job"]).metrics()
    if metrics:
        plot_curve(metrics, folder / "curve.png", title=f"{run.request.predictor}: {state['job']}")
        yield Picture("curve.png", "how training went")
    values = {stage.stage: stage.values for stage in stages}
    compared: Any = values.get("compare", {}).get("comparison")
    if compared:
        write_plot(folder / "comparison.png", draw_comparison(compared))
        yield Picture("comparison.png", "metrics of champion and challenger on the same held-out data")
    if "digest" not in state:
        return
    answers = answers_on(run.artefacts(state), run.request.held_out, finder_of(run.request.job))
    if answers is not None and len(answers.classes) <= _CLASSES:
        write_plot(folder / "confusion.png", draw_confusion(answers))
        yield Picture("confusion.png", "true labels (rows) and answers (columns) on held-out data")


def draw_comparison(compared: dict[str, Any]) -> bytes:
    """Draw the metrics of two versions beside each other; returns the content of a PNG file.

    Args:
        compared: A `Comparison` as JSON.

    Raises:
        PlotError: If matplotlib is not installed.
    """
    names = [name for name in compared["champion"] if name in compared["challenger"]]
    figure = new_figure(7, 0.5 * len(names) + 1.5)
    axes = figure.add_subplot()
    for offset, who in ((-0.2, "champion"), (0.2, "challenger")):
        places = [number + offset for number in range(len(names))]
        axes.barh(places, [compared[who][name] for name in names], height=0.4, label=who)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize="small")
    axes.set_title(f"{compared['rows']} held-out rows; compared by {compared['primary']}")
    return png(figure)


def draw_confusion(answers: Answers) -> bytes:
    """Draw how often each true label was given each answer; returns the content of a PNG file.

    Raises:
        PlotError: If matplotlib is not installed.
    """
    counts = answers.confusion()
    size = 2.5 + 0.6 * len(answers.classes)
    figure = new_figure(size + 1, size)
    axes = figure.add_subplot()
    axes.imshow(counts, cmap="Blues")
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            dark = count > counts.max() / 2
            axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    ticks = range(len(answers.classes))
    axes.set_xticks(ticks, answers.classes, rotation=45, ha="right")
    axes.set_yticks(ticks, answers.classes)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    return png(figure)
