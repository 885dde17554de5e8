"""`watchkeeper models bench`: measure how fast a model answers on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.output import (
    INTERRUPTED,
    fail,
    human_bytes,
    print_json,
    progress_view,
    stderr_console,
)
from watchkeeper.cli.records import plain, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchkeeper.models.bench_report import Bound, Report, Validity


def bench(
    model_id: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Model to measure; the default one if left out.")
    ] = None,
    quantization: Annotated[
        str, typer.Option("--quantization", help="auto, nf4, int8, bnb-int8 or none.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of the matmuls; torch's choice otherwise.")
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option("--repeat", min=1, help="Measure so many times, and take the best: 3, or 1 if quick."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure less, for a look.")] = False,
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="FOLDER", help="Draw plots into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Measure a model here: tokens a second, reuse of prompts, tool calls, and what memory allows."""
    from watchkeeper.models.catalog import DEFAULT_MODEL, find_model

    # What can be wrong is found before minutes are spent.
    chosen = find_model(model_id or DEFAULT_MODEL)
    if plots is not None:
        _refuse_no_plots(plots)
    try:
        report = _measured(chosen.id, quantization, threads, repeat, quick=quick)
        # Before anything is drawn: a folder that cannot be written must not cost the figures.
        if as_json:
            print_json(report.model_dump(mode="json"))
        else:
            show(report)
        if plots is not None:
            _draw(report, plots)
    except KeyboardInterrupt:
        fail("stopped; nothing was kept", INTERRUPTED)


def _refuse_no_plots(folder: Path) -> None:
    from watchkeeper.models.errors import PlotError
    from watchkeeper.models.plots import require_plots

    require_plots("ask for none by leaving out --plots")
    if folder.exists() and not folder.is_dir():
        message = f"--plots: {folder} is no folder; name one, which is made where it is missing"
        raise PlotError(message)


def _measured(
    model_id: str, quantization: str, threads: int | None, repeat: int | None, *, quick: bool
) -> Report:
    from watchkeeper.models.bench import QUICK, Plan
    from watchkeeper.models.bench import bench as measure

    plan = QUICK if quick else Plan()
    if repeat is not None:
        plan = replace(plan, repeat=repeat)
    with progress_view(stderr_console()) as report:
        # load() names the quantizations there are, should this be none of them.
        return measure(model_id, quantization, threads=threads, plan=plan, progress=report)  # type: ignore[arg-type]


def _draw(report: Report, folder: Path) -> None:
    from watchkeeper.models.bench_plot import draw_report

    drawn = draw_report(report, folder)
    typer.echo(f"the plots are {', '.join(path.name for path in drawn)} in {folder}", err=True)


def show(report: Report) -> None:
    """Print what was measured as a table."""
    machine = report.machine
    typer.echo(
        f"{report.model}, {report.quantization}, on {machine.processor} ({machine.device}), "
        f"threads: {machine.threads} of {machine.cores}"
    )
    rows = [*_speeds(report), *_answers(report), *_gains(report), *_room(report)]
    print_table(("MEASURED", "VALUE", "UNIT"), rows, empty="nothing was measured")
    for said in report.validity.faults:
        typer.echo(f"not valid: {plain(said)}", err=True)


def _speeds(report: Report) -> Iterator[tuple[str, str, str]]:
    yield "load", _figure(report.load_seconds), "s"
    for prompt in report.prefill:
        yield f"prefill, {prompt.tokens} tokens", _figure(prompt.tokens_per_second), "tokens/s"
    for row in report.decode:
        name = "decode, 1 request" if row.requests == 1 else f"decode, {row.requests} requests, in all"
        yield name, _figure(row.tokens_per_second), "tokens/s"
        if row.requests > 1:
            yield f"decode, {row.requests} requests, each", _figure(row.each), "tokens/s"


def _answers(report: Report) -> Iterator[tuple[str, str, str]]:
    turns, calls, choice = report.turns, report.calls, report.choice
    yield f"first turn of an agent, {turns.first_tokens} tokens", _figure(turns.first_seconds), "s"
    yield f"later turn, {turns.later_tokens} tokens", _figure(turns.later_seconds), "s"
    yield "later turn, prompt reused", _percent(turns.reused_share), "%"
    yield f"tool call, prompt of {calls.prompt_tokens} tokens, first", _figure(calls.first_seconds), "s"
    yield "tool call, later", _figure(calls.later_seconds), "s"
    yield f"tool call of {calls.tokens} tokens, forced", _percent(calls.forced_share), "%"
    yield _validity(report.validity)
    yield f"choice of {choice.options}, first", _figure(choice.first_seconds), "s"
    yield f"choice of {choice.options}, later", _figure(choice.later_seconds), "s"


def _validity(validity: Validity) -> tuple[str, str, str]:
    cut = f", {validity.cut} cut" if validity.cut else ""
    return f"valid tool calls, by {validity.judged_by}{cut}", str(validity.valid), f"of {validity.asked}"


def _gains(report: Report) -> Iterator[tuple[str, str, str]]:
    yield "gain of prefix reuse", _figure(report.gains.prefix_reuse), "x"
    yield "gain of fast-forward", _figure(report.gains.fast_forward), "x"
    yield "gain of guesses", _figure(report.gains.guesses), "x"
    yield "gain of scoring in one pass", _figure(report.gains.one_pass), "x"


def _room(report: Report) -> Iterator[tuple[str, str, str]]:
    yield from _bound(report.bound)
    for name, count in (
        ("memory until loaded, at most", report.memory.loaded),
        ("memory until the end, at most", report.memory.peak),
        ("of it, prompts kept for reuse", report.memory.kept),
    ):
        yield (name, *_bytes(count))


def _bound(bound: Bound) -> Iterator[tuple[str, str, str]]:
    yield ("weights read for a token", *_bytes(bound.token_bytes))
    if bound.bandwidth is None or bound.tokens_per_second is None:
        return
    value, unit = _bytes(int(bound.bandwidth))
    yield "memory bandwidth", value, f"{unit}/s"
    yield "decode, bound of memory", _figure(bound.tokens_per_second), "tokens/s"
    if bound.decode_share is not None:
        yield "decode, 1 request, of that bound", _figure(100 * bound.decode_share), "%"


def _figure(value: float) -> str:
    """Write a number with three digits that count, and all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _bytes(count: int) -> tuple[str, str]:
    value, _, unit = human_bytes(count).partition(" ")
    return value, unit
