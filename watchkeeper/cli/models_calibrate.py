"""`watchkeeper models calibrate`: find out how often a model is right when it says it is sure."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.output import INTERRUPTED, fail, print_json, progress_view, stderr_console
from watchkeeper.cli.records import print_table

if TYPE_CHECKING:
    from watchkeeper.models.calibration import Calibration, Quality
    from watchkeeper.models.calibration_cases import LabelledCase
    from watchkeeper.models.catalog import CatalogEntry

_PLOT = "reliability-{}.png"


def calibrate(
    model_id: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Model to calibrate; the default one if left out.")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", metavar="FILE", help="Your own cases, one JSON object a line."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FOLDER", help="Where the plot goes; the model's folder otherwise."),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", metavar="NAME", help="Calibrate an adapter of the model instead."),
    ] = None,
    quantization: Annotated[
        str, typer.Option("--quantization", help="auto, nf4, int8, bnb-int8 or none.")
    ] = "auto",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Ask only so many of the cases.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the built-in cases, and of which are asked.")
    ] = 0,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw a reliability plot.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Ask a model questions with known answers, and keep what its probabilities are worth."""
    from watchkeeper.models.adapter_store import adapter_folder
    from watchkeeper.models.calibration import write_calibration
    from watchkeeper.models.calibration_cases import built_in_cases, read_cases
    from watchkeeper.models.catalog import DEFAULT_MODEL, find_model
    from watchkeeper.models.plots import require_plots
    from watchkeeper.models.reliability_plot import draw_reliability
    from watchkeeper.models.store import model_folder

    # What can be wrong is found before minutes are spent.
    chosen = find_model(model_id or DEFAULT_MODEL)
    if plot:
        require_plots("ask for none with --no-plot")
    asked = built_in_cases(seed) if cases is None else read_cases(cases)
    if limit is not None:
        asked = _sampled(asked, limit, seed)
    folder = model_folder(chosen) if adapter is None else adapter_folder(chosen, adapter)
    try:
        found = _calibrated(chosen, quantization, asked, adapter)
    except KeyboardInterrupt:
        fail("stopped; the calibration is as it was before", INTERRUPTED)
    path = write_calibration(folder, found)
    picture = (output or folder) / _PLOT.format(found.quantization) if plot else None
    if picture is not None:
        draw_reliability(found, picture)
    if as_json:
        print_json(
            {
                **found.model_dump(mode="json"),
                "digest": found.digest,
                "file": str(path),
                "plot": str(picture) if picture else None,
            }
        )
        return
    show(found)
    typer.echo(f"the calibration is in {path}", err=True)
    if picture is not None:
        typer.echo(f"the plot is in {picture}", err=True)


def _calibrated(
    entry: CatalogEntry, quantization: str, asked: tuple[LabelledCase, ...], adapter: str | None
) -> Calibration:
    from watchkeeper.models.adapter_store import adapter_folder
    from watchkeeper.models.calibration_fit import calibrate as fit
    from watchkeeper.models.calibration_fit import refuse_too_few, score_cases
    from watchkeeper.models.engine import LocalEngine
    from watchkeeper.models.loading import load

    refuse_too_few(asked)
    with progress_view(stderr_console()) as report:
        # No calibration that is there is read: it may be the damaged one to replace.
        # load() names the quantizations there are, should this be none of them.
        engine = LocalEngine(load(entry.id, quantization=quantization, progress=report))  # type: ignore[arg-type]
        try:
            if adapter is not None:
                engine.load_adapter(adapter, adapter_folder(entry, adapter), calibrated=False)
            scored = score_cases(engine, asked, adapter=adapter, progress=report)
            digest = "" if adapter is None else engine.adapter_digest(adapter)
            return fit(scored, engine.identity, asked).model_copy(update={"adapter": digest})
        finally:
            engine.close()


def _sampled(cases: tuple[LabelledCase, ...], limit: int, seed: int) -> tuple[LabelledCase, ...]:
    """Some of the cases in their order; drawn, since every so many-th may be of one kind."""
    chosen = random.Random(seed).sample(range(len(cases)), min(limit, len(cases)))
    return tuple(cases[index] for index in sorted(chosen))


def show(found: Calibration) -> None:
    """Print what a calibration is worth, and what it consists of."""

    def change(name: str, before: Quality, after: Quality) -> str:
        return f"{getattr(before, name):.3f} > {getattr(after, name):.3f}"

    print_table(
        ("PROMPT", "JUDGED ON", "CASES", "RIGHT", "ERROR", "BRIER"),
        [
            (
                "neutral" if part.asked == "corrected" else "plain",
                "held-out" if part.judged_by == "held-out" else "other topics",
                str(part.after.cases),
                *(change(name, part.before, part.after) for name in ("accuracy", "ece", "brier")),
            )
            for part in found.measured
        ],
        empty="nothing was measured",
    )
    for name, scale in (("plain", found.plain), ("neutral", found.corrected)):
        said = f"{name}: temperature {scale.temperature:.2f}, length exponent {scale.length_exponent:.1f}"
        weight = "" if scale.neutral_weight is None else f", neutral weight {scale.neutral_weight:.2f}"
        typer.echo(said + weight)
